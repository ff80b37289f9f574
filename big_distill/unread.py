"""A config and its data as far as nothing is read: neither weights nor images.

What only reading would tell, how many examples and classes there are, is known
for the sets of the paper by their names, and given by the caller for others.
"""

from collections.abc import Mapping
import re
from typing import Any, NamedTuple

import numpy as np

from big_distill import plan
from big_distill import render

# Examples by split and classes, as TFDS's catalogue has them; of caltech12, ours.
KNOWN = {
    'oxford_flowers102': (dict(train=1_020, validation=1_020, test=6_149), 102),
    'oxford_iiit_pet': (dict(train=3_680, test=3_669), 37),
    'food101': (dict(train=75_750, validation=25_250), 101),
    'sun397': (dict(train=76_128, validation=10_875, test=21_750), 397),
    'imagenet2012': (dict(train=1_281_167, validation=50_000), 1000),
    'imagenet2012_real': (dict(validation=50_000), 1000),
    'imagenet_v2': (dict(test=10_000), 1000),
    'caltech12': (dict(train=1_016, test=288), 12),
    'dtd': (dict(train=1_880, validation=1_880, test=1_880), 47),
}
PIXELS = {'caltech12': (137, 100, 373)}  # Width and height, and longest side.
# Words of published names, and the classes that such a model knows.
CLASSES = {'imagenet2012': 1000, 'ILSVRC2012': 1000, 'flowers': 102, 'pet': 37,
           'food': 101, 'sun': 397, '': 21_843}


class Shapes:
  """The functions of input/pipeline.py that programs ask for, without images.

  examples, classes: of training data that KNOWN lacks.
  """

  def __init__(self, examples: int | None = None,
               classes: int | None = None) -> None:
    self._examples, self._classes = examples, classes

  def load(self, name='', split='train', label='label', parts=None,
           resident=False, **options):
    del options  # Which pixels these would be makes no difference.
    if parts:
      sources = [self.load(**{'split': split, **part, 'label': None})
                 for part in parts.values()]
      return sources[0]._replace(
          num_examples=sum(each.num_examples for each in sources),
          resident=resident)
    sizes, classes = KNOWN.get(name, ({}, None))
    classes = self._classes or classes
    count = self._examples or size_of(split, sizes)
    if not count or not classes:
      raise ValueError(f'{name}, split {split}, is not read, and its size is not '
                       'known: give --examples=N and --classes=C.')
    return Source(name, count, tuple(range(classes)) if label else (), resident)

  def hold(self, source):
    """Images of 500 x 400 pixels, as those of ImageNet on average, or of PIXELS.

    Raises ValueError where a run surely would, of sets that are known.
    """
    n, name = source.num_examples, source.title
    width, height, longest = PIXELS.get(name, (500, 400, 500))
    size = 3 * n * width * height
    if name in KNOWN and size > 2 * render.LIMIT:  # For what an average tells.
      raise ValueError(
          f'{name} is too large for data.resident=True: {n:,} images of about '
          f'{width} x {height} pixels fill {size / 2**30:,.0f} GiB, where '
          f'{render.LIMIT / 2**30:.0f} can be held. Leave it False, or take a '
          'smaller split.')
    size = min(size, render.LIMIT)  # What a run would refuse to hold.
    return render.Images(np.broadcast_to(np.uint8(0), [size]),
                         np.zeros(n, np.int32), np.zeros([n, 2], np.int32),
                         longest, longest), None

  def train_batches(self, source, views, batch_size, seed, start, stop, *,
                    period=0, fraction=0., reduced=False, host=(0, 1)):
    raise AssertionError('Shapes have no batches.')

  def train_boxes(self, source, views, batch_size, seed, start, stop, *, held,
                  period=0, fraction=0., reduced=False, host=(0, 1)):
    raise AssertionError('Shapes have no batches.')

  eval_batches = train_batches


class Source(NamedTuple):
  """What a plan and a room ask of a source."""
  title: str
  num_examples: int
  classes: tuple[int, ...]
  resident: bool
  fingerprint: str = ''


def size_of(split: str, sizes: Mapping[str, int]) -> int:
  """Examples of a split in TFDS's words, 'train[:90%]+test'; 0 if unknown."""
  total = 0
  for part in split.split('+'):
    match = re.fullmatch(r'(\w+)(?:\[(\d*)(%?):(\d*)(%?)\])?', part.strip())
    if not match or match[1] not in sizes:
      return 0
    ends = []
    n = sizes[match[1]]
    for end, percent, default in ((match[2], match[3], 0),
                                  (match[4], match[5], n)):
      end = int(end) if end else default
      ends.append(round(n * end / 100) if percent else min(end, n))
    total += ends[1] - ends[0]
  return total


def architecture(name: str) -> dict[str, Any]:
  """The model that a published name tells of, as `build` takes it; or {}."""
  if match := re.search(r'\bR(\d+)x(\d+)\b', name):
    classes = next(n for word, n in CLASSES.items() if word in name)
    return dict(family='bit', depth=int(match[1]), width=float(match[2]),
                num_classes=classes)
  if match := re.match(r'ViT-([A-Za-z]+)(\d+) augreg', name):
    return dict(family='vit', variant=f'{match[1]}/{match[2]}',
                num_classes=1000)
  return {}


def config_of(config: Mapping[str, Any], dtype: str = '') -> dict[str, Any]:
  """The config with random weights in place of those that would be fetched.

  dtype: what student and teachers compute in, if not what the config says.
  Raises ValueError where a key of the config is misspelt or missing.
  """
  plan.check_keys(config)
  config = {**config, 'student': {**config['student']},
            'teachers': {name: {**teacher} for name, teacher
                         in {**config.get('teachers', {})}.items()}}
  student = config['student']
  if model := architecture(str(student.get('init') or '')):
    model.pop('num_classes')
    del student['init']
    student.pop('head', None)
    config['student'] = student = {**model, **student}
  for teacher in config['teachers'].values():
    if model := architecture(str(teacher.get('init') or '')):
      del teacher['init']
      if not _labelled(config['data']):  # Then its teachers tell a student's.
        student.setdefault('num_classes', model['num_classes'])
      del model['num_classes']
      teacher['random'] = model
  if dtype:
    for section in [config['student'], *(
        teacher for teacher in config['teachers'].values()
        if not (teacher.get('labels') or teacher.get('python')))]:
      section['dtype'] = dtype
  return config


def _labelled(data):
  return 'parts' not in data and data.get('label', 'label') is not None
