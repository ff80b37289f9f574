"""Everything a config can say, read off the functions that its sections are for.

A section is passed whole to a function, so the function's signature says which
keys there are, of which type, with which default. Flags and docs/configs.md
follow it: what a signature gains, both have.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import importlib
import inspect
import pkgutil
from typing import Any, NamedTuple

from big_distill import checkpoint
from big_distill import contracts
from big_distill import durations
from big_distill import kinds
from big_distill import losses
from big_distill import optim
from big_distill import plan
from big_distill import registry
from big_distill import replay
from big_distill import steps
from big_distill import teaching
from big_distill import views

REQUIRED = inspect.Parameter.empty
Path = tuple[str, ...]


class Key(NamedTuple):
  """A key of a section: its type, as annotations have them, and its default.

  choice: whose option it is, such as 'shampoo'; empty where it always is one.
  """
  kind: Any
  default: Any = REQUIRED
  choice: str = ''


def _of(function: Callable, *without: str, choice: str = '') -> dict[str, Key]:
  """Keys that a function takes, less those that it is given otherwise."""
  return {name: Key(each.annotation, each.default, choice)
          for name, each in inspect.signature(function).parameters.items()
          if name not in without
          and each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)}


def _model(family):
  return _of(registry.load('models', family).Model, 'folded', 'parent', 'name',
             choice=family)


def _random(family):
  found = _model(family)
  del found['num_classes']  # As the student has.
  return found


def _optimizer(name):
  module = registry.load('optimizers', name)
  found = _of(module.scale_by, choice=name)
  if any(each.kind == each.VAR_KEYWORD for each in inspect.signature(
      module.scale_by).parameters.values()):  # They go on to what it wraps.
    found = _of(getattr(module, f'scale_by_{name}'), choice=name) | found
  return found


def _evaluator(name):
  return _of(registry.load('evaluators', name).Evaluator, choice=name)


def _plugins(folder):
  package = importlib.import_module(f'big_distill.{folder}')
  return sorted(each.name for each in pkgutil.iter_modules(package.__path__))


SECTION = Mapping[str, Any]
MODEL = {'family': Key(str)}
# What a pattern of a path holds, '*' being any name: keys that it always has.
SECTIONS: dict[Path, dict[str, Key]] = {
    (): {name: Key(kind, default) for name, (kind, default)
         in plan.KEYS.items()},
    ('data',): _of(contracts.Data.load, 'self'),
    ('data', 'parts', '*'): {
        'weight': Key(int, 1),
        **_of(contracts.Data.load, 'self', 'parts', 'resident', 'as_shown')},
    ('crops',): _of(contracts.Data.eval_batches, 'self', 'source', 'views',
                    'batch_size', 'seed', 'host'),
    ('mode',): {**_of(views.Mode), 'student': Key(str), 'teacher': Key(str)},
    ('mixup',): _of(steps.mixup, 'seen', 'rng'),
    ('student',): {'size': Key(int), **MODEL, 'init': Key(str | None, None),
                   'head': Key(str, 'keep'), 'averages': Key(str, 'follow'),
                   'seed': Key(int | None, None)},
    ('teachers', '*'): _of(teaching.load, 'name', 'num_classes', 'read'),
    ('teachers', '*', 'random'): {**MODEL, 'seed': Key(int, 0)},
    ('loss',): _of(losses.make, 'options'),
    ('optim',): _of(optim.make, 'total', 'warmup'),
    ('evals', '*'): {'type': Key(str), 'view': Key(str, 'central'),
                     'data': Key(SECTION, {}), 'train': Key(SECTION, {})},
    ('checkpoints',): _of(checkpoint.Checkpoints, 'folder'),
    ('answers',): _of(replay.Options),
    ('students', '*'): {name: Key(*plan.KEYS[name]) for name in plan.OWN},
}
SECTIONS |= {('evals', '*', part, *path[1:]): SECTIONS[path]
             for part in ('data', 'train')
             for path in (('data',), ('data', 'parts', '*'))}
SECTIONS |= {('students', '*', *path): keys for path, keys in SECTIONS.items()
             if path and path[0] in plan.OWN}
# Sections that hold sections of any names.
NAMED: tuple[Path, ...] = tuple(dict.fromkeys(
    path[:i] for path in SECTIONS for i, name in enumerate(path) if name == '*'))
DURATIONS: dict[Path, Sequence[str]] = {  # In units of choice.
    (): ('total', 'log'), ('optim',): ('warmup',), ('evals', '*'): ('every',),
    ('checkpoints',): ('every',), ('answers',): ('period',)}
WHOLE = ('_steps', '_examples')


class Choice(NamedTuple):
  """A key that says which options a section takes."""
  key: str
  options: Callable[[str], dict[str, Key]]
  names: Sequence[str]
  default: str | None = None


MODELS = Choice('family', _model, _plugins('models'))
RANDOM = Choice('family', _random, _plugins('models'))
CHOICES: dict[Path, Choice] = {
    ('student',): MODELS, ('teachers', '*', 'random'): RANDOM,
    ('optim',): Choice('name', _optimizer, _plugins('optimizers'), 'adam'),
    ('loss',): Choice('name', lambda name: _of(
        losses.LOSSES[name], 'logits', 'target', choice=name), [
            *losses.LOSSES], 'kl'),
    ('evals', '*'): Choice('type', _evaluator, _plugins('evaluators'))}


def pattern(path: Path) -> Path | None:
  """The pattern in SECTIONS or NAMED that a path is of, or None."""
  for each in (*SECTIONS, *NAMED):
    if len(each) == len(path) and all(
        a in ('*', b) for a, b in zip(each, path)):
      return each
  return None


def _own(shape: Path) -> Path:
  """A pattern, without the student whose own it is."""
  return shape[2:] if shape[:2] == ('students', '*') and len(shape) > 2 else shape


def choice(path: Path) -> Choice | None:
  """The Choice of a section, if it has one."""
  shape = pattern(path)
  return None if shape is None else CHOICES.get(_own(shape))


def units(path: Path) -> dict[str, list[str]]:
  """{duration: its keys, one for each unit} of a section."""
  shape = pattern(path)
  return {} if shape is None else {
      name: [f'{name}_{unit}' for unit in durations.UNITS
             if (name, unit) != ('total', 'percent')]
      for name in DURATIONS.get(_own(shape), ())}


def keys(path: Path, chosen: str | None = None) -> dict[str, Key]:
  """{key: Key} of the section at a path; all options where none is `chosen`.

  Options that are not there, because nothing is chosen that has them, are left
  out, and so is everything of a path that is no section.
  """
  shape = pattern(path)
  if shape not in SECTIONS:
    return {}
  found = dict(SECTIONS[shape])
  found |= {unit: Key(int if unit.endswith(WHOLE) else float, None)
            for each in units(path).values() for unit in each}
  if option := choice(path):
    for name in [chosen] if chosen in option.names else option.names:
      found = {**option.options(name), **found}
  return found


def is_named(path: Path) -> bool:
  """Whether the section at a path holds sections of any names."""
  return pattern(path) in NAMED


def walk(config: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
  """Yields the path of each section of a config, and the section."""
  yield path, config
  for key, value in {**config}.items():
    if hasattr(value, 'items'):
      yield from walk(value, (*path, key))


def chosen(config: Any, path: Path) -> str | None:
  """What the section at a path chooses; a student's own, or that of all."""
  option = choice(path)
  if not option:
    return None
  for start in (path, path[2:] if path[0] == 'students' else ()):
    section = config
    for key in start:
      section = section.get(key, {}) if hasattr(section, 'get') else {}
    if start and option.key in section:
      return section[option.key]
  return option.default


def check_whole(config: Any) -> None:
  """Raises ValueError as plan.check_keys and `check` do, for all of a run."""
  plan.check_keys(config)
  check(config)


def check(config: Any) -> None:
  """Raises ValueError for a key that means nothing, and a value of another type.
  """
  for path, section in walk(config):
    known = keys(path, chosen(config, path))
    for key, value in {**section}.items():
      if not is_named(path):
        registry.check(f'key of {".".join(("config", *path))}', key, known)
      if key in known and not kinds.fits(known[key].kind, value):
        raise ValueError(f'config.{".".join((*path, key))}={value!r} should be '
                         f'{kinds.says(known[key].kind)}.')
