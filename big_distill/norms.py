"""Normalisation over a group of channels, or over a batch on all devices.

Both take first and second moments per channel and become one multiply-add,
which on CPU is several times faster than normalising first and scaling then.
Moments are float32, whatever the activations are.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from big_distill import parallel

GN_EPS = 1e-5  # big_transfer, big_vision and timm agree.
BN_EPS = 1e-3  # MobileNetV3 in TF-slim and in torchvision.
BN_MOMENTUM = 0.99  # As the original (arXiv 1905.02244, section 6.1).


class GroupNorm(nn.Module):
  """Normalises over space and the channels of a group. [b, h, w, c] -> same.

  There are as many groups, or the most that divide their number and c alike.
  """
  groups: int = 32

  @nn.compact
  def __call__(self, x):
    b, _, _, c = x.shape
    groups = math.gcd(self.groups, c)
    scale = self.param('scale', nn.initializers.ones, (1, 1, 1, c))
    bias = self.param('bias', nn.initializers.zeros, (1, 1, 1, c))

    def over_group(moment):  # [b, c] -> [b, c], equal within each group.
      moment = moment.reshape(b, groups, c // groups)
      mean = jnp.mean(moment, axis=-1, keepdims=True)
      return jnp.broadcast_to(mean, moment.shape).reshape(b, c)

    wide = x.astype(jnp.float32)
    # E[x^2] - E[x]^2 loses what is small beside the mean, so both are measured
    # from the first pixel. The result does not depend on it: no gradient.
    pixel = jax.lax.stop_gradient(over_group(wide[:, 0, 0]))
    wide = wide - pixel[:, None, None]
    mean = over_group(jnp.mean(wide, axis=(1, 2)))
    var = over_group(jnp.mean(jnp.square(wide), axis=(1, 2))) - jnp.square(mean)
    # Rounding may leave the variance of nearly equal numbers below zero.
    a = scale[0, 0] * jax.lax.rsqrt(jnp.maximum(var, 0.) + GN_EPS)
    d = bias[0, 0] - mean * a
    return (wide * a[:, None, None] + d[:, None, None]).astype(x.dtype)


class BatchNorm(nn.Module):
  """Normalises each channel over batch and space. [b, h, w, c] -> same.

  In training, by the moments of the whole batch, on all devices of all hosts;
  it must then be called inside parallel.pmap, and sows what the running
  averages become into 'averages'. Else, by these averages: the parameters
  `mean` and `var` (biased, as in TensorFlow's plain batch norm and in Flax),
  which no gradient moves.
  """
  train: bool = False

  @nn.compact
  def __call__(self, x):
    c = x.shape[-1:]
    scale = self.param('scale', nn.initializers.ones, c)
    bias = self.param('bias', nn.initializers.zeros, c)
    mean = jax.lax.stop_gradient(self.param('mean', nn.initializers.zeros, c))
    var = jax.lax.stop_gradient(self.param('var', nn.initializers.ones, c))

    wide = x.astype(jnp.float32)
    if self.train:
      # From the running mean, near which E[x^2] - E[x]^2 loses nothing.
      away = wide - mean
      first, second = parallel.mean((jnp.mean(away, axis=(0, 1, 2)),
                                     jnp.mean(jnp.square(away), axis=(0, 1, 2))))
      averages = mean, var
      mean = mean + first
      var = jnp.maximum(second - jnp.square(first), 0.)
      for name, old, new in zip(('mean', 'var'), averages, (mean, var)):
        self.sow('averages', name, BN_MOMENTUM * old + (1 - BN_MOMENTUM) * new,
                 init_fn=lambda: None, reduce_fn=lambda _, latest: latest)
    a = scale * jax.lax.rsqrt(var + BN_EPS)
    return (wide * a + (bias - mean * a)).astype(x.dtype)
