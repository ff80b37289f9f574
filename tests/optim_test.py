"""The update rule against a float64 transcription of the paper's.

Tolerances: values are near 1, which float32 rounds to 6e-8; schedules have some
ten operations.
"""

import importlib
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from big_distill import optim
from big_distill import optimizers

PAGE = pathlib.Path(__file__).parent.parent / 'docs/howto/optimizer.md'


def s(t, total, warmup):
  """Schedule of the paper's released code, at the 0-based step t."""
  x = np.clip((t - warmup) / (total - warmup), 0, 1)
  return .5 * (1 + np.cos(np.pi * x)) * (min(1, t / warmup) if warmup else 1)


@pytest.mark.parametrize('warmup', [0, 1, 3])
def test_schedule_is_a_cosine_after_a_linear_warmup(warmup):
  got = [float(optim.make_schedule(10, warmup)(t)) for t in range(11)]
  np.testing.assert_allclose(got, [s(t, 10, warmup) for t in range(11)],
                             atol=1e-6)


@pytest.mark.parametrize('kind, want', [
    ('constant', [0, .5, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
    ('quadratic', [0, .5, *((1 - np.arange(9) / 8)**2)]),
    ('steps', [0, .5, 1, .1, .1, .1, .01, .01, .01, .001, .001]),
    ('wsd', [0, .5, 1, 1, 1, 1, 1, 1, 1, 1 - .5**.5, 0])])
def test_other_schedules_have_the_same_warmup(kind, want):
  got = [float(optim.make_schedule(10, 2, kind)(t)) for t in range(11)]
  np.testing.assert_allclose(got, want, atol=1e-6)


def test_update_follows_the_paper_in_float64():
  rng = np.random.default_rng(0)
  w = {'conv': {'kernel': rng.normal(size=(3, 4))},
       'gn': {'scale': rng.normal(size=4), 'bias': rng.normal(size=4)},
       'head': {'kernel': rng.normal(size=(4, 2)), 'bias': rng.normal(size=2)}}
  lr, wd, total, warmup = 0.03, 3e-2, 12, 3
  tx, _ = optim.make(total, lr=lr, wd=wd, warmup=warmup)
  params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), w)
  opt = tx.init(params)
  update = jax.jit(tx.update)

  m, v = jax.tree.map(np.zeros_like, w), jax.tree.map(np.zeros_like, w)
  for t in range(total):
    # Large and small gradients, so that clipping acts and does not act.
    g = jax.tree.map(lambda x: rng.normal(size=x.shape) * 10.**(t % 4 - 3), w)
    updates, opt = update(jax.tree.map(jnp.float32, g), opt, params)
    params = optax.apply_updates(params, updates)

    norm = np.sqrt(sum(np.sum(x**2) for x in jax.tree.leaves(g)))
    g = jax.tree.map(lambda x: x * min(1, 1 / norm), g)
    m = jax.tree.map(lambda m, g: .9 * m + .1 * g, m, g)
    v = jax.tree.map(lambda v, g: .999 * v + .001 * g * g, v, g)
    u = jax.tree.map(lambda m, v: (m / (1 - .9**(t + 1))) / (
        np.sqrt(v / (1 - .999**(t + 1))) + 1e-8), m, v)
    for layer in w:
      for name in w[layer]:
        decay = wd * w[layer][name] if name == 'kernel' else 0
        w[layer][name] = w[layer][name] - s(t, total, warmup) * (
            lr * u[layer][name] + decay)

  # Twelve steps of at most lr, each rounded some ten times, Adam's division by
  # the size of gradients among them.
  jax.tree.map(lambda got, want: np.testing.assert_allclose(
      got, want, atol=2e-5), params, w)


def test_without_warmup_the_first_step_moves_and_with_it_does_not():
  params = {'kernel': jnp.ones([2])}
  for warmup, moves in ((0, True), (5, False)):
    tx, lr = optim.make(10, lr=.1, warmup=warmup)
    updates, _ = tx.update(params, tx.init(params), params)
    assert bool(jnp.any(updates['kernel'] != 0)) == moves
    assert (float(lr(0)) > 0) == moves


def test_first_moment_may_be_bfloat16():
  tx, _ = optim.make(10, lr=.1, mu_dtype='bfloat16')
  state = tx.init({'kernel': jnp.ones([2])})
  moments = [x for x in jax.tree.leaves(state) if x.shape == (2,)]
  assert {str(x.dtype) for x in moments} == {'bfloat16', 'float32'}


@pytest.mark.parametrize('name', ['adam', 'muon', 'sgd', 'shampoo', 'soap'])
def test_every_optimizer_descends_a_parabola(name):
  tx, _ = optim.make(200, name=name, lr=.2)
  params = {'kernel': jnp.asarray([[3., -2.], [1., 4.]])}
  opt = tx.init(params)

  @jax.jit
  def step(params, opt):
    updates, opt = tx.update(params, opt, params)
    return optax.apply_updates(params, updates), opt

  for _ in range(200):
    params, opt = step(params, opt)
  assert float(jnp.linalg.norm(params['kernel'])) < .05


def test_misspelt_names_are_errors_that_help():
  with pytest.raises(ValueError, match='did you mean adam'):
    optim.make(10, name='adma', lr=.1)
  with pytest.raises(ValueError, match='no option'):
    optim.make(10, lr=.1, beta1=.9)
  with pytest.raises(ValueError, match='does not fit'):
    optim.make(10, lr=.1, warmup=10)
  with pytest.raises(ValueError, match='did you mean cosine'):
    optim.make(10, lr=.1, schedule='cosin')


@pytest.mark.parametrize('options, message', [
    (dict(lr=-.1), 'optim.lr=-0.1 should be a finite number, 0 or more'),
    (dict(lr=float('nan')), 'optim.lr=nan'), (dict(lr='fast'), "optim.lr='fast'"),
    (dict(lr=.1, wd=-1e-4), 'optim.wd=-0.0001'),
    (dict(lr=.1, clip=float('inf')), 'optim.clip=inf'),
    (dict(lr=.1, warmup=-3), 'optim.warmup=-3')])
def test_numbers_of_no_sense_are_refused(options, message):
  with pytest.raises(ValueError, match=message):
    optim.make(10, **options)


def test_learning_rate_and_decay_may_be_traced():
  params = {'kernel': jnp.ones([2])}

  def moved(lr, wd):
    tx, _ = optim.make(10, lr=lr, wd=wd)
    return tx.update(params, tx.init(params), params)[0]['kernel']

  lr, wd = jnp.asarray([.1, .3]), jnp.asarray([0., .2])
  both = jax.vmap(moved)(lr, wd)
  for i in range(2):
    np.testing.assert_allclose(both[i], moved(float(lr[i]), float(wd[i])),
                               rtol=1e-6)


def test_the_optimizer_that_the_page_adds_is_found_and_takes_its_options(
    tmp_path, monkeypatch):
  """Two steps of Lion by numpy: signs of a mean that forgets by b2."""
  code, = re.findall(r'```python\n(.*?)```', PAGE.read_text(), re.S)
  (tmp_path / 'lion.py').write_text(code)
  monkeypatch.setattr(optimizers, '__path__', [*optimizers.__path__,
                                               str(tmp_path)])
  importlib.invalidate_caches()
  tx, _ = optim.make(9, name='lion', lr=.5, clip=None, schedule='constant', b2=.5)
  params = {'bias': jnp.zeros(3)}
  state, m = tx.init(params), np.zeros(3)
  for g in np.array([[1., -2., .3], [-.05, 4., -9.]]):
    updates, state = tx.update({'bias': jnp.float32(g)}, state, params)
    np.testing.assert_allclose(updates['bias'], -.5 * np.sign(.9 * m + .1 * g))
    m = .5 * m + .5 * g
