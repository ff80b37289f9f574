"""Files below folders: which are images, which can be read, which are skipped.

Files that systems leave behind are ignored, links to folders followed once.
Images in formats that cannot be read are refused by name and number, and files
that are no images counted in the log, so that nothing is dropped unsaid.
Only folders elsewhere, as gs:// is, need TensorFlow.
"""

import collections
from collections.abc import Sequence
import os

from absl import logging

READ = frozenset(  # Images that are decoded.
    '.jpg .jpeg .jpe .jfif .mpo .png .apng .gif .bmp .dib .webp .avif .tif '
    '.tiff .jp2 .j2k .ppm .pgm .pbm .pnm .tga .ico'.split())
REFUSED = frozenset(  # Images that neither TensorFlow nor Pillow decodes.
    '.heic .heif .jxl .jxr .svg .psd .xcf .exr .hdr .dng .cr2 .cr3 .nef .arw '
    '.orf .rw2 .raf .pcx .qoi .sgi .dds .icns .dcm'.split())
SYSTEM = frozenset((  # Beside all that starts with a dot, in lower case.
    '__macosx', 'thumbs.db', 'desktop.ini', '@eadir', '#recycle', 'lost+found',
    '$recycle.bin', 'system volume information', '__pycache__', 'icon\r'))
BEGINNINGS = (b'\xff\xd8\xff', b'\x89PNG', b'GIF8', b'BM', b'RIFF')


def _is_system(name):
  return name.startswith('.') or name.casefold() in SYSTEM


def _ending(file):
  return os.path.splitext(file)[1].lower()


def printable(name: str) -> str:
  """A name of a file without the bytes that are no UTF-8."""
  return os.fsencode(name).decode('utf-8', 'backslashreplace')


def is_folder(path: str) -> bool:
  """Whether a folder is there, locally or remotely."""
  return (_remotely(path, lambda gfile: gfile.isdir(path)) if '://' in path
          else os.path.isdir(path))


def _remotely(path, ask):
  """ask(tf.io.gfile), which raises OSError in place of kinds of its own."""
  import tensorflow as tf
  try:
    return ask(tf.io.gfile)
  except tf.errors.OpError as error:
    raise OSError(None, error.message, path) from error


def names(path: str) -> list[str]:
  """What is in a folder, in order, but for what systems leave there.

  Raises ValueError if it cannot be read.
  """
  return [name.rstrip('/') for name in _entries(path)]


def folders(path: str) -> list[str]:
  """Names of the folders in a folder."""
  # Remote file systems mark folders by a slash, which saves asking for each.
  return [name.rstrip('/') for name in _entries(path) if name.endswith('/')
          or _ending(name) not in READ | REFUSED
          and is_folder(os.path.join(path, name))]


def _entries(path):
  try:
    found = (_remotely(path, lambda gfile: gfile.listdir(path))
             if '://' in path else os.listdir(path))
  except OSError as error:
    raise ValueError(f'{printable(path)} cannot be read: {error.strerror}.'
                     ) from error
  return sorted(name for name in found if not _is_system(name.rstrip('/')))


def has_images(path: str) -> bool:
  """Whether there are images in a folder itself, that can be read or not."""
  return any(_ending(name) in READ | REFUSED for name in names(path))


def holds_images(path: str, entered: set[str] | None = None) -> bool:
  """Whether there are images in a folder or in those below it.

  entered: folders that a search has been to, to which links may lead.
  """
  entered = set() if entered is None else entered
  place = path if '://' in path else os.path.realpath(path)
  if place in entered:
    return False
  entered.add(place)
  return has_images(path) or any(
      holds_images(os.path.join(path, name), entered) for name in folders(path))


def walk(root: str) -> list[str]:
  """Files below a folder, relative to it, but for those that systems make.

  Each folder is entered once: a link to one that is entered otherwise, or to
  one that this one is in, is passed over.
  """
  if '://' in root:
    walked = _remotely(root, lambda gfile: [*gfile.walk(root)])
    found = [os.path.relpath(os.path.join(folder, file), root)
             for folder, _, files in walked for file in files]
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
    if identity(place) in entered:
      logging.warning('%s is passed over: it links to a folder that is read '
                      'otherwise, or that it is in.', printable(place))
      continue
    entered.add(identity(place))
    for name in names(place):
      inner, name = os.path.join(place, name), os.path.join(folder, name)
      if not os.path.isdir(inner):
        files.append(name)
      else:
        (links if os.path.islink(inner) else folders).append(name)
  return files


def readable(title: str, root: str, files: Sequence[str],
             skip: bool) -> list[str]:
  """The files that are images; says which are left out, by their endings."""
  read = [file for file in files if is_image(file) or (
      not _ending(file) and _begins_as_image(os.path.join(root, file)))]
  # A photograph that lies beside its raw form is read, the raw form is not.
  stems = {os.path.splitext(file)[0] for file in read}
  refuse(title, root, [file for file in files if not {
      file, os.path.splitext(file)[0]} & stems], skip)
  others = collections.Counter(
      _ending(file) or 'no ending' for file in set(files) - set(read)
      if _ending(file) not in REFUSED)
  if others:
    logging.info('%s: left out, as they are no images: %s.', root, ', '.join(
        f'{n} of {end}' for end, n in others.most_common(8)))
  return read


def _begins_as_image(path):
  """Whether a file without an ending is an image, by its first bytes."""
  try:
    if '://' in path:
      begins = _remotely(path, lambda gfile: gfile.GFile(path, 'rb').read(4))
    else:
      with open(path, 'rb') as file:
        begins = file.read(4)
  except OSError:
    return False
  return begins.startswith(BEGINNINGS)


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
  first = printable(min(refused))
  if not skip:
    raise ValueError(
        f'{title} has images that cannot be read: {listed}, such as {first}. '
        f'Convert them: find {root} -iname "*{_ending(first)}" -execdir magick '
        'mogrify -format png {} + ; or leave them out, by '
        'data.corrupt=skip in a config, by corrupt=skip in that of distill.py.')
  logging.warning('%s: skipping images that cannot be read: %s, such as %s.',
                  title, listed, first)
  return set(refused)
