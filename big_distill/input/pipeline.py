"""Batches as a pure function of (config, step).

Training step s owns the example numbers s*B ... (s+1)*B - 1; a host renders its
contiguous share of them. The number gives the epoch and, through a seeded
permutation without a buffer, the example; epoch and example give the dice. So
any step can be the first, nothing about the order is saved, and the number of
hosts and devices does not enter.
"""

import numpy as np
import tensorflow as tf

from big_distill.input import crops
from big_distill.input import sources

load = sources.load


def example_of(number, n, seed):
  """(epoch, index) of an example number, in a split of n examples."""
  epoch = number // n
  keys = tf.stack([tf.cast(seed & 0x7fffffff, tf.int64), epoch])
  index = tf.random.experimental.index_shuffle(
      number % n, tf.cast(keys, tf.int32), tf.cast(n - 1, tf.int64))
  return epoch, tf.cast(index, tf.int64)


def train_batches(source, views, batch_size, seed, start, stop, *,
                  fraction=crops.FRACTION, host=(0, 1)):
  """Yields host batches of steps start ... stop - 1.

  {'label': int32 [b], 'index': int64 [b], 'views': {view: uint8 [b, s, s, 3]}}
  where b is the share of host[0] among host[1] hosts, in order of number.
  """
  share = batch_size // host[1]

  def render(number):
    step, place = number // share, number % share
    number = step * batch_size + host[0] * share + place
    epoch, index = example_of(number, source.num_examples, seed)
    image, label = source.fetch(index)
    shown = crops.render(image, views, seed, epoch, index, fraction)
    return {'label': label, 'index': index, 'views': shown}

  def indices(step):  # For messages only: which examples this batch holds.
    first = step * batch_size + host[0] * share
    return [int(example_of(tf.constant(number, tf.int64), source.num_examples,
                           seed)[1]) for number in range(first, first + share)]

  dataset = tf.data.Dataset.range(start * share, stop * share)
  dataset = dataset.map(render, tf.data.AUTOTUNE, deterministic=True)
  dataset = dataset.batch(share, drop_remainder=True)
  return _iterate(dataset, source, indices, start)


def eval_batches(source, views, batch_size, seed, *, fraction=crops.FRACTION,
                 host=(0, 1)):
  """Yields host batches of a whole split in order, the last one padded.

  As train_batches, with 'mask' float32 [b]: 0 marks padding. All hosts yield
  equally many batches.
  """
  n, share = source.num_examples, batch_size // host[1]
  steps = -(-n // batch_size)

  def render(number):
    step, place = number // share, number % share
    number = step * batch_size + host[0] * share + place
    index = tf.minimum(number, n - 1)
    image, label = source.fetch(index)
    shown = crops.render(image, views, seed, tf.constant(0, tf.int64), index,
                         fraction)
    return {'label': label, 'index': index, 'views': shown,
            'mask': tf.cast(number < n, tf.float32)}

  def indices(step):
    first = step * batch_size + host[0] * share
    return [min(number, n - 1) for number in range(first, first + share)]

  dataset = tf.data.Dataset.range(steps * share)
  dataset = dataset.map(render, tf.data.AUTOTUNE, deterministic=True)
  dataset = dataset.batch(share, drop_remainder=True)
  return _iterate(dataset, source, indices, 0)


def _iterate(dataset, source, indices, start):
  """numpy batches; an image that cannot be decoded is named."""
  iterator = dataset.prefetch(tf.data.AUTOTUNE).as_numpy_iterator()
  step = start
  while True:
    try:
      batch = next(iterator)
    except StopIteration:
      return
    except (tf.errors.InvalidArgumentError, tf.errors.DataLossError) as error:
      raise ValueError(sources.name_corrupt(source, np.unique(indices(step)))
                       ) from error
    yield batch
    step += 1
