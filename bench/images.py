"""Our input beside the pipeline that a tutorial would write, in one run.

  python -m bench.images --csv=bench/images.csv

Both draw inception crops from JPEGs in memory, resize and flip them, and make
batches: the plain one of float32, decoding every JPEG whole; ours of uint8, as
training does, from JPEGs (without and with crops.reduced) and from the decoded
cache. Given are examples per second of CPU time, all threads together: what a
core delivers, however many there are and whatever else they do.

The JPEGs are mosaics of the bundled photographs, about as large as ImageNet's
are on average, in pixels and in bytes; or those of --data, as they are.
"""

import functools
import os
import statistics
import tempfile
import time

from absl import flags
import numpy as np
from PIL import Image
import tensorflow as tf

from big_distill import command
from big_distill.input import crops
from big_distill.input import pipeline
from big_distill.tools import stopwatch
from big_distill.views import View

# Tiles of 96 px: 384 x 480. At this quality they have half a byte per pixel.
ROWS, COLUMNS, TILE, QUALITY = 4, 5, 96, 95


def cases(size):
  """{what is shown of an example: [(region, size of its view)]}."""
  other = size * 5 // 4
  return {f'{size} px': [('a', size)],
          f'{size} and {other} px of one region': [('a', size), ('a', other)],
          f'{size} px of two regions': [('a', size), ('b', size)]}


def plain(encoded, shown, batch):
  """Batches without end, as one would write it first."""
  def crop(image):
    begin, size, _ = tf.image.sample_distorted_bounding_box(
        tf.shape(image), tf.zeros([1, 0, 4]), min_object_covered=0,
        area_range=crops.INCEPTION_AREA,
        aspect_ratio_range=crops.INCEPTION_ASPECT,
        use_image_if_no_bounding_boxes=True)
    return tf.image.random_flip_left_right(tf.slice(image, begin, size))

  def render(encoded):
    image = tf.io.decode_jpeg(encoded, channels=3)
    windows = {region: crop(image) for region, _ in shown}
    return [tf.image.resize(windows[region], [size, size])
            for region, size in shown]

  dataset = tf.data.Dataset.from_tensor_slices(encoded)
  dataset = dataset.shuffle(len(encoded)).repeat()
  dataset = dataset.map(render, tf.data.AUTOTUNE).batch(batch)
  return dataset.prefetch(tf.data.AUTOTUNE).as_numpy_iterator()


def ours(source, shown, batch, **options):
  """As `plain`, by the pipeline of training."""
  shown = [View('inception', region, size) for region, size in shown]
  return pipeline.train_batches(source, shown, batch, 0, 0, 10**6, **options)


def contenders(name, data_dir=None):
  """{name: (shown, batch) -> batches}, all of the same images."""
  load = functools.partial(pipeline.load, name, data_dir=data_dir)
  source = load()
  encoded = [source.fetch(tf.constant(i, tf.int64))[0].numpy()
             for i in range(source.num_examples)]
  return {'plain': functools.partial(plain, encoded),
          'JPEG': functools.partial(ours, source),
          'JPEG, reduced': functools.partial(ours, source, reduced=True),
          'decoded cache': functools.partial(ours, load(cache='decoded'))}


def seconds(batches, steps):
  """CPU seconds per batch, of so many after the first.

  They are waited for one by one, so hardly any work is done ahead of need.
  """
  next(batches)
  began = time.process_time()
  for _ in range(steps):
    next(batches)
  return (time.process_time() - began) / steps


def measure(makers, sizes, batch, steps, repeats):
  """Rows: what, of which code, examples per second, times plain's rate."""
  rows = []
  for what, shown in {what: shown for size in sizes
                      for what, shown in cases(size).items()}.items():
    times = {code: [] for code in makers}
    for _ in range(repeats):
      for code, make in makers.items():
        times[code].append(seconds(make(shown, batch), steps))
    median = {code: statistics.median(times[code]) for code in makers}
    rows += [{'views': what, 'code': code, 'batch': batch,
              'images_per_s': round(batch / median[code], 1),
              'times_plain': round(median['plain'] / median[code], 2)}
             for code in makers]
  return rows


def mosaics(folder, count=128):
  """Writes JPEGs into a folder."""
  source = pipeline.load('caltech12', 'train', cache='none')
  rng = np.random.default_rng(0)

  def tile():
    image, _ = source.fetch(tf.constant(rng.integers(source.num_examples)))
    pixels = crops.decode(image).numpy()
    y, x = (side - TILE for side in pixels.shape[:2])
    return pixels[y // 2:y // 2 + TILE, x // 2:x // 2 + TILE]

  for i in range(count):
    pixels = np.concatenate([np.concatenate(
        [tile() for _ in range(COLUMNS)], axis=1) for _ in range(ROWS)])
    Image.fromarray(pixels).save(os.path.join(folder, f'{i:03}.jpg'),
                                 quality=QUALITY)


def main(flag):
  with tempfile.TemporaryDirectory() as folder:
    if not flag.data:
      mosaics(folder)
    makers = contenders(flag.data or f'folder:{folder}', flag.data_dir)
    rows = measure(makers, (128, 224), flag.batch, flag.steps, flag.repeats)
  for row in rows:
    print(f'{row["views"]:36}{row["code"]:16}{row["images_per_s"]:9,.0f} '
          f'images/s{row["times_plain"]:7.2f}')
  if flag.csv:
    what = flag.data or f'mosaics of {ROWS * TILE} x {COLUMNS * TILE} px'
    stopwatch.save(flag.csv, rows, {'data': what, 'tensorflow': tf.__version__,
                                **stopwatch.machine()})


def _define_flags():
  flags.DEFINE_string('data', None, 'A dataset of JPEGs, in place of mosaics.')
  flags.DEFINE_string('data_dir', None, 'Where TFDS has prepared it.')
  flags.DEFINE_integer('batch', 64, 'Examples.', 1)
  flags.DEFINE_integer('steps', 12, 'Batches per round.', 1)
  flags.DEFINE_integer('repeats', 7, 'Rounds.', 1)
  flags.DEFINE_string('csv', None, 'File to write the rows to.')


if __name__ == '__main__':
  command.program(main, _define_flags)
