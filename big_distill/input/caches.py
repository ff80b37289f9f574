"""What of a source is kept in memory: encoded bytes, or decoded pixels.

Decoded images lie one after another in one array of bytes. It is put together
from blocks that are given back as soon as they are copied, so that memory peaks
at what is kept and one block, whatever the number of images.
"""

import numpy as np
import tensorflow as tf

from big_distill import render
from big_distill.contracts import Source
from big_distill.input import reading

BLOCK = 1 << 26  # Bytes. The C library returns blocks of 32 MiB at once.
ALIGNED = 64  # TensorFlow copies an array that begins elsewhere.


class Bytes:
  """An array of bytes that grows at its end, made whole once."""

  def __init__(self):
    self.size = 0
    self._blocks = []

  def append(self, values: np.ndarray) -> None:
    """Copies uint8 [n] to the end."""
    while len(values):
      place = self.size % BLOCK
      if not place:
        self._blocks.append(np.empty(BLOCK, np.uint8))
      count = min(len(values), BLOCK - place)
      self._blocks[-1][place:place + count] = values[:count]
      self.size += count
      values = values[count:]

  def take(self, spare: int = 0) -> np.ndarray:
    """uint8 [size + spare], with zeros at the end; nothing is left here."""
    whole = np.empty(self.size + spare + ALIGNED, np.uint8)
    start = -whole.ctypes.data % ALIGNED
    whole = whole[start:start + self.size + spare]
    whole[self.size:] = 0
    for start in range(0, self.size, BLOCK):
      end = min(start + BLOCK, self.size)
      whole[start:end] = self._blocks.pop(0)[:end - start]
    self.size = 0
    return whole


def decode(source: Source, limit: float = np.inf
           ) -> tuple[Bytes, np.ndarray, np.ndarray]:
  """Pixels of all images, sizes int32 [n, 2] (height, width) and labels.

  Stops early, with fewer than n sizes, once there are more bytes than `limit`.
  """
  def flat(image, label):
    image = reading.pixels(source, image)
    return tf.reshape(image, [-1]), tf.shape(image)[:2], label

  pixels, sizes, labels = Bytes(), [], []
  for images, shapes, batch in reading.batches(source, flat):
    pixels.append(images.flat_values.numpy())
    sizes.append(shapes.numpy()), labels.append(batch.numpy())
    if pixels.size > limit:
      break
  return pixels, np.concatenate(sizes), np.concatenate(labels)


def hold(source: Source) -> tuple[render.Images, np.ndarray]:
  """All images of a source, decoded, for devices to hold, and their labels.

  Raises ValueError if they fill more than render.LIMIT bytes.
  """
  pixels, sizes, labels = decode(source, render.LIMIT)
  if pixels.size > render.LIMIT:
    raise ValueError(
        f'{source.title} is too large for data.resident=True: the first '
        f'{len(sizes)} of its {source.num_examples} images fill '
        f'{render.LIMIT / 2**30:.0f} GiB. Leave it False, or take a smaller '
        'split.')
  return render.lay(pixels.take(3 * int(sizes[:, 1].max())), sizes), labels


def keep_encoded(source: Source) -> Source:
  """The source, with all encoded images in memory."""
  images, labels = zip(*reading.batches(source, lambda *example: example))
  images, labels = tf.concat(images, 0), tf.concat(labels, 0)
  return source._replace(fetch=lambda i: (images[i], labels[i]), scan=None)


def keep_decoded(source: Source) -> Source:
  """The source, with the pixels of all images in memory.

  Fetching an image copies its pixels, unless they begin and end at multiples
  of 64 bytes.
  """
  pixels, sizes, labels = decode(source)
  pixels = pixels.take()
  # Shares the array's memory: tf.constant would copy it twice.
  pixels = tf.experimental.dlpack.from_dlpack(pixels.__dlpack__())
  sizes, labels = tf.constant(sizes, tf.int64), tf.constant(labels)
  ends = tf.cumsum(3 * tf.reduce_prod(sizes, axis=1))

  def fetch(index):
    height, width = tf.unstack(sizes[index])
    start = ends[index] - 3 * height * width
    image = tf.reshape(pixels[start:ends[index]], [height, width, 3])
    return image, labels[index]

  return source._replace(fetch=fetch, scan=None)


KEEP = {'encoded': keep_encoded, 'decoded': keep_decoded,
        'none': lambda source: source}
