"""First convolutions, 7x7 at stride 2 on the three channels of images, for CPUs.

Blocks of 2x2 pixels become channels, as rows and columns of the kernel do: what
was stride 2 on 3 channels is stride 1 on 12, which XLA's CPU backend computes
several times faster. The gradient is XLA's own of the convolution as it was.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float
import numpy as np

AnyArray = Array | np.ndarray
Map = Float[AnyArray, 'b h w c']
Kernel = Float[AnyArray, 'k k c d']


def pays(x: Map, kernel: Kernel) -> bool:
  """Whether `conv` takes these, and is faster than XLA's at stride 2."""
  return (len(kernel) == 7 and x.shape[-1] <= 4
          and x.shape[1] % 2 == x.shape[2] % 2 == 0)


@jax.custom_vjp
def conv(x: Map, kernel: Kernel) -> Float[Array, 'b H W d']:
  """Convolves at stride 2, with (k - 1) / 2 zeros on each side, k odd.

  h and w are even; H and W are half of them.
  """
  k, half = len(kernel), len(kernel) // 2
  # Windows begin at even pixels: one row of zeros comes before the kernel where
  # they would not, else after it.
  odd = half % 2
  before = half + odd
  kernel = jnp.pad(kernel, ((odd, 1 - odd), (odd, 1 - odd), (0, 0), (0, 0)))
  around = (before, k - 1 - before)
  x = jnp.pad(x, ((0, 0), around, around, (0, 0)))
  return jax.lax.conv_general_dilated(
      _blocks(x), _blocks(kernel.transpose(3, 0, 1, 2)), (1, 1), 'VALID',
      dimension_numbers=('NHWC', 'OHWI', 'NHWC'))


def _blocks(x):
  """[n, 2 i, 2 j, c] -> [n, i, j, 4 c]."""
  n, h, w, c = x.shape
  x = x.reshape(n, h // 2, 2, w // 2, 2, c)
  return x.transpose(0, 1, 3, 2, 4, 5).reshape(n, h // 2, w // 2, 4 * c)


def as_it_is(x: Map, kernel: Kernel) -> Float[Array, 'b H W d']:
  """What `conv` computes, by XLA's own convolution."""
  half = len(kernel) // 2
  return jax.lax.conv_general_dilated(
      x, kernel, (2, 2), ((half, half),) * 2,
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


def _backward(saved, g):
  return jax.vjp(as_it_is, *saved)[1](g)


conv.defvjp(lambda x, kernel: (conv(x, kernel), (x, kernel)), _backward)
