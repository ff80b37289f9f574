"""A recipe for images and teachers of the user's, where the paper has none.

Looks at the images and at the teachers' files, and says what a config needs to
know of them: which part is held out, whether labels mean what the teachers'
classes do, the size of each model, and how long to train, from the paper's
settings for datasets of about as many images. Each choice has its reason, which
the run logs.
"""

import os
import re
from typing import Any, NamedTuple

import jax

from big_distill import params as params_lib
from big_distill import patience
from big_distill import pretrained
from big_distill import registry
from big_distill import survey

MOST_ENCODED = 100_000  # Images that are kept in memory: about 10 GB.


class Recipe(NamedTuple):
  """What configs/distill.py fills in; `notes` are the reasons."""
  data: dict[str, Any]
  val: dict[str, Any] | None  # Sections of data: for choosing,
  test: dict[str, Any]  # and for what is reported.
  labelled: bool
  student: dict[str, Any]
  teachers: dict[str, dict[str, Any]]
  fraction: float
  epochs: int
  batch_size: int
  loss: dict[str, Any]
  optim: dict[str, Any]
  notes: tuple[str, ...]


def choose(images: str, teacher: str, student: str, variant: str = 'fast',
           epochs: int = 0, data_dir: str = '', corrupt: str = 'stop',
           image: str = '', label: str = 'label') -> Recipe:
  """The Recipe for images and teachers, as configs/distill.py takes them.

  images: a folder, a list, Parquet files, or a dataset that TFDS has prepared.
  teacher: files, workdirs or published names, with a + between them, each with
  @SIZE where its file does not tell. student: a name, R50x1 or R50x1@224.
  variant: how patient, of patience.PAPER; `epochs`, if not 0, in its place.
  corrupt, image, label: as data.load takes them; no image finds the only one.
  Raises ValueError for what cannot be read or does not fit.
  """
  files = _split(teacher)
  described = [pretrained.card(file) for file, _ in files]
  sizes = [size or _size(file, card)
           for (file, size), card in zip(files, described)]
  _check_alike(files, described)
  found = survey.look(survey.name_of(images), data_dir, corrupt, image or None,
                      label)
  data, labels = survey.labels(found, described)
  train, val, test, n, held_out = survey.parts(found)
  settings, reasons = patience.settings(n, variant, epochs)
  notes = (*(_about(*each) for each in zip(files, sizes, described)),
           f'Labels {labels}.', f'Held out: {held_out}.', *reasons)
  base = dict(name=found.name, data_dir=data_dir, **data)
  arguments, size = student_of(student, min(sizes))
  cache = 'encoded' if n <= MOST_ENCODED else 'none'
  return Recipe(
      dict(base, split=train, cache=cache, corrupt=corrupt, resident=False,
           **({'image': image} if image else {})),  # Which evals have as well.
      dict(base, split=val) if val else None, dict(base, split=test),
      data['label'] is not None, dict(arguments, size=size),
      {f'teacher{i or ""}': dict(init=file, size=size, dtype='float32',
                                 weights='float32')
       for i, ((file, _), size) in enumerate(zip(files, sizes),
                                             len(files) > 1)},
      described[0].fraction, notes=notes, **settings)


def _about(file, size, card):
  """What is known of a teacher, and what not, in a sentence."""
  text = f'Teacher {file[0]}: {size} px a side'
  if not card.classes:
    text += (f', {card.arguments["num_classes"]} classes, which its file does '
             'not name')
  return f'{text}.'


def student_of(name: str, size: int) -> tuple[dict[str, Any], int]:
  """Arguments of the model of a name, family included, and its size.

  'R26x0.5@160' -> ({'family': 'bit', ...}, 160); without @SIZE, `size`.
  Raises ValueError for a name that no family knows.
  """
  name, size = _at(name, size)
  known = pretrained.families()
  for family, module in known.items():
    if arguments := module.named(name):
      return dict(family=family, **arguments), size
  registry.check('student', name, [
      each for module in known.values() for each in module.NAMES])
  raise AssertionError(name)  # A name in NAMES is known to its family.


def _at(text, size=None):
  """'NAME@224' -> ('NAME', 224), unless a file is called so."""
  found = re.fullmatch(r'(.+)@(\d+)', text)
  if not found or os.path.exists(text):
    return text, size
  return found[1], int(found[2])


def _split(teacher):
  """[(file, size or None)] of what teacher= says."""
  whole = os.path.exists(os.path.expanduser(teacher))
  files = []
  for text in [teacher] if whole else teacher.split('+'):
    path, size = _at(os.path.expanduser(text))
    if os.path.isdir(path):
      path = os.path.join(path, 'student.npz')
      if not os.path.exists(path):
        raise ValueError(f'teacher={text}: there is no {path}. Name a file, or '
                         'the workdir of a run that has ended.')
    elif os.path.exists(path) and '/' not in path:
      path = f'./{path}'  # A name without a slash is a published one.
    files.append((path, size))
  return files


def _size(file, card):
  """Pixels a side of a teacher's images: its card's, name's or variant's."""
  if card.size:
    return card.size
  if named := re.search(r' (?:ic|rc)(\d+)$', file):
    return int(named[1])
  sizes = getattr(registry.load('models', card.family), 'SIZES', {})
  if usual := sizes.get(card.arguments.get('variant')):
    return usual
  small, large = (jax.tree.leaves(pretrained.shapes_of(
      size=size, family=card.family, **card.options)[1]) for size in (64, 128))
  if small != large:  # A grid of positions, which tells its size.
    params = params_lib.flatten(pretrained.load(file)[1])
    return registry.load('models', card.family).at_size(params)[1]
  raise ValueError(f'teacher={file} does not say the size of its images: write '
                   f'teacher={file}@224, or what it was trained at.')


def _check_alike(files, described):
  """Raises ValueError unless all teachers have the same classes."""
  (first, _), *others = files
  for (file, _), card in zip(others, described[1:]):
    counts = [each.arguments['num_classes'] for each in (described[0], card)]
    if counts[0] != counts[1]:
      raise ValueError('Teachers teach together only the same classes: '
                       f'{first} has {counts[0]}, {file} {counts[1]}. Leave '
                       'one out.')
    names = described[0].classes, card.classes
    if all(names) and names[0] != names[1]:
      i = next(i for i, (a, b) in enumerate(zip(*names)) if a != b)
      raise ValueError(
          f'Teachers teach together only the same classes: number {i} is '
          f'{names[0][i]!r} to {first} and {names[1][i]!r} to {file}. Leave '
          'one out.')
