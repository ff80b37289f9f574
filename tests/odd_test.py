"""Odd images and odd layouts: each is read as a viewer shows it, or one line."""

import io
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
from PIL import Image
from PIL import ImageCms
import pytest
import tensorflow as tf

from big_distill import exams
from big_distill.input import reading
from big_distill.input import sources

# Red grows downwards, green to the right.
PIXELS = np.stack(np.broadcast_arrays(
    np.arange(40)[:, None] * 6, np.arange(60) * 4, 128), -1).astype(np.uint8)
IMAGE = Image.fromarray(PIXELS)


def encode(image=IMAGE, kind='PNG', **options):
  buffer = io.BytesIO()
  image.save(buffer, kind, **options)
  return buffer.getvalue()


def chunk(kind, content):
  return (struct.pack('>I', len(content)) + kind + content
          + struct.pack('>I', zlib.crc32(kind + content)))


def png(width, height, rows, interlaced=0):
  return (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack(
      '>IIBBBBB', width, height, 8, 2, 0, 0, interlaced))
          + chunk(b'IDAT', zlib.compress(rows)) + chunk(b'IEND', b''))


def interlaced():
  """PIXELS in the seven passes of Adam7, which Pillow does not write."""
  passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4),
            (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
  return png(60, 40, b''.join(
      b'\0' + row.tobytes() for x, y, dx, dy in passes
      for row in PIXELS[y::dy, x::dx] if len(row)), 1)


def exif(orientation, text=''):
  found = Image.Exif()
  found[0x0112], found[0x010E] = orientation, text
  return found


GREY = PIXELS[..., 0]
WHITE = np.full_like(PIXELS, 255)
SRGB = ImageCms.createProfile('sRGB')
UPRIGHT = np.rot90(PIXELS, -1)  # Of orientation 6.
# Name: content, the pixels it shows, how far a lossy code may be on average.
READ = {
    'interlaced.png': (interlaced(), PIXELS, 0),
    '16 bits.png': (encode(Image.fromarray(GREY.astype(np.uint16) << 8)),
                    np.repeat(GREY[..., None], 3, 2), 0),
    'grey and alpha.png': (encode(Image.merge('LA', [
        Image.fromarray(GREY), Image.new('L', (60, 40), 0)])), WHITE, 0),
    'one pixel.png': (encode(IMAGE.crop((0, 0, 1, 1))), PIXELS[:1, :1], 0),
    'very long.png': (encode(Image.new('RGB', (20_000, 1), 'red')),
                      np.full((1, 20_000, 3), (255, 0, 0)), 0),
    'damaged profile.png': (encode(icc_profile=b'x' * 1000), PIXELS, 0),
    'animated.png': (encode(save_all=True, append_images=[IMAGE.rotate(180)]),
                     PIXELS, 0),
    'animated.webp': (encode(kind='WEBP', lossless=True, save_all=True,
                             append_images=[IMAGE.rotate(180)]), PIXELS, 0),
    'pages.tif': (encode(kind='TIFF', save_all=True,
                         append_images=[IMAGE.rotate(180)]), PIXELS, 0),
    'icon.ico': (encode(IMAGE.resize((32, 32), 0), 'ICO'),
                 np.asarray(IMAGE.resize((32, 32), 0)), 0),
    'a png in truth.jpg': (encode(), PIXELS, 0),
    'progressive.jpg': (encode(kind='JPEG', quality=95, progressive=True),
                        PIXELS, 4),
    'profile.jpg': (encode(kind='JPEG', quality=95, icc_profile=(
        ImageCms.ImageCmsProfile(SRGB).tobytes())), PIXELS, 4),
    'cmyk.jpg': (encode(IMAGE.convert('CMYK'), 'JPEG', quality=95), PIXELS, 4),
    'bytes at its end.jpg': (encode(kind='JPEG', quality=95) + b'x' * 5000,
                             PIXELS, 4),
    'a phone and a novel.jpg': (encode(kind='JPEG', quality=95,
                                       exif=exif(6, 'x' * 60_000)), UPRIGHT, 4),
    'no such orientation.jpg': (encode(kind='JPEG', quality=95, exif=exif(77)),
                                PIXELS, 4),
    'very tall.jpg': (encode(Image.new('RGB', (1, 20_000), 'red'), 'JPEG'),
                      np.full((20_000, 1, 3), (254, 0, 0)), 0),
    'a jpg in truth.png': (encode(kind='JPEG', quality=95), PIXELS, 4)}
REFUSED = {  # Name: content, what its line says.
    'no bytes.jpg': (b'', "begins with b''"),
    'cut.jpg': (encode(kind='JPEG')[:-400], 'Invalid JPEG data'),
    'cut.png': (encode()[:-60], 'truncated'),
    'page not found.jpg': (b'<html>404', "begins with b'<html>404'"),
    'drawing.png': (b'<svg xmlns="x"/>', 'of no known format'),
    'bomb.png': (png(60_000, 60_000, b'\0'), 'exceeds limit'),
    'large and cut.png': (png(12_000, 12_000, b'\0'), 'truncated'),
    'floats.tif': (encode(Image.fromarray(GREY.astype(np.float32)), 'TIFF'),
                   'black and white are not known')}


def write(root, **contents):
  """Files by their paths; what is None is a folder."""
  for name, content in contents.items():
    path = root / name
    if content is None:
      path.mkdir(parents=True)
      continue
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
  return root


@pytest.mark.parametrize('name', READ)
def test_odd_images_are_shown_as_they_are(name, tmp_path):
  content, want, off = READ[name]
  source = sources.load(f'folder:{write(tmp_path, **{name: content})}',
                        cache='none')
  got = reading.pixels(source, source.fetch(tf.constant(0, tf.int64))[0]).numpy()
  assert got.shape == want.shape and got.dtype == np.uint8
  # Turned, or of other colours, a JPEG would be off by 40 and more.
  assert np.abs(got.astype(float) - want).mean() <= off


@pytest.mark.parametrize('name', REFUSED)
def test_what_is_no_image_is_refused_in_a_line(name, tmp_path):
  content, says = REFUSED[name]
  write(tmp_path, **{name: content, 'good.png': encode()})
  source = sources.load(f'folder:{tmp_path}', cache='none')
  where = next(i for i in range(2) if source.name(i).endswith(name))
  error = reading.blame(source, [where], None)
  assert says in str(error) and name in str(error) and '\n' not in str(error)
  left = sources.load(f'folder:{tmp_path}', cache='none', corrupt='skip')
  assert left.num_examples == 1 and left.name(0).endswith('good.png')


def test_large_images_are_decoded_without_a_warning(tmp_path):
  write(tmp_path, **{'x.png': REFUSED['large and cut.png'][0]})
  ran = subprocess.run([sys.executable, '-c', (
      'from big_distill import photographs\n'
      'try:\n'
      f'  photographs.read({str(tmp_path / "x.png")!r})\n'
      'except ValueError as error:\n'
      '  print(error)')], check=True, text=True, capture_output=True)
  assert 'truncated' in ran.stdout and not ran.stderr


JPEG = encode(kind='JPEG')
LAYOUTS = {  # Paths below a folder -> classes, images.
    'nested': (['animals/cat/1.jpg', 'animals/dog/2.jpg', 'cars/3.jpg'],
               ('animals', 'cars'), 3),
    'names': (['a cat/1 (1).jpg', 'ünï/2.jpg', '日本/3.JPG', '😀/4.jpeg'],
              ('a cat', 'ünï', '日本', '😀'), 4),
    'one class': (['only/1.jpg', 'only/2.jpg'], ('only',), 2),
    'one image': (['1.jpg'], (), 1),
    'hidden': (['a/1.jpg', 'b/2.jpg', '.git/3.jpg', 'a/.4.jpg', 'a/._1.jpg'],
               ('a', 'b'), 2),
    'same names': (['a/1.jpg', 'b/1.jpg', 'c/1.jpg'], ('a', 'b', 'c'), 3),
    'files beside folders': (['a/1.jpg', 'b/2.jpg', '3.jpg'], (), 3),
    'unpacked on a Mac': (['top/a/1.jpg', 'top/b/2.jpg', '__MACOSX/top/a/._1.jpg',
                           'top/a/Thumbs.db', 'top/desktop.ini'], ('a', 'b'), 2),
    'annotations': (['a/1.jpg', 'a/1.xml', 'b/2.jpg', 'classes.txt'],
                    ('a', 'b'), 2),
    'a folder called as an image': (['a/1.jpg', 'b/x.jpg/2.jpg'], ('a', 'b'), 2),
    'a line in a name': (['a\nb/1.jpg', 'c/2.jpg'], ('a\nb', 'c'), 2),
    'no endings': (['a/1', 'b/2'], ('a', 'b'), 2),
    'far down': (['data/raw/v1/images/a/1.jpg', 'data/raw/v1/images/b/2.jpg'],
                 ('a', 'b'), 2)}


@pytest.mark.parametrize('name', LAYOUTS)
def test_odd_layouts_have_the_classes_one_expects(name, tmp_path):
  paths, classes, count = LAYOUTS[name]
  source = sources.load(f'folder:{write(tmp_path, **dict.fromkeys(paths, JPEG))}',
                        cache='none')
  assert (source.classes, source.num_examples) == (classes, count)
  assert source.splits == ('train',)


def test_loops_of_links_are_entered_once(tmp_path):
  write(tmp_path, **{'a/1.jpg': JPEG, 'b/2.jpg': JPEG, 'empty': None})
  os.symlink('..', tmp_path / 'a/up')
  os.symlink(tmp_path / 'a', tmp_path / 'again')
  source = sources.load(f'folder:{tmp_path}', cache='none')
  assert (source.num_examples, source.classes) == (2, ('a', 'b'))


LISTS = {  # A list -> classes.
    'a mark and ends of lines of Windows': (
        '\ufefffile,label\r\ni/1.jpg,a\r\ni/2.jpg,b\r\n'.encode(), ('a', 'b')),
    'no titles': (b'i/1.jpg,a\ni/2.jpg,b\n', ('a', 'b')),
    'backslashes': (b'path,class\ni\\1.jpg,a\ni\\2.jpg,b\n', ('a', 'b')),
    'semicolons and quotes': (b'path;label\n"i/1.jpg";"a, b"\n"i/2.jpg";c\n',
                              ('a, b', 'c')),
    'UTF-16': ('path\tlabel\ni/1.jpg\té\ni/2.jpg\tb\n'.encode('utf-16'),
               ('b', 'é')),
    'Latin-1': ('path,label\ni/1.jpg,é\ni/2.jpg,b\n'.encode('latin1'),
                ('\\xe9', 'b')),
    'blank lines': (b'\npath,label\n\ni/1.jpg,a\n  \ni/2.jpg,b\n\n', ('a', 'b')),
    'roundabout paths': (b'path,label\n./i/1.jpg,a\ni/../i/2.jpg,b\n',
                         ('a', 'b'))}


@pytest.mark.parametrize('name', LISTS)
def test_odd_lists_are_read(name, tmp_path):
  content, classes = LISTS[name]
  write(tmp_path, **{'list.csv': content, 'i/1.jpg': JPEG, 'i/2.jpg': JPEG})
  source = sources.load(f'folder:{tmp_path}/list.csv', cache='none')
  assert (source.classes, source.num_examples) == (classes, 2)
  assert all(name.encode() for name in source.classes)  # They can be written.


@pytest.mark.parametrize('content, says', [
    (b'', 'is empty: write a line for each image'),
    (b'\n\n', 'is empty: write a line for each image'),
    (b'path,label\n', 'has titles (path, label) and no images'),
    (b'id,label\n1,a\n', 'has 0 columns of paths of images'),
    (b'path,label\nhttp://x/1.jpg,a\n', 'such as http://x/1.jpg'),
    (b'path,label\ni/1.jpg,a\n\x00,b\n', '1 of 2 files that do not exist')])
def test_a_list_that_lists_nothing_is_one_line(content, says, tmp_path):
  write(tmp_path, **{'list.csv': content, 'i/1.jpg': JPEG})
  with pytest.raises(ValueError) as error:
    sources.load(f'folder:{tmp_path}/list.csv', cache='none')
  assert says in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize('split, yes', [
    ('test', True), ('Test[:50]', True), ('train+testing', True),
    ('all', True), ('train', False), ('validation', False), ('latest', False),
    ('allotted', False)])
def test_a_test_split_is_known_by_its_name(split, yes):
  assert exams.is_test(split) == yes
