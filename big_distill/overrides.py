"""Values of a config set by words such as --config.optim.lr=0.003.

A word may set whatever signatures.py knows, whether or not the config holds it,
and removes a key or a section by None. A word that chooses another family, loss,
optimizer or evaluator takes the defaults of that; one that gives a duration in
other units takes the place of the first.
"""

import ast
from collections.abc import Iterable, Mapping
from typing import Any

import ml_collections

from big_distill import kinds
from big_distill import registry
from big_distill import signatures
from big_distill import views

PREFIX = '--config.'
# What is said of every family alike stays where another family is chosen.
OF_ALL_FAMILIES = ('num_classes', 'dtype', 'remat')
Path = tuple[str, ...]


def apply(config: ml_collections.ConfigDict, words: Iterable[str]) -> None:
  """Sets what words --config.KEY=VALUE say, wherever they stand.

  Raises ValueError, in a line, for a key that means nothing, with what is near,
  and for a value of another type.
  """
  given = {}
  for word in words:
    name, _, text = word.removeprefix(PREFIX).partition('=')
    given[tuple(name.split('.'))] = text
  _check_new(config, given)
  # Sections before what is in them, and choices before their options.
  for path in sorted(given, key=lambda path: (len(path), not _chooses(path))):
    _set(config, path, given[path])
  for path, section in signatures.walk(config):
    for name, units in signatures.units(path).items():
      said = [unit for unit in units if (*path, unit) in given
              and unit in section]
      if len(said) == 1:
        for unit in units:
          if unit in section and unit not in said:
            del section[unit]
  signatures.check(config)


def _chooses(path):
  option = signatures.choice(path[:-1])
  return option is not None and path[-1] == option.key


def _set(config, path, text):
  """Sets one key, or removes it."""
  *outer, key = path
  section: Any = config
  for i, name in enumerate(outer):
    _check_key(config, section, tuple(outer[:i]), name)
    if isinstance(section.get(name), str) and (*outer[:i], name) == ('mode',):
      section[name] = _spelt_out(section[name])
    if section.get(name) is None:
      section[name] = {}
    section = section[name]
    if not hasattr(section, 'items'):
      raise ValueError(f'config.{".".join(path)}: there is nothing inside '
                       f'{section!r}.')
  outer = tuple(outer)
  known = _check_key(config, section, outer, key)
  kind = known[key].kind if key in known else signatures.SECTION
  value = _parse('.'.join(path), kind, text)
  forms = kinds.forms(kind)
  if value is None and ('section' in forms or 'none' not in forms):
    if key in section:
      del section[key]
    return
  if _chooses(path):
    _forget(config, section, outer, value)
  section[key] = value


def _spelt_out(mode):
  """A mode by its name -> its fields, one of which is to be changed."""
  return {name: str(value) if isinstance(value, views.View) else value
          for name, value in vars(views.mode(mode)).items()}


def _check_key(config, section, path, key):
  """Raises ValueError unless a section may have this key; returns its Keys."""
  known = signatures.keys(path, signatures.chosen(config, path))
  if not signatures.is_named(path):
    registry.check('config key', key, [*dict.fromkeys([*section, *known])])
  return known


def _check_new(config, given):
  """Raises ValueError for a section of a new name that is a misspelling."""
  for path in given:
    for i in range(1, len(path)):
      if not signatures.is_named(path[:i]) or path[:i] == ('students',):
        continue
      section: Any = config
      for key in path[:i + 1]:
        section = section.get(key) if hasattr(section, 'get') else None
      whole = path[:i + 1]
      says = {'evals': ('type',), 'parts': ('name',)}.get(
          path[i - 1], ('init', 'labels', 'random', 'python'))
      if section is None and len(path) > i + 1 and not any(
          other[:i + 1] == whole and other[i + 1:i + 2] in [(key,) for key in says]
          for other in given):
        near: Any = config
        for key in path[:i]:
          near = near.get(key, {}) if hasattr(near, 'get') else {}
        raise ValueError(
            f'There is no config.{".".join(whole)}; there is '
            f'{", ".join(near) or "none"}. A new one needs '
            f'{PREFIX}{".".join(whole)}.{" or .".join(says)}.')


def _forget(config, section, path, chosen):
  """Removes options of what was chosen before, where another choice is made."""
  option = signatures.choice(path)
  before = signatures.chosen(config, path)
  if before not in option.names or chosen == before:
    return
  registry.check(option.key, chosen, option.names)
  old = {key for key, each in signatures.keys(path, before).items() if each.choice}
  new = signatures.keys(path, chosen)
  for key in [*section]:
    if key in old and not (
        key in OF_ALL_FAMILIES if option.key == 'family' else key in new):
      del section[key]


def _parse(name, kind, text):
  """A text as a value of a type, or ValueError."""
  forms = kinds.forms(kind)
  if text == 'None':
    return None
  value: Any = text
  literal = not forms or {*forms} - {'str', 'none'}
  if literal and ('str' not in forms or text[:1] in '([{'):
    try:
      value = ast.literal_eval({'true': 'True', 'false': 'False'}.get(text, text))
    except (ValueError, SyntaxError):
      value = text
  if isinstance(value, float) and value.is_integer() and 'float' not in forms:
    value = int(value)  # 1e3
  if not kinds.fits(kind, value):
    raise ValueError(f'{PREFIX}{name}={text}: it should be '
                     f'{kinds.says(kind)}.')
  if isinstance(value, int) and 'int' not in forms and 'float' in forms:
    return float(value)
  if isinstance(value, Mapping):
    return dict(value)
  return tuple(value) if isinstance(value, list) else value
