"""Reads all examples of a source, and names the first that cannot be read."""

from collections.abc import Callable, Iterable, Iterator
import os
import re
from typing import Any

from absl import logging
import numpy as np
import tensorflow as tf

from big_distill import contracts
from big_distill.contracts import Source
from big_distill.input import crops

# Examples that pass from TensorFlow to Python at a time: small images one by
# one take 8 times as long.
TOGETHER = 64


def by_all_cores(dataset: tf.data.Dataset,
                 function: Callable) -> tf.data.Dataset:
  """Maps a function over a dataset, in order, two calls at once per core."""
  # tf.data's autotuner sleeps for up to a minute at a time, and we saw the end
  # of a run wait for it. From the decoded cache, two calls per core deliver a
  # fifth more than it chooses to, and a tenth more than one.
  options = tf.data.Options()
  options.autotune.enabled = False
  # Nothing here branches on a tensor in Python, and looking for what does takes
  # a second of every start.
  plain = tf.autograph.experimental.do_not_convert(function)
  dataset = dataset.map(plain, 2 * os.cpu_count(), deterministic=True)
  return dataset.with_options(options)


def batches(source: Source, then: Callable) -> Iterator[Any]:
  """Yields then(image, label) of all examples, in order, TOGETHER at a time.

  Tensors of unknown shape come as ragged tensors. Raises ValueError naming the
  first example that cannot be read or decoded.
  """
  if source.scan:
    dataset = by_all_cores(source.scan(), then)
  else:
    dataset = by_all_cores(tf.data.Dataset.range(source.num_examples),
                           lambda i: then(*source.fetch(i)))
  first = 0
  try:
    for batch in dataset.ragged_batch(TOGETHER).prefetch(2):
      yield batch
      first += TOGETHER
  except tf.errors.OpError as error:
    last = min(first + TOGETHER, source.num_examples)
    raise blame(source, range(first, last), error) from error


def pixels(source: Source, image: tf.Tensor) -> tf.Tensor:
  """uint8 [h, w, 3] of an image of a source, be it encoded or decoded."""
  return (crops.decode(image, source.as_shown) if image.dtype == tf.string
          else image)


def without_corrupt(source: Source) -> Source:
  """The source less the examples that cannot be decoded, counted and named."""
  def survives(index):
    image, _ = source.fetch(index)
    # tf.data drops operations whose results nobody uses: the shape makes it
    # decode the image.
    return index, tf.shape(pixels(source, image))
  dataset = tf.data.Dataset.range(source.num_examples)
  dataset = by_all_cores(dataset, survives).ignore_errors().batch(TOGETHER)
  good = [index for index, _ in dataset.as_numpy_iterator()]
  if not good:
    raise ValueError(f'No image of {source.title} can be decoded.')
  good = np.concatenate(good)
  bad = np.setdiff1d(np.arange(source.num_examples), good)
  if not bad.size:
    return source
  logging.warning('%s: skipping %d of %d images that cannot be decoded: %s',
                  source.title, bad.size, source.num_examples,
                  ', '.join(source.name(i) for i in bad))
  table = tf.constant(good)
  return source._replace(
      num_examples=len(good), parts=((len(good), 1),),
      fetch=lambda i: source.fetch(table[i]), scan=None,
      name=lambda i: source.name(good[i]),
      fingerprint=contracts.fingerprint(source.fingerprint, good.tolist()))


def blame(source: Source, indices: Iterable[int],
          error: tf.errors.OpError) -> Exception:
  """ValueError that names the first of `indices` at fault for an error.

  That is the first that cannot be read or decoded. Returns the error itself if
  all can.
  """
  for index in indices:
    try:
      image, _ = source.fetch(tf.constant(index, tf.int64))
      pixels(source, image)
    except Exception as found:  # Any that a function in the graph raises.
      reason = re.sub(r'{{.*?}}|\[Op.*', '', str(found)).strip()
      reason = reason.split('\n')[0].rstrip('.')
      return ValueError(
          f'{source.title}: {source.name(index)} cannot be decoded ({reason}). '
          'Repair or remove it, or set corrupt=skip in the data section.')
  return error
