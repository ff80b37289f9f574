"""Parquet files with encoded images, as Hugging Face's datasets have them.

A table has a column of images, of bytes or of {bytes, path}, and may have one
of labels: texts, or numbers whose names stand in the file. Encoded images stay
in memory, whatever the cache. A file train-00000-of-00002.parquet or
train/0000.parquet is of the split train.
"""

from collections.abc import Sequence
import json
import os
import re

from absl import logging
import pyarrow as pa
from pyarrow import parquet
import tensorflow as tf

from big_distill import contracts
from big_distill import registry
from big_distill.contracts import Source
from big_distill.input import files
from big_distill.input import folders
from big_distill.input import listings


def source(path: str, split: str, image: str | None = None,
           label: str | None = 'label',
           classes: str | Sequence[str] | None = None) -> Source:
  """A split of a Parquet file, or of a folder of them.

  image, label: columns; None finds images, and leaves labels out. classes: see
  listings.number; None takes them as the file lists them.
  Raises ValueError for what is not there.
  """
  title, path = f'folder:{path}', os.path.expanduser(path)
  splits = {}
  for file in find(path):
    splits.setdefault(_split_of(file), []).append(file)
  # Columns are those of train: others may lack labels.
  first = min(find(path), key=lambda file: listings.usual(
      _split_of(file)) != 'train')
  schema = _read(title, first).schema_arrow
  image, label = _image(title, schema, image), _label(title, schema, label)
  names = _class_names(schema, label)
  encoded = {}

  def read(name):
    examples = []
    for file in splits[name]:
      table = _read(title, file, [image, label] if label else [image])
      if image not in table.column_names:
        raise ValueError(f'{title}: {file} has no column {image}, which has the '
                         f'images in {first}.')
      own = label if label in table.column_names else None
      if label and not own:
        logging.warning('%s: %s has no column %s: its images have no labels.',
                        title, file, label)
      place = os.path.relpath(file, os.path.dirname(path) if file == path
                              else path)
      labels = table[own].to_pylist() if own else [None] * len(table)
      contents = table[image].to_pylist()
      for i, (content, each) in enumerate(zip(contents, labels)):
        example = listings.Example(f'{place}, row {i}', _text(each, names))
        if isinstance(content, dict):
          content = content['bytes']
        if content is None:
          raise ValueError(f'{title}: {example.name} has no bytes of an image: '
                           'embed images before the table is written.')
        encoded[example.name] = content
        examples.append(example)
    return listings.scatter(examples)

  found = listings.choose(title, split, splits, read, bool(label),
                          classes or names)
  images = tf.constant([encoded[name] for name in found.names], tf.string)
  labels, n = tf.constant(found.labels, tf.int32), len(found.names)
  lengths = [len(encoded[name]) for name in found.names]
  return Source(
      f'{title} {split}', n, found.classes, lambda i: (images[i], labels[i]),
      lambda i: found.names[i], ((n, 1),),
      contracts.fingerprint(found.names, lengths, found.labels),
      splits=found.splits)


def find(path: str) -> list[str]:
  """Parquet files at a path, or in a folder that has no images."""
  if path.endswith('.parquet'):
    return [path]
  found, places = [], [path]
  for _ in range(3):  # Folders in each other, few side by side.
    inner = []
    for place in places:
      names = files.names(place)
      if any(map(files.is_image, names)):
        return []
      found += [os.path.join(place, name) for name in names
                if name.endswith('.parquet')]
      inner += [os.path.join(place, name) for name in names
                if files.is_folder(os.path.join(place, name))]
    places = inner if len(inner) <= folders.MANY else []
  return sorted(found)


def _read(title, file, columns=None):
  """Columns of a Parquet file, or the open file if none are asked for."""
  try:
    opened = parquet.ParquetFile(file, page_checksum_verification=True)
    return opened.read(columns) if columns else opened
  except (OSError, pa.ArrowException) as error:
    raise ValueError(f'{title}: {file} cannot be read as a Parquet file '
                     f'({str(error).splitlines()[0]}).') from error


def _split_of(file):
  """The split that a file is of, by its name or that of its folder."""
  folder, name = os.path.split(file)
  for each in (re.split(r'[-.]', name)[0], os.path.basename(folder)):
    if listings.usual(each):
      return each
  return 'train'


def _image(title, schema, image):
  """The column of images: as asked for, or the only one of bytes."""
  found = [field.name for field in schema
           if pa.types.is_binary(field.type)
           or pa.types.is_large_binary(field.type)
           or pa.types.is_struct(field.type)
           and field.type.get_field_index('bytes') >= 0]
  if image:
    registry.check(f'column of images in {title}', image, found)
    return image
  if len(found) != 1:
    raise ValueError(
        f'{title} has {len(found)} columns of encoded images; choose one by '
        f'data.image=COLUMN; columns are {", ".join(schema.names)}.')
  return found[0]


def _label(title, schema, label):
  """The column of labels: as asked for, or the only one with class names."""
  if label in schema.names and pa.types.is_nested(schema.field(label).type):
    raise ValueError(f'{title} has several labels for an image in {label!r}: '
                     'choose another by data.label=COLUMN, or None.')
  if not label or label in schema.names:
    return label
  if label != 'label':
    registry.check(f'column of {title}', label, schema.names)
  found = [name for name in schema.names if _class_names(schema, name)]
  if len(found) > 1:
    raise ValueError(f'{title} has several columns of labels; choose one by '
                     f'data.label=COLUMN, or None: {", ".join(found)}.')
  return found[0] if found else None


def _class_names(schema, label):
  """Names of classes that Hugging Face's datasets write beside a column."""
  about = json.loads((schema.metadata or {}).get(b'huggingface', b'{}'))
  return about.get('info', {}).get('features', {}).get(label or '', {}).get(
      'names')


def _text(label, names):
  """The name of a class, or None, of what a table has for it."""
  if label is None or label == -1:
    return None
  if names and label not in range(len(names)):
    raise ValueError(f'A table has the label {label}, but names of classes for '
                     f'0 to {len(names) - 1}: write the table anew.')
  return names[label] if names else str(label)
