"""Batches as a pure function of (config, step).

Training step s owns the example numbers s*B ... (s+1)*B - 1; a host renders its
contiguous share of them. The number gives the epoch and, through a seeded
permutation without a buffer, the example; epoch and example give the dice. So
any step can be the first, nothing about the order is saved, and the number of
hosts and devices does not enter.
"""

import numpy as np
import tensorflow as tf

from big_distill import views as views_lib
from big_distill.input import caches
from big_distill.input import crops
from big_distill.input import reading
from big_distill.input import sources

load, hold = sources.load, caches.hold
AHEAD = 2  # Batches rendered ahead of need.


def example_of(number, parts, seed):
  """(epoch, index) of an example number, in a source of such parts.

  `parts` are (number of examples, weight). Of any w consecutive numbers, w the
  sum of weights, each part has as many as its weight, and counts epochs of its
  own.
  """
  sizes, weights = (np.asarray(x, np.int64) for x in zip(*parts))
  turns = tf.constant(np.repeat(np.arange(len(parts)), weights))
  ranks = tf.constant(np.concatenate([np.arange(w) for w in weights]))
  firsts = tf.constant(np.cumsum([0, *sizes[:-1]]))
  block, turn = number // len(turns), number % len(turns)
  part = turns[turn]
  n = tf.constant(sizes)[part]
  own = block * tf.constant(weights)[part] + ranks[turn]
  epoch = own // n

  # The shuffle looks at few bits of its keys, for a small n at the lowest 8: as
  # keys, epochs themselves would repeat every 256. So they are hashed. The raw
  # op takes three keys, where tf.random.experimental.index_shuffle takes two.
  fold = tf.random.experimental.stateless_fold_in
  keys = tf.random.stateless_uniform(
      [3], fold(tf.stack([seed, 1 + part]), epoch), minval=None, maxval=None,
      dtype=tf.int32)
  index = tf.raw_ops.RandomIndexShuffle(
      index=own % n, seed=keys, max_index=n - 1)
  return epoch, firsts[part] + index


def train_batches(source, views, batch_size, seed, start, stop, *, period=0,
                  fraction=views_lib.FRACTION, reduced=False, host=(0, 1)):
  """Yields host batches of steps start ... stop - 1.

  {'label': int32 [b] or multi-hot [b, c], 'index': int64 [b],
   'views': {view: uint8 [b, s, s, 3]}}
  where b is the share of host[0] among host[1] hosts, in order of number.
  `reduced` renders faster and less exactly, see crops.render. With a `period`,
  the batch of step s is that of step s modulo period.
  """
  return _batches(source, batch_size, start, stop, host,
                  _examples(source, seed, period * batch_size),
                  _shows(source, views, seed, fraction, reduced))


def train_boxes(source, views, batch_size, seed, start, stop, *, held,
                period=0, fraction=views_lib.FRACTION, reduced=False,
                host=(0, 1)):
  """As train_batches, with 'boxes' of views in place of their pixels.

  {region: int32 [b, 5]}, see crops.boxes. `held` is what caches.hold returns.
  """
  del reduced  # What is held is decoded already.
  images, labels = held
  sizes, labels = tf.constant(images.sizes), tf.constant(labels)

  def show(epoch, index):
    shape = tf.concat([sizes[index], [3]], axis=0)
    return {'label': labels[index], 'boxes': crops.boxes(
        views, shape, seed, epoch, index, fraction)}

  return _batches(source, batch_size, start, stop, host,
                  _examples(source, seed, period * batch_size), show)


def _examples(source, seed, cycle):
  """number -> epoch, index, nothing further; numbers repeat after `cycle`."""
  def example(number):
    if cycle:
      number = number % cycle
    return *example_of(number, source.parts, seed), {}

  return example


def eval_batches(source, views, batch_size, seed, *, fraction=views_lib.FRACTION,
                 reduced=False, host=(0, 1)):
  """Yields host batches of a whole split in order, the last one padded.

  As train_batches, with 'mask' float32 [b]: 0 marks padding. All hosts yield
  equally many batches. Their pixels are exact, whatever training does.
  """
  del reduced
  n = source.num_examples

  def example(number):
    return (tf.constant(0, tf.int64), tf.minimum(number, n - 1),
            {'mask': tf.cast(number < n, tf.float32)})

  return _batches(source, batch_size, 0, -(-n // batch_size), host, example,
                  _shows(source, views, seed, fraction))


def vote_batches(source, views, batch_size, seed, first, last, votes, *,
                 fraction=views_lib.FRACTION, reduced=False, host=(0, 1)):
  """Yields host batches of so many draws of views of examples first ... last-1.

  As eval_batches; all draws of an example lie side by side.
  """
  count = (last - first) * votes

  def example(number):
    place = tf.minimum(number, count - 1)
    # An epoch is what distinguishes the dice of one example.
    return (place % votes, first + place // votes,
            {'mask': tf.cast(number < count, tf.float32)})

  return _batches(source, batch_size, 0, -(-count // batch_size), host, example,
                  _shows(source, views, seed, fraction, reduced))


def _shows(source, views, seed, fraction, reduced=False):
  """(epoch, index) -> the label and the views of an example."""
  def show(epoch, index):
    image, label = source.fetch(index)
    return {'label': label, 'views': crops.render(
        image, views, seed, epoch, index, fraction, reduced, source.as_shown)}
  return show


def _batches(source, batch_size, start, stop, host, example, show):
  """Batches; `example` is number -> epoch, index, further values."""
  place, hosts = host
  if batch_size % hosts:
    raise ValueError(f'A batch of {batch_size} does not divide among {hosts} '
                     'hosts.')
  share = batch_size // hosts

  def number_of(i):  # The i-th example that this host renders.
    return i // share * batch_size + place * share + i % share

  def render(i):
    epoch, index, further = example(number_of(i))
    return {'index': index, **show(epoch, index), **further}

  dataset = tf.data.Dataset.range(start * share, stop * share)
  dataset = reading.by_all_cores(dataset, render)
  dataset = dataset.batch(share, drop_remainder=True).prefetch(AHEAD)

  def stream(step):
    try:
      for step, batch in enumerate(dataset.as_numpy_iterator(), step + 1):
        yield batch
    except tf.errors.OpError as error:
      held = tf.range(step * share, (step + 1) * share, dtype=tf.int64)
      held = {int(example(number_of(i))[1]) for i in held}
      raise reading.blame(source, sorted(held), error) from error

  return stream(start)
