"""Layers that several families of models are made of.

They compute the textbook formulas and are written for speed: norms become one
multiply-add, 1x1 convolutions are matrix products, and on CPU a depthwise
convolution is a sum of shifted products. On CPU that is 2 to 80 times faster
than the obvious way; on accelerators it costs nothing.

Parameters and moments are float32, whatever the activations are.
"""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from big_distill import parallel


def conv(x, kernel, stride=1):
  """Convolution with an HWIO kernel in x's precision; pads like PyTorch."""
  kernel = kernel.astype(x.dtype)
  size = len(kernel)
  if size == 1:
    x = x[:, ::stride, ::stride]
    return jnp.einsum('bhwc,cd->bhwd', x, kernel[0, 0])
  return _conv(x, kernel, stride, groups=1)


def depthwise(x, kernel, stride=1):
  """Convolves each channel with its own kernel, [k, k, 1, c], k odd."""
  # XLA's grouped convolution is 8 to 80 times slower on CPU, its gradient
  # 3 to 100 times.
  return jax.lax.platform_dependent(
      x, kernel, cpu=functools.partial(shifted_depthwise, stride=stride),
      default=functools.partial(general_depthwise, stride=stride))


def general_depthwise(x, kernel, stride=1):
  """As XLA has it."""
  return _conv(x, kernel.astype(x.dtype), stride, groups=x.shape[-1])


def shifted_depthwise(x, kernel, stride=1):
  """As a sum of shifted products."""
  h, w = (-(-n // stride) for n in x.shape[1:3])
  pad = len(kernel) // 2
  x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
  products = [
      x[:, i:i + stride * h:stride, j:j + stride * w:stride] * weight[0]
      for i, row in enumerate(kernel) for j, weight in enumerate(row)]
  return sum(products).astype(x.dtype)


def _conv(x, kernel, stride, groups):
  pad = len(kernel) // 2
  return jax.lax.conv_general_dilated(
      x, kernel, (stride, stride), ((pad, pad), (pad, pad)),
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'), feature_group_count=groups)


class GroupNorm(nn.Module):
  """Normalises over space and the channels of a group. [b, h, w, c] -> same.

  There are `groups` of them, or the most that divide `groups` and c alike.
  """
  groups: int
  eps: float = 1e-5

  @nn.compact
  def __call__(self, x, train=False):
    del train  # Examples are normalised alone, learned from or not.
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
    a = scale[0, 0] * jax.lax.rsqrt(jnp.maximum(var, 0.) + self.eps)
    d = bias[0, 0] - mean * a
    return (wide * a[:, None, None] + d[:, None, None]).astype(x.dtype)


class BatchNorm(nn.Module):
  """Normalises each channel over the batch and space. [b, h, w, c] -> same.

  Running averages of the moments are parameters beside scale and bias, `mean`
  and `var`, which no gradient moves. In training the moments are those of the
  batch on all devices, inside parallel.pmap, and the averages that follow are
  sown into the collection 'averages', at the parameters' own names.
  """
  eps: float = 1e-3  # As TF-slim's MobileNetV3 and torchvision's.
  momentum: float = .99

  @nn.compact
  def __call__(self, x, train=False):
    shape = (1, 1, 1, x.shape[-1])
    scale = self.param('scale', nn.initializers.ones, shape)
    bias = self.param('bias', nn.initializers.zeros, shape)
    mean, var = jax.lax.stop_gradient((
        self.param('mean', nn.initializers.zeros, shape),
        self.param('var', nn.initializers.ones, shape)))
    wide = x.astype(jnp.float32)
    if train:
      # Measured from the running mean, for the reason that GroupNorm has.
      wide = wide - mean
      shift, power = parallel.mean(
          tuple(jnp.mean(moment, axis=(0, 1, 2), keepdims=True)
                for moment in (wide, jnp.square(wide))))
      spread = jnp.maximum(power - jnp.square(shift), 0.)
      # Averages follow the unbiased variance, as TensorFlow's fused kernel,
      # which the original trains with, and PyTorch do.
      n = parallel.total(x.size // x.shape[-1])
      self._follow('mean', mean, mean + shift)
      self._follow('var', var, spread * (n / max(n - 1, 1)))
      mean, var = shift, spread
    a, d = multiply_add(scale, bias, mean, var, self.eps)
    return (wide * a + d).astype(x.dtype)

  def _follow(self, name, average, moment):
    new = self.momentum * average + (1 - self.momentum) * moment
    self.sow('averages', name, new, init_fn=lambda: None,
             reduce_fn=lambda _, new: new)


def multiply_add(scale, bias, mean, var, eps=BatchNorm.eps):
  """BatchNorm of known moments as (a, d): its result is x a + d."""
  a = scale * jax.lax.rsqrt(var + eps)
  return a, bias - mean * a


class Affine(nn.Module):
  """What is left of a BatchNorm in evaluation: one multiply-add."""

  @nn.compact
  def __call__(self, x, train=False):
    del train
    shape = (1, 1, 1, x.shape[-1])
    scale = self.param('scale', nn.initializers.ones, shape)
    bias = self.param('bias', nn.initializers.zeros, shape)
    return (x.astype(jnp.float32) * scale + bias).astype(x.dtype)
