"""Convolutions, and the normalisation of images, that models share.

They compute the textbook formulas and are written for speed on CPUs: 1x1
convolutions are matrix products, and a depthwise convolution is a sum of
shifted products. The gradient of a product is written out, because XLA's CPU
backend is slow with the one that JAX derives. On CPU this is 2 to 80 times
faster than XLA's convolutions; accelerators keep XLA's. See norms.py, too.
"""

from collections.abc import Iterator, Sequence
import contextlib
import contextvars
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float
import numpy as np

from big_distill.ops import winograd

AnyArray = Array | np.ndarray
Images = Float[AnyArray, 'b h w 3']  # In [-1, 1], as all models get them.
Map = Float[AnyArray, 'b h w c']

_STACKED = contextvars.ContextVar('stacked', default=False)
HALF = (.5, .5, .5)  # As mean and std these map pixels in [0, 1] to [-1, 1].


def normalize(images: Images, mean: Sequence[float] = HALF,
              std: Sequence[float] = HALF) -> Images:
  """Maps images in [-1, 1] to (pixels - mean) / std, with pixels in [0, 1].

  `mean` and `std` have a number for each of red, green and blue. Where all of
  them are a half, the images are returned as they are; otherwise as float32.
  """
  mean, std = (np.asarray(each, np.float64) for each in (mean, std))
  if (mean == HALF).all() and (std == HALF).all():
    return images
  scale, shift = .5 / std, (.5 - mean) / std
  return images.astype(jnp.float32) * np.float32(scale) + np.float32(shift)


def conv(x: Map, kernel: Float[AnyArray, 'k k c d'], stride: int = 1,
         same: bool = False) -> Float[AnyArray, 'b H W d']:
  """Convolves x with a kernel, k odd, in the precision of x.

  Zeros are added, (k - 1) / 2 on each side, as PyTorch's models do; with `same`
  as TensorFlow does: at stride 2 an even side gets fewer at its start. H and W
  are h and w divided by the stride, rounded up.
  """
  kernel = kernel.astype(x.dtype)
  general = functools.partial(general_conv, stride=stride, groups=1, same=same)
  if _STACKED.get() and len(kernel) > 1:
    return jax.lax.platform_dependent(
        x, kernel, default=general,
        cuda=functools.partial(windows_conv, stride=stride, same=same))
  if len(kernel) == 1:
    if stride == 1:
      return pointwise(x, kernel)
    # XLA's GPU compiler aborts at some sizes where a product takes a slice.
    return jax.lax.platform_dependent(
        x, kernel, default=general, cpu=lambda x, kernel: pointwise(
            x[:, ::stride, ::stride], kernel))
  if len(kernel) == 7 and x.shape[-1] == 3 and 16 < kernel.shape[-1] <= 32:
    return jax.lax.platform_dependent(
        x, kernel, default=general, cpu=functools.partial(
            widened_conv, stride=stride, same=same))
  if stride == 1 and winograd.pays(x, kernel):
    return jax.lax.platform_dependent(
        x, kernel, default=general, cpu=winograd.conv)
  return general(x, kernel)


@jax.custom_vjp
def pointwise(x: Map, kernel: Float[AnyArray, '1 1 c d']
              ) -> Float[AnyArray, 'b h w d']:
  """Convolves with a 1x1 kernel, by a product of matrices."""
  return _pointwise_forward(x, kernel)[0]


def _pointwise_forward(x, kernel):
  # A TPU lays out the batch, not the width, next to the channels: a product
  # would have x laid out anew, and norms not fused into it (docs/tpu.md).
  return jax.lax.platform_dependent(
      x, kernel, tpu=_pointwise_conv, default=_pointwise_product), (x, kernel)


def _pointwise_backward(saved, g):
  def gradient(function):
    return lambda x, kernel, g: jax.vjp(function, x, kernel)[1](g)

  return jax.lax.platform_dependent(
      *saved, g, tpu=gradient(_pointwise_conv),
      default=gradient(_pointwise_product))


pointwise.defvjp(_pointwise_forward, _pointwise_backward)


def _pointwise_conv(x, kernel):
  return general_conv(x, kernel, stride=1, groups=1)


def _pointwise_product(x, kernel):
  y = product(x.reshape(-1, x.shape[-1]), kernel[0, 0])
  return y.reshape(*x.shape[:-1], -1)


@jax.custom_vjp
def product(x: Float[AnyArray, 'n c'], kernel: Float[AnyArray, 'c d']
            ) -> Float[AnyArray, 'n d']:
  """Multiplies matrices; the gradient is fast on CPU."""
  return x @ kernel


def _product_forward(x, kernel):
  return x @ kernel, (x, kernel)


def _product_backward(saved, g):
  x, kernel = saved
  return g @ kernel.T, jax.lax.platform_dependent(
      x, g, cpu=narrow_transposed, default=lambda x, g: x.T @ g)


product.defvjp(_product_forward, _product_backward)


def narrow_transposed(x: Float[AnyArray, 'n c'], g: Float[AnyArray, 'n d']
                      ) -> Float[AnyArray, 'c d']:
  """Computes x.T @ g by way of a copy of the narrower one, transposed."""
  # Without the barrier XLA's CPU backend copies g. It fuses the copy with what
  # g is the sum of, in a residual network the gradients of all later units, and
  # computes all of them again.
  if x.shape[1] > g.shape[1]:
    return narrow_transposed(g, x).T
  return jax.lax.optimization_barrier(x.T) @ g


def depthwise(x: Map, kernel: Float[AnyArray, 'k k 1 c'], stride: int = 1,
              same: bool = False) -> Float[AnyArray, 'b H W c']:
  """Convolves each channel with a kernel of its own; pads as `conv` does."""
  # XLA's grouped convolution is 8 to 80 times slower on CPU, its gradient
  # 3 to 100 times.
  return jax.lax.platform_dependent(
      x, kernel,
      cpu=functools.partial(shifted_depthwise, stride=stride, same=same),
      default=functools.partial(general_depthwise, stride=stride, same=same))


def general_depthwise(x: Map, kernel: Float[AnyArray, 'k k 1 c'],
                      stride: int = 1, same: bool = False
                      ) -> Float[AnyArray, 'b H W c']:
  """Computes `depthwise` as a grouped convolution of XLA."""
  return general_conv(x, kernel.astype(x.dtype), stride, x.shape[-1], same)


def shifted_depthwise(x: Map, kernel: Float[AnyArray, 'k k 1 c'],
                      stride: int = 1, same: bool = False
                      ) -> Float[AnyArray, 'b H W c']:
  """Computes `depthwise` as a sum of products with shifted images."""
  h, w = (-(-n // stride) for n in x.shape[1:3])
  rows, columns = padding(x, kernel, stride, same)
  x = jnp.pad(x, ((0, 0), rows, columns, (0, 0)))
  products = [
      x[:, i:i + stride * h:stride, j:j + stride * w:stride] * weight[0]
      for i, row in enumerate(kernel) for j, weight in enumerate(row)]
  return sum(products).astype(x.dtype)


def general_conv(x: Map, kernel: Float[AnyArray, 'k k _ d'], stride: int,
                 groups: int, same: bool = False) -> Float[AnyArray, 'b H W d']:
  """Computes a convolution of this many groups of channels by XLA's own."""
  return jax.lax.conv_general_dilated(
      jnp.asarray(x), jnp.asarray(kernel), (stride, stride), padding(x, kernel, stride, same),
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'), feature_group_count=groups)


def widened_conv(x: Map, kernel: Float[AnyArray, 'k k c d'], stride: int,
                 same: bool = False) -> Float[AnyArray, 'b H W d']:
  """Computes a convolution with as many more outputs as XLA likes on CPU.

  For 64 images of 48 px, a 7x7 kernel and 24 outputs, XLA takes 48 ms of CPU time
  forward and 61 with the backward pass; 8 and 23 where zeros make it 48 outputs.
  """
  d = kernel.shape[-1]
  wide = jnp.pad(kernel, ((0, 0), (0, 0), (0, 0), (0, 48 - d)))
  return general_conv(x, wide, stride, 1, same)[..., :d]


def windows_conv(x: Map, kernel: Float[AnyArray, 'k k c d'], stride: int,
                 same: bool = False) -> Float[AnyArray, 'b H W d']:
  """Computes a convolution as a product of what the kernel sees with it."""
  rows, columns = padding(x, kernel, stride, same)
  x = jnp.pad(x, ((0, 0), rows, columns, (0, 0)))
  k = len(kernel)
  h, w = ((n - k) // stride + 1 for n in x.shape[1:3])
  windows = jnp.concatenate([
      x[:, i:i + stride * (h - 1) + 1:stride, j:j + stride * (w - 1) + 1:stride]
      for i in range(k) for j in range(k)], axis=-1)
  # Gathered once, not anew for each tile of the product.
  windows = jax.lax.optimization_barrier(windows)
  return jnp.tensordot(windows, kernel.reshape(-1, kernel.shape[-1]), 1)


@contextlib.contextmanager
def stacked() -> Iterator[None]:
  """Inside a `with`, convolutions are for kernels that jax.vmap stacks.

  It makes a grouped convolution of them; on a GPU a batched product of gathered
  windows is faster: forward and backward of 30 small BiTs, 48 px and batch 128,
  took 16.4 ms in place of 27.6 on an H200.
  """
  before = _STACKED.set(True)
  try:
    yield
  finally:
    _STACKED.reset(before)


def padding(x: Map, kernel: Float[AnyArray, 'k k _ _'], stride: int, same: bool
            ) -> Sequence[tuple[int, int]]:
  """Numbers of zeros (before, after) the rows and the columns; see `conv`."""
  k = len(kernel)
  if same:
    return tuple(jax.lax.padtype_to_pads(
        x.shape[1:3], (k, k), (stride, stride), 'SAME'))
  return ((k // 2, k // 2),) * 2
