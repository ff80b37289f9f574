"""Where images come from: prepared TFDS datasets, folders, mixtures of them.

A source answers `fetch(index)` inside a tf.data graph, in any order, so that
the pipeline can start anywhere. What it keeps in memory is its `cache`:
'encoded' bytes, 'decoded' pixels, or 'none', which reads each example from
disk when it is asked for.
"""

from collections.abc import Callable
import concurrent.futures
import os
import re
import struct
from typing import NamedTuple

from absl import logging
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from big_distill import registry
from big_distill import render
from big_distill.input import crops
from big_distill.input import folders

BUNDLED = os.path.join(os.path.dirname(os.path.dirname(__file__)), 'data')
CACHES = ('encoded', 'decoded', 'none')
ON_CORRUPT = ('stop', 'skip')


class Source(NamedTuple):
  """A split of a dataset.

  fetch: int64 index -> (image, label); the image is an encoded string or uint8
    [h, w, 3], the label int32 [], -1 where there is none, or multi-hot [c].
  name: index -> what to call the example in a message.
  classes: names of the classes, empty where there are no labels.
  parts: (number of examples, weight) of the datasets that make up a mixture,
    in order of index; a single dataset is one part.
  resident: whether devices are to hold its images (see `hold`).
  """
  title: str
  num_examples: int
  classes: tuple[str, ...]
  fetch: Callable
  name: Callable
  parts: tuple[tuple[int, int], ...]
  resident: bool = False


def load(name=None, split='train', data_dir=None, cache='encoded',
         corrupt='stop', label='label', parts=None, resident=False):
  """Opens `name` ('caltech12', 'folder:PATH') and keeps what `cache` says.

  `label` is the feature that labels are in; label=None leaves them out, since
  they mean nothing to a student of other classes. `parts`, in place of name, is
  a mixture: {any: {'name': ..., 'weight': a whole number, and so on}}. With
  `resident`, training renders on devices that hold all images; the cache then
  serves whoever fetches, so that 'none' is best.
  """
  if bool(name) == bool(parts):
    raise ValueError('Data is either one name or several parts; given: '
                     f'name={name!r}, parts={parts!r}.')
  if parts:
    common = dict(split=split, data_dir=data_dir, cache=cache, corrupt=corrupt)
    return _mix([{**common, **part} for part in parts.values()])._replace(
        resident=resident)
  registry.check('cache', cache, CACHES)
  registry.check("answer to 'corrupt'", corrupt, ON_CORRUPT)
  if name.startswith('folder:'):
    source = _folder(name.removeprefix('folder:'), split)
  else:
    source = _tfds(name, split, data_dir, label)
  if not label:
    source = source._replace(classes=(), fetch=_without_label(source.fetch))
  if not source.num_examples:
    raise ValueError(f'The split {source.title} is empty.')
  source = source._replace(resident=resident)
  if corrupt == 'skip':
    source = _without_corrupt(source)
  return {'encoded': _keep_encoded, 'decoded': _keep_decoded,
          'none': lambda source: source}[cache](source)


def by_all_cores(dataset, function):
  """dataset.map(function), in order, two calls at once for each core."""
  # tf.data's autotuner sleeps for up to a minute at a time, and we saw the end
  # of a run wait for it. From the decoded cache, two calls per core deliver a
  # fifth more than it chooses to, and a tenth more than one.
  options = tf.data.Options()
  options.autotune.enabled = False
  dataset = dataset.map(function, 2 * os.cpu_count(), deterministic=True)
  return dataset.with_options(options)


def _mix(sections):
  """One source of several, whose weights say how often each one is seen."""
  weights = [section.pop('weight', 1) for section in sections]
  if not all(isinstance(weight, int) and weight > 0 for weight in weights):
    raise ValueError(f'Weights of data.parts are whole numbers from 1; given: '
                     f'{weights}.')
  sources = [registry.bind(load, **section)() for section in sections]
  sizes = [source.num_examples for source in sources]
  firsts = np.cumsum([0, *sizes[:-1]])

  def fetch(index):
    part = tf.searchsorted(firsts, [index], side='right')[0] - 1
    image, _ = tf.switch_case(part, [
        lambda source=source, first=first: source.fetch(index - first)
        for source, first in zip(sources, firsts)])
    return image, tf.constant(-1)

  def name(index):
    part = np.searchsorted(firsts, index, side='right') - 1
    return sources[part].name(index - firsts[part])

  title = ' + '.join(f'{weight} x {source.title}' if weight > 1
                     else source.title
                     for weight, source in zip(weights, sources))
  return Source(title, sum(sizes), (), fetch, name, tuple(zip(sizes, weights)))


def _without_label(fetch):
  return lambda index: (fetch(index)[0], tf.constant(-1))


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
  bundled = [entry.name for entry in os.scandir(BUNDLED) if entry.is_dir()]
  registry.check('dataset', base, [*known, *bundled])
  where = data_dir or tfds.core.constants.DATA_DIR
  raise ValueError(f'{name} is not prepared in {where}. To prepare it: '
                   f'tfds build {name} --data_dir={where}')


def _tfds(name, split, data_dir, label):
  """Examples of TFRecord files, found by offset."""
  info = _builder(name, data_dir).info
  features = info.features
  if 'image' not in features:
    raise ValueError(f'{name} has no images, only {", ".join(features)}.')
  if info.file_format != tfds.core.FileFormat.TFRECORD:
    raise ValueError(f'{name} is prepared as {info.file_format.value}; only '
                     'tfrecord can be read.')
  try:
    parts = info.splits[split].file_instructions
  except (ValueError, AssertionError) as error:
    known = [f'{each} ({info.splits[each].num_examples})'
             for each in info.splits]
    raise ValueError(f'{name} has no split {split!r}; its splits, and how many '
                     f'images they have, are {", ".join(known)}.') from error
  with concurrent.futures.ThreadPoolExecutor(16) as pool:
    spans = list(pool.map(lambda part: _spans(part.filename)[
        part.skip:part.skip + part.take], parts))
  files = [part.filename for part in parts]
  which = np.repeat(np.arange(len(files)), [len(span) for span in spans])
  where = np.concatenate([np.zeros([0, 2], np.int64), *spans])
  if label not in (None, 'label'):
    registry.check(f'label in {name}', label, features)
  classes, several = _classes(features[label] if label in features else None)

  def read(index):
    start, length = where[index]
    with _open(files[which[index]]) as file:
      file.seek(int(start))
      return file.read(int(length))

  def fetch(index):
    record = tf.ensure_shape(tf.numpy_function(read, [index], tf.string), [])
    example = features.deserialize_example(
        record, decoders={'image': tfds.decode.SkipDecoding()})
    number = example[label] if classes else -1
    if several:
      number = tf.reduce_any(tf.one_hot(number, len(classes), True, False), 0)
    return example['image'], tf.cast(number, tf.int32)

  return Source(f'{info.full_name} {split}', len(where), classes, fetch,
                lambda i: f'{os.path.basename(files[which[i]])}, record at '
                          f'byte {where[i][0] - 12}', ((len(where), 1),))


def _classes(feature):
  """(names of classes, whether an example may have several) of a feature."""
  several = isinstance(feature, tfds.features.Sequence)
  feature = feature.feature if several else feature
  if not isinstance(feature, tfds.features.ClassLabel):
    return (), False
  return tuple(feature.names), several


def _open(path):
  """A file that reads what it is asked for: GFile reads 512 kB at a time."""
  remote = '://' in path
  return tf.io.gfile.GFile(path, 'rb') if remote else open(path, 'rb', 0)


def _spans(path):
  """Start and length of each record's payload in a TFRecord: int64 [n, 2].

  A record is its length (8 bytes), a checksum (4), the payload, another (4).
  """
  spans, position, size = [], 0, tf.io.gfile.stat(path).length
  with _open(path) as file:
    while position < size:
      file.seek(position)
      head = file.read(8)
      length = struct.unpack('<Q', head)[0] if len(head) == 8 else size
      if position + length + 16 > size:
        raise ValueError(f'{path} is cut short or damaged at byte {position}. '
                         'Prepare the dataset anew.')
      spans.append((position + 12, length))
      position += length + 16
  return np.asarray(spans, np.int64).reshape(-1, 2)


def _folder(path, split):
  """Files of images."""
  found = folders.find(path, split)
  files = tf.constant(found.files, tf.string)
  labels = tf.constant(found.labels, tf.int32)
  return Source(f'folder:{path} {split}', len(found.files), found.classes,
                lambda i: (tf.io.read_file(files[i]), labels[i]),
                lambda i: found.files[i], ((len(found.files), 1),))


def _examples(source, then):
  """Yields (then(image), label) of every example, in order, as numpy."""
  def fetch(index):
    image, label = source.fetch(index)
    return then(image), label
  dataset = tf.data.Dataset.range(source.num_examples)
  dataset = by_all_cores(dataset, fetch)
  count = 0
  try:
    for count, example in enumerate(dataset.as_numpy_iterator(), 1):
      yield example
  except tf.errors.OpError as error:
    raise blame(source, [count], error) from error


def _pixels(image):
  return crops.decode(image) if image.dtype == tf.string else image


def hold(source):
  """All its images, decoded, for devices to hold: (render.Images, labels)."""
  images, labels, size = [], [], 0
  for image, label in _examples(source, _pixels):
    images.append(image), labels.append(label)
    size += image.nbytes
    if size > render.LIMIT:
      raise ValueError(
          f'{source.title} is too large for data.resident=True: the first '
          f'{len(images)} of its {source.num_examples} images fill '
          f'{render.LIMIT / 2**30:.0f} GiB. Leave it False, or take a smaller '
          'split.')
  return render.pack(images), np.asarray(labels)


def _keep_encoded(source):
  images, labels = zip(*_examples(source, lambda image: image))
  images, labels = tf.constant(images, tf.string), tf.constant(labels)
  return source._replace(fetch=lambda i: (images[i], labels[i]))


def _keep_decoded(source):
  """Pixels of one image after another: to fetch one is at most one copy.

  None, where they begin and end at multiples of 64 bytes.
  """
  images, labels = zip(*_examples(source, _pixels))
  sizes = np.asarray([image.shape[:2] for image in images], np.int64)
  ends = np.cumsum(3 * sizes.prod(axis=1))
  pixels = np.concatenate([image.ravel() for image in images])
  del images  # TensorFlow makes two copies more, of which one stays.
  pixels = tf.constant(pixels)
  sizes, ends, labels = map(tf.constant, (sizes, ends, labels))

  def fetch(index):
    height, width = tf.unstack(sizes[index])
    start = ends[index] - 3 * height * width
    image = tf.reshape(pixels[start:ends[index]], [height, width, 3])
    return image, labels[index]

  return source._replace(fetch=fetch)


def _without_corrupt(source):
  """The source less the examples that cannot be decoded, counted and named."""
  def survives(index):
    image, _ = source.fetch(index)
    # Returned, because what nobody asks for is not decoded.
    return index, tf.shape(crops.decode(image))
  dataset = tf.data.Dataset.range(source.num_examples)
  dataset = by_all_cores(dataset, survives)
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
  return source._replace(num_examples=len(good), parts=((len(good), 1),),
                         fetch=lambda i: source.fetch(table[i]),
                         name=lambda i: source.name(good[i]))


def blame(source, indices, error):
  """ValueError that names the first example to blame for an error.

  It is the first of `indices` that cannot be read or decoded; the error itself
  is returned if all can.
  """
  for index in indices:
    try:
      image, _ = source.fetch(tf.constant(index, tf.int64))
      if image.dtype == tf.string:
        crops.decode(image)
    except tf.errors.OpError as found:
      reason = re.sub(r'{{.*?}}|\[Op.*', '', found.message).strip()
      reason = reason.split('\n')[0].rstrip('.')
      return ValueError(
          f'{source.title}: {source.name(index)} cannot be decoded ({reason}). '
          'Repair or remove it, or set corrupt=skip in the data section.')
  return error
