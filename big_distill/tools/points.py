"""The points of a sweep: what each is called, runs and is held to."""

from collections.abc import Sequence
import re
import sys
from typing import Any, NamedTuple

from big_distill import command as command_lib
from big_distill import runs


class Point(NamedTuple):
  """A point of a sweep: its name is its folder's."""
  name: str
  overrides: dict[str, Any]
  workdir: str
  command: list[str]  # Flags of big_distill.main included.
  config: dict[str, Any]
  allow: Sequence[str] = ()  # Keys that may differ from the run in its folder.

  @property
  def finished(self):
    return runs.finished(self.workdir)

  def check(self) -> None:
    """Raises ValueError if its folder holds a run of another config."""
    try:
      begun = runs.read(self.workdir)
    except ValueError as error:  # One damaged folder does not stop the others.
      print(f'{self.name}: {error}', flush=True)
      return
    if not begun.rows or begun.config is None:
      return
    # As it would be read: JSON has no tuples.
    other = [key for key in runs.differences(
        begun.config, runs.plain(self.config)) if key not in self.allow]
    if other:
      raise ValueError(f'{self.workdir} holds a run with another '
                       f'{", ".join(other)}. Choose another --workdir, or '
                       'remove that run.')


class Group(NamedTuple):
  """Points that learn together, in one command."""
  name: str
  command: list[str]
  points: list[Point]

  @property
  def finished(self):
    return all(point.finished for point in self.points)

  def check(self) -> None:
    """As Point.check, of each of them."""
    for point in self.points:
      point.check()


def make(config: str, workdir: Any, given: Sequence[str] = (),
         allow: Sequence[str] = ()) -> list[Point]:
  """The Points of 'FILE.py:ARG', each override checked; `given` are for all.

  Raises ValueError where a point would train a family of students.
  """
  sweep = command_lib.call(config, 'get_sweep')
  made = []
  for name, overrides in zip(_names(sweep), sweep):
    folder = f'{runs.folder(workdir)}/{name}'
    words = [f'--config={config}', *given,
             *(f'--config.{key}={value}' for key, value in overrides.items())]
    resolved = command_lib.resolve(words).to_dict()
    if resolved.get('students'):
      raise ValueError(
          f'{name} has config.students, {", ".join(resolved["students"])}: a '
          'point of a sweep trains one student. Leave them out, or train them '
          'with python -m big_distill.main.')
    made.append(Point(
        name, overrides, folder,
        [sys.executable, '-m', 'big_distill.main', *words,
         f'--workdir={folder}'], resolved, allow))
  return made


def _names(sweep):
  """'007_lr=0.003_t=2' of each point: its number, and keys cut short."""
  keys = {key for overrides in sweep for key in overrides}
  digits = max(len(str(len(sweep) - 1)), 3)
  for i, overrides in enumerate(sweep):
    parts = [f'{_short(key, keys)}={_text(value)}'
             for key, value in overrides.items()]
    # File systems end a name at 255 bytes.
    yield '_'.join([f'{i:0{digits}}', *parts])[:200]


def _short(key, keys):
  """The end of a dotted key that no other key ends with."""
  words = key.split('.')
  ends = ['.'.join(words[-n:]) for n in range(1, len(words) + 1)]
  return next((end for end in ends if not any(
      other != key and f'.{other}'.endswith(f'.{end}') for other in keys)), key)


def _text(value):
  text = f'{value:g}' if isinstance(value, float) else str(value)
  return re.sub(r'[^\w.+-]+', '-', text).strip('-')


def together(every: Sequence[Point], most: int,
             words: Sequence[str]) -> list[Group]:
  """Groups of up to `most` unfinished points, each trained in one program.

  `words` are the flags of this command that a group's command repeats.
  """
  left = [(i, point) for i, point in enumerate(every) if not point.finished]
  groups = [left[i:i + most] for i in range(0, len(left), most)]
  return [Group(f'{group[0][1].name} and {len(group) - 1} more', [
      sys.executable, '-m', 'big_distill.tools.sweep', *words,
      f'--index={",".join(str(i) for i, _ in group)}'],
      [point for _, point in group]) for group in groups]
