"""A targets.Target of TensorFlow's own operations, without XLA.

Plain operations are read by every runtime of TensorFlow, TFLite among them.
Import it where TensorFlow may be imported.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from big_distill import served as served_lib
from big_distill import targets
from big_distill import translate


def function(served: served_lib.Served) -> Any:
  """A tf.function: uint8 [b, size, size, 3] -> {'logits': float32 [b, c]}."""
  import tensorflow as tf

  def logits(images):
    return {'logits': translate.translate(
        served.logits, served.kept, served.image, Operations(images), images)}

  spec = tf.TensorSpec([None, *served.image], tf.uint8, 'images')
  return tf.function(logits, input_signature=[spec], autograph=False)


class Operations:
  """See targets.Target; handles are tensors, computed from `images`."""

  def __init__(self, images: Any):
    import tensorflow as tf

    self._tf, self._images = tf, images
    self._named = {
        'add': tf.add, 'sub': tf.subtract, 'mul': tf.multiply,
        'div': tf.divide, 'max': tf.maximum, 'min': tf.minimum,
        'neg': tf.negative, 'exp': tf.exp, 'log': tf.math.log,
        'tanh': tf.tanh, 'sqrt': tf.sqrt, 'rsqrt': tf.math.rsqrt,
        'logistic': tf.sigmoid, 'erf': tf.math.erf, 'abs': tf.abs}

  def constant(self, value: np.ndarray | np.generic) -> Any:
    return self._tf.constant(value)

  def elementwise(self, name: str, *args: Any) -> Any:
    return self._named[name](*args)

  def cast(self, x: Any, dtype: np.dtype) -> Any:
    return self._tf.cast(x, dtype)

  def reshape(self, x: Any, dims: targets.Dims) -> Any:
    return self._tf.reshape(x, [-1 if n is None else n for n in dims])

  def expand(self, x: Any, dims: targets.Dims) -> Any:
    batch = self._tf.shape(self._images)[0]
    return self._tf.broadcast_to(x, [batch if n is None else n for n in dims])

  def transpose(self, x: Any, order: Sequence[int]) -> Any:
    return self._tf.transpose(x, order)

  def slice(self, x: Any, axis: int, start: int, stop: int, step: int) -> Any:
    return x[(slice(None),) * axis + (slice(start, stop, step),)]

  def pad(self, x: Any, pads: Sequence[tuple[int, int]], value: float) -> Any:
    return self._tf.pad(x, pads, constant_values=value)

  def concatenate(self, parts: Sequence[Any], axis: int) -> Any:
    return self._tf.concat(parts, axis)

  def reduce(self, kind: str, x: Any, axes: Sequence[int]) -> Any:
    return getattr(self._tf, f'reduce_{kind}')(x, axes)

  def matmul(self, x: Any, y: Any) -> Any:
    return self._tf.matmul(x, y)

  def conv(self, x: Any, kernel: Any, strides: Sequence[int],
           pads: Sequence[tuple[int, int]], groups: int) -> Any:
    tf = self._tf
    sides, kernels = x.shape[1:3], kernel.shape[:2]
    same = [max((-(-n // step) - 1) * step + k - n, 0)
            for n, k, step in zip(sides, kernels, strides)]
    if [*map(tuple, pads)] == [(n // 2, n - n // 2) for n in same]:
      padding = 'SAME'
    else:
      padding = 'VALID'
      if np.any(pads):
        x = tf.pad(x, [(0, 0), *pads, (0, 0)])
    if groups > 1 and groups == x.shape[-1]:
      kernel = tf.reshape(kernel, [*kernels, groups, -1])
      return tf.nn.depthwise_conv2d(x, kernel, [1, *strides, 1], padding)
    return tf.nn.conv2d(x, kernel, [1, *strides, 1], padding)
