"""Images as a viewer shows them: upright, on white, the first frame, in RGB.

TensorFlow decodes JPEGs, Pillow everything else: TensorFlow reads no WebP,
takes a BMP's indices into its palette for shades of grey, and shows the colours
behind transparency. Both ignore colour profiles. Formats are told by content,
whatever a file is called; docs/images.md has a table of them.
"""

import io

import numpy as np
from PIL import Image
import tensorflow as tf

from big_distill import photographs

ORIENTATION = 0x0112  # The tag of EXIF; values are 1 ... 8.


def decode(encoded: tf.Tensor) -> tf.Tensor:
  """An encoded image, a string -> uint8 [h, w, 3], as a viewer shows it."""
  def jpeg():
    pixels = tf.io.decode_jpeg(encoded, channels=3)
    return turn(pixels, orientation(encoded))

  def other():
    return tf.numpy_function(lambda encoded: photographs.decode(_bytes(encoded)),
                             [encoded], tf.uint8, stateful=False)

  image = tf.cond(tf.io.is_jpeg(encoded), jpeg, other)
  return tf.ensure_shape(image, [None, None, 3])


def orientation(encoded: tf.Tensor) -> tf.Tensor:
  """EXIF's orientation of a JPEG: int32 [], 1 where it says nothing."""
  def found():
    return tf.ensure_shape(tf.numpy_function(
        _orientation, [encoded], tf.int32, stateful=False), [])

  # Most files have no EXIF. To see this takes a quarter of the time of calling
  # Python. EXIF is among the first segments of a file.
  start = tf.strings.substr(encoded, 0, 1 << 16)
  has_exif = tf.strings.regex_full_match(start, r'\C*Exif\x00\C*')
  return tf.cond(has_exif, found, lambda: 1)


def turn(pixels: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
  """Pixels [h, w, 3] as they are stored -> upright, by an orientation."""
  def upright():
    turned = tf.cond(value >= 5, lambda: tf.transpose(pixels, [1, 0, 2]),
                     lambda: pixels)
    rows, columns = _reversed(value)
    turned = tf.cond(rows, lambda: tf.reverse(turned, [0]), lambda: turned)
    return tf.cond(columns, lambda: tf.reverse(turned, [1]), lambda: turned)
  return tf.cond(value == 1, lambda: pixels, upright)


def turn_shape(shape: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
  """int32 [3] of an image as it is stored -> of the upright one."""
  return tf.where(value >= 5, tf.gather(shape, [1, 0, 2]), shape)


def turn_back(frame: tf.Tensor, shape: tf.Tensor,
              value: tf.Tensor) -> tf.Tensor:
  """A box in an upright image of int32 shape [3] -> in the stored one."""
  rows, columns = _reversed(value)
  corner, sides = frame[:2], frame[2:]
  corner = tf.where([rows, columns], shape[:2] - corner - sides, corner)
  frame = tf.concat([corner, sides], axis=0)
  return tf.where(value >= 5, tf.gather(frame, [1, 0, 3, 2]), frame)


def _reversed(value):
  """Which of rows and columns an orientation reverses, after it transposes."""
  return ((value == 3) | (value == 4) | (value == 7) | (value == 8),
          (value == 2) | (value == 3) | (value == 6) | (value == 7))


def _orientation(encoded):
  try:
    with Image.open(io.BytesIO(_bytes(encoded))) as image:
      value = image.getexif().get(ORIENTATION, 1)
  except Exception:  # Viewers take no notice of damaged EXIF.
    return np.int32(1)
  return np.int32(value if value in range(1, 9) else 1)


def _bytes(value):
  """Bytes, which tf.numpy_function passes in an array outside of a graph."""
  return np.asarray(value, object).item()
