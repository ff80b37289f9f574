"""Blocks of pixels as channels: the same convolution, and the same gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from big_distill.ops import layers
from big_distill.ops import stem


@pytest.mark.parametrize('k', [3, 5, 7])
@pytest.mark.parametrize('h, w', [(12, 8), (8, 10)])
def test_blocks_convolve_as_xla_does_and_so_do_gradients(k, h, w):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, h, w, 3)).astype(np.float32)
  kernel = rng.normal(size=(k, k, 3, 5)).astype(np.float32)
  got, pull = jax.vjp(stem.conv, x, kernel)
  want, other = jax.vjp(stem.as_it_is, x, kernel)
  # Sums of up to 147 products, in another order.
  np.testing.assert_allclose(got, want, atol=1e-4)
  for a, b in zip(pull(jnp.cos(want)), other(jnp.cos(want))):
    np.testing.assert_allclose(a, b, atol=1e-4)


def test_it_is_used_for_7x7_at_stride_2_on_images_on_cpu_alone():
  def has_blocks(platform, shape=(2, 16, 16, 3), k=7, stride=2, same=False):
    text = jax.jit(lambda x, kernel: layers.conv(x, kernel, stride, same)).trace(
        jnp.ones(shape), jnp.ones([k, k, shape[-1], 4])).lower(
            lowering_platforms=(platform,)).as_text()
    return '4x4x4x12xf32' in text

  assert has_blocks('cpu')
  for given in (dict(platform='cuda'), dict(platform='tpu')):
    assert not has_blocks(**given)
  for given in (dict(k=3), dict(stride=1), dict(same=True),
                dict(shape=(2, 16, 16, 8)), dict(shape=(2, 15, 16, 3))):
    assert not has_blocks('cpu', **given)
