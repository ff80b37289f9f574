"""Where images come from: prepared TFDS datasets and folders of images.

A source answers `fetch(index)` inside a tf.data graph, in any order, so that
the pipeline can start anywhere. What it keeps in memory is its `cache`:
'encoded' bytes, 'decoded' pixels, or 'none', which reads each example from
disk when it is asked for.
"""

from collections.abc import Callable
import concurrent.futures
import hashlib
import os
import struct
from typing import NamedTuple

from absl import logging
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from big_distill import registry
from big_distill.input import crops

BUNDLED = os.path.join(os.path.dirname(os.path.dirname(__file__)), 'data')
CACHES = ('encoded', 'decoded', 'none')
ON_CORRUPT = ('stop', 'skip')
EXTENSIONS = ('.jpg', '.jpeg', '.png', '.gif', '.bmp')


class Source(NamedTuple):
  """A split of a dataset.

  fetch: int64 index -> (image, int32 label); the image is an encoded string or
    uint8 [h, w, 3], the label -1 where there is none.
  name: index -> what to call the example in a message.
  classes: names of the classes, empty where there are no labels.
  """
  title: str
  num_examples: int
  classes: tuple[str, ...]
  fetch: Callable
  name: Callable


def load(name, split='train', data_dir=None, cache='encoded', corrupt='stop'):
  """Opens `name` ('caltech12', 'folder:PATH') and keeps what `cache` says."""
  registry.check('cache', cache, CACHES)
  registry.check("answer to 'corrupt'", corrupt, ON_CORRUPT)
  if name.startswith('folder:'):
    source = _folder(name.removeprefix('folder:'), split)
  else:
    source = _tfds(name, split, data_dir)
  if not source.num_examples:
    raise ValueError(f'The split {source.title} is empty.')
  if corrupt == 'skip':
    source = _without_corrupt(source)
  return {'encoded': _keep_encoded, 'decoded': _keep_decoded,
          'none': lambda source: source}[cache](source)


# ------------------------------------------------------------- TFDS datasets


def _builder(name, data_dir):
  """A builder made from the files of a prepared dataset, without its code."""
  dirs = [data_dir, BUNDLED] if data_dir else [None, BUNDLED]
  for where in dirs:
    try:
      kwargs = {'data_dir': os.path.expanduser(where)} if where else {}
      return tfds.core.read_only_builder.builder_from_files(name, **kwargs)
    except tfds.core.DatasetNotFoundError:
      continue
  known = tfds.list_builders()
  base = name.split('/')[0].split(':')[0]
  registry.check('dataset', base, [*known, *os.listdir(BUNDLED)])
  where = data_dir or tfds.core.constants.DATA_DIR
  raise ValueError(f'{name} is not prepared in {where}. To prepare it: '
                   f'tfds build {name} --data_dir={where}')


def _tfds(name, split, data_dir):
  """Examples of TFRecord files, found by offset."""
  builder = _builder(name, data_dir)
  info = builder.info
  try:
    parts = info.splits[split].file_instructions
  except ValueError as error:
    raise ValueError(f'{name} has no split {split!r}; its splits are '
                     f'{", ".join(info.splits)}.') from error
  with concurrent.futures.ThreadPoolExecutor(16) as pool:
    spans = list(pool.map(lambda part: _spans(part.filename)[
        part.skip:part.skip + part.take], parts))
  files = [part.filename for part in parts]
  which = np.repeat(np.arange(len(files)), [len(span) for span in spans])
  where = np.concatenate([np.zeros([0, 2], np.int64), *spans])

  def read(index):
    start, length = where[index]
    path = files[which[index]]
    with tf.io.gfile.GFile(path, 'rb') as file:
      file.seek(int(start))
      return file.read(int(length))

  def fetch(index):
    record = tf.ensure_shape(tf.numpy_function(read, [index], tf.string), [])
    example = features.deserialize_example(
        record, decoders={'image': tfds.decode.SkipDecoding()})
    label = example['label'] if classes else -1
    return example['image'], tf.cast(label, tf.int32)

  features = info.features
  classes = tuple(features['label'].names) if 'label' in features else ()
  return Source(f'{info.full_name} {split}', len(where), classes, fetch,
                lambda i: f'{os.path.basename(files[which[i]])}, record at '
                          f'byte {where[i][0] - 12}')


def _spans(path):
  """Start and length of each record's payload in a TFRecord: int64 [n, 2].

  A record is its length (8 bytes), a checksum (4), the payload, another (4).
  """
  spans, position = [], 0
  with tf.io.gfile.GFile(path, 'rb') as file:
    size = file.size()
    while position < size:
      file.seek(position)
      length, = struct.unpack('<Q', file.read(8))
      spans.append((position + 12, length))
      position += length + 16
  return np.asarray(spans, np.int64).reshape(-1, 2)


# -------------------------------------------------------- Folders of images


def _folder(path, split):
  """Images below a folder; its sub-folders, where it has any, are classes.

  PATH/train and the like are splits of their own; a folder without them is one
  split named 'train'. Files come in an order that is scattered over classes
  and does not change, so that train[:90%] is a fair sample.
  """
  path = os.path.expanduser(path)
  if not tf.io.gfile.isdir(path):
    raise ValueError(f'folder:{path} is not a folder.')
  base = split.split('[')[0].split('+')[0]
  if tf.io.gfile.isdir(os.path.join(path, base)):
    path = os.path.join(path, base)
  elif base != 'train':
    raise ValueError(f'folder:{path} has no split {base!r}: without a '
                     f'sub-folder of that name its images are all in train.')

  found = [os.path.relpath(os.path.join(folder, file), path)
           for folder, _, files in tf.io.gfile.walk(path) for file in files
           if file.lower().endswith(EXTENSIONS)]
  found.sort(key=lambda file: hashlib.md5(file.encode()).hexdigest())
  classes = tuple(sorted({file.split(os.sep)[0] for file in found
                          if os.sep in file}))
  if any(os.sep not in file for file in found):
    classes = ()
  found = [found[i] for i in _subset(split, base, len(found))]
  labels = np.asarray([classes.index(file.split(os.sep)[0]) if classes else -1
                       for file in found], np.int32)
  files = tf.constant([os.path.join(path, file) for file in found], tf.string)
  table = tf.constant(labels)

  def fetch(index):
    return tf.io.read_file(files[index]), table[index]

  return Source(f'folder:{path} {split}', len(found), classes, fetch,
                lambda i: os.path.join(path, found[i]))


def _subset(split, base, n):
  """Indices that a TFDS split expression selects out of n."""
  info = tfds.core.SplitInfo(name=base, shard_lengths=[n], num_bytes=0)
  try:
    parts = tfds.core.ReadInstruction.from_spec(split).to_absolute({base: info})
  except (ValueError, KeyError, AssertionError) as error:
    raise ValueError(f'The split {split!r} is not of the form train[:90%] or '
                     'train[:500]+train[600:].') from error
  return [i for part in parts for i in range(n)[part.from_:part.to]]


# ------------------------------------------------------------------- Caches


def _read_all(source, then):
  """then(image), label for every example, as numpy values, in order."""
  def fetch(index):
    image, label = source.fetch(index)
    return then(image), label
  dataset = tf.data.Dataset.range(source.num_examples)
  dataset = dataset.map(fetch, tf.data.AUTOTUNE, deterministic=True)
  return dataset.as_numpy_iterator()


def _keep_encoded(source):
  images, labels = zip(*_read_all(source, lambda image: image))
  images, labels = tf.constant(images, tf.string), tf.constant(labels)
  return source._replace(fetch=lambda i: (images[i], labels[i]))


def _keep_decoded(source):
  """Pixels, serialised: images differ in size."""
  def raw(image):
    return tf.io.serialize_tensor(crops.decode(image))

  try:
    images, labels = zip(*_read_all(source, raw))
  except tf.errors.InvalidArgumentError as error:
    raise ValueError(name_corrupt(source, range(source.num_examples))
                     ) from error
  images, labels = tf.constant(images, tf.string), tf.constant(labels)

  def fetch(index):
    pixels = tf.io.parse_tensor(images[index], tf.uint8)
    return tf.ensure_shape(pixels, [None, None, 3]), labels[index]

  return source._replace(fetch=fetch)


# ----------------------------------------------------------- Corrupt images


def _without_corrupt(source):
  """The source less the examples that cannot be decoded, counted and named."""
  def survives(index):
    image, _ = source.fetch(index)
    # Returned, because what nobody asks for is not decoded.
    return index, tf.shape(crops.decode(image))
  dataset = tf.data.Dataset.range(source.num_examples)
  dataset = dataset.map(survives, tf.data.AUTOTUNE, deterministic=True)
  decoded = dataset.ignore_errors().as_numpy_iterator()
  good = np.asarray([index for index, _ in decoded], np.int64)
  bad = np.setdiff1d(np.arange(source.num_examples), good)
  if bad.size:
    logging.warning('%s: skipping %d of %d images that cannot be decoded: %s',
                    source.title, bad.size, source.num_examples,
                    ', '.join(source.name(i) for i in bad))
  if not good.size:
    raise ValueError(f'No image of {source.title} can be decoded.')
  table = tf.constant(good)
  return source._replace(num_examples=len(good),
                         fetch=lambda i: source.fetch(table[i]),
                         name=lambda i: source.name(good[i]))


def name_corrupt(source, indices):
  """A message that names the first of `indices` that cannot be decoded."""
  for index in indices:
    image, _ = source.fetch(tf.constant(int(index), tf.int64))
    try:
      crops.decode(image)
    except tf.errors.InvalidArgumentError as error:
      reason = error.message.split('}} ')[-1].split(' [Op')[0].rstrip('.')
      return (f'{source.title}: {source.name(index)} cannot be decoded '
              f'({reason}). Repair or remove it, or set corrupt=skip in the '
              'data section.')
  return f'{source.title}: an example could not be read.'
