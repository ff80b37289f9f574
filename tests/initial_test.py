"""Initial values follow their definitions, by numpy as by JAX, on any machine."""

from concurrent import futures
import statistics

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from big_distill import params as params_lib
from big_distill import pretrained
from big_distill.models import bit
from big_distill.ops import initial

SHAPE = (3, 3, 64, 700)
NORMAL = statistics.NormalDist()
FAMILIES = {
    'bit': dict(depth=(2, 1), width=.125),
    'mobilenet_v3': dict(variant='small', width=.25, norm='bn'),
    'efficientnet_lite': {},
    'vit': dict(variant='mu/8', pool='map', rep_size=5),
}


def truncated(x):
  """Distribution function of the standard normal one cut off at 2."""
  low, high = NORMAL.cdf(-2), NORMAL.cdf(2)
  return np.clip((NORMAL.cdf(x) - low) / (high - low), 0, 1)


@pytest.mark.parametrize('init, variance, cdf', [
    (initial.lecun_normal, 1 / 576, lambda x: truncated(
        x * 24 * initial.DEVIATION)),
    (initial.xavier_uniform, 2 / (576 + 6300), lambda x: np.clip(
        .5 + x / (2 * np.sqrt(6 / (576 + 6300))), 0, 1)),
    (initial.normal(.3), .09, lambda x: NORMAL.cdf(x / .3))])
def test_numbers_follow_the_definition(init, variance, cdf):
  by_numpy = init(np.random.SFC64(0), SHAPE)
  by_jax = init(jax.random.key(0), SHAPE, jnp.float32)
  n = by_numpy.size
  for x in (by_numpy, np.asarray(by_jax)):
    assert x.shape == SHAPE and x.dtype == np.float32
    x = np.sort(x.ravel()).astype(np.float64)
    # Five standard errors of each.
    assert abs(x.mean()) < 5 * np.sqrt(variance / n)
    assert x.var() == pytest.approx(variance, rel=5 * np.sqrt(2 / n))
    places = np.arange(0, n, 997)
    want = np.asarray([cdf(each) for each in x[places]])
    assert abs(want - places / n).max() < 2.5 / np.sqrt(n)
  # Neighbours, and what one draw of bits makes, have nothing in common.
  flat = by_numpy.ravel() / np.sqrt(variance)
  for lag in (1, 2, initial.CHUNK):
    assert abs((flat[lag:] * flat[:-lag]).mean()) < 5 / np.sqrt(n)


def test_a_cell_is_as_its_bits_say():
  """The first numbers, from the raw bits, in float64."""
  raw = np.random.SFC64(7).random_raw(3)
  bits = [half for each in raw.tolist() for half in (each & (2**32 - 1),
                                                     each >> 32)][:5]
  low, high = NORMAL.cdf(-2), NORMAL.cdf(2)

  def edge(i):
    return NORMAL.inv_cdf(low + (high - low) * i / 4096)

  want = [edge(b >> 20) + (b & (2**20 - 1)) / 2**20
          * (edge((b >> 20) + 1) - edge(b >> 20)) for b in bits]
  got = initial.lecun_normal(np.random.SFC64(7), (5, 1))[:, 0]
  np.testing.assert_allclose(got, np.asarray(want) / .87962566103423978 / 5**.5,
                             rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize('family', FAMILIES)
def test_a_model_is_drawn_by_numpy_in_the_shapes_of_its_own_init(
    family, monkeypatch):
  def fail(*_):
    raise AssertionError('compiled')

  monkeypatch.setattr(initial, '_key', fail)
  model, params = pretrained.create(family=family, num_classes=3, size=16,
                                    **FAMILIES[family])
  shapes = jax.eval_shape(lambda: model.init(
      jax.random.key(0), jnp.zeros((1, 16, 16, 3))))['params']
  assert jax.tree.map(lambda x: (x.shape, x.dtype), params) == jax.tree.map(
      lambda x: (x.shape, x.dtype), shapes)
  for name, leaf in params_lib.flatten(params).items():
    assert isinstance(leaf, np.ndarray), name
    if name.endswith(('scale', 'var')):
      assert (leaf == 1).all(), name
    elif name.startswith('head/') or name.endswith(('/mean', 'cls')):
      assert not leaf.any(), name
    elif name.endswith('kernel'):
      assert leaf.std() > 0, name


def test_a_value_depends_on_the_seed_and_the_name_alone():
  def make(seed=0, num_classes=3, **kwargs):
    return params_lib.flatten(pretrained.create(
        family='bit', size=16, seed=seed, num_classes=num_classes,
        **{**FAMILIES['bit'], **kwargs})[1])

  one, other = make(), make(seed=1)
  for same in (make(num_classes=5), make(remat=True), make(depth=(2, 1, 1))):
    for name in one.keys() - {'head/kernel', 'head/bias',
                              'norm-pre-head/scale', 'norm-pre-head/bias'}:
      assert (one[name] == same[name]).all(), name
  kernels = [flat[name] for flat in (one, other) for name in flat
             if name.endswith('conv1/kernel')]
  firsts = [kernel.flat[0] for kernel in kernels]
  assert len(set(firsts)) == len(firsts)
  # Equal everywhere: numpy's bits are, and no step of ours is rounded freely.
  assert params_lib.checksum(one) == '3ea36707d1d38151'


class Foreign(nn.Module):
  num_classes: int = 4

  @nn.compact
  def __call__(self, images, train=False):
    return nn.Dense(self.num_classes, name='head', kernel_init=(
        nn.initializers.orthogonal()))(images.mean((1, 2))), {}


def test_an_initializer_that_takes_keys_alone_gets_one(monkeypatch):
  monkeypatch.setattr(pretrained, 'build', lambda: Foreign())
  kernels = [pretrained.create(size=4, seed=seed)[1]['head']['kernel']
             for seed in (0, 0, 1)]
  np.testing.assert_allclose(kernels[0] @ kernels[0].T, np.eye(3), atol=1e-5)
  assert (kernels[0] == kernels[1]).all() and (kernels[0] != kernels[2]).any()


def test_folding_on_the_host_is_the_formula():
  model, params = pretrained.create(family='bit', num_classes=3, size=16,
                                    **FAMILIES['bit'])
  folded = params_lib.flatten(pretrained.freeze(model, params)[1])
  for name, leaf in params_lib.flatten(params).items():
    if 'conv' in name:
      flat = np.float64(leaf).reshape(-1, leaf.shape[-1])
      flat = flat - flat.mean(0)
      want = flat / np.sqrt((flat**2).mean(0) + bit.WS_EPS)
      # Rounded once per operation, of sums of at most 576 numbers.
      np.testing.assert_allclose(folded[name], want.reshape(leaf.shape),
                                 atol=3e-6, err_msg=name)
    else:
      assert (folded[name] == leaf).all(), name


def test_threads_draw_what_each_draws_alone():
  """They replace one method of Flax, which other models are traced by."""
  def created(width):
    params = pretrained.create(family='bit', size=16, num_classes=2,
                               depth=(1,), width=width)[1]
    return params_lib.checksum(params_lib.flatten(params))

  widths = (.125, .25, .5, 1.) * 2
  alone = {width: created(width) for width in {*widths}}
  with futures.ThreadPoolExecutor(len(widths)) as pool:
    for width, drawn in zip(widths, pool.map(created, widths)):
      assert drawn == alone[width]
