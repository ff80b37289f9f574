"""Images of any kind look as in a viewer, in every cache and every window."""

import io

import numpy as np
from PIL import Image
import pytest
import tensorflow as tf

from big_distill.input import caches
from big_distill.input import crops
from big_distill.input import images
from big_distill.input import pipeline
from big_distill.input import sources
from big_distill.views import View

TURNS = {  # How Pillow calls what each orientation of EXIF asks for.
    1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90}
VIEWS = [View.parse(text) for text in (
    'inception#a@9', 'random#b@7', 'central@8', 'squash@11')]


def photo(h=37, w=52, seed=0):
  return np.random.default_rng(seed).integers(0, 256, (h, w, 3), np.uint8)


def encode(image, form, orientation=None, **options):
  if orientation:
    options['exif'] = Image.Exif()
    options['exif'][images.ORIENTATION] = orientation
  buffer = io.BytesIO()
  image.save(buffer, form, **options)
  return buffer.getvalue()


def decode(encoded):
  return images.decode(tf.constant(encoded)).numpy()


def render(image, as_shown=True, **options):
  shown = crops.render(
      tf.constant(image), VIEWS, 0, tf.constant(0, tf.int64),
      tf.constant(3, tf.int64), as_shown=as_shown, **options)
  return {name: pixels.numpy() for name, pixels in shown.items()}


@pytest.mark.parametrize('form', ['JPEG', 'PNG', 'WebP', 'TIFF'])
@pytest.mark.parametrize('orientation', TURNS)
def test_images_are_turned_upright(form, orientation):
  lossless = {'lossless': True} if form == 'WebP' else {}
  encoded = encode(Image.fromarray(photo()), form, orientation, **lossless)
  stored = Image.fromarray(tf.io.decode_jpeg(encoded).numpy()
                           if form == 'JPEG' else photo())
  turn = TURNS[orientation]
  want = np.asarray(stored if turn is None else stored.transpose(turn))
  assert (decode(encoded) == want).all()


@pytest.mark.parametrize('orientation', TURNS)
@pytest.mark.parametrize('options', [
    dict(), dict(subsampling='4:2:0', progressive=True)])
def test_windows_of_turned_jpegs_have_the_pixels_of_the_whole(orientation,
                                                              options):
  encoded = encode(Image.fromarray(photo()), 'JPEG', orientation, **options)
  got, want = render(encoded), render(decode(encoded))
  assert all((got[view] == want[view]).all() for view in want)


@pytest.mark.parametrize('orientation, ends', [
    (1, 'left right'), (3, 'right left'), (6, 'top bottom'), (8, 'bottom top')])
def test_reduced_windows_are_turned_too(orientation, ends):
  """The left half of what is stored is red, the right half blue."""
  halves = np.zeros((160, 160, 3), np.uint8)
  halves[:, :80, 0], halves[:, 80:, 2] = 255, 255
  encoded = encode(Image.fromarray(halves), 'JPEG', orientation)
  pixels = render(encoded, reduced=True)['squash@11']
  edges = {'left': pixels[:, :4], 'right': pixels[:, -4:], 'top': pixels[:4],
           'bottom': pixels[-4:]}
  red, blue = (edges[end].mean((0, 1)) for end in ends.split())
  assert red[0] > 240 and red[2] < 15 and blue[2] > 240 and blue[0] < 15


@pytest.mark.parametrize('exif', [
    b'', b'Exif\0\0', b'Exif\0\0MM\0*\0\0\0\x08\xff\xff', b'Exif\0\0nonsense'])
def test_damaged_exif_is_no_reason_to_refuse_a_photograph(exif):
  encoded = encode(Image.fromarray(photo()), 'JPEG')
  segment = b'\xff\xe1' + (len(exif) + 2).to_bytes(2, 'big') + exif
  got = decode(encoded[:2] + segment + encoded[2:])
  assert (got == decode(encoded)).all()


def hidden(mode, form):
  """An image that is red at the left; behind transparency, green at the right."""
  pixels = np.zeros((8, 16, 4), np.uint8)
  pixels[:, :8] = 255, 0, 0, 255
  pixels[:, 8:] = 0, 255, 0, 0
  if mode == 'RGBA':
    pixels[:, 7] = 0, 0, 0, 128  # Half of black on white is grey.
    return encode(Image.fromarray(pixels), form, **(
        {'lossless': True, 'exact': True} if form == 'WebP' else {}))
  image = Image.fromarray(pixels[..., :3])
  if mode == 'P':
    image = image.quantize(4)
    return encode(image, form, transparency=image.getpixel((15, 0)))
  return encode(image, form, transparency=(0, 255, 0))


@pytest.mark.parametrize('mode, form', [
    ('RGBA', 'PNG'), ('RGBA', 'WebP'), ('RGBA', 'TIFF'), ('P', 'PNG'),
    ('P', 'GIF'), ('RGB', 'PNG')])
def test_what_is_transparent_is_white(mode, form):
  encoded = hidden(mode, form)
  pixels = decode(encoded)
  assert (pixels[:, :7] == (255, 0, 0)).all() and (pixels[:, 8:] == 255).all()
  if mode == 'RGBA':
    assert (np.abs(pixels[:, 7].astype(int) - 127) <= 1).all()
  got, want = render(encoded), render(pixels)
  assert all((got[view] == want[view]).all() for view in want)


def test_grey_with_alpha_is_on_white():
  image = Image.merge('LA', [Image.new('L', (6, 5), 40),
                             Image.new('L', (6, 5), 0)])
  assert (decode(encode(image, 'PNG')) == 255).all()


@pytest.mark.parametrize('form, options', [
    ('GIF', {}), ('WebP', {'lossless': True}), ('PNG', {})])
def test_the_first_frame_is_shown(form, options):
  frames = [Image.new('RGB', (9, 7), colour) for colour in ('red', 'lime', 'blue')]
  encoded = encode(frames[0], form, save_all=True, append_images=frames[1:],
                   **options)
  with Image.open(io.BytesIO(encoded)) as image:
    assert image.n_frames == 3
  assert (decode(encoded) == (255, 0, 0)).all()


@pytest.mark.parametrize('form, options, tolerance', [
    ('BMP', {}, 0), ('PNG', {}, 0), ('WebP', {'lossless': True}, 0),
    ('TIFF', {'compression': 'tiff_lzw'}, 0), ('PPM', {}, 0), ('TGA', {}, 0),
    ('JPEG2000', {}, 1), ('AVIF', {'quality': 100, 'subsampling': '4:4:4'}, 8)])
def test_formats_have_the_colours_that_were_written(form, options, tolerance):
  y, x = np.mgrid[:32, :48]
  image = np.stack([4 * y, 5 * x, 255 - 5 * x], -1).astype(np.uint8)
  error = np.abs(decode(encode(Image.fromarray(image), form, **options))
                 - image.astype(int))
  assert error.max() <= tolerance


@pytest.mark.parametrize('mode, form', [
    ('P', 'BMP'), ('1', 'BMP'), ('L', 'BMP'), ('1', 'PNG'), ('P', 'PNG'),
    ('P', 'TIFF'), ('CMYK', 'TIFF')])
def test_palettes_and_few_bits_have_their_colours(mode, form):
  image = Image.new('RGB', (20, 12), 'black')
  image.paste('white' if mode in '1L' else 'orange', (5, 3, 20, 12))
  want = np.asarray(image)
  image = image.quantize(4) if mode == 'P' else image.convert(mode)
  assert (decode(encode(image, form)) == want).all()


@pytest.mark.parametrize('form', ['PNG', 'TIFF'])
def test_sixteen_bits_are_halved_not_cut_off(form):
  grey = np.arange(0, 2**16, 512, dtype=np.uint16).reshape(8, 16)
  pixels = decode(encode(Image.fromarray(grey), form))
  assert (pixels == (grey // 256)[..., None]).all()


def test_pixels_without_a_known_white_are_refused():
  image = Image.fromarray(np.linspace(-3, 7, 12, dtype=np.float32).reshape(3, 4))
  with pytest.raises(Exception, match='black and white are not known'):
    decode(encode(image, 'TIFF'))


def test_cmyk_jpegs_have_tensorflows_colours():
  image = Image.fromarray(photo()).convert('CMYK')
  encoded = encode(image, 'JPEG')
  assert (decode(encoded) == tf.io.decode_image(encoded, 3).numpy()).all()


@pytest.fixture
def odd(tmp_path):
  """A folder of images of many kinds, some of which are called something else."""
  image = Image.fromarray(photo())
  files = {
      'a.jpg': encode(image, 'JPEG', 6), 'b.webp': hidden('RGBA', 'WebP'),
      'c.PNG': hidden('P', 'PNG'), 'd.gif': hidden('P', 'GIF'),
      'e.bmp': encode(image.quantize(9), 'BMP'), 'f.jpg': encode(image, 'PNG'),
      'g.png': encode(image, 'JPEG', 8, progressive=True),
      'h.jpeg': encode(image.convert('CMYK'), 'JPEG'),
      'i.tif': encode(image, 'TIFF', 3), 'j.avif': encode(image, 'AVIF')}
  for name, content in files.items():
    (tmp_path / name).write_bytes(content)
  return tmp_path


def test_odd_images_are_the_same_in_every_cache_and_on_devices(odd):
  def batches(source):
    return [*pipeline.train_batches(source, VIEWS, 5, 0, 0, 4),
            *pipeline.eval_batches(source, VIEWS, 5, 0)]
  loaded = {cache: sources.load(f'folder:{odd}', cache=cache)
            for cache in sources.CACHES}
  want = batches(loaded['none'])
  for source in loaded.values():
    tf.nest.map_structure(np.testing.assert_array_equal, batches(source), want)
  held, _ = caches.hold(loaded['none'])
  for i, (start, size) in enumerate(zip(held.starts, held.sizes)):
    pixels = decode(loaded['encoded'].fetch(i)[0].numpy())
    assert (held.pixels[start:start + pixels.size] == pixels.ravel()).all()
    assert (size == pixels.shape[:2]).all()


@pytest.mark.parametrize('name', ['b.webp', 'c.PNG', 'i.tif'])
def test_an_odd_image_that_is_damaged_is_named_or_skipped(odd, name):
  whole = (odd / name).read_bytes()
  (odd / name).write_bytes(whole[:len(whole) // 2])
  with pytest.raises(ValueError, match=f'{odd}/{name} cannot be decoded'):
    sources.load(f'folder:{odd}', cache='decoded')
  assert sources.load(f'folder:{odd}', corrupt='skip').num_examples == 9


@pytest.mark.parametrize('content, reason', [
    (b'<html>404</html>', "no known format and begins with b'<html>404</h'"),
    (b'', 'begins with'), (encode(Image.new('1', (20_000, 10_000)), 'PNG'), 'bomb')])
def test_what_is_no_image_says_what_it_is(odd, content, reason):
  (odd / 'c.PNG').write_bytes(content)
  with pytest.raises(ValueError, match=f'{odd}/c.PNG cannot be .*{reason}'):
    sources.load(f'folder:{odd}', cache='decoded')


def test_plain_photographs_look_alike_either_way():
  """Those bundled are JPEGs without EXIF."""
  shown, plain = ([*pipeline.eval_batches(
      sources.load('caltech12', 'test[:40]', cache='none', as_shown=as_shown),
      VIEWS, 20, 0)] for as_shown in (True, False))
  tf.nest.map_structure(np.testing.assert_array_equal, shown, plain)


def test_only_prepared_sets_are_decoded_as_tensorflow_does(odd):
  name = f'folder:{odd}'
  assert sources.load(name, cache='none').as_shown
  assert not sources.load('caltech12', cache='none').as_shown
  assert sources.load('caltech12', cache='none', as_shown=True).as_shown
  mixed = sources.load(parts={'a': {'name': name}, 'b': {'name': 'caltech12'}},
                       cache='none')
  assert mixed.as_shown
  with pytest.raises(ValueError, match='decoded alike: set data.as_shown'):
    sources.load(parts={'a': {'name': name}, 'b': {
        'name': 'caltech12', 'as_shown': False}}, cache='none')
