"""Folders of images as datasets: which files, of which classes, in which split.

PATH/train, PATH/test and so on are splits, in any case and by usual names, also
a folder further down; a folder without them is one split, named train.
Sub-folders of a split are classes, if all its images are in one, and are
numbered in every split as they are in train. docs/images.md shows layouts.
"""

import collections
from collections.abc import Sequence
import os

from absl import logging
import tensorflow as tf

from big_distill import contracts
from big_distill.contracts import Source
from big_distill.input import listings

READ = frozenset(
    '.jpg .jpeg .jpe .jfif .mpo .png .apng .gif .bmp .dib .webp .avif .tif '
    '.tiff .jp2 .j2k .ppm .pgm .pbm .pnm .tga .ico'.split())
REFUSED = frozenset(  # Images that neither TensorFlow nor Pillow decodes.
    '.heic .heif .jxl .jxr .svg .psd .xcf .exr .hdr .dng .cr2 .cr3 .nef .arw '
    '.orf .rw2 .raf'.split())
SYSTEM = frozenset((  # Beside all that starts with a dot, in lower case.
    '__macosx', 'thumbs.db', 'desktop.ini', '@eadir', '#recycle', 'lost+found',
    '$recycle.bin', 'system volume information', '__pycache__', 'icon\r'))
WRAPPERS = frozenset((  # The only folder of a split, so called, is no class.
    'images', 'image', 'imgs', 'img', 'jpegimages', 'photos', 'pictures',
    'data'))
DEPTH = 3  # Folders in each other that are searched for splits.
MANY = 16  # More folders side by side are classes, and not searched for splits.


def source(path: str, split: str, labelled: bool = True,
           classes: str | Sequence[str] | None = None,
           skip: bool = False) -> Source:
  """A split of a folder of images.

  labelled: False leaves labels out. classes: see listings.number. skip: images
  of a format that cannot be read are left out, with a warning.
  Raises ValueError for what is not there or cannot be read.
  """
  title, path = f'folder:{path}', os.path.expanduser(path)
  if not is_folder(path):
    raise ValueError(f'{title} is not a folder.')
  roots = _splits(title, path)

  def find(name):
    inner = os.path.relpath(roots[name], path)
    return [example._replace(name=os.path.normpath(os.path.join(
        inner, example.name))) for example in listings.scatter(
            _examples(title, roots[name], skip))]

  found = listings.choose(title, split, roots, find, labelled, classes)
  return of_files(f'{title} {split}', path, found)


def of_files(title: str, root: str, found: listings.Listing) -> Source:
  """The source of a Listing of paths below `root`."""
  files, n = [os.path.join(root, name) for name in found.names], len(found.names)
  paths = tf.constant([os.fsencode(file) for file in files], tf.string)
  labels = tf.constant(found.labels, tf.int32)
  return Source(
      title, n, found.classes, lambda i: (tf.io.read_file(paths[i]), labels[i]),
      lambda i: listings.printable(files[i]), ((n, 1),),
      contracts.fingerprint(found.names))


def _is_system(name):
  return name.startswith('.') or name.casefold() in SYSTEM


def _ending(file):
  return os.path.splitext(file)[1].lower()


def is_folder(path: str) -> bool:
  """Whether a folder is there, locally or remotely."""
  return tf.io.gfile.isdir(path) if '://' in path else os.path.isdir(path)


def names(path: str) -> list[str]:
  """What is in a folder, but for what systems leave there."""
  names = ([name.rstrip('/') for name in tf.io.gfile.listdir(path)]
           if '://' in path else os.listdir(path))
  return sorted(name for name in names if not _is_system(name))


def _folders(path):
  """Names of the folders in a folder."""
  return [name for name in names(path) if _ending(name) not in READ | REFUSED
          and is_folder(os.path.join(path, name))]


def _splits(title, path):
  """{name of a split: its folder}."""
  def named(folder):
    return [name for name in _folders(folder)
            if name.casefold() in listings.NAMES]

  place, inner = path, _folders(path)
  for _ in range(DEPTH):
    if named(place):
      return _named_splits(title, place)
    holders = [name for name in inner if named(os.path.join(place, name))
               ] if len(inner) <= MANY else []
    if len(holders) > 1:
      raise ValueError(
          f'{title} has splits in each of {", ".join(holders)}: give the path '
          'of one, or put splits outermost and classes inside them.')
    if not holders and (len(inner) != 1 or _has_images(place)):
      break
    place = os.path.join(place, (holders or inner)[0])
    inner = _folders(place)
  # A folder that only holds the folders of classes is no class.
  return {'train': place if len(inner) > 1 and not _has_images(place) else path}


def _has_images(path):
  return any(_ending(name) in READ | REFUSED for name in names(path))


def _named_splits(title, place):
  """Folders called as splits are, and those beside them, by their names."""
  folders = _folders(place)
  others = [name for name in folders if name.casefold() not in listings.NAMES]
  if others:
    logging.warning(
        '%s: %s is taken for a split, and so are folders beside it: %s. They '
        'are not read unless asked for. If they are classes, rename it.', title,
        min(set(folders) - set(others)), ', '.join(others[:8]))
  return {name: os.path.join(place, name) for name in folders}


def _examples(title, root, skip):
  """The Examples of a split, by their paths in it."""
  files = _readable(title, root, _walk(root), skip)
  parts = [file.split(os.sep) for file in files]
  depth = 0
  while True:
    names = {part[depth] if len(part) > depth + 1 else None for part in parts}
    if len(names) != 1 or str(min(names)).casefold() not in WRAPPERS:
      break
    depth += 1
  if None in names and len(names) > 1:
    stray = next(file for file, part in zip(files, parts)
                 if len(part) == depth + 1)
    logging.warning('%s: sub-folders are not taken for classes, since %s is in '
                    'none.', root, listings.printable(stray))
  return [listings.Example(file, None if None in names
                           else listings.printable(part[depth]))
          for file, part in zip(files, parts)]


def _walk(root):
  """Files below a folder, relative to it, but for those that systems make.

  Each folder is entered once: a link to one that is entered otherwise, or to
  one that this one is in, is passed over.
  """
  if '://' in root:
    found = [os.path.relpath(os.path.join(folder, file), root)
             for folder, _, files in tf.io.gfile.walk(root) for file in files]
    return [file for file in found if not any(map(_is_system,
                                                  file.split(os.sep)))]
  def identity(folder):
    status = os.stat(folder)
    return status.st_dev, status.st_ino

  outer, entered = os.path.realpath(root), set()
  while outer != os.path.dirname(outer):
    outer = os.path.dirname(outer)
    entered.add(identity(outer))
  files, folders, links = [], collections.deque(['']), collections.deque()
  while folders or links:
    folder = folders.popleft() if folders else links.popleft()
    place = os.path.join(root, folder)
    try:
      if identity(place) in entered:
        logging.warning('%s is a link to a folder that is read otherwise, or '
                        'that it is in: it is passed over.',
                        listings.printable(place))
        continue
      entered.add(identity(place))
      names = sorted(os.listdir(place))
    except OSError as error:
      raise ValueError(f'{listings.printable(place)} cannot be read: '
                       f'{error.strerror}.') from error
    for name in names:
      if _is_system(name):
        continue
      inner, name = os.path.join(place, name), os.path.join(folder, name)
      if not os.path.isdir(inner):
        files.append(name)
      else:
        (links if os.path.islink(inner) else folders).append(name)
  return files


def _readable(title, root, files, skip):
  """The files that are images; says which are left out, by their endings."""
  read = [file for file in files if is_image(file)]
  # A photograph that lies beside its raw form is read, the raw form is not.
  stems = {os.path.splitext(file)[0] for file in read}
  refuse(title, root, [file for file in files if not {
      file, os.path.splitext(file)[0]} & stems], skip)
  others = collections.Counter(
      _ending(file) or 'no ending' for file in files
      if _ending(file) not in READ | REFUSED)
  if others:
    logging.info('%s: left out, as they are no images: %s.', root, ', '.join(
        f'{n} of {end}' for end, n in others.most_common(8)))
  return read


def is_image(file: str) -> bool:
  """Whether a file is, by its ending, an image that can be read."""
  return _ending(file) in READ


def refuse(title: str, root: str, files: Sequence[str], skip: bool) -> set[str]:
  """Files in formats that cannot be read, which `skip` only warns of.

  Raises ValueError otherwise, with the command that converts them.
  """
  refused = [file for file in files if _ending(file) in REFUSED]
  if not refused:
    return set()
  counts = collections.Counter(map(_ending, refused))
  listed = ', '.join(f'{n} {end}' for end, n in sorted(counts.items()))
  first = listings.printable(min(refused))
  if not skip:
    raise ValueError(
        f'{title} has images that cannot be read: {listed}, such as {first}. '
        f'Convert them: find {root} -iname "*{_ending(first)}" -execdir magick '
        'mogrify -format png {} + ; or leave them out: corrupt=skip in the '
        'data section.')
  logging.warning('%s: skipping images that cannot be read: %s, such as %s.',
                  title, listed, first)
  return set(refused)
