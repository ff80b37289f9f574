"""Boxes and pixels of views: a die chooses a box, a box cuts out pixels.

A box is int32 [4]: top, left, height, width, in pixels of the original image.
Box and flip are functions of (view's region, image shape, die) alone, so views
of one region agree at every size. Crops are listed in `views.CROPS`.
"""

import tensorflow as tf

from big_distill import views

# big_vision's inception_crop; the aspect range is that of the TensorFlow op.
INCEPTION_AREA = (0.05, 1.0)
INCEPTION_ASPECT = (0.75, 1.33)

# libjpeg interpolates halved colour channels from left and right neighbours:
# the edge of a window lacks one, and very narrow windows go without. With 4
# columns to spare we saw the pixels of the whole in all windows; not with 1.
MARGIN = 8


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
  pixels = tf.image.resize(window, [view.size] * 2, views.METHODS[view.crop])
  pixels = tf.cast(pixels, tf.uint8)
  # Far faster than pixels[:, ::-1]: reversal of RGB is a case of its own.
  return tf.cond(flip, lambda: tf.reverse(pixels, [1]), lambda: pixels)


def decode(encoded):
  """Any JPEG, PNG, GIF or BMP, of any colour space -> uint8 [h, w, 3].

  But for BMPs with a palette, whose indices TensorFlow takes for shades of grey.
  """
  image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
  return tf.ensure_shape(image, [None, None, 3])


def cut(image, frame):
  """The pixels inside a box."""
  top, left, height, width = tf.unstack(frame)
  return image[top:top + height, left:left + width]


def decode_window(encoded, frame):
  """cut(decode(encoded), frame), bit for bit, of a JPEG, in less time."""
  top, left, height, width = tf.unstack(frame)
  start = tf.maximum(left - MARGIN, 0)
  end = tf.minimum(left + width + MARGIN,
                   tf.image.extract_jpeg_shape(encoded)[1])
  pixels = tf.image.decode_and_crop_jpeg(
      encoded, tf.stack([top, start, height, end - start]), channels=3)
  return pixels[:, left - start:left - start + width]


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


def render(image, shown, seed, epoch, index, fraction=views.FRACTION):
  """Every view of an image: {str(view): uint8 [size, size, 3]}.

  `image` is encoded (a string) or uint8 [h, w, 3]. It is decoded once, and
  only inside the box where a single region of a JPEG is asked for.
  """
  regions = sorted({view.region for view in shown}, key=str)
  dice = {region: die(seed, epoch, index, region) for region in regions}

  if image.dtype == tf.string and len(regions) == 1:
    region, = regions

    def whole():
      pixels = decode(image)
      frame, flip = box(region, tf.shape(pixels), dice[region], fraction)
      return cut(pixels, frame), flip

    def window():
      shape = tf.image.extract_jpeg_shape(image)
      frame, flip = box(region, shape, dice[region], fraction)
      return decode_window(image, frame), flip

    windows = {region: tf.cond(is_whole_jpeg(image), window, whole)}
  else:
    pixels = decode(image) if image.dtype == tf.string else image
    windows = {}
    for region in regions:
      frame, flip = box(region, tf.shape(pixels), dice[region], fraction)
      windows[region] = cut(pixels, frame), flip

  return {str(view): resize(windows[view.region][0], view,
                            windows[view.region][1]) for view in shown}
