"""Boxes and pixels of views: a die chooses a box, a box cuts out pixels.

A box is int32 [4]: top, left, height, width, in pixels of the original image.
Box and flip are functions of (view's region, image shape, die) alone, so views
of one region agree at every size. Crops are listed in `views.CROPS`.
"""

from collections.abc import Sequence
import functools

import tensorflow as tf

from big_distill import views
from big_distill.input import images

# big_vision's inception_crop; the aspect range is that of the TensorFlow op.
INCEPTION_AREA = (0.05, 1.0)
INCEPTION_ASPECT = (0.75, 1.33)

# libjpeg interpolates colour channels of half the width from neighbours at the
# left and the right, which the edge of a window lacks. With 4 columns to spare,
# windows had the pixels of the whole image in all our tests; with 1 not.
MARGIN = 8

# libjpeg decodes at these fractions of an image's scale: 1/1, 1/2, 1/4, 1/8.
RATIOS = (1, 2, 4, 8)


def die(seed: int, epoch: tf.Tensor, index: tf.Tensor,
        view: views.View) -> tf.Tensor:
  """The seed, int64 [2], that decides a view of an example in an epoch."""
  seed = tf.constant([seed, 0], tf.int64)
  fold = tf.random.experimental.stateless_fold_in
  return fold(fold(fold(seed, epoch), index), view.die or 0)


def box(view: views.View, shape: tf.Tensor, die: tf.Tensor | None,
        fraction: float = views.FRACTION) -> tuple[tf.Tensor, tf.Tensor]:
  """A view's box, int32 [4], and flip, bool [], in an image of int32 shape [3].

  `fraction` is the share of a side that central, random and window crops keep.
  """
  height, width = shape[0], shape[1]
  if view.crop == 'inception':
    begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
        shape, tf.zeros([1, 0, 4]), seed=die, min_object_covered=0,
        area_range=INCEPTION_AREA, aspect_ratio_range=INCEPTION_ASPECT,
        use_image_if_no_bounding_boxes=True)
    frame = tf.concat([begin[:2], size[:2]], axis=0)
  elif view.crop == 'squash':
    frame = tf.stack([0, 0, height, width])
  else:
    sides = tf.stack([height, width])
    if view.crop != 'window':
      sides = tf.fill([2], tf.minimum(height, width))
    sides = tf.cast(tf.round(tf.cast(sides, tf.float32) * fraction), tf.int32)
    sides = tf.maximum(sides, 1)
    room = tf.stack([height, width]) - sides
    if view.die is None:
      corner = room // 2
    else:
      chance = tf.random.stateless_uniform([2], seed=die)
      corner = tf.cast(chance * tf.cast(room + 1, tf.float32), tf.int32)
      corner = tf.minimum(corner, room)
    frame = tf.concat([corner, sides], axis=0)

  if view.die is None:
    return frame, tf.constant(False)
  coin = tf.random.experimental.stateless_fold_in(die, 1)
  return frame, tf.random.stateless_uniform([], seed=coin) < 0.5


def resize(window: tf.Tensor, view: views.View, flip: tf.Tensor) -> tf.Tensor:
  """Resizes the pixels of a box to uint8 [size, size, 3], rounding down."""
  method = views.METHODS[view.crop]
  if method == 'bilinear':  # Gives the same values in two thirds of the time.
    window = tf.cast(window, tf.float32)
  pixels = tf.image.resize(window, [view.size] * 2, method)
  pixels = tf.cast(pixels, tf.uint8)
  # tf.reverse has a fast case for RGB, which pixels[:, ::-1] has not.
  return tf.cond(flip, lambda: tf.reverse(pixels, [1]), lambda: pixels)


def decode(encoded: tf.Tensor, as_shown: bool = False) -> tf.Tensor:
  """Decodes an image, a string, to uint8 [h, w, 3].

  `as_shown` decodes it as a viewer shows it (images.decode); otherwise
  TensorFlow decodes it: a JPEG, PNG, GIF or BMP of any colour space.
  """
  if as_shown:
    return images.decode(encoded)
  image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
  return tf.ensure_shape(image, [None, None, 3])


def cut(image: tf.Tensor, frame: tf.Tensor) -> tf.Tensor:
  """Cuts the pixels inside a box, int32 [4], out of an image [h, w, 3]."""
  top, left, height, width = tf.unstack(frame)
  return image[top:top + height, left:left + width]


def decode_window(encoded: tf.Tensor, frame: tf.Tensor,
                  ratio: int = 1) -> tf.Tensor:
  """Decodes the pixels of a JPEG inside a box: cut(decode(encoded), frame).

  It gives the same bits in less time. With a ratio of 2, 4 or 8, the image is
  decoded at that fraction of its scale, and the box is one in the small image.
  """
  top, left, height, width = tf.unstack(frame)
  start = tf.maximum(left - MARGIN, 0)
  # libjpeg rounds up: the last column may stand for less than `ratio` pixels.
  columns = -(-tf.image.extract_jpeg_shape(encoded)[1] // ratio)
  end = tf.minimum(left + width + MARGIN, columns)
  pixels = tf.image.decode_and_crop_jpeg(
      encoded, tf.stack([top, start, height, end - start]), channels=3,
      ratio=ratio)
  return pixels[:, left - start:left - start + width]


def decode_windows(encoded: tf.Tensor, frames: Sequence[tf.Tensor],
                   ratio: int = 1) -> list[tf.Tensor]:
  """Decodes the pixels inside several boxes, from one window around all."""
  corners = tf.stack([frame[:2] for frame in frames])
  ends = corners + tf.stack([frame[2:] for frame in frames])
  corner = tf.reduce_min(corners, axis=0)
  outer = tf.concat([corner, tf.reduce_max(ends, axis=0) - corner], axis=0)
  pixels = decode_window(encoded, outer, ratio)
  shift = tf.concat([corner, [0, 0]], axis=0)
  return [cut(pixels, frame - shift) for frame in frames]


def shrink(frame: tf.Tensor, shape: tf.Tensor, ratio: int) -> tf.Tensor:
  """A box in an image of int32 shape [3] -> in the image 1 / ratio the size.

  Edges are rounded to whole pixels of the small image.
  """
  ends = tf.stack([frame[:2], frame[:2] + frame[2:]])
  # The last row or column may be filled in part only: it is left out.
  ends = tf.minimum((ends + ratio // 2) // ratio, shape[:2] // ratio)
  return tf.concat([ends[0], ends[1] - ends[0]], axis=0)


def decode_reduced(encoded: tf.Tensor, frames: Sequence[tf.Tensor],
                   sizes: Sequence[int]) -> list[tf.Tensor]:
  """Decodes boxes by the largest ratio that leaves each at least its size.

  A pixel that libjpeg decodes at 1/2 is the mean of 2 x 2, to within 1 to 3
  grey levels on average, and so on. Edges of boxes move to whole pixels of the
  small image, by less than a pixel of a view. tf.raw_ops.ScaleAndTranslate
  would leave them in place, but takes four times as long as tf.image.resize,
  which is more than decoding at a smaller scale saves.
  """
  shape = tf.image.extract_jpeg_shape(encoded)
  room = tf.reduce_min([tf.reduce_min(frame[2:]) // size
                        for frame, size in zip(frames, sizes)])

  def decode_by(ratio):
    return decode_windows(encoded, [shrink(frame, shape, ratio)
                                    for frame in frames], ratio)

  which = tf.reduce_sum(tf.cast(room >= RATIOS[1:], tf.int32))
  return tf.switch_case(
      which, [functools.partial(decode_by, ratio) for ratio in RATIOS])


def is_whole_jpeg(encoded: tf.Tensor) -> tf.Tensor:
  """Whether a string is a JPEG that ends with the mark of its end.

  A JPEG that is cut short would decode without an error in a window above the
  cut. Such a file is decoded whole instead, which fails wherever the box lies.
  """
  end = tf.maximum(tf.strings.length(encoded) - 2, 0)
  end = tf.strings.substr(encoded, end, 2)
  return tf.io.is_jpeg(encoded) & (end == b'\xff\xd9')


def boxes(shown: Sequence[views.View], shape: tf.Tensor, seed: int,
          epoch: tf.Tensor, index: tf.Tensor,
          fraction: float = views.FRACTION) -> dict[str, tf.Tensor]:
  """Boxes that `render` cuts out of an image of int32 shape [3].

  {str(region): int32 [5]}: a box, and 1 if it is flipped. Devices that hold
  images render them (render.py).
  """
  result = {}
  for region in sorted({view.region for view in shown}, key=str):
    frame, flip = box(region, shape, die(seed, epoch, index, region), fraction)
    result[str(region)] = tf.concat([frame, [tf.cast(flip, tf.int32)]], axis=0)
  return result


def render(image: tf.Tensor, shown: Sequence[views.View], seed: int,
           epoch: tf.Tensor, index: tf.Tensor,
           fraction: float = views.FRACTION, reduced: bool = False,
           as_shown: bool = False) -> dict[str, tf.Tensor]:
  """Renders all views of an image: {str(view): uint8 [size, size, 3]}.

  image: encoded (a string) or uint8 [h, w, 3]. It is decoded once; of a JPEG
    only the window around all boxes.
  fraction: see `box`.
  reduced: decodes JPEGs at 1/2, 1/4 or 1/8 of their scale, if every box is that
    many times as high and as wide as its views. This blurs before it samples:
    on photographs, pixels of bilinear views change by 9 to 10 grey levels on
    average at 1/2 and by 13 at 1/4, those of views by area by 5 to 8, single
    pixels by 200.
  as_shown: decodes the image as a viewer shows it, see images.decode.
  """
  regions = sorted({view.region for view in shown}, key=str)
  sizes = [max(view.size for view in shown if view.region == region)
           for region in regions]

  def draw(shape):
    return zip(*(box(region, shape, die(seed, epoch, index, region), fraction)
                 for region in regions))

  def whole():
    pixels = (decode(image, as_shown) if image.dtype == tf.string else image)
    frames, flips = draw(tf.shape(pixels))
    return [cut(pixels, frame) for frame in frames], list(flips)

  def decode_boxes(frames):
    return (decode_reduced(image, frames, sizes) if reduced
            else decode_windows(image, frames))

  def windows():
    shape = tf.image.extract_jpeg_shape(image)
    if not as_shown:
      frames, flips = draw(shape)
      return decode_boxes(frames), list(flips)
    turned = images.orientation(image)
    shape = images.turn_shape(shape, turned)
    frames, flips = draw(shape)
    pixels = decode_boxes([images.turn_back(frame, shape, turned)
                           for frame in frames])
    return [images.turn(each, turned) for each in pixels], list(flips)

  pixels, flips = (tf.cond(is_whole_jpeg(image), windows, whole)
                   if image.dtype == tf.string else whole())
  pixels, flips = dict(zip(regions, pixels)), dict(zip(regions, flips))
  return {str(view): resize(pixels[view.region], view, flips[view.region])
          for view in shown}
