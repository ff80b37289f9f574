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


def render(image, *texts, index=5):
  shown = crops.render(tf.constant(image), [View.parse(t) for t in texts], SEED,
                       EPOCH, tf.constant(index, tf.int64))
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
  assert abs(np.corrcoef(flips, left)[0, 1]) < 4 / 2000**.5


def test_random_boxes_reach_every_corner_and_no_further():
  frames, flips = boxes('random#both', (16, 20, 3))
  top, left, h, w = frames.T
  assert set(zip(h, w)) == {(14, 14)}
  assert set(top) == set(range(3)) and set(left) == set(range(7))
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


def test_pixels_of_central_crops_are_means_of_areas():
  image = photo(32, 32)
  got = render(image, 'central@7')['central@7']  # A box of 28 in blocks of 4.
  want = np.float64(image[2:30, 2:30]).reshape(7, 4, 7, 4, 3).mean((1, 3))
  assert (got == np.floor(want)).all()


def test_a_window_of_a_jpeg_has_the_pixels_of_the_whole():
  """Encoded images, windowed or whole, and decoded ones render alike."""
  source = sources.load('caltech12', 'test[:12]', cache='none')
  views = ('inception#both@48', 'central@32')
  for index in range(12):
    encoded, _ = source.fetch(tf.constant(index, tf.int64))
    decoded = crops.decode(encoded)
    both = render(encoded.numpy(), *views, index=index)
    for view in views:
      alone = render(encoded.numpy(), view, index=index)[view]
      pixels = render(decoded.numpy(), view, index=index)[view]
      assert (both[view] == pixels).all()
      # libjpeg interpolates colour across the edge of a window it has not read.
      difference = np.abs(alone.astype(int) - pixels)
      assert difference.max() <= 16 and difference.mean() < .2


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


def test_progressive_jpegs_are_read():
  image = Image.fromarray(photo())
  encoded = encode(image, format='JPEG', progressive=True, quality=95)
  assert render(encoded, 'random#a@8')['random#a@8'].shape == (8, 8, 3)
