"""Photographs as models see them, by Pillow and numpy: no TensorFlow.

For what uses a model: prediction, and the check of exported files. Images are
decoded as a viewer shows them and framed as input/crops.py frames them; values
are its own to within a few grey levels, as two decoders of JPEGs differ.
"""

import io
import os
import pathlib
import warnings

import numpy as np
from PIL import Image
from PIL import ImageOps
from PIL import UnidentifiedImageError

from big_distill import views as views_lib
from big_distill.input import files

# Pillow warns of large images and of damaged descriptions, which do no harm.
warnings.filterwarnings('ignore', module=r'PIL\.')
PACKAGED = (pathlib.Path(__file__).parent
            / 'data/caltech12/1.0.0/caltech12-test.tfrecord-00000')
# A value of 254.99999 was meant as 255 where the sum of weights is not quite 1.
SLACK = 1e-3


def packaged() -> list[bytes]:
  """The JPEGs of the test split that comes with the package."""
  content, at, found = PACKAGED.read_bytes(), 0, []
  while at < len(content):  # A length, its checksum, a record, its checksum.
    size = int.from_bytes(content[at:at + 8], 'little')
    record = content[at + 12:at + 12 + size]
    first, last = record.index(b'\xff\xd8\xff'), record.rindex(b'\xff\xd9')
    found.append(record[first:last + 2])
    at += 12 + size + 4
  return found


def is_image(path: str) -> bool:
  """Whether a path is a file whose name ends as an image's does."""
  return files.is_image(path) and os.path.isfile(path)


def listing(folder: str, skip: bool = False) -> list[str]:
  """Paths of all images in a folder and below it, in order; or of one image.

  They are those that input/folders.py finds in all its splits; `skip` as there.
  Raises ValueError where there is none.
  """
  if is_image(folder):
    return [folder]
  found = files.readable(folder, folder, files.walk(folder), skip)
  if not found:
    raise ValueError(f'{folder} has no images: files must end in one of '
                     f'{" ".join(sorted(files.READ))}.')
  return sorted(os.path.join(folder, name) for name in found)


def read(path: str) -> np.ndarray:
  """The image in a file, uint8 [h, w, 3]; ValueError names one that is none."""
  try:
    with open(path, 'rb') as file:
      return decode(file.read())
  except Exception as error:  # Pillow raises whatever a format calls for.
    line = (str(error).splitlines() or [type(error).__name__])[0]
    raise ValueError(f'{path} cannot be read as an image: {line}. Mend or '
                     'remove it.') from error


def decode(encoded: bytes) -> np.ndarray:
  """An encoded image as a viewer shows it: uint8 [h, w, 3].

  Upright, on white, the first frame. Raises ValueError for what is no image, or
  whose black and white are not known.
  """
  try:
    image = Image.open(io.BytesIO(encoded))
  except UnidentifiedImageError as error:
    raise ValueError('it is of no known format and begins with '
                     f'{encoded[:12]!r}') from error
  with image:
    image = ImageOps.exif_transpose(image)
    if image.mode in ('I', 'F'):
      raise ValueError(f'its pixels are {image.mode}, of 32 bits, whose black '
                       'and white are not known')
    if image.mode.startswith('I;16'):
      grey = np.asarray(image) >> 8
      return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
    if image.has_transparency_data:
      image = image.convert('RGBA')
      white = Image.new('RGBA', image.size, 'white')
      image = Image.alpha_composite(white, image)
    return np.asarray(image.convert('RGB'))


def show(image: np.ndarray, view: views_lib.View,
         fraction: float = views_lib.FRACTION) -> np.ndarray:
  """A view of an image, uint8 [h, w, 3] -> uint8 [size, size, 3].

  The view has a size and throws no die; `fraction` as in input/crops.box.
  """
  if view.die is not None:
    raise ValueError(f'{view} is chosen by a die: name a view that is not, '
                     'central or squash.')
  sides = np.asarray(image.shape[:2])
  if view.crop == 'squash':
    kept = sides
  else:
    kept = np.round(np.repeat(sides.min(), 2) * np.float32(fraction))
    kept = np.maximum(kept, 1).astype(int)
  top, left = (sides - kept) // 2
  window = image[top:top + kept[0], left:left + kept[1]].astype(np.float32)
  rows, columns = (_by_area(n, view.size) for n in kept)
  pixels = np.einsum('yh,hwc->ywc', rows, window, optimize=True)
  pixels = np.einsum('xw,ywc->yxc', columns, pixels, optimize=True)
  return np.floor(pixels + SLACK).astype(np.uint8)


def _by_area(length, size):
  """Shares of pixels [size, length] in each output, which sum to 1."""
  scale = length / size
  i, pixel = np.arange(size)[:, None], np.arange(length)
  overlap = (np.minimum((i + 1) * scale, pixel + 1)
             - np.maximum(i * scale, pixel))
  return np.float32(np.maximum(overlap, 0) / scale)

