"""Norms that models share: GroupNorm and BatchNorm.

Each becomes one multiply-add, x a + d, with a and d made of moments. GroupNorm's
gradient is written out, because XLA's CPU backend is slow with the one that JAX
derives. Parameters and moments are float32, whatever the precision of x.
"""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float
from jaxtyping import Float32
import numpy as np

from big_distill import parallel

AnyArray = Array | np.ndarray
Map = Float[AnyArray, 'b h w c']
PerChannel = Float32[AnyArray, 'c']


class GroupNorm(nn.Module):
  """Normalises each example over space and the channels of a group.

  There are `groups` groups, or the largest number that divides both `groups`
  and the number of channels. With `relu` negative results become 0.
  """
  groups: int
  eps: float = 1e-5
  relu: bool = False

  @nn.compact
  def __call__(self, x: Map, train: bool = False) -> Map:
    del train  # The same in training and evaluation.
    shape = (1, 1, 1, x.shape[-1])
    scale = self.param('scale', nn.initializers.ones, shape)
    bias = self.param('bias', nn.initializers.zeros, shape)
    return group_norm(x, scale[0, 0, 0], bias[0, 0, 0],
                      math.gcd(self.groups, x.shape[-1]), self.eps, self.relu)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def group_norm(x: Map, scale: PerChannel, bias: PerChannel, groups: int,
               eps: float, relu: bool) -> Map:
  """Computes GroupNorm. Its gradient reads x and what comes in twice."""
  return _group_norm_forward(x, scale, bias, groups, eps, relu)[0]


def _over_group(moment, groups):
  """Replaces each number by the mean over its group's channels, [b, c]."""
  b, c = moment.shape
  moment = moment.reshape(b, groups, c // groups)
  mean = jnp.mean(moment, axis=-1, keepdims=True)
  return jnp.broadcast_to(mean, moment.shape).reshape(b, c)


def _group_norm_forward(x, scale, bias, groups, eps, relu):
  shift, mean, var = jax.lax.platform_dependent(
      x, tpu=functools.partial(_moments_at_once, groups=groups),
      default=functools.partial(_moments_about_a_pixel, groups=groups))
  # Rounding may make the variance of nearly equal numbers negative.
  r = jax.lax.rsqrt(jnp.maximum(var, 0.) + eps)
  a = scale * r
  d = bias - mean * a
  wide = x.astype(jnp.float32) - shift[:, None, None]
  y = wide * a[:, None, None] + d[:, None, None]
  y = jax.nn.relu(y) if relu else y
  return y.astype(x.dtype), (x, shift + mean, r, scale, bias)


def _moments_about_a_pixel(x, groups):
  """(shift, mean - shift, variance) of each group, [b, c] each."""
  wide = x.astype(jnp.float32)
  # E[x^2] - E[x]^2 loses the digits of a variance that is small beside the mean,
  # so the first pixel is subtracted before.
  # lax.slice stays a slice where the batch is a symbol; indexing gathers then.
  b, c = x.shape[0], x.shape[-1]
  pixel = jax.lax.slice(wide, (0, 0, 0, 0), (b, 1, 1, c)).reshape(b, c)
  pixel = _over_group(pixel, groups)
  # The maximum changes nothing, but keeps compilers from contracting the mean's
  # product with the subtractions, in some places and not in others: the pixel
  # would then be one number here and another there.
  pixel = jnp.maximum(pixel, jnp.finfo(jnp.float32).min)
  return pixel, *_moments(wide - pixel[:, None, None], groups)


def _moments_at_once(x, groups):
  """The same by plain sums, as Flax takes them: nothing of x comes before.

  So a TPU takes them while it writes x (docs/tpu.md). The variance is off by
  float32's roundings of the squared mean.
  """
  mean, var = _moments(x.astype(jnp.float32), groups)
  return jnp.zeros_like(mean), mean, var


def _moments(wide, groups):
  """(mean, variance) of each group, [b, c] each."""
  mean = _over_group(jnp.mean(wide, axis=(1, 2)), groups)
  power = _over_group(jnp.mean(jnp.square(wide), axis=(1, 2)), groups)
  return mean, power - jnp.square(mean)


def _group_norm_backward(groups, eps, relu, saved, g):
  del eps
  x, mean, r, scale, bias = saved
  unit = (x.astype(jnp.float32) - mean[:, None, None]) * r[:, None, None]
  g = g.astype(jnp.float32)
  if relu:
    g = jnp.where(unit * scale + bias > 0, g, 0.)
  dbias = jnp.sum(g, axis=(1, 2))
  dscale = jnp.sum(g * unit, axis=(1, 2))
  pixels = x.shape[1] * x.shape[2]
  flat = _over_group(scale * dbias, groups) / pixels
  tilt = _over_group(scale * dscale, groups) / pixels
  dx = (scale * g - flat[:, None, None] - unit * tilt[:, None, None]
        ) * r[:, None, None]
  return dx.astype(x.dtype), jnp.sum(dscale, axis=0), jnp.sum(dbias, axis=0)


group_norm.defvjp(_group_norm_forward, _group_norm_backward)


class BatchNorm(nn.Module):
  """Normalises each channel over the batch and space.

  Its parameters are scale, bias and two running averages, `mean` and `var`,
  which have no gradient. In training it normalises by the mean and variance of
  the batch, of all devices inside parallel.pmap, and puts the next running
  averages into the collection 'averages', under the names of the parameters.
  """
  eps: float = 1e-3  # As in TF-slim's MobileNetV3 and in torchvision's.
  momentum: float = .99

  @nn.compact
  def __call__(self, x: Map, train: bool = False) -> Map:
    shape = (1, 1, 1, x.shape[-1])
    scale = self.param('scale', nn.initializers.ones, shape)
    bias = self.param('bias', nn.initializers.zeros, shape)
    mean, var = jax.lax.stop_gradient((
        self.param('mean', nn.initializers.zeros, shape),
        self.param('var', nn.initializers.ones, shape)))
    wide = x.astype(jnp.float32)
    if train:
      # The running mean is subtracted before, as GroupNorm does with a pixel.
      wide = wide - mean
      shift, power = parallel.mean(
          tuple(jnp.mean(moment, axis=(0, 1, 2), keepdims=True)
                for moment in (wide, jnp.square(wide))))
      spread = jnp.maximum(power - jnp.square(shift), 0.)
      # The running average is of the unbiased variance, as in PyTorch and in
      # TensorFlow's fused kernel, which the original is trained with.
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


def multiply_add(scale: AnyArray, bias: AnyArray, mean: AnyArray, var: AnyArray,
                 eps: float = BatchNorm.eps) -> tuple[AnyArray, AnyArray]:
  """(a, d), with which x a + d is BatchNorm by this mean and variance."""
  a = scale * jax.lax.rsqrt(var + eps)
  return a, bias - mean * a


class Affine(nn.Module):
  """A BatchNorm in evaluation, whose averages are folded: x scale + bias."""

  @nn.compact
  def __call__(self, x: Map, train: bool = False) -> Map:
    del train
    shape = (1, 1, 1, x.shape[-1])
    scale = self.param('scale', nn.initializers.ones, shape)
    bias = self.param('bias', nn.initializers.zeros, shape)
    return (x.astype(jnp.float32) * scale + bias).astype(x.dtype)
