"""Boxes and pixels of views: a die chooses a box, a box cuts out pixels.

A box is int32 [4]: top, left, height, width, in pixels of the original image.
Box and flip are functions of (view's region, image shape, die) alone, so views
of one region agree at every size. Crops are listed in `views.CROPS`.
"""

import functools

import tensorflow as tf

from big_distill import views
from big_distill.input import images

# big_vision's inception_crop; the aspect range is that of the TensorFlow op.
INCEPTION_AREA = (0.05, 1.0)
INCEPTION_ASPECT = (0.75, 1.33)

# libjpeg interpolates halved colour channels from left and right neighbours:
# the edge of a window lacks one, and very narrow windows go without. With 4
# columns to spare we saw the pixels of the whole in all windows; not with 1.
MARGIN = 8

# Scales that libjpeg decodes at: 1/1, 1/2, 1/4, 1/8.
RATIOS = (1, 2, 4, 8)


def die(seed, epoch, index, view):
  """The [2] seed that decides this view of this example."""
  seed = tf.constant([seed, 0], tf.int64)
  fold = tf.random.experimental.stateless_fold_in
  return fold(fold(fold(seed, epoch), index), view.die or 0)


def box(view, shape, die, fraction=views.FRACTION):
  """Box int32 [4] and flip (bool) of a view on an image of int32 shape [3]."""
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


def resize(window, view, flip):
  """Pixels of a box -> uint8 [size, size, 3]; fractions are cut off."""
  method = views.METHODS[view.crop]
  if method == 'bilinear':  # The same values, by a third faster.
    window = tf.cast(window, tf.float32)
  pixels = tf.image.resize(window, [view.size] * 2, method)
  pixels = tf.cast(pixels, tf.uint8)
  # Far faster than pixels[:, ::-1]: reversal of RGB is a case of its own.
  return tf.cond(flip, lambda: tf.reverse(pixels, [1]), lambda: pixels)


def decode(encoded, as_shown=False):
  """Any JPEG, PNG, GIF or BMP, of any colour space -> uint8 [h, w, 3].

  As TensorFlow decodes it, or `as_shown` by a viewer, see images.decode.
  """
  if as_shown:
    return images.decode(encoded)
  image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
  return tf.ensure_shape(image, [None, None, 3])


def cut(image, frame):
  """The pixels inside a box."""
  top, left, height, width = tf.unstack(frame)
  return image[top:top + height, left:left + width]


def decode_window(encoded, frame, ratio=1):
  """cut(decode(encoded), frame), bit for bit, of a JPEG, in less time.

  With a ratio of 2, 4 or 8, of the image at that fraction of its scale.
  """
  top, left, height, width = tf.unstack(frame)
  start = tf.maximum(left - MARGIN, 0)
  # libjpeg rounds up: the last column may be one of less than ratio pixels.
  columns = -(-tf.image.extract_jpeg_shape(encoded)[1] // ratio)
  end = tf.minimum(left + width + MARGIN, columns)
  pixels = tf.image.decode_and_crop_jpeg(
      encoded, tf.stack([top, start, height, end - start]), channels=3,
      ratio=ratio)
  return pixels[:, left - start:left - start + width]


def decode_windows(encoded, frames, ratio=1):
  """[cut(decode(encoded), frame) for frame in frames], out of one window."""
  corners = tf.stack([frame[:2] for frame in frames])
  ends = corners + tf.stack([frame[2:] for frame in frames])
  corner = tf.reduce_min(corners, axis=0)
  outer = tf.concat([corner, tf.reduce_max(ends, axis=0) - corner], axis=0)
  pixels = decode_window(encoded, outer, ratio)
  shift = tf.concat([corner, [0, 0]], axis=0)
  return [cut(pixels, frame - shift) for frame in frames]


def shrink(frame, shape, ratio):
  """The box in pixels `ratio` times as long and as wide, in whole ones."""
  ends = tf.stack([frame[:2], frame[:2] + frame[2:]])
  # A last row or column that the image fills only in part is left out.
  ends = tf.minimum((ends + ratio // 2) // ratio, shape[:2] // ratio)
  return tf.concat([ends[0], ends[1] - ends[0]], axis=0)


def decode_reduced(encoded, frames, sizes):
  """As decode_windows, by the largest ratio that leaves each box its size.

  By 2, 4 or 8 libjpeg's pixels are means of so many squared, to within 1 to 3
  grey levels on average. Edges of boxes move to whole ones of them, by less
  than a pixel of a view: tf.raw_ops.ScaleAndTranslate would leave them where they
  are, but takes four times as long as tf.image.resize, more than is gained.
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


def is_whole_jpeg(encoded):
  """False for what is no JPEG, and for one that does not end as a JPEG should.

  A window above the end of a JPEG cut short decodes as if nothing were missing;
  so the latter is decoded whole, and is found out wherever its box lies.
  """
  end = tf.maximum(tf.strings.length(encoded) - 2, 0)
  end = tf.strings.substr(encoded, end, 2)
  return tf.io.is_jpeg(encoded) & (end == b'\xff\xd9')


def boxes(shown, shape, seed, epoch, index, fraction=views.FRACTION):
  """What `render` cuts out of an image of int32 shape [3], for render.py.

  {str(region): int32 [5]}: a box, and 1 where it is flipped.
  """
  result = {}
  for region in sorted({view.region for view in shown}, key=str):
    frame, flip = box(region, shape, die(seed, epoch, index, region), fraction)
    result[str(region)] = tf.concat([frame, [tf.cast(flip, tf.int32)]], axis=0)
  return result


def render(image, shown, seed, epoch, index, fraction=views.FRACTION,
           reduced=False, as_shown=False):
  """Every view of an image: {str(view): uint8 [size, size, 3]}.

  `image` is encoded (a string) or uint8 [h, w, 3]. It is decoded once, a JPEG
  only where boxes lie. `as_shown` decodes it as a viewer shows it, see
  images.decode. `reduced` decodes JPEGs at 1/2, 1/4 or 1/8 of their scale, if
  every box is that many times as high and as wide as its views. That blurs
  before it samples: on photographs, pixels of bilinear views change by 9 to 10
  grey levels on average at 1/2 and 13 at 1/4, of views by area by 5 to 8,
  single pixels by 200.
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
