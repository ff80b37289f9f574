"""Winograd's convolution is the convolution, and so are its gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from big_distill.ops import layers
from big_distill.ops import winograd


def exact(x, kernel):
  """In float64, by nine shifted products."""
  x, kernel = np.float64(x), np.float64(kernel)
  h, w = x.shape[1:3]
  x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  return sum(x[:, i:i + h, j:j + w] @ kernel[i, j]
             for i in range(3) for j in range(3))


def exact_gradient(x, g):
  """Of the kernel."""
  x, g = np.float64(x), np.float64(g)
  h, w = x.shape[1:3]
  x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  return np.stack([np.stack([np.einsum('bhwc,bhwd->cd', x[:, i:i + h, j:j + w],
                                       g) for j in range(3)])
                   for i in range(3)])


def normal(seed, *shape):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


# Tiles to spare, tiles that hang over the edge, too few of them for the forward
# pass (3 of 5 channels) and for the gradient as well (1).
@pytest.mark.parametrize('shape, channels', [
    ((2, 8, 8), (5, 7)), ((3, 9, 6), (4, 2)), ((2, 3, 13), (6, 3)),
    ((3, 4, 2), (5, 4)), ((1, 3, 4), (2, 9))])
def test_values_and_gradients_equal_float64(shape, channels):
  x, kernel = normal(0, *shape, channels[0]), normal(1, 3, 3, *channels)
  g = normal(2, *shape, channels[1])

  @jax.jit
  def run(x, kernel, g):
    y, pull = jax.vjp(winograd.conv, x, kernel)
    return y, *pull(g)

  turned = kernel[::-1, ::-1].swapaxes(2, 3)
  wants = exact(x, kernel), exact(g, turned), exact_gradient(x, g)
  # Filtering adds with factors up to 8 what it then cancels: 100 roundings of
  # 6e-8, and sums over channels and pixels, are below 2e-5.
  for got, want in zip(run(x, kernel, g), wants):
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-5 * abs(want).max())


def test_its_matrices_are_exact():
  x = np.random.default_rng(0).integers(-3, 4, (6, 6, 1)).astype(np.float64)
  kernel = np.random.default_rng(1).integers(-3, 4, (3, 3)).astype(np.float64)
  tile = winograd.B.T @ x[..., 0] @ winograd.B
  y = winograd.A.T @ (tile * (winograd.G @ kernel @ winograd.G.T)) @ winograd.A
  want = exact(x[None], kernel[:, :, None, None])[0, 1:5, 1:5, 0]
  np.testing.assert_allclose(y, want, rtol=0, atol=1e-12)


def test_it_is_used_for_wide_3x3_float32_at_stride_1_on_cpu_alone():
  wide = winograd.CHANNELS
  x = jax.ShapeDtypeStruct((4, 32, 32, wide), jnp.float32)
  kernel = jax.ShapeDtypeStruct((3, 3, wide, wide), jnp.float32)
  thin = jax.ShapeDtypeStruct((3, 3, wide, wide - 1), jnp.float32)
  large = jax.ShapeDtypeStruct((5, 5, wide, wide), jnp.float32)
  low = jax.ShapeDtypeStruct(x.shape, jnp.bfloat16)

  def products(platform, x, kernel, stride=1):
    text = jax.jit(layers.conv, static_argnums=2).trace(
        x, kernel, stride).lower(lowering_platforms=(platform,)).as_text()
    return 'dot_general' in text, 'convolution' in text

  assert products('cpu', x, kernel) == (True, False)
  for args in ((x, thin), (x, large), (low, kernel), (x, kernel, 2)):
    assert products('cpu', *args) == (False, True)
  for platform in ('cuda', 'tpu'):
    assert products(platform, x, kernel) == (False, True)
