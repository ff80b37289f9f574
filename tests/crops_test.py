"""Boxes are functions of dice; pixels are functions of boxes."""

import io

import numpy as np
from PIL import Image
import pytest
import tensorflow as tf

from big_distill.input import crops
from big_distill.input import sources
from big_distill.views import View

SEED, EPOCH = 3, tf.constant(1, tf.int64)


@tf.function(reduce_retracing=True)
def _boxes(text, shape, dice):
  view = View.parse(text)
  return tf.map_fn(lambda die: crops.box(view, shape, die), dice,
                   fn_output_signature=(tf.int32, tf.bool))


def boxes(text, shape=(100, 150, 3), n=2000):
  """Boxes [n, 4] and flips [n] of a view, over n dice."""
  dice = np.stack([np.arange(n), np.arange(n) * 7 + 1], 1).astype(np.int32)
  frames, flips = _boxes(text, tf.constant(shape), tf.constant(dice))
  return frames.numpy(), flips.numpy()


def photo(h=64, w=80, seed=0):
  return np.random.default_rng(seed).integers(0, 256, (h, w, 3), np.uint8)


def render(image, *texts, index=5, **options):
  shown = crops.render(tf.constant(image), [View.parse(t) for t in texts], SEED,
                       EPOCH, tf.constant(index, tf.int64), **options)
  return {name: pixels.numpy() for name, pixels in shown.items()}


def encode(image, **options):
  buffer = io.BytesIO()
  image.save(buffer, **options)
  return buffer.getvalue()


def test_same_draw_frames_same_region_and_flip_at_any_size():
  """A view at two sizes is each the resized window of one and the same box."""
  image = photo()
  for index in range(8):
    die = crops.die(SEED, EPOCH, tf.constant(index, tf.int64),
                    View('inception', 'both'))
    frame, flip = crops.box(View('inception', 'both'), tf.shape(image), die)
    top, left, h, w = frame.numpy()
    window = tf.constant(image[top:top + h, left:left + w])
    got = render(image, 'inception#both@9', 'inception#both@23', index=index)
    for size in (9, 23):
      want = crops.resize(window, View('inception', 'both', size), flip)
      assert (got[f'inception#both@{size}'] == want.numpy()).all()


def test_another_draw_epoch_or_example_is_another_region():
  def die(epoch, index, draw):
    return tuple(crops.die(SEED, tf.constant(epoch, tf.int64), tf.constant(
        index, tf.int64), View('inception', draw)).numpy())
  dice = {die(epoch, index, draw) for epoch in (0, 1, 2**33)
          for index in (0, 1) for draw in ('student', 'teacher')}
  assert len(dice) == 12


def test_regions_of_two_draws_know_nothing_of_each_other():
  n = 600
  frames, flips = [], []
  for draw in ('student', 'teacher'):
    view = View('inception', draw)
    die = tf.function(lambda i: crops.die(SEED, EPOCH, i, view))
    dice = [die(i).numpy() for i in tf.range(n, dtype=tf.int64)]
    each = _boxes(str(view), tf.constant([100, 110, 3]),
                  tf.constant(dice, tf.int64))
    frames.append(each[0].numpy()), flips.append(each[1].numpy())
  assert abs((flips[0] == flips[1]).mean() - .5) < 4 * .5 / n**.5
  for side in range(4):  # Top, left, height, width.
    correlation = np.corrcoef(frames[0][:, side], frames[1][:, side])[0, 1]
    assert abs(correlation) < 4 / n**.5


def test_inception_boxes_have_the_papers_areas_and_aspects():
  frames, flips = boxes('inception#both', (100, 110, 3))
  top, left, h, w = frames.T
  assert (top >= 0).all() and (left >= 0).all()
  assert (top + h <= 100).all() and (left + w <= 110).all()
  area, aspect = h * w / 11000, w / h
  assert area.min() > .045 and area.max() <= 1  # Sides are whole pixels.
  assert area.min() < .08 and area.max() > .9
  assert aspect.min() > .72 and aspect.max() < 1.4
  # Flips are a fair coin that does not know the box: 4 sigma of 2000 tosses.
  assert abs(flips.mean() - .5) < 4 * .5 / 2000**.5
  for side in frames.T:
    assert abs(np.corrcoef(flips, side)[0, 1]) < 4 / 2000**.5


def test_random_boxes_are_uniform_over_all_places_in_the_image():
  frames, flips = boxes('random#both', (16, 20, 3))
  top, left, h, w = frames.T
  assert set(zip(h, w)) == {(14, 14)}
  assert set(top) == set(range(3)) and set(left) == set(range(7))
  counts = np.bincount(top * 7 + left, minlength=21)
  chi2 = ((counts - 2000 / 21)**2 / (2000 / 21)).sum()
  assert chi2 < 20 + 4 * 40**.5  # 20 degrees of freedom, 4 sigma.
  assert abs(flips.mean() - .5) < 4 * .5 / 2000**.5


@pytest.mark.parametrize('shape', [(100, 150), (151, 100), (33, 33)])
def test_fixed_boxes_are_the_centre_and_the_whole(shape):
  for fraction in (224 / 256, .8, 1.):
    frame, flip = crops.box(View('central'), tf.constant([*shape, 3]), None,
                            fraction)
    side = int(round(min(shape) * fraction))
    assert frame.numpy().tolist() == [(shape[0] - side) // 2,
                                      (shape[1] - side) // 2, side, side]
    assert not flip
  frame, _ = crops.box(View('squash'), tf.constant([*shape, 3]), None)
  assert frame.numpy().tolist() == [0, 0, *shape]


@pytest.mark.parametrize('shape', [(1, 1), (1, 500), (3, 2)])
def test_degenerate_images_still_make_views(shape):
  texts = [f'{view}@8' for view in ('squash', 'central', 'random#a',
                                    'inception#a')]
  got = render(photo(*shape), *texts)
  assert all(got[text].shape == (8, 8, 3) for text in texts)


def bilinear(image, size):
  """Half-pixel centres, no antialiasing, float64."""
  def axis(n):
    x = np.clip((np.arange(size) + .5) * n / size - .5, 0, n - 1)
    low = np.floor(x).astype(int)
    return low, np.minimum(low + 1, n - 1), x - low
  y0, y1, fy = axis(image.shape[0])
  x0, x1, fx = axis(image.shape[1])
  image, fy, fx = np.float64(image), fy[:, None, None], fx[None, :, None]
  rows = image[y0] * (1 - fy) + image[y1] * fy
  return rows[:, x0] * (1 - fx) + rows[:, x1] * fx


def test_pixels_of_inception_crops_are_bilinear_and_cut_to_whole_numbers():
  image = photo(30, 41)
  got = crops.resize(tf.constant(image), View('inception', 'a', 13), False)
  want = bilinear(image, 13)
  exact = np.abs(want - np.round(want)) > 1e-3  # Else rounding may tip it.
  assert (got.numpy() == np.floor(want))[exact].all()


def test_bilinear_pixels_are_those_of_integers_resized():
  """They are resized as floats, which must not change them."""
  rng = np.random.default_rng(0)
  for _ in range(20):
    image, size = photo(*rng.integers(1, 200, 2)), int(rng.integers(1, 150))
    got = crops.resize(tf.constant(image), View('inception', 'a', size), False)
    want = tf.image.resize(image, [size, size])
    assert (got.numpy() == np.uint8(want)).all()


@pytest.mark.parametrize('size', [7, 11, 40])
def test_pixels_of_whole_images_are_means_of_areas(size):
  """Each pixel weighs by how much of it lies under the new one."""
  image = photo(28, 35)
  def axis(n):
    old, new = np.arange(n + 1), np.linspace(0, n, size + 1)
    low = np.maximum(old[None, :-1], new[:-1, None])
    high = np.minimum(old[None, 1:], new[1:, None])
    return np.maximum(high - low, 0) * size / n
  want = np.einsum('yh,xw,hwc->yxc', axis(28), axis(35), np.float64(image))
  got = render(image, f'squash@{size}')[f'squash@{size}']
  exact = np.abs(want - np.round(want)) > 1e-3  # Else rounding may tip it.
  assert exact.mean() > .5 and (got == np.floor(want))[exact].all()
  assert (np.abs(got - want) < 1.01).all()


def test_encoded_and_decoded_images_render_alike():
  """In a window or whole: the photographs, bit for bit."""
  source = sources.load('caltech12', 'test[:12]', cache='none')
  views = ('inception#both@48', 'central@32')
  for index in range(12):
    encoded, _ = source.fetch(tf.constant(index, tf.int64))
    decoded = crops.decode(encoded)
    both = render(encoded.numpy(), *views, index=index)
    for view in views:
      alone = render(encoded.numpy(), view, index=index)[view]
      pixels = render(decoded.numpy(), view, index=index)[view]
      assert (both[view] == pixels).all() and (alone == pixels).all()


def test_two_regions_of_a_jpeg_are_those_of_its_pixels():
  """They are cut out of one window, which is mostly not the whole."""
  image = photo()
  encoded = encode(Image.fromarray(image), format='JPEG')
  decoded = crops.decode(encoded).numpy()
  views = ('inception#student@9', 'inception#teacher@7', 'random#a@8')
  for index in range(8):
    got, want = (render(each, *views, index=index)
                 for each in (encoded, decoded))
    assert all((got[view] == want[view]).all() for view in views)


@tf.function(reduce_retracing=True)
def _windows(encoded, frames):
  """Are all windows equal to what is cut out of the whole?"""
  def equal(frame):
    window = crops.decode_window(encoded, frame)
    want = crops.cut(crops.decode(encoded), frame)
    return tf.reduce_all(tf.shape(window) == tf.shape(want)) and tf.reduce_all(
        window == want)
  return tf.map_fn(equal, frames, fn_output_signature=tf.bool)


@pytest.mark.parametrize('mode', ['RGB', 'L', 'CMYK'])
@pytest.mark.parametrize('progressive', [False, True])
@pytest.mark.parametrize('subsampling', ['4:4:4', '4:2:2', '4:2:0', '4:1:1'])
def test_a_window_of_a_jpeg_has_the_pixels_of_the_whole(mode, progressive,
                                                        subsampling):
  for shape in ((61, 83), (40, 17), (5, 7), (1, 50), (50, 1), (1, 1)):
    rng = np.random.default_rng(0)
    channels = {'L': (), 'RGB': (3,), 'CMYK': (4,)}[mode]
    pixels = rng.integers(0, 256, (*shape, *channels), np.uint8)
    image = (Image.fromarray(pixels) if mode != 'CMYK' else
             Image.frombytes(mode, shape[::-1], pixels.tobytes()))
    encoded = encode(image, format='JPEG', progressive=progressive,
                     subsampling=subsampling)
    sides = rng.integers(1, np.add(shape, 1), (40, 2))
    sides[:15, 1] = np.minimum(sides[:15, 1], rng.integers(1, 6, 15))
    corners = rng.integers(0, np.add(shape, 1) - sides)
    frames = np.concatenate([corners, sides], 1).astype(np.int32)
    assert _windows(tf.constant(encoded), tf.constant(frames)).numpy().all()


def test_a_jpeg_cut_short_is_an_error_wherever_the_box_lies():
  encoded = encode(Image.fromarray(photo()), format='JPEG', quality=90)
  assert len(encoded) > 4000
  for length in (0, 1, 300, len(encoded) // 2, len(encoded) - 2):
    for index in range(4):
      with pytest.raises(tf.errors.InvalidArgumentError):
        render(encoded[:length], 'inception#a@8', index=index)


def test_bytes_after_the_end_of_a_jpeg_are_ignored():
  encoded = encode(Image.fromarray(photo()), format='JPEG')
  for view in ('inception#a@9', 'squash@9'):
    got, want = render(encoded + b'more', view), render(encoded, view)
    assert (got[view] == want[view]).all()


@pytest.mark.parametrize('mode, form', [
    ('L', 'JPEG'), ('CMYK', 'JPEG'), ('RGB', 'JPEG'), ('L', 'PNG'),
    ('RGBA', 'PNG'), ('P', 'PNG'), ('I;16', 'PNG'), ('LA', 'PNG'), ('P', 'GIF'),
    ('RGB', 'BMP')])
def test_images_of_any_kind_become_rgb(mode, form):
  """A flat image keeps its colour, whether decoded whole or in a window."""
  grey = mode in ('L', 'LA', 'I;16')
  colour = (120, 120, 120) if grey else (200, 120, 40)
  if mode == 'I;16':
    image = Image.fromarray(np.full((20, 24), 120 * 257, np.uint16))
  else:
    image = Image.new('RGB', (24, 20), colour)
    image = image.quantize(4) if mode == 'P' else image.convert(mode)
  encoded = encode(image, format=form)
  whole = crops.decode(encoded).numpy()
  assert whole.shape == (20, 24, 3) and whole.dtype == np.uint8
  window = render(encoded, 'inception#a@6')['inception#a@6']
  for pixels in (whole, window):
    assert np.abs(pixels.astype(int) - colour).max() <= 4


@pytest.mark.parametrize('options', [
    dict(format='PNG'), dict(format='BMP'), dict(format='GIF'),
    dict(format='JPEG', progressive=True)])
def test_images_of_any_kind_are_cropped_alike(options):
  encoded = encode(Image.fromarray(photo()), **options)
  decoded = crops.decode(encoded).numpy()
  lossless = options['format'] in ('PNG', 'BMP')
  assert not lossless or (decoded == photo()).all()
  for view in ('inception#a@9', 'random#a@9', 'central@9', 'squash@9'):
    assert (render(encoded, view)[view] == render(decoded, view)[view]).all()


@pytest.mark.parametrize('ratio', [2, 4, 8])
@pytest.mark.parametrize('subsampling', ['4:4:4', '4:2:2', '4:2:0'])
def test_a_reduced_window_has_the_pixels_of_the_reduced_whole(subsampling,
                                                              ratio):
  encoded = tf.constant(encode(Image.fromarray(photo(83, 101)), format='JPEG',
                               subsampling=subsampling))
  whole = tf.io.decode_jpeg(encoded, channels=3, ratio=ratio)
  shape = whole.shape[:2]
  assert shape == (-(-83 // ratio), -(-101 // ratio))
  rng = np.random.default_rng(0)
  for _ in range(10):
    sides = rng.integers(1, np.add(shape, 1))
    frame = tf.constant([*rng.integers(0, shape - sides + 1), *sides], tf.int32)
    window = crops.decode_window(encoded, frame, ratio)
    assert (window == crops.cut(whole, frame)).numpy().all()


@pytest.mark.parametrize('ratio', [2, 4, 8])
def test_reduced_pixels_lie_where_the_pixels_lie_that_they_stand_for(ratio):
  """A slope as steep as can be: an offset of a pixel would be a level each."""
  y, x = np.mgrid[:203, :245]
  image = np.stack([y, x, 255 - x], -1).astype(np.uint8)
  encoded = encode(Image.fromarray(image), format='JPEG', quality=100,
                   subsampling='4:4:4')
  shape = tf.constant(image.shape)
  for size, crop in ((24, 'inception'), (25, 'random')):
    view = View(crop, 'a', size)
    for index in range(8):
      die = crops.die(SEED, EPOCH, tf.constant(index, tf.int64), view)
      frame, flip = crops.box(view, shape, die)
      small = crops.shrink(frame, shape, ratio)
      moved = (small * ratio).numpy()
      want = crops.resize(crops.cut(image, moved), view, flip)
      got = crops.resize(crops.decode_window(encoded, small, ratio), view, flip)
      error = np.abs(np.float32(got) - np.float32(want))
      # Past the outermost pixels' centres, bilinear values stay level.
      edge = ratio // 2 + 1
      inner = error[1:-1, 1:-1]
      assert error.max() <= edge and inner.max() <= 2 and inner.mean() < .7
      ends = [each[:2] + each[2:] for each in (frame.numpy(), moved)]
      shift = np.abs([frame.numpy()[:2] - moved[:2], ends[0] - ends[1]])
      assert (shift[0] <= ratio // 2).all() and (shift[1] < ratio).all()


def test_jpegs_are_reduced_as_far_as_their_views_allow(monkeypatch):
  encoded = encode(Image.fromarray(photo(128, 140)), format='JPEG')
  ratios, real = [], crops.decode_window

  def decode_window(encoded, frame, ratio):
    pixels = real(encoded, frame, ratio)
    tf.py_function(lambda: ratios.append(ratio), [], [])
    return pixels

  monkeypatch.setattr(crops, 'decode_window', decode_window)
  run = tf.function(lambda *texts: crops.render(
      tf.constant(encoded), [View.parse(text) for text in texts], SEED, EPOCH,
      tf.constant(0, tf.int64), 1., reduced=True))
  for texts, ratio in ((['squash@65'], 1), (['squash@64'], 2),
                       (['squash@33'], 2), (['squash@32'], 4),
                       (['squash@16'], 8), (['squash@8'], 8),
                       (['squash@16', 'squash@40'], 2),
                       (['central@16', 'squash@70'], 1)):
    ratios.clear()
    run(*texts)
    assert ratios == [ratio], texts


@pytest.mark.parametrize('view, mean', [
    ('inception#a@32', 11), ('random#a@32', 9)])
def test_reducing_photographs_changes_pixels_within_bounds(view, mean):
  """By the mean of all that are reduced; the rest stay as they are."""
  source = sources.load('caltech12', 'test[:60]', cache='none')
  region, size = View.parse(view).region, View.parse(view).size
  errors = []
  for index in range(60):
    encoded, _ = source.fetch(tf.constant(index, tf.int64))
    exact, near = (render(encoded.numpy(), view, index=index, reduced=reduced)
                   for reduced in (False, True))
    error = np.abs(np.float32(exact[view]) - near[view]).mean()
    die = crops.die(SEED, EPOCH, tf.constant(index, tf.int64), region)
    frame, _ = crops.box(region, tf.image.extract_jpeg_shape(encoded), die)
    if min(frame.numpy()[2:]) < 2 * size:
      assert error == 0
    else:
      errors.append(error)
  assert len(errors) > 10 and 1 < np.mean(errors) < mean


@pytest.mark.parametrize('ratio', [2, 4, 8])
def test_a_reduced_photograph_consists_about_of_means_of_squares(ratio):
  """The bundled ones are small and sharp; larger ones do within 1 level."""
  errors = []
  source = sources.load('caltech12', 'test[:12]', cache='none')
  for index in range(12):
    encoded, _ = source.fetch(tf.constant(index, tf.int64))
    pixels = crops.decode(encoded).numpy()
    h, w = (side // ratio for side in pixels.shape[:2])
    want = np.float32(pixels[:h * ratio, :w * ratio]).reshape(
        h, ratio, w, ratio, 3).mean(axis=(1, 3))
    got = crops.decode_window(encoded, tf.constant([0, 0, h, w]), ratio).numpy()
    errors.append(np.abs(got - want).mean())
  assert np.mean(errors) < 2.5
