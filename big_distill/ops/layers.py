"""Layers that several families of models are made of.

They compute the textbook formulas and are written for speed: norms become one
multiply-add, 1x1 convolutions are matrix products, and on CPU a depthwise
convolution is a sum of shifted products. Gradients are written out where what
XLA's CPU backend makes of autodiff's is slow. On CPU all that is 2 to 80 times
faster than the obvious way; on accelerators it costs nothing.

Parameters and moments are float32, whatever the activations are.
"""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from big_distill import parallel
from big_distill.ops import winograd

HALF = (.5, .5, .5)  # Of the mean and deviation that make [0, 1] [-1, 1].


def normalize(images, mean=HALF, std=HALF):
  """(pixels - mean) / std of images [b, h, w, 3] in [-1, 1], pixels in [0, 1].

  The images themselves, untouched, where both are a half; else float32.
  """
  mean, std = (np.asarray(each, np.float64) for each in (mean, std))
  if (mean == HALF).all() and (std == HALF).all():
    return images
  scale, shift = .5 / std, (.5 - mean) / std
  return images.astype(jnp.float32) * np.float32(scale) + np.float32(shift)


def conv(x, kernel, stride=1, same=False):
  """Convolution with an HWIO kernel in x's precision.

  Pads by (k - 1) / 2 on all sides, as PyTorch's models do, or with `same` as
  TensorFlow does: at stride 2 an even side is padded less at its start.
  """
  kernel = kernel.astype(x.dtype)
  general = functools.partial(general_conv, stride=stride, groups=1, same=same)
  if len(kernel) == 1:
    if stride == 1:
      return pointwise(x, kernel)
    # XLA's GPU compiler aborts at some sizes where a product takes a slice.
    return jax.lax.platform_dependent(
        x, kernel, default=general, cpu=lambda x, kernel: pointwise(
            x[:, ::stride, ::stride], kernel))
  if stride == 1 and winograd.pays(x, kernel):
    return jax.lax.platform_dependent(
        x, kernel, default=general, cpu=winograd.conv)
  return general(x, kernel)


def pointwise(x, kernel):
  """Convolution with a 1x1 kernel."""
  y = product(x.reshape(-1, x.shape[-1]), kernel[0, 0])
  return y.reshape(*x.shape[:-1], -1)


@jax.custom_vjp
def product(x, kernel):
  """x [n, c] @ kernel [c, d]."""
  return x @ kernel


def _product_forward(x, kernel):
  return x @ kernel, (x, kernel)


def _product_backward(saved, g):
  x, kernel = saved
  return g @ kernel.T, jax.lax.platform_dependent(
      x, g, cpu=narrow_transposed, default=lambda x, g: x.T @ g)


product.defvjp(_product_forward, _product_backward)


def narrow_transposed(x, g):
  """x.T @ g, [n, c] and [n, d] -> [c, d], by a copy of the narrower one."""
  # Left to itself XLA's CPU backend copies g, whose fusion computes again all
  # that g is a sum of: in a residual network, the gradients of all later units.
  if x.shape[1] > g.shape[1]:
    return narrow_transposed(g, x).T
  return jax.lax.optimization_barrier(x.T) @ g


def depthwise(x, kernel, stride=1, same=False):
  """Convolves each channel with its own kernel, [k, k, 1, c], k odd.

  Pads as `conv` does.
  """
  # XLA's grouped convolution is 8 to 80 times slower on CPU, its gradient
  # 3 to 100 times.
  return jax.lax.platform_dependent(
      x, kernel,
      cpu=functools.partial(shifted_depthwise, stride=stride, same=same),
      default=functools.partial(general_depthwise, stride=stride, same=same))


def general_depthwise(x, kernel, stride=1, same=False):
  """As a grouped convolution."""
  return general_conv(x, kernel.astype(x.dtype), stride, x.shape[-1], same)


def shifted_depthwise(x, kernel, stride=1, same=False):
  """As a sum of shifted products."""
  h, w = (-(-n // stride) for n in x.shape[1:3])
  rows, columns = padding(x, kernel, stride, same)
  x = jnp.pad(x, ((0, 0), rows, columns, (0, 0)))
  products = [
      x[:, i:i + stride * h:stride, j:j + stride * w:stride] * weight[0]
      for i, row in enumerate(kernel) for j, weight in enumerate(row)]
  return sum(products).astype(x.dtype)


def general_conv(x, kernel, stride, groups, same=False):
  """As XLA has it."""
  return jax.lax.conv_general_dilated(
      x, kernel, (stride, stride), padding(x, kernel, stride, same),
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'), feature_group_count=groups)


def padding(x, kernel, stride, same):
  """Zeros before and after the rows of x, and its columns; see `conv`."""
  k = len(kernel)
  if same:
    return tuple(jax.lax.padtype_to_pads(
        x.shape[1:3], (k, k), (stride, stride), 'SAME'))
  return ((k // 2, k // 2),) * 2


class GroupNorm(nn.Module):
  """Normalises over space and the channels of a group. [b, h, w, c] -> same.

  There are `groups` of them, or the most that divide `groups` and c alike.
  """
  groups: int
  eps: float = 1e-5
  relu: bool = False  # After it.

  @nn.compact
  def __call__(self, x, train=False):
    del train  # Examples are normalised alone, learned from or not.
    shape = (1, 1, 1, x.shape[-1])
    scale = self.param('scale', nn.initializers.ones, shape)
    bias = self.param('bias', nn.initializers.zeros, shape)
    return group_norm(x, scale[0, 0, 0], bias[0, 0, 0],
                      math.gcd(self.groups, x.shape[-1]), self.eps, self.relu)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def group_norm(x, scale, bias, groups, eps, relu):
  """x [b, h, w, c], scale and bias [c] -> [b, h, w, c], through a ReLU if asked.

  The gradient, written out, makes two passes over x and what comes in.
  """
  return _group_norm_forward(x, scale, bias, groups, eps, relu)[0]


def _over_group(moment, groups):
  """[b, c] -> [b, c], means over each group's channels."""
  b, c = moment.shape
  moment = moment.reshape(b, groups, c // groups)
  mean = jnp.mean(moment, axis=-1, keepdims=True)
  return jnp.broadcast_to(mean, moment.shape).reshape(b, c)


def _group_norm_forward(x, scale, bias, groups, eps, relu):
  wide = x.astype(jnp.float32)
  # E[x^2] - E[x]^2 loses what is small beside the mean, so both are measured
  # from the first pixel.
  pixel = _over_group(wide[:, 0, 0], groups)
  wide = wide - pixel[:, None, None]
  mean = _over_group(jnp.mean(wide, axis=(1, 2)), groups)
  power = _over_group(jnp.mean(jnp.square(wide), axis=(1, 2)), groups)
  # Rounding may leave the variance of nearly equal numbers below zero.
  r = jax.lax.rsqrt(jnp.maximum(power - jnp.square(mean), 0.) + eps)
  a = scale * r
  d = bias - mean * a
  y = wide * a[:, None, None] + d[:, None, None]
  y = jax.nn.relu(y) if relu else y
  return y.astype(x.dtype), (x, pixel + mean, r, scale, bias)


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
