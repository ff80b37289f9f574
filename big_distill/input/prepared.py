"""Datasets that TFDS has prepared, read by the number of an example."""

import concurrent.futures
import hashlib
import os

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from big_distill import contracts
from big_distill import registry
from big_distill.contracts import Source
from big_distill.input import records

BUNDLED = os.path.join(os.path.dirname(os.path.dirname(__file__)), 'data')


def source(name: str, split: str, data_dir: str | None,
           label: str | None) -> Source:
  """A split of a prepared dataset; `label` is the feature of its labels.

  Raises ValueError for a name, a split or a label that is not there.
  """
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
    spans = list(pool.map(lambda part: records.spans(part.filename)[
        part.skip:part.skip + part.take], parts))
  files = [part.filename for part in parts]
  which = np.repeat(np.arange(len(files)), [len(span) for span in spans])
  where = np.concatenate([np.zeros([0, 2], np.int64), *spans])
  if label not in (None, 'label'):
    registry.check(f'label in {name}', label, features)
  classes, several = _classes(features[label] if label in features else None)

  def read(index):
    start, length = where[index]
    with records.open_file(files[which[index]]) as file:
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

  return Source(
      f'{info.full_name} {split}', len(where), classes, fetch,
      lambda i: f'{os.path.basename(files[which[i]])}, record at '
                f'byte {where[i][0] - 12}', ((len(where), 1),),
      contracts.fingerprint(
          [os.path.basename(file) for file in files],
          hashlib.sha256(
              where[:, 1].astype('<i8').tobytes()).hexdigest()))


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


def _classes(feature):
  """(names of classes, whether an example may have several) of a feature."""
  several = isinstance(feature, tfds.features.Sequence)
  feature = feature.feature if several else feature
  if not isinstance(feature, tfds.features.ClassLabel):
    return (), False
  return tuple(feature.names), several
