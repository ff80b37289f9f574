"""Folders of images as datasets: which files, of which classes, in which split.

PATH/train, PATH/test and so on are splits, in any case and by usual names, also
a folder further down; a folder without them is one split, named train.
Sub-folders of a split are classes, if all its images are in one, and are
numbered in every split as they are in train. docs/images.md shows layouts.
"""

from collections.abc import Sequence
import os

from absl import logging
import tensorflow as tf

from big_distill import contracts
from big_distill.contracts import Source
from big_distill.input import files
from big_distill.input import listings

WRAPPERS = frozenset((  # The only folder of a split, so called, is no class.
    'images', 'image', 'imgs', 'img', 'jpegimages', 'photos', 'pictures',
    'data'))
MANY = 16  # More folders side by side are classes: no splits are looked for.


def source(path: str, split: str, labelled: bool = True,
           classes: str | Sequence[str] | None = None,
           skip: bool = False) -> Source:
  """A split of a folder of images.

  labelled: False leaves labels out. classes: see listings.number. skip: images
  of a format that cannot be read are left out, with a warning.
  Raises ValueError for what is not there or cannot be read.
  """
  title, path = f'folder:{path}', os.path.expanduser(path)
  if not files.is_folder(path):
    raise ValueError(f'{title} is not a folder, nor another file: name a folder '
                     'of images, a list (.csv, .tsv) or a .parquet file.')
  roots = _splits(title, path)

  def find(name):
    inner = os.path.relpath(roots[name], path)
    return [example._replace(name=os.path.normpath(os.path.join(
        inner, example.name))) for example in listings.scatter(
            _examples(title, roots[name], skip))]

  found = listings.choose(title, split, roots, find, labelled, classes)
  lists = [name for name in files.names(path)
           if name.lower().endswith(('.csv', '.tsv'))]
  if labelled and not found.classes and lists:
    logging.info('%s has no classes; if they are in a list, name it: %s.', title,
                 ' or '.join(os.path.join(title, name) for name in lists))
  return of_files(f'{title} {split}', path, found)


def of_files(title: str, root: str, found: listings.Listing) -> Source:
  """The source of a Listing of paths below `root`."""
  names = [os.path.join(root, name) for name in found.names]
  paths, n = tf.constant([os.fsencode(name) for name in names], tf.string), len(
      names)
  labels = tf.constant(found.labels, tf.int32)
  return Source(
      title, n, found.classes, lambda i: (tf.io.read_file(paths[i]), labels[i]),
      lambda i: files.printable(names[i]), ((n, 1),),
      contracts.fingerprint(found.names), splits=found.splits)


def of_paths(title: str, paths: Sequence[str]) -> Source:
  """The source of files of images, in this order, without labels."""
  return of_files(title, '', listings.Listing(
      [*paths], [-1] * len(paths), ()))._replace(as_shown=True)


def _splits(title, path):
  """{name of a split: its folder}."""
  places, entered = [path], set()
  while places and len(places) <= MANY:
    places = [place for place in places if _enters(place, entered)]
    found = [place for place in places if _named(place)]
    if len(found) > 1:
      raise ValueError(
          f'{title} has splits in each of '
          f'{", ".join(os.path.relpath(place, path) for place in found)}: give '
          'the path of one, or put splits outermost and classes inside them.')
    if found:
      return _named_splits(title, found[0])
    places = [os.path.join(place, name) for place in places
              for name in files.folders(place)]
  return {'train': _classes_root(path)}


def _enters(place, entered):
  """Whether a folder was not entered before, by a link; notes that it is."""
  real = os.path.realpath(place)
  known = real in entered
  entered.add(real)
  return not known


def _named(place):
  """Names of the folders in a folder that are splits of images."""
  return [name for name in files.folders(place) if listings.usual(name)
          and files.holds_images(os.path.join(place, name))]


def _named_splits(title, place):
  """Folders called as splits are, and those beside them, by their names."""
  splits = _named(place)
  twins = [name for name in splits
           if sum(listings.usual(name) == listings.usual(each)
                  for each in splits) > 1]
  if twins:
    logging.warning('%s: %s are not read together; each is a split by its own '
                    'name.', title, ', '.join(twins))
  others = [name for name in files.folders(place) if name not in splits
            and files.holds_images(os.path.join(place, name))]
  if others:
    logging.warning(
        '%s: %s is taken for a split, and so are folders beside it: %s. They '
        'are not read unless asked for. If they are classes, rename it.', title,
        splits[0], ', '.join(map(files.printable, others[:8])))
  if files.has_images(place):
    logging.warning('%s: images beside %s are in no split, and are not read.',
                    title, ', '.join(map(files.printable, splits)))
  return {name: os.path.join(place, name) for name in splits + others}


def _classes_root(path):
  """The folder whose folders are classes, inside others that hold it alone."""
  place = path
  while not files.has_images(place):
    inner = files.folders(place)
    if len(inner) > MANY:
      return place
    inner = [name for name in inner
             if files.holds_images(os.path.join(place, name))]
    if len(inner) != 1:
      return place
    place = os.path.join(place, inner[0])
  return path


def _examples(title, root, skip):
  """The Examples of a split, by their paths in it."""
  paths = files.readable(title, root, files.walk(root), skip)
  parts, depth = [path.split(os.sep) for path in paths], 0
  wrappers = WRAPPERS | {os.path.basename(root).casefold()}
  while True:
    names = {part[depth] if len(part) > depth + 1 else None for part in parts}
    if len(names) != 1 or str(min(names)).casefold() not in wrappers:
      break
    depth += 1
  if None in names and len(names) > 1:
    stray = next(path for path, part in zip(paths, parts)
                 if len(part) == depth + 1)
    logging.warning('%s: sub-folders are not taken for classes, since %s is in '
                    'none.', root, files.printable(stray))
  if None not in names and paths:
    outer = os.path.join(root, *parts[0][:depth])
    empty = sorted(set(files.folders(outer)) - names)
    if empty:
      logging.warning('%s: folders without images are no classes: %s.', outer,
                      ', '.join(map(files.printable, empty)))
  return [listings.Example(path, None if None in names
                           else files.printable(part[depth]))
          for path, part in zip(paths, parts)]
