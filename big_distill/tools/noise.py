"""Stands in for input.pipeline where only speed matters: random pixels.

Needs no TensorFlow and takes no time: all steps see one batch.
"""

import itertools
import types

import numpy as np

from big_distill import render

IMAGES, HEIGHT, WIDTH = 512, 96, 128  # That devices hold.


class Noise:
  """The functions of input.pipeline that a stage asks for, of random images."""

  def __init__(self, classes):
    self.classes = tuple(range(classes))

  def load(self, resident=False, **options):
    del options  # Which images these would be makes no difference.
    return types.SimpleNamespace(title='noise', num_examples=10**6,
                                 fingerprint='noise',
                                 classes=self.classes, resident=resident)

  def hold(self, source):
    del source
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (IMAGES, HEIGHT, WIDTH, 3), np.uint8)
    return render.pack(images), self._labels(rng, IMAGES)

  def train_batches(self, source, shown, batch_size, seed, start, stop, *,
                    host=(0, 1), **crops):
    del source, start, stop, crops
    rng, b = np.random.default_rng(seed), batch_size // host[1]
    images = {str(view): rng.integers(
        0, 256, (b, view.size, view.size, 3), np.uint8) for view in shown}
    return itertools.repeat({'label': self._labels(rng, b), 'views': images})

  def train_boxes(self, source, shown, batch_size, seed, start, stop, *, held,
                  host=(0, 1), **crops):
    del source, start, stop, crops
    rng, b = np.random.default_rng(seed), batch_size // host[1]
    index = rng.integers(0, IMAGES, b)
    boxes = {}
    for region in {view.region for view in shown}:
      ends = rng.integers(1, (HEIGHT, WIDTH), (b, 2), endpoint=True)
      corner = rng.integers(0, ends)
      boxes[str(region)] = np.concatenate(
          [corner, ends - corner, rng.integers(0, 2, (b, 1))],
          axis=1).astype(np.int32)
    return itertools.repeat(
        {'index': index, 'label': held[1][index], 'boxes': boxes})

  eval_batches = train_batches  # Bound by a stage, though it evaluates nothing.

  def _labels(self, rng, n):
    return rng.integers(0, len(self.classes), n, np.int32)
