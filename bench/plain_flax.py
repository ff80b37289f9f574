"""BiT-ResNet v2 of Flax's own layers: the yardstick of bench/.

GroupNorm is `flax.linen.GroupNorm`, convolutions are XLA's, nothing is done for
speed. Its parameters are those of big_distill.models.bit, by other names.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp


def norm(x):
  return nn.GroupNorm(32, epsilon=1e-5, dtype=x.dtype)(x)


class StdConv(nn.Module):
  features: int
  size: int = 1
  stride: int = 1

  @nn.compact
  def __call__(self, x):
    shape = (self.size, self.size, x.shape[-1], self.features)
    kernel = self.param('kernel', nn.initializers.lecun_normal(), shape)
    kernel = kernel - jnp.mean(kernel, (0, 1, 2))
    kernel = kernel / jnp.sqrt(jnp.var(kernel, (0, 1, 2)) + 1e-10)
    conv = nn.Conv(self.features, (self.size, self.size), self.stride,
                   padding=self.size // 2, use_bias=False,
                   dtype=x.dtype, parent=None)
    return conv.apply({'params': {'kernel': kernel}}, x)


class Unit(nn.Module):
  mid: int
  stride: int

  @nn.compact
  def __call__(self, x):
    y = nn.relu(norm(x))
    if x.shape[-1] != 4 * self.mid:
      x = StdConv(4 * self.mid, 1, self.stride)(y)
    y = StdConv(self.mid)(y)
    y = nn.relu(norm(y))
    y = StdConv(self.mid, 3, self.stride)(y)
    y = nn.relu(norm(y))
    return x + StdConv(4 * self.mid)(y)


class Model(nn.Module):
  """Images [b, h, w, 3] -> logits [b, num_classes]."""
  num_classes: int
  units: tuple[int, ...] = (3, 4, 6, 3)
  width: int = 1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, images):
    x = StdConv(64 * self.width, 7, 2)(images.astype(self.dtype))
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    x = nn.max_pool(x, (3, 3), (2, 2))
    for i, count in enumerate(self.units):
      for j in range(count):
        x = Unit(64 * self.width * 2**i, 2 if i and not j else 1)(x)
    x = nn.relu(norm(x))
    x = jnp.mean(x, (1, 2)).astype(jnp.float32)
    return nn.Dense(self.num_classes)(x)
