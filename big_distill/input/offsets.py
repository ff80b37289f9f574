"""Where records lie, kept from one start to the next.

To find the records of a TFRecord file each of them is visited, which of a
dataset on a remote file system means to read nearly all of it. So lengths that
were found are kept beside the dataset or, where that cannot be written, in the
user's cache folder. They are used again for a file of the same name, size and
time of change, whose size they add up to.
"""

from collections.abc import Callable, Sequence
import concurrent.futures
import io
import os
from typing import Any
import uuid
import zipfile

from absl import logging
import numpy as np
import tensorflow as tf

from big_distill import contracts

# Bytes of local files that are read through at each start: finding 10,000
# records takes a tenth of a second.
SMALL = 1 << 30
FIELDS = ('names', 'sizes', 'times', 'counts', 'lengths')


def together(function: Callable, values: Sequence[Any]) -> list[Any]:
  """[function(value) for value in values], 16 calls at a time: they wait."""
  with concurrent.futures.ThreadPoolExecutor(16) as pool:
    return list(pool.map(function, values))


def find(files: Sequence[str],
         lengths: Callable[[str, int], np.ndarray]) -> list[np.ndarray]:
  """Lengths of the records of each file, int64 [n], kept or found anew.

  `lengths` finds those of a file, given its path and size.
  """
  try:
    stats = together(tf.io.gfile.stat, files)
  except tf.errors.NotFoundError as error:
    raise ValueError(f'A file of the dataset is missing ({error.message}). '
                     'Prepare the dataset anew.') from error
  sizes = [stat.length for stat in stats]
  if sum(sizes) < SMALL and not any('://' in file for file in files):
    return together(lambda file: lengths(*file), [*zip(files, sizes)])
  keys = [(os.path.basename(file), stat.length, stat.mtime_nsec)
          for file, stat in zip(files, stats)]
  places = _places(files[0])
  kept = {}
  for place in reversed(places):
    kept.update(_read(place))
  missing = [i for i, key in enumerate(keys) if key not in kept]
  if missing:
    logging.info('Finding the records of %d files, such as %s, once.',
                 len(missing), files[missing[0]])
    found = together(lambda i: lengths(files[i], sizes[i]), missing)
    kept.update({keys[i]: each for i, each in zip(missing, found)})
    names = {name for name, _, _ in keys}  # Of which older entries are dropped.
    _write(places, {key: each for key, each in kept.items()
                    if key in keys or key[0] not in names})
  return [kept[key] for key in keys]


def _places(file):
  """Paths of the index of a split: beside its files, in the user's cache."""
  folder, name = os.path.split(file)
  name = name.split('.tfrecord')[0]
  cache = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
  own = f'{name}-{contracts.fingerprint(folder)}.offsets.npz'
  return [os.path.join(folder, f'{name}.offsets.npz'),
          os.path.join(cache, 'big_distill', own)]


def _read(place):
  """{(name, size, time): lengths} of an index, without what does not add up."""
  if not tf.io.gfile.exists(place):
    return {}
  try:
    with tf.io.gfile.GFile(place, 'rb') as file:
      table = np.load(io.BytesIO(file.read()), allow_pickle=False)
    names, sizes, times, counts, lengths = (table[key] for key in FIELDS)
    parts = np.split(lengths.astype(np.int64), np.cumsum(counts)[:-1])
    keys = [*zip(names.tolist(), sizes.tolist(), times.tolist(), strict=True)]
    pairs = [*zip(keys, parts, strict=True)]
  except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile,
          tf.errors.OpError) as error:
    logging.warning('%s cannot be read (%s): it is written anew.', place, error)
    return {}
  return {key: part for key, part in pairs
          if (part >= 0).all() and (part + 16).sum() == key[1]}


def _write(places, kept):
  """Writes the index to the first place that can be written."""
  names, sizes, times = zip(*kept)
  content = io.BytesIO()
  np.savez_compressed(
      content, names=names, sizes=np.asarray(sizes, np.int64),
      times=np.asarray(times, np.int64),
      counts=[len(each) for each in kept.values()],
      lengths=np.concatenate([*kept.values()]))
  for place in places:
    partial = f'{place}.{uuid.uuid4().hex}.partial'
    try:
      tf.io.gfile.makedirs(os.path.dirname(place))
      with tf.io.gfile.GFile(partial, 'wb') as file:
        file.write(content.getvalue())
      tf.io.gfile.rename(partial, place, overwrite=True)
    except (OSError, tf.errors.OpError):
      continue
    logging.info('Kept where records lie in %s.', place)
    return
  logging.warning('Neither %s nor %s can be written: the next start finds the '
                  'records anew.', *places)
