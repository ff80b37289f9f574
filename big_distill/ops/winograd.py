"""3x3 convolutions and their gradients with a quarter of the products, for CPUs.

This is Winograd's minimal filtering F(4x4, 3x3), applied to whole layers as in
Lavin and Gray (2015, arXiv 1509.09308, section 4.1). A tile of 6x6 pixels makes
4x4 pixels of output, with 36 products per pair of channels in place of 144:

  y = A' [(G k G') * (B' x B)] A

The gradient with respect to the kernel is the transpose, summed over tiles,

  G' [(B' x B) * (A g A')] G

and the gradient with respect to x is a convolution of g with the kernel turned
around. Errors in float32 are below 1e-5 of the largest result.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float
import numpy as np

AnyArray = Array | np.ndarray
Map = Float[AnyArray, 'b h w c']
Kernel = Float[AnyArray, '3 3 c d']

B = np.asarray([
    [4, 0, -5, 0, 1, 0],
    [0, -4, -4, 1, 1, 0],
    [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0],
    [0, 2, -1, -2, 1, 0],
    [0, 4, 0, -5, 0, 1]]).T
G = np.asarray([
    [6, 0, 0],
    [-4, -4, -4],
    [-4, 4, -4],
    [1, 2, 4],
    [1, -2, 4],
    [0, 0, 24]]) / 24
A = np.asarray([
    [1, 1, 1, 1, 1, 0],
    [0, 1, -1, 2, -2, 0],
    [0, 1, 1, 4, 4, 0],
    [0, 1, -1, 8, -8, 1]]).T
STRIDE = 4  # Between tiles: rows and columns of output that a tile makes.

# With fewer channels, the sums before and after the products cost more than the
# products saved; measured on x86 with AVX-512.
CHANNELS = 64


def pays(x: Map, kernel: Float[AnyArray, 'k k c d']) -> bool:
  """Whether `conv` takes these, and is faster than XLA's at stride 1."""
  return (kernel.shape[:2] == (3, 3) and min(kernel.shape[2:]) >= CHANNELS
          and x.dtype == jnp.float32)


@jax.custom_vjp
def conv(x: Map, kernel: Kernel) -> Float[Array, 'b h w d']:
  """Computes layers.conv with a 3x3 kernel at stride 1.

  Where tiles are fewer than channels, transforming the kernel would be most of
  the work, so XLA's convolution is taken.
  """
  if _few(_tiles(x), kernel):
    return _general(x, kernel)
  b, h, w, _ = x.shape
  x, kernel = jax.lax.optimization_barrier((_parts(x, B.T, 1),
                                            _both(G, kernel)))
  y = jax.lax.optimization_barrier(x @ kernel.reshape(36, *kernel.shape[2:]))
  y = _both(A.T, y.reshape(6, 6, b, -(-h // STRIDE), -(-w // STRIDE), -1))
  y = y.transpose(2, 3, 0, 4, 1, 5)  # [b, h / 4, 4, w / 4, 4, d]
  y = y.reshape(b, STRIDE * y.shape[1], STRIDE * y.shape[3], -1)
  return y[:, :h, :w]


def _forward(x, kernel):
  return conv(x, kernel), (x, kernel)


def _backward(saved, g):
  x, kernel = saved
  turned = kernel[::-1, ::-1].swapaxes(2, 3)
  return conv(g, turned), _gradient(x, kernel, g)


conv.defvjp(_forward, _backward)


def _gradient(x, kernel, g):
  """Gradient with respect to the kernel, [3, 3, c, d]."""
  if _few(STRIDE * _tiles(x), kernel):
    return jax.linear_transpose(
        lambda kernel: _general(x, kernel), kernel)(g)[0]
  x, g = jax.lax.optimization_barrier((_parts(x, B.T, 1), _parts(g, A, 0)))
  products = jax.lax.optimization_barrier(x.swapaxes(1, 2) @ g)
  return _both(G.T, products.reshape(6, 6, *kernel.shape[2:]))


def _general(x, kernel):
  return jax.lax.conv_general_dilated(
      x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


def _tiles(x):
  b, h, w, _ = x.shape
  return b * -(-h // STRIDE) * -(-w // STRIDE)


def _few(tiles, kernel):
  """Whether tiles are fewer than channels.

  Yes, too, where the size of the batch is a symbol, as in exported functions.
  """
  return not isinstance(tiles, int) or tiles < max(kernel.shape[2:])


def _parts(x, matrix, before):
  """matrix @ tile @ matrix.T of all tiles: [b, h, w, c] -> [36, tiles, c].

  The first tile begins `before` pixels before the image.
  """
  size = matrix.shape[1]
  counts = [-(-n // STRIDE) for n in x.shape[1:3]]
  x = jnp.pad(x, ((0, 0), *(
      (before, STRIDE * (count - 1) + size - before - n)
      for n, count in zip(x.shape[1:3], counts)), (0, 0)))
  rows = jnp.stack(_sums(matrix, [
      x[:, i:][:, :STRIDE * counts[0]:STRIDE] for i in range(size)]))
  rows = jax.lax.optimization_barrier(rows)
  parts = jnp.stack(_sums(matrix, [
      rows[:, :, :, i:][:, :, :, :STRIDE * counts[1]:STRIDE]
      for i in range(size)]), axis=1)
  return parts.reshape(36, -1, x.shape[-1])


def _both(matrix, x):
  """matrix @ x @ matrix.T, x being [6 or 3, 6 or 3, ...]."""
  rows = jnp.stack(_sums(matrix, list(x)))
  return jnp.stack(_sums(matrix, list(rows.swapaxes(0, 1))), axis=1)


def _sums(matrix, terms):
  """matrix @ terms, leaving out products with zero."""
  return [sum(float(weight) * term for weight, term in zip(row, terms)
              if weight) for row in matrix]
