"""Writes docs/configs.md: every key of a config, its type, default and meaning.

  python -m big_distill.tools.describe --out=docs/configs.md

Keys, types and defaults are read off the functions that sections are passed to
(signatures.py), meanings are sentences of meanings.py.
"""

from collections.abc import Iterator
import inspect

from absl import flags

from big_distill import command
from big_distill import kinds
from big_distill import meanings
from big_distill import signatures

HEAD = """# What a config can say

Made by `python -m big_distill.tools.describe --out=FILE` from the signatures; do not edit.

Each key is set by a flag, `--config.SECTION.KEY=VALUE`, whether or not the config
file holds it, and removed by `=None`, a section too. Lists are written (1, 2). A key
in another unit, a loss, an optimizer, an evaluator or a family that a flag chooses
takes the place of what was there, options included. NAME is any name. How a config
is written: any file of configs/; distill.py is for images and teachers of one's own.
"""


def rows(path: signatures.Path) -> Iterator[tuple[str, str, str, str, str]]:
  """(choice, keys, type, default, meaning) of each key of a section."""
  place = tuple('x' if name == '*' else name for name in path)
  section = '.'.join('NAME' if name == '*' else name for name in path)
  option = signatures.choice(place)
  units = {keys[0]: keys for keys in signatures.units(place).values()}
  later = {key for keys in units.values() for key in keys[1:]}
  seen = set()
  for name in option.names if option else ['']:
    for key, each in signatures.keys(place, name or None).items():
      # What all choices have is said once.
      if key in later or (key, each.choice) in seen:
        continue
      seen.add((key, each.choice))
      yield (each.choice, ', '.join(f'`{unit}`' for unit in units.get(key, [key])),
             'a number' if key in units else kinds.says(each.kind),
             _text(each.default),
             meanings.of(section, key, each.choice) or '')


def _text(default):
  if default is signatures.REQUIRED:
    return 'needed'
  if inspect.isclass(default):  # jnp.float32
    return f'`{default.__name__!r}`'
  return '' if default == {} else f'`{default!r}`'


def table(path: signatures.Path) -> str:
  """The heading of a section, and a table for what it has of each choice."""
  section = '.'.join('NAME' if name == '*' else name for name in path)
  lines = [f'## {section or "Outside of sections"}', '', meanings.SECTIONS[section],
           '']
  found = list(rows(path))
  option = signatures.choice(tuple(name.replace('*', 'x') for name in path))
  for choice in dict.fromkeys(['', *(row[0] for row in found)]):
    if choice:
      lines += ['', f'With `{option.key}={choice}`:', '']
    lines += ['| key | type | default | meaning |', '|---|---|---|---|']
    lines += [f'| {" | ".join(row[1:])} |' for row in found if row[0] == choice]
  return '\n'.join(lines)


def page() -> str:
  """The whole of docs/configs.md."""
  own = [path for path in signatures.SECTIONS
         if path[2:3] not in (('data',), ('train',)) and path[:1] != ('students',)]
  return '\n\n'.join([HEAD.rstrip(), *map(table, [*own, ('students', '*')])]) + '\n'


def main(flag):
  with open(flag.out, 'w') as file:
    file.write(page())


def _define_flags():
  flags.DEFINE_string('out', None, 'File to write.')
  flags.mark_flags_as_required(['out'])


if __name__ == '__main__':
  command.program(main, _define_flags)
