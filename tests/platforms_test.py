"""What is written anew for TPUs is the same function, and what they are given.

Both ways run here, on CPU; lowering for a TPU needs none.
"""

import collections
import re

import jax
import numpy as np
import pytest

from big_distill import registry
from big_distill.ops import layers
from big_distill.ops import norms
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


CONVOLUTIONS = {  # As models call them; an image, a kernel, stride.
    'depthwise': (layers.depthwise, normal(2, 6, 8, 16), normal(3, 3, 1, 16), 2),
    '1x1 at stride 2': (layers.conv, normal(2, 6, 8, 16), normal(1, 1, 16, 8), 2),
    '3x3, by Winograd on CPUs': (layers.conv, normal(8, 8, 8, 64),
                                 normal(3, 3, 64, 64), 1),
    'narrow root': (layers.conv, normal(2, 16, 16, 3), normal(7, 7, 3, 24), 2),
}


@pytest.mark.parametrize('name', CONVOLUTIONS)
def test_a_tpu_is_given_xlas_convolutions_and_a_cpu_formulas(name):
  function, x, kernel, stride = CONVOLUTIONS[name]
  groups = x.shape[-1] // kernel.shape[2]

  def told(function, platform):
    found = text(function, platform, x, kernel)
    return collections.Counter(re.findall(
        r'stablehlo\.(convolution|dot_general|slice|pad|concatenate)\b', found))

  def ours(x, kernel):
    return function(x, kernel, stride)

  def xlas(x, kernel):
    return layers.general_conv(x, kernel, stride, groups)

  assert told(ours, 'tpu') == told(xlas, 'tpu') == {'convolution': 3}
  assert told(ours, 'cpu') != told(xlas, 'cpu')


@pytest.mark.parametrize('far', [0, 10, 1e3, -1e5])
@pytest.mark.parametrize('moments, kept', [(norms._moments_about_a_pixel, 0),
                                           (norms._moments_at_once, 1e-5)])
def test_moments_of_a_group_are_those_of_float64(moments, kept, far):
  x = normal(3, 6, 9, 8)
  x[1] += np.float32(far)  # One image alone.
  shift, mean, var = map(np.float64, jax.jit(
      lambda x: moments(x, 2))(x))
  groups = np.float64(x).reshape(3, 54, 2, 4)
  np.testing.assert_allclose((shift + mean)[:, ::4], groups.mean((1, 3)),
                             rtol=1e-6, atol=1e-6)
  # Plain sums lose the digits that the squared mean is above the variance.
  np.testing.assert_allclose(var[:, ::4], groups.var((1, 3)), rtol=2e-6,
                             atol=kept * np.square(groups.mean((1, 3))).max())


def test_a_norms_moments_need_nothing_before_them_on_a_tpu():
  """So that XLA takes them while it writes what is to be normalised."""
  def told(platform):
    return text(lambda x: norms.group_norm(
        x, np.ones(8, np.float32), np.zeros(8, np.float32), 2, 1e-5, True),
                platform, normal(2, 5, 7, 8))

  assert 'stablehlo.slice' not in told('tpu')  # A pixel of x, elsewhere.
  assert 'stablehlo.slice' in told('cpu')
  assert 'stablehlo.slice' in told('cuda')


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
