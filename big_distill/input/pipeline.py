"""Batches as a pure function of (config, step).

Training step s owns the example numbers s*B ... (s+1)*B - 1, and each host
renders its contiguous share of them. The number gives the epoch and, by a
seeded permutation without a buffer, the example; epoch and example give the
dice. So any step can be the first, no state of the order is saved, and batches
do not depend on the number of hosts and devices.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from big_distill import render as render_lib
from big_distill import views as views_lib
from big_distill.contracts import Batch
from big_distill.contracts import Source
from big_distill.input import caches
from big_distill.input import crops
from big_distill.input import folders
from big_distill.input import reading
from big_distill.input import sources

load, hold, of_paths = sources.load, caches.hold, folders.of_paths
AHEAD = 2  # Batches are rendered this far ahead.


def example_of(number: tf.Tensor, parts: Sequence[tuple[int, int]],
               seed: int) -> tuple[tf.Tensor, tf.Tensor]:
  """Epoch and index, int64 [] each, of an example number in a source's `parts`.

  Each part is (number of examples, weight). Where w is the sum of weights, any
  w consecutive numbers hold as many examples of a part as its weight. Each part
  counts its own epochs.
  """
  sizes, weights = (np.asarray(x, np.int64) for x in zip(*parts))
  turns = tf.constant(np.repeat(np.arange(len(parts)), weights))
  ranks = tf.constant(np.concatenate([np.arange(w) for w in weights]))
  firsts = tf.constant(np.cumsum([0, *sizes[:-1]]))
  block, turn = number // weights.sum(), number % weights.sum()
  part = turns[turn]
  n = tf.constant(sizes)[part]
  own = block * tf.constant(weights)[part] + ranks[turn]
  epoch = own // n

  # The shuffle uses few bits of its keys, for a small n the lowest 8: if epochs
  # were the keys, orders would repeat every 256. So epochs are hashed. The raw
  # op takes three keys; tf.random.experimental.index_shuffle takes two.
  fold = tf.random.experimental.stateless_fold_in
  keys = tf.random.stateless_uniform(
      [3], fold(tf.stack([seed, 1 + part]), epoch), minval=None, maxval=None,
      dtype=tf.int32)
  index = tf.raw_ops.RandomIndexShuffle(
      index=own % n, seed=keys, max_index=n - 1)
  return epoch, firsts[part] + index


def only(source: Source, indices: np.ndarray) -> Source:
  """The examples of a source at int64 [n] indices, in that order."""
  places = tf.constant(indices, tf.int64)
  return source._replace(
      num_examples=len(indices), parts=((len(indices), 1),), scan=None,
      fetch=lambda i: source.fetch(places[i]),
      name=lambda i: source.name(int(indices[i])))


def train_batches(source: Source, views: Sequence[views_lib.View],
                  batch_size: int, seed: int, start: int, stop: int, *,
                  period: int = 0, fraction: float = views_lib.FRACTION,
                  reduced: bool = False, host: tuple[int, int] = (0, 1)
                  ) -> Iterator[Batch]:
  """Yields host batches of steps start ... stop - 1.

  {'label': int32 [b] or multi-hot [b, c], 'index': int64 [b],
   'views': {view: uint8 [b, size, size, 3]}}
  where b is the share of host[0] among host[1] hosts, in order of number.
  period: if not 0, the batch of step s is that of step s modulo period.
  fraction and reduced: see crops.render.
  Raises ValueError if hosts cannot share a batch, and names an example that
  cannot be read or decoded.
  """
  return _batches(source, batch_size, start, stop, host,
                  _examples(source, seed, period * batch_size),
                  _shows(source, views, seed, fraction, reduced))


def train_boxes(source: Source, views: Sequence[views_lib.View],
                batch_size: int, seed: int, start: int, stop: int, *,
                held: tuple[render_lib.Images, np.ndarray], period: int = 0,
                fraction: float = views_lib.FRACTION, reduced: bool = False,
                host: tuple[int, int] = (0, 1)) -> Iterator[Batch]:
  """Yields batches as train_batches, with boxes in place of pixels.

  'boxes' is {region: int32 [b, 5]}, see crops.boxes. `held` is what caches.hold
  returns. `reduced` changes nothing: held images are decoded already.
  """
  del reduced
  images, labels = held
  sizes, labels = tf.constant(images.sizes), tf.constant(labels)

  def show(epoch, index):
    shape = tf.concat([sizes[index], [3]], axis=0)
    return {'label': labels[index], 'boxes': crops.boxes(
        views, shape, seed, epoch, index, fraction)}

  return _batches(source, batch_size, start, stop, host,
                  _examples(source, seed, period * batch_size), show)


def _examples(source, seed, cycle):
  """A function number -> epoch, index, {}; numbers repeat after `cycle`."""
  def example(number):
    if cycle:
      number = number % cycle
    return *example_of(number, source.parts, seed), {}

  return example


def indices(source: Source, batch_size: int, seed: int, start: int, stop: int,
            *, period: int = 0, host: tuple[int, int] = (0, 1)
            ) -> Iterator[np.ndarray]:
  """Yields the 'index' of each of train_batches, int64 [b], without images."""
  batches = _batches(source, batch_size, start, stop, host,
                     _examples(source, seed, period * batch_size),
                     lambda epoch, index: {})
  return (batch['index'] for batch in batches)


def eval_batches(source: Source, views: Sequence[views_lib.View],
                 batch_size: int, seed: int, *,
                 fraction: float = views_lib.FRACTION, reduced: bool = False,
                 host: tuple[int, int] = (0, 1)) -> Iterator[Batch]:
  """Yields host batches of a whole split in order, the last one padded.

  They are as those of train_batches, with 'mask' float32 [b], 0 for padding.
  All hosts yield equally many. `reduced` changes nothing: evaluation is exact.
  """
  del reduced
  n = source.num_examples

  def example(number):
    return (tf.constant(0, tf.int64), tf.minimum(number, n - 1),
            {'mask': tf.cast(number < n, tf.float32)})

  return _batches(source, batch_size, 0, -(-n // batch_size), host, example,
                  _shows(source, views, seed, fraction))


def vote_batches(source: Source, views: Sequence[views_lib.View],
                 batch_size: int, seed: int, first: int, last: int, votes: int,
                 *, fraction: float = views_lib.FRACTION, reduced: bool = False,
                 host: tuple[int, int] = (0, 1)) -> Iterator[Batch]:
  """Yields host batches of `votes` draws of views per example.

  Examples are first ... last - 1, with all draws of one side by side. Batches
  are as those of eval_batches; `reduced` applies as in training.
  """
  count = (last - first) * votes

  def example(number):
    place = tf.minimum(number, count - 1)
    # Dice of one example differ by epoch, so a vote's number is its epoch.
    return (place % votes, first + place // votes,
            {'mask': tf.cast(number < count, tf.float32)})

  return _batches(source, batch_size, 0, -(-count // batch_size), host, example,
                  _shows(source, views, seed, fraction, reduced))


def _shows(source, views, seed, fraction, reduced=False):
  """A function (epoch, index) -> label and views of an example."""
  def show(epoch, index):
    image, label = source.fetch(index)
    return {'label': label, 'views': crops.render(
        image, views, seed, epoch, index, fraction, reduced, source.as_shown)}
  return show


def _batches(source, batch_size, start, stop, host, example, show):
  """Yields batches; example(number) gives epoch, index and further values."""
  place, hosts = host
  if batch_size % hosts:
    raise ValueError(f'A batch of {batch_size} does not divide among {hosts} '
                     'hosts.')
  share = batch_size // hosts

  def number_of(i):  # Of the i-th example that this host renders.
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
