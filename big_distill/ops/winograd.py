"""3x3 convolutions and their gradients by a quarter of the products, for CPUs.

Winograd's minimal filtering F(4x4, 3x3), as Lavin and Gray (2015, arXiv
1509.09308, section 4.1) have it for whole layers: a tile of 6x6 pixels makes
4x4 pixels of output, with 36 products per pair of channels in place of 144,

  y = A' [(G k G') * (B' x B)] A

The gradient of the kernel is the transpose of that, G' [(B' x B) * (A g A')] G,
summed over tiles; the gradient of x is a convolution of g with the kernel turned
around. In float32 results are within 1e-5 of the largest one.
"""

import jax
import jax.numpy as jnp
import numpy as np

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
STRIDE = 4  # Of tiles: they make as many rows and columns of output.

# Measured on x86 with AVX-512: fewer channels do not pay for the sums before
# and after the products.
CHANNELS = 64


def pays(x, kernel):
  """Whether `conv` is for these: [b, h, w, c] and [k, k, c, d], stride 1."""
  return (kernel.shape[:2] == (3, 3) and min(kernel.shape[2:]) >= CHANNELS
          and x.dtype == jnp.float32)


@jax.custom_vjp
def conv(x, kernel):
  """layers.conv of a 3x3 kernel at stride 1; some of it as XLA has it.

  Where tiles are fewer than channels, most of the work would be the kernel's.
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
  """Of the kernel."""
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

  Where the batch is a symbol, as in an exported function, nobody knows, and the
  answer is yes.
  """
  return not isinstance(tiles, int) or tiles < max(kernel.shape[2:])


def _parts(x, matrix, before):
  """matrix @ tile @ matrix.T of all tiles: [b, h, w, c] -> [36, tiles, c].

  The first tile begins so many pixels `before` the image.
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
  """matrix @ x @ matrix.T over the first two axes."""
  rows = jnp.stack(_sums(matrix, list(x)))
  return jnp.stack(_sums(matrix, list(rows.swapaxes(0, 1))), axis=1)


def _sums(matrix, terms):
  """matrix @ terms, without what is zero."""
  return [sum(float(weight) * term for weight, term in zip(row, terms)
              if weight) for row in matrix]
