"""What is written anew for TPUs is the same function, and what they are given.

Both ways run here, on CPU; lowering for a TPU needs none.
"""

import jax
import numpy as np
import pytest

from big_distill import registry
from big_distill.ops import layers
from big_distill.ops import pool


def normal(*shape):
  return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def text(function, platform, *arguments):
  """The lowered program of a function and its gradient."""
  def both(*arguments):
    y, back = jax.vjp(function, *arguments)
    return y, back(y)

  return jax.jit(both).trace(*arguments).lower(
      lowering_platforms=(platform,)).as_text()


WAYS = {
    'pointwise': (layers.pointwise, layers._pointwise_conv,
                  layers._pointwise_product,
                  (normal(2, 5, 7, 16), normal(1, 1, 16, 8))),
    'pool': (pool.zero_pad_max_pool, pool._pool_by_windows,
             pool._pool_by_slices, (normal(2, 7, 10, 3),)),
}


@pytest.mark.parametrize('name', WAYS)
def test_both_ways_have_the_same_values_and_gradients(name):
  _, tpu, others, arguments = WAYS[name]
  (y, back), (want, want_back) = (jax.vjp(way, *arguments)
                                  for way in (tpu, others))
  np.testing.assert_allclose(y, want, rtol=0, atol=1e-5)
  for g, want_g in zip(back(y), want_back(y)):
    # Sums of up to 70 products of order 1.
    np.testing.assert_allclose(g, want_g, rtol=0, atol=1e-4)


@pytest.mark.parametrize('name', WAYS)
def test_each_platform_is_given_its_own_way(name):
  function, tpu, others, arguments = WAYS[name]
  for platform, way in (('tpu', tpu), ('cpu', others), ('cuda', others)):
    told = text(function, platform, *arguments)
    for word in ('stablehlo.convolution', 'stablehlo.dot_general',
                 'stablehlo.reduce_window', 'stablehlo.select_and_scatter'):
      # What is outside of the branches that a platform takes is not there.
      assert (word in told) == (word in text(way, platform, *arguments)), (
          platform, word)


@pytest.mark.parametrize('name', ['shampoo', 'soap'])
def test_statistics_and_roots_are_multiplied_in_float32_on_a_tpu(name):
  """Whose default is one pass of bfloat16."""
  params = {'conv': {'kernel': normal(3, 3, 8, 8)},
            'head': {'kernel': normal(16, 24)}}
  tx = registry.load('optimizers', name).scale_by()
  state = jax.eval_shape(tx.init, params)
  lowered = jax.jit(tx.update).trace(params, state, params).lower(
      lowering_platforms=('tpu',)).as_text()
  products = [line for line in lowered.splitlines()
              if 'stablehlo.dot_general' in line]
  assert products and all('HIGHEST, HIGHEST' in line for line in products)
