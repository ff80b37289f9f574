"""Datasets that TFDS has prepared, read by the number of an example."""

import difflib
import os

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from big_distill import registry
from big_distill.contracts import Source
from big_distill.input import reading
from big_distill.input import records

BLOCK = 64  # Records that are read in one piece where all are.
BLOCKS = 16  # Blocks that are read at once.
BUNDLED = os.path.join(os.path.dirname(os.path.dirname(__file__)), 'data')


def source(name: str, split: str, data_dir: str | None, image: str | None,
           label: str | None) -> Source:
  """A split of a prepared dataset.

  `image` and `label` are names of features; None finds the only image, and
  leaves labels out. Raises ValueError for what is not there, and for images
  whose pixels are not integers.
  """
  info = _builder(name, data_dir).info
  features = info.features
  image = _image(name, features, image)
  label = _label(name, features, label)
  registry.check(f'way to read {name}, prepared as', info.file_format.value,
                 records.FORMATS)
  try:
    parts = info.splits[split].file_instructions
  except (ValueError, AssertionError, NotImplementedError) as error:
    known = [f'{each} ({info.splits[each].num_examples})'
             for each in info.splits]
    raise ValueError(f'{name} has no split {split!r}; its splits, and how many '
                     f'images they have, are {", ".join(known)}.') from error
  found = records.FORMATS[info.file_format.value](parts)
  classes, several = _classes(features[label]) if label else ((), False)

  def parse(record):
    record = tf.ensure_shape(record, [])
    example = features.deserialize_example(
        record, decoders={image: tfds.decode.SkipDecoding()})
    number = example[label] if classes else -1
    if several:
      number = tf.reduce_any(tf.one_hot(number, len(classes), True, False), 0)
    return example[image], tf.cast(number, tf.int32)

  def fetch(index):
    return parse(tf.numpy_function(found.read, [index], tf.string))

  def read_block(first):
    last = min(first + BLOCK, found.num_records)
    return np.asarray(found.read_many(first, last), object)

  def scan():
    dataset = tf.data.Dataset.range(0, found.num_records, BLOCK)
    dataset = dataset.map(lambda first: tf.ensure_shape(tf.numpy_function(
        read_block, [first], tf.string), [None]), BLOCKS, deterministic=True)
    return reading.by_all_cores(dataset.unbatch(), parse)

  return Source(f'{info.full_name} {split}', found.num_records, classes, fetch,
                found.name, ((found.num_records, 1),), found.fingerprint,
                scan=scan, splits=tuple(info.splits))


def _builder(name, data_dir):
  """A builder made from the files of a prepared dataset, without its code."""
  dirs = [data_dir, BUNDLED] if data_dir else [None, BUNDLED]
  for where in dirs:
    try:
      kwargs = {'data_dir': os.path.expanduser(where)} if where else {}
      return tfds.core.read_only_builder.builder_from_files(name, **kwargs)
    except tfds.core.DatasetNotFoundError:
      continue
    except Exception as error:  # TFDS raises many kinds for damaged files.
      reason = str(error).split('\n')[0]
      if reason.startswith('Parsing builder name'):  # It can be none.
        break
      raise ValueError(f'What describes {name} in dataset_info.json and '
                       f'features.json cannot be read ({reason}). Prepare the '
                       'dataset anew.') from error
  if os.path.exists(os.path.expanduser(name)):
    raise ValueError(f'{name} is a path, not a name of TFDS: write folder:{name}.')
  if name.startswith(('/', '.', '~')):
    raise ValueError(f'There is no file or folder {name}.')
  known = tfds.list_builders()
  base = name.split('/')[0].split(':')[0]
  bundled = [entry.name for entry in os.scandir(BUNDLED) if entry.is_dir()]
  if not difflib.get_close_matches(base, [*known, *bundled], cutoff=.5):
    raise ValueError(f'There is no file, folder or dataset {base!r}: name a folder '
                     'of images as folder:PATH, or a dataset of TFDS.')
  registry.check('file, folder or dataset', base, [*known, *bundled])
  where = data_dir or tfds.core.constants.DATA_DIR
  raise ValueError(f'{name} is not prepared in {where}. To prepare it: '
                   f'tfds build {name} --data_dir={where}')


def _image(name, features, image):
  """The feature that images are in: as asked for, or the only one."""
  images = [key for key, feature in features.items()
            if isinstance(feature, tfds.features.Image)]
  if not image:
    if 'image' not in images and len(images) != 1:
      raise ValueError(
          f'{name} has {len(images)} features that are encoded images; '
          + (f'choose one by data.image=KEY: {", ".join(sorted(images))}.'
             if images else f'all it has is {", ".join(features)}.'))
    image = 'image' if 'image' in images else images[0]
  registry.check(f'image in {name}', image, images)
  dtype = tf.as_dtype(features[image].np_dtype)
  if not dtype.is_integer:
    raise ValueError(
        f'Images of {name} are {dtype.name}, whose black and white are not '
        'known: prepare the dataset with images of uint8.')
  return image


def _label(name, features, label):
  """The feature that labels are in, as asked for, or None."""
  if label != 'label':
    if label:
      registry.check(f'label in {name}', label, features)
      if not _classes(features[label])[0]:
        raise ValueError(f'{name} has no names of classes for {label!r}: choose '
                         'another feature by data.label=KEY, or None.')
    return label
  if label in features:
    return label
  found = [key for key, feature in features.items() if _classes(feature)[0]]
  if len(found) > 1:
    raise ValueError(f'{name} has several features of labels; choose one by '
                     f'data.label=KEY, or None: {", ".join(sorted(found))}.')
  return found[0] if found else None


def _classes(feature):
  """(names of classes, whether an example may have several) of a feature."""
  several = isinstance(feature, tfds.features.Sequence)
  feature = feature.feature if several else feature
  if not isinstance(feature, tfds.features.ClassLabel):
    return (), False
  return tuple(feature.names), several
