"""Views rendered on the device, from images that it holds.

A small dataset lies decoded in the memory of every device, one row of pixels
after another, without padding. The host draws boxes (input/crops.py), a few
bytes for each example; here they become the pixels that the host would have
rendered: its boxes and flips exactly, its uint8 values to within 1. Either side
rounds in its own order before it cuts fractions off, hence the 1.

Resizing is separable and linear. Down a column it is a sum over few rows, which
are read where they lie; along a row it is a product with a matrix. TPUs read rows
in a loop, one after another, so for them images are spread: each fills as much
room as any, is read whole, and both directions are products.
"""

from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np

from big_distill import views as views_lib

LIMIT = 2**31 - 1  # Bytes: places of pixels are int32.
TILE = 32, 128  # Of uint8 in a TPU's memory.

# A value of 254.99999 was meant as 255 where the sum of weights is not quite 1.
SLACK = 1e-3


@flax.struct.dataclass
class Images:
  """n images of any sizes, [h, w, 3] each, as one array of bytes.

  There are as many zeros behind the last image as the longest row has bytes.
  Arrays are numpy's on a host and JAX's on devices.
  """
  pixels: Any  # uint8 [bytes], or spread: [n, 3 w, h].
  starts: Any  # int32 [n], the place of the first pixel.
  sizes: Any  # int32 [n, 2], height and width.
  tallest: int = flax.struct.field(pytree_node=False)
  widest: int = flax.struct.field(pytree_node=False)


def pack(images):
  """uint8 arrays [h, w, 3] -> Images, on the host."""
  sizes = np.asarray([image.shape[:2] for image in images], np.int32)
  return lay(np.concatenate([*(image.ravel() for image in images), np.zeros(
      3 * sizes[:, 1].max(), np.uint8)]), sizes)


def lay(pixels, sizes):
  """Images of sizes int32 [n, 2] that lie in uint8 [bytes], zeros behind."""
  tallest, widest = map(int, sizes.max(axis=0))
  ends = np.cumsum(3 * np.prod(sizes, axis=1, dtype=np.int64))
  starts = np.asarray([0, *ends[:-1]], np.int32)
  return Images(pixels, starts, sizes, tallest, widest)


def spread(images):
  """Images of one size, with zeros to their right and below them, on the host.

  Sizes are of whole tiles, and columns come first, as a TPU's product wants them:
  else XLA copies all images at each call (seen in programs for a v5e). Images
  stay as they are where zeros would make them more than LIMIT bytes.
  """
  w, h = (-(-size // tile) * tile for size, tile in zip(
      (images.widest, images.tallest), TILE))
  shape = len(images.starts), 3 * w, h
  if np.prod(shape, dtype=np.int64) > LIMIT:
    return images
  pixels = np.zeros(shape, np.uint8)
  for room, start, (h, w) in zip(pixels, images.starts, images.sizes):
    room[:3 * w, :h] = images.pixels[start:start + 3 * h * w].reshape(
        h, 3 * w).T
  return images.replace(pixels=pixels)


def views(images, index, boxes, shown):
  """{str(view): uint8 [b, size, size, 3]} of examples, index [b].

  boxes: {str(region): int32 [b, 5]}, as input/crops.boxes has them.
  """
  return {str(view): render(images, index, boxes[str(view.region)], view)
          for view in shown}


def render(images, index, boxes, view):
  """Pixels of a view, as input/crops.render has them: uint8 [b, s, s, 3]."""
  top, left, height, width, flip = boxes.T
  weigh = METHODS[views_lib.METHODS[view.crop]][1]
  places = jnp.arange(view.size)
  if images.pixels.ndim == 3:
    total = _shrink_columns(images, index, _weights(
        weigh, images.pixels.shape[2], top, height, places))
  else:
    total = _sum_rows(images, index, boxes, view)
    left = jnp.zeros_like(left)  # Rows were read from there on.
  places = jnp.where(flip[:, None] == 1, places[::-1], places)
  total = total.reshape(*total.shape[:2], -1, 3)
  columns = _weights(weigh, total.shape[2], left, width, places)
  pixels = jnp.einsum('bhwc,bsw->bhsc', total, columns,
                      precision=jax.lax.Precision.HIGHEST)
  return jnp.floor(pixels + SLACK).astype(jnp.uint8)


def _weights(weigh, n, first, length, places):
  """Of n pixels for outputs `places` [s] or [b, s]: float32 [b, s, n].

  The box has `length` pixels from `first` on, each [b]; others weigh nothing.
  """
  pixels = jnp.arange(n) - first[:, None, None]
  return weigh(places[..., None], pixels, length[:, None, None],
               places.shape[-1])


def _shrink_columns(images, index, rows):
  """Products of weights [b, s, h] with spread images: [b, s, 3 w].

  In a loop over examples: XLA's gather for TPUs would copy all images first.
  """
  def one(each):
    i, rows = each
    pixels = jax.lax.dynamic_index_in_dim(images.pixels, i, keepdims=False)
    return jnp.matmul(rows, pixels.T.astype(jnp.float32),
                      precision=jax.lax.Precision.HIGHEST)

  return jax.lax.map(one, (index, rows))


def _sum_rows(images, index, boxes, view):
  """Output rows, of images that lie one behind another: [b, s, 3 widest]."""
  top, left, height, *_ = boxes.T
  first, weight = METHODS[views_lib.METHODS[view.crop]]
  places = jnp.arange(view.size)
  stride, reach = 3 * images.sizes[index, 1], 3 * images.widest
  corner = images.starts[index] + top * stride + 3 * left
  rows = first(places, height[:, None], view.size)  # [b, s]

  def add(total, k):
    begin = corner[:, None] + (rows + k) * stride[:, None]
    # Rows below the box may be those of another image: their weight is 0.
    read = jax.vmap(lambda at: jax.lax.dynamic_slice(
        images.pixels, [at], [reach]))(begin.ravel())
    share = weight(places, rows + k, height[:, None], view.size)
    return total + share[..., None] * read.reshape(*begin.shape, reach), None

  # An output row overlaps at most so many rows by area; two are interpolated.
  count = (-(-images.tallest // view.size) + 1
           if first is _first_by_area else 2)
  total = jnp.zeros([len(index), view.size, reach], jnp.float32)
  return jax.lax.scan(add, total, jnp.arange(count))[0]


def _place(i, length, size):
  """Where the centre of output i lies, in pixels of the box."""
  scale = length.astype(jnp.float32) / size
  return jnp.clip((i + .5) * scale - .5, 0, length - 1)


def _first_bilinear(i, length, size):
  return jnp.floor(_place(i, length, size)).astype(jnp.int32)


def _weight_bilinear(i, pixel, length, size):
  return jnp.maximum(1 - jnp.abs(_place(i, length, size) - pixel), 0)


def _first_by_area(i, length, size):
  return jnp.floor(i * (length.astype(jnp.float32) / size)).astype(jnp.int32)


def _weight_by_area(i, pixel, length, size):
  scale = length.astype(jnp.float32) / size
  overlap = jnp.minimum((i + 1) * scale, pixel + 1) - jnp.maximum(
      i * scale, pixel)
  # Past the box there is nothing, whatever (i + 1) * scale is rounded to.
  return jnp.where(pixel < length, jnp.maximum(overlap, 0) / scale, 0)


METHODS = {  # The first pixel that counts for output i, and a pixel's weight.
    'bilinear': (_first_bilinear, _weight_bilinear),
    'area': (_first_by_area, _weight_by_area),
}
