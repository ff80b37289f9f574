"""Inverted bottlenecks, of which MobileNetV3 and EfficientNet-Lite are made.

A bottleneck expands its channels, convolves each, and projects them to few
again. Its norms are GroupNorm or BatchNorm; after `fold`, a BatchNorm is a
multiply-add.
"""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float
import numpy as np

from big_distill.ops import initial
from big_distill.ops import layers
from big_distill.ops import norms

Map = Float[Array | np.ndarray, 'b h w c']


class Row(NamedTuple):
  """A bottleneck: expand to `mid` channels, convolve each, project to `out`."""
  size: int
  mid: int
  out: int
  squeeze: bool
  act: Callable
  stride: int


# In training, and after `fold`.
NORMS: dict[str, tuple[Callable, Callable]] = {
    # The paper's variant has 8 groups everywhere; all channels divide by 8.
    'gn': (functools.partial(norms.GroupNorm, groups=8),) * 2,
    'bn': (norms.BatchNorm, norms.Affine),
}
dense = functools.partial(nn.Dense, kernel_init=initial.lecun_normal)
_multiply_add_once = jax.jit(norms.multiply_add)


def make_divisible(channels: float) -> int:
  """The nearest multiple of 8 that is not below nine tenths of `channels`."""
  near = max(8, int(channels + 4) // 8 * 8)
  return near + 8 if near < .9 * channels else near


def fold(params: Any) -> Any:
  """Turns each BatchNorm into a multiply-add, for Model(folded=True)."""
  if 'var' in params:
    return dict(zip(('scale', 'bias'), _multiply_add_once(**params)))
  return {name: fold(child) if isinstance(child, dict) else child
          for name, child in params.items()}


class Conv(nn.Module):
  """A convolution without bias, a norm, an activation."""
  norm: Callable
  train: bool
  features: int
  size: int = 1
  stride: int = 1
  act: Callable = lambda x: x
  depthwise: bool = False
  same: bool = False  # Padded as TensorFlow does, see layers.conv.

  @nn.compact
  def __call__(self, x: Map) -> Float[Array, 'b H W d']:
    shape = (self.size, self.size, 1 if self.depthwise else x.shape[-1],
             self.features)
    kernel = self.param('kernel', initial.lecun_normal, shape)
    convolve = layers.depthwise if self.depthwise else layers.conv
    x = convolve(x, kernel, self.stride, self.same)
    return self.act(self.norm(name='norm')(x, self.train))


class Squeeze(nn.Module):
  """Squeeze and excite: scales channels by a function of their means."""

  @nn.compact
  def __call__(self, x: Map) -> Map:
    c = x.shape[-1]
    y = jnp.mean(x.astype(jnp.float32), axis=(1, 2), keepdims=True)
    y = nn.relu(dense(make_divisible(c // 4), name='reduce')(y))
    y = nn.hard_sigmoid(dense(c, name='expand')(y))
    return x * y.astype(x.dtype)


class Block(nn.Module):
  """Inverted bottleneck: its ends are narrow and linear."""
  conv: Callable
  row: Row

  @nn.compact
  def __call__(self, x: Map) -> Float[Array, 'b H W d']:
    size, mid, out, squeeze, act, stride = self.row
    c, y = x.shape[-1], x
    if mid != c:
      y = self.conv(mid, act=act, name='expand')(y)
    y = self.conv(mid, size, stride, act, depthwise=True, name='depthwise')(y)
    if squeeze:
      y = Squeeze(name='squeeze')(y)
    y = self.conv(out, name='project')(y)
    return x + y if (stride, out) == (1, c) else y
