"""What images are, before any is read: their labels, and which are held out."""

from collections.abc import Sequence
import functools
import os
import re
from typing import Any, NamedTuple

from big_distill import cards
from big_distill import command
from big_distill.input import listings

HELD_OUT, MOST_HELD_OUT = 10, 5_000  # Percent of the images; images.


class Images(NamedTuple):
  """What is known of a dataset before it is read: of its train split.

  label: the feature or column that labels are in, as data.load takes it. `why`
  says why there are none, if so.
  """
  name: str
  num_examples: int
  classes: tuple[str, ...]
  splits: tuple[str, ...]
  label: str = 'label'
  why: str = ''


def name_of(images: str) -> str:
  """What data.name is called: folder:PATH of a path, else a dataset."""
  if images.startswith('folder:') or '://' in images or os.path.exists(
      os.path.expanduser(images)):
    return f'folder:{images.removeprefix("folder:")}'
  if '/' in images and (images.startswith(('/', '.', '~'))
                        or images.endswith(('.csv', '.tsv', '.parquet'))):
    raise ValueError(f'images={images} is not there: name a folder, a list '
                     '(.csv, .tsv), a .parquet file, or a dataset of TFDS.')
  return images


@functools.cache
def look(name: str, data_dir: str, corrupt: str = 'stop', image: str | None = None,
         label: str = 'label') -> Images:
  """The Images of a name: with labels, or without where they cannot be read.

  corrupt, image and label are options of data.load. Raises ValueError where it
  cannot be read, and where a label that is not the usual one cannot.
  """
  load = functools.partial(command.pipeline().load, name, 'train', data_dir,
                           cache='none', corrupt=corrupt, image=image)
  try:
    source, why = load(label=label), 'there are none'
  except ValueError as error:
    if label != 'label':
      raise
    try:
      source, why = load(label=None), str(error)
    except ValueError:
      raise error from None
  return Images(name, source.num_examples, source.classes, source.splits, label,
                why)


def labels(found: Images, described: Sequence[cards.Card]
           ) -> tuple[dict[str, Any], str]:
  """(options of data.load, why), with labels where they mean the teacher's."""
  left_out, classes = {'label': None}, found.classes
  if not classes:
    return left_out, (f'are left out: {found.why}. Agreement and KL are '
                      'measured, no accuracy')
  known = next((card.classes for card in described if card.classes), ())
  count = described[0].arguments['num_classes']
  if not known and len(classes) == count:
    return {'label': found.label}, (
        'are taken to be numbered as the teacher numbers its classes: look at '
        'its accuracy')
  if tuple(classes) == tuple(known):
    return {'label': found.label}, 'are of the teacher\'s classes'
  others = sorted({*classes} - {*known})
  if known and not others and found.name.startswith('folder:'):
    return {'label': found.label, 'classes': tuple(known)}, (
        f'are numbered as the teacher numbers its {count} classes')
  what = (f'{len(others)} of {len(classes)} classes, such as {others[0]}, are '
          'none of the teacher\'s' if known and others else
          'classes are in another order than the teacher\'s' if known else
          f'there are {len(classes)} classes, and the teacher has {count}')
  return left_out, (f'are left out: {what}. Agreement and KL are measured, no '
                    'accuracy')


def parts(found: Images) -> tuple[str, str | None, str, int, str]:
  """(train, val or None, test, images of train, why); splits as TFDS has them."""
  n, usual = found.num_examples, {}
  for name in found.splits:
    if (split := listings.usual(name)) in ('validation', 'test'):
      # A name that no expression can have, as of a space, is asked for as TFDS's.
      usual.setdefault(split, name if re.fullmatch(r'[\w-]+', name) else split)
  if usual:
    val, test = usual.get('validation'), usual.get('test')
    return 'train', val if test else None, test or val, n, (
        f'{" and ".join(usual.values())}, as the dataset has '
        f'{"them" if len(usual) > 1 else "it"}')
  if n < 2:
    raise ValueError(f'{found.name} has {n} image: distilling takes two at '
                     'least, one of which is held out.')
  held = min(max(round(n * HELD_OUT / 100), 1), MOST_HELD_OUT)
  return f'train[:-{held}]', None, f'train[-{held}:]', n - held, (
      f'{held:,} of {n:,} images, the last in the order of the dataset, which '
      'for paths follows from names alone; no student learns from them')
