"""Initial values that are drawn on the host, without compiling.

XLA compiles an initializer anew for each shape, which takes 27 s on two CPU
cores for R50x1. The initializers here are called as Flax's are, with a key of
JAX; given a numpy BitGenerator in its place, they draw by numpy from the same
distribution. `draw` makes all parameters of a model so. Initializers from
elsewhere are compiled.
"""

from collections.abc import Callable, Sequence
import dataclasses
import math
import statistics
import threading
from typing import Any
from unittest import mock
import zlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from big_distill import parallel

CONSTANTS = {nn.initializers.zeros: 0, nn.initializers.ones: 1}
CHUNK = 1 << 14  # Numbers drawn at once: they and their bits fit into a cache.
CELL, INSIDE = 12, 20  # Bits that choose a cell, and a place inside it.


@dataclasses.dataclass(frozen=True)
class Initializer:
  """init(key of JAX or BitGenerator, shape, dtype) -> array of that shape."""
  by_jax: Callable
  by_numpy: Callable[[np.random.BitGenerator, Sequence[int]], np.ndarray]

  def __call__(self, key: Any, shape: Sequence[int],
               dtype: Any = jnp.float32) -> jax.Array | np.ndarray:
    if isinstance(key, np.random.BitGenerator):
      return self.by_numpy(key, shape).astype(dtype, copy=False)
    return self.by_jax(key, shape, dtype)


def _fans(shape):
  """(fan in, fan out) of a kernel [..., in, out]."""
  window = math.prod(shape[:-2])
  return window * shape[-2], window * shape[-1]


def _edges(limit):
  """Quantiles of a standard normal distribution that is cut off at a limit.

  Between them lie cells of equal probability.
  """
  normal, cells = statistics.NormalDist(), 2**CELL
  low, high = normal.cdf(-limit), normal.cdf(limit)
  inner = [normal.inv_cdf(low + (high - low) * i / cells)
           for i in range(1, cells)]
  return np.asarray([-limit, *inner, limit])


# As JAX has it: cut off at 2, whose standard deviation this is.
EDGES, DEVIATION = _edges(2.), .87962566103423978


def _lecun_normal(stream, shape):
  # Uniform inside a cell: the distribution function is off by 3e-7 at most, at
  # half the price of numpy's normal numbers.
  edges = EDGES / DEVIATION * _fans(shape)[0]**-.5
  first, step = np.float32(edges[:-1]), np.float32(np.diff(edges) / 2**INSIDE)
  values = np.empty(math.prod(shape), np.float32)
  for i in range(0, len(values), CHUNK):
    part = values[i:i + CHUNK]
    bits = stream.random_raw(-(-len(part) // 2)).view(np.uint32)[:len(part)]
    cell = bits >> INSIDE
    bits &= 2**INSIDE - 1
    np.multiply(bits, step.take(cell), out=part, dtype=np.float32,
                casting='unsafe')
    part += first.take(cell)
  return values.reshape(shape)


def _xavier_uniform(stream, shape):
  limit = np.float32((6 / sum(_fans(shape)))**.5)
  values = np.random.Generator(stream).random(shape, np.float32)
  return limit * (2 * values - 1)


lecun_normal = Initializer(nn.initializers.lecun_normal(), _lecun_normal)
xavier_uniform = Initializer(nn.initializers.xavier_uniform(), _xavier_uniform)


def normal(std: float) -> Initializer:
  """Normal numbers with this standard deviation."""
  def draw(stream, shape):
    values = np.random.Generator(stream).standard_normal(shape, np.float32)
    return np.float32(std) * values

  return Initializer(nn.initializers.normal(std), draw)


DRAWING = threading.Lock()  # One thread at a time replaces Flax's method.


def draw(model: nn.Module, images: jax.ShapeDtypeStruct, seed: int = 0) -> Any:
  """Initial parameters of a model for such images, as numpy arrays.

  A value depends on the seed and on the name of its parameter.
  """
  values, here = {}, threading.get_ident()

  def param(self, name, init, *args, **kwargs):
    if threading.get_ident() != here:  # A model that another thread traces.
      return original(self, name, init, *args, **kwargs)
    path = (*self.path, name)
    if path not in values:
      with parallel.on_host(), jax.ensure_compile_time_eval():
        values[path] = _draw(init, args, seed, '/'.join(path))
    like = values[path]
    return original(self, name, lambda *_, **__: jnp.zeros(
        like.shape, like.dtype), *args, **kwargs)

  # Flax has no way to ask for a parameter's initializer.
  with DRAWING:
    original = nn.Module.param
    with mock.patch.object(nn.Module, 'param', param):
      shapes = jax.eval_shape(model.init, jax.random.key(0), images)['params']
  return jax.tree_util.tree_map_with_path(
      lambda path, _: values[tuple(key.key for key in path)], shapes)


def _draw(init, args, seed, name):
  if init in CONSTANTS:
    return np.full(args[0], CONSTANTS[init], np.float32)
  try:
    return np.asarray(init(
        np.random.SFC64([seed % 2**64, *name.encode()]), *args))
  except TypeError:  # An initializer that takes keys of JAX alone.
    return np.asarray(init(_key(seed, name), *args))


def _key(seed, name):
  return jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))
