"""Shampoo against closed forms and a float64 transcription, and its laws.

Tolerances: float32 rounds S to 6e-8 of its largest eigenvalue. Where the ridge
is all there is, H of all axes together stretches what rounding leaves there by
eps^-1/2: to 2e-6 of an update with eps=1e-3, to 6e-5 with 1e-6. Newton's
iterations may add ten times as much.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from big_distill import checkpoint
from big_distill import optim
from big_distill import parallel
from big_distill.ops import roots
from big_distill.optimizers import shampoo
from big_distill.state import State

# Nothing but D, of blocks that are smaller than the tensors here: no two of
# their axes merge.
PLAIN = dict(b1=0., graft='none', root_every=1, start_step=0, block_size=9)


def normal(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape)


def run(tx, gradients, params=None):
  """The updates that a list of gradients (trees) gives, and the last state."""
  params = gradients[0] if params is None else params
  params = jax.tree.map(jnp.float32, params)
  state, update, updates = tx.init(params), jax.jit(tx.update), []
  for g in gradients:
    u, state = update(jax.tree.map(jnp.float32, g), state, params)
    updates.append(jax.tree.map(np.asarray, u))
  return updates, state


def one_step(g, **options):
  return run(shampoo.scale_by_shampoo(**{**PLAIN, **options}), [g])[0][0]


def exact_root(s, p, eps):
  w, v = np.linalg.eigh(s)
  return (v * (np.maximum(w, 0) + eps * w[-1]) ** (-1 / p)) @ v.T


def distance(got, want):
  return np.linalg.norm(got - want) / np.linalg.norm(want)


def test_one_step_is_the_closed_form():
  g, eps = normal(8, 5), 1e-3
  want = exact_root(g @ g.T, 4, eps) @ g @ exact_root(g.T @ g, 4, eps)
  got = one_step(g, eps=eps)
  assert distance(got, want) < 1e-4
  u, s, v = np.linalg.svd(g, full_matrices=False)
  assert distance(got, u * (s / np.sqrt(s**2 + eps * s[0]**2)) @ v) < 1e-4


def test_three_axes_take_sixth_roots_unless_told_otherwise():
  g, eps = normal(4, 4, 4), 1e-3
  for exponent, p in ((None, 6), (3, 3)):
    sides = [exact_root(np.tensordot(g, g, (axes, axes)), p, eps)
             for axes in ((1, 2), (0, 2), (0, 1))]
    want = np.einsum('abc,ai,bj,ck->ijk', g, *sides)
    got = one_step(g, eps=eps, exponent=exponent)
    assert distance(got, want) < 1e-4


def test_vectors_are_preconditioned_where_asked():
  # With the default eps, 1e-6, rounding would hide what eps does.
  v, eps = normal(6), 1e-3
  assert (one_step(v) == np.float32(v)).all()
  want = v / np.sqrt((1 + eps) * v @ v)
  assert distance(one_step(v, min_rank=1, eps=eps), want) < 1e-4
  assert distance(v / np.sqrt(v @ v), want) > 4e-4


def test_diagonal_gradients_make_it_adagrad():
  diagonals = [normal(6, seed=i) for i in range(5)]
  got, _ = run(shampoo.scale_by_shampoo(**PLAIN, b2=1.),
               [np.diag(d) for d in diagonals])
  total = np.zeros(6)
  for u, d in zip(got, diagonals):
    total += d**2
    assert distance(np.diag(u), d / np.sqrt(total)) < 1e-4
    assert distance(u, np.diag(np.diag(u))) < 1e-5


def test_rotating_rows_and_columns_rotates_the_update():
  q1, _ = np.linalg.qr(normal(8, 8, seed=1))
  q2, _ = np.linalg.qr(normal(5, 5, seed=2))
  gradients = [normal(8, 5, seed=3 + i) for i in range(3)]
  for options in (PLAIN, {**PLAIN, 'graft': 'sgd', 'b1': .9}):
    tx = shampoo.scale_by_shampoo(**options, eps=1e-4)
    here, _ = run(tx, gradients)
    there, _ = run(tx, [q1 @ g @ q2 for g in gradients])
    for a, b in zip(here, there):
      assert distance(b, q1 @ a @ q2) < 1e-4


def test_blocks_of_a_tensor_are_tensors_split_by_hand():
  gradients = [normal(7, 6, seed=i) for i in range(3)]
  tx = shampoo.scale_by_shampoo(**{**PLAIN, 'block_size': 4})
  whole, _ = run(tx, gradients)
  cuts = [np.s_[a:a + 4, b:b + 4] for a in (0, 4) for b in (0, 4)]
  parts, _ = run(tx, [[g[cut] for cut in cuts] for g in gradients])
  for u, pieces in zip(whole, parts):
    for cut, piece in zip(cuts, pieces):
      assert distance(u[cut], piece) < 1e-3


def transcription(gradients, w, *, momentum, b1, nesterov, b2, eps, p, graft,
                  graft_b2, graft_eps, normalized, start, wd):
  """The rule for one matrix, in float64, roots at every step."""
  unit = lambda x: x / np.linalg.norm(x) if normalized else x
  left = right = mu = nu = trace = 0.
  for i, g in enumerate(gradients):
    t, share = i + 1, 1 - b2 if b2 < 1 else 1.
    left, right = b2 * left + share * g @ g.T, b2 * right + share * g.T @ g
    m = g
    if momentum == 'gradient':
      mu = b1 * mu + (1 - b1) * g
      m = mu / (1 - b1**t)
      if nesterov:
        m = (b1 * mu + (1 - b1) * g) / (1 - b1**(t + 1))
    square, u = unit(g)**2, unit(m)
    if graft == 'adagrad':
      nu = nu + square
      u = u / (np.sqrt(nu) + graft_eps)
    elif graft in ('rmsprop', 'adam'):
      nu = graft_b2 * nu + (1 - graft_b2) * square
      v = nu / (1 - graft_b2**t) if graft == 'adam' else nu
      u = u / (np.sqrt(v) + graft_eps)
    if i >= start:
      d = exact_root(left, p, eps) @ m @ exact_root(right, p, eps)
      u = d * np.linalg.norm(u) / np.linalg.norm(d)
    u = u + wd * w
    if momentum == 'update':
      trace = b1 * trace + u
      u = u + b1 * trace if nesterov else trace
    yield u


@pytest.mark.parametrize('changes', [
    dict(),
    dict(nesterov=True, graft='rmsprop', wd=.1),
    dict(graft='adagrad', normalized=True, p=6),
    dict(graft='sgd', b2=1., start=3),
    dict(graft='adam', normalized=True),
    dict(momentum='update', graft='sgd', nesterov=True, wd=.1, b2=.85, start=0),
    dict(momentum='update', graft='rmsprop', normalized=True),
    dict(momentum='update', graft='adagrad', p=2, start=0)])
def test_every_option_follows_its_float64_transcription(changes):
  rule = dict(momentum='gradient', b1=.9, nesterov=False, b2=.95, eps=1e-4, p=4,
              graft='adam', graft_b2=.99, graft_eps=1e-8, normalized=False,
              start=2, wd=0.) | changes
  w = normal(6, 9, seed=9)
  # Of many sizes, as at the beginning of training.
  gradients = [normal(6, 9, seed=i) * 10.**-i for i in range(6)]
  names = dict(p='exponent', normalized='graft_normalized', start='start_step',
               wd='coupled_wd')
  tx = shampoo.scale_by(root_every=1, block_size=9, **{
      names.get(name, name): value for name, value in rule.items()})
  got, _ = run(tx, [{'kernel': g} for g in gradients], {'kernel': w})
  for u, want in zip(got, transcription(gradients, w, **rule)):
    # A ridge ten times too large would be off by 4e-3, other mistakes by more;
    # rounding by 6e-6, ten times that after Newton's iterations.
    assert distance(u['kernel'], want) < 1e-3


def test_before_its_start_it_is_the_rule_it_grafts():
  params = {'a': normal(4, 5), 'b': normal(5)}
  gradients = [{name: x * (i - 2) for name, x in params.items()}
               for i in range(6)]
  got, _ = run(shampoo.scale_by(root_every=2, start_step=4, block_size=5),
               gradients)
  want, _ = run(optax.scale_by_adam(), gradients)
  for i, (u, v) in enumerate(zip(got, want)):
    assert (distance(u['a'], v['a']) < 1e-5) == (i < 4)
    assert distance(u['b'], v['b']) < 1e-5  # A bias is Adam's for ever.
    np.testing.assert_allclose(np.linalg.norm(u['a']), np.linalg.norm(v['a']),
                               rtol=1e-5)


@pytest.mark.parametrize('graft', ['sgd', 'adam'])
def test_scale_of_gradients_turns_no_update(graft):
  gradients = [normal(6, 4, seed=i) for i in range(3)]
  tx = shampoo.scale_by(root_every=1, start_step=0, block_size=6, graft=graft,
                        graft_eps=0.)
  want = run(tx, gradients)[0][-1]
  for scale in (1e-12, 1e-6, 1e6, 1e10):
    got = run(tx, [g * scale for g in gradients])[0][-1]
    size = np.linalg.norm(got) / np.linalg.norm(want)
    assert distance(got / size, want) < 1e-3


def test_degenerate_gradients_stay_finite_and_are_forgotten():
  good = normal(6, 4)
  bad = {'zero': 0 * good, 'rank one': np.outer(good[:, 0], good[0]),
         'huge': good * 1e30, 'tiny': good * 1e-30,
         'one row': good * (np.arange(6) == 2)[:, None],
         'nan': np.where(good > 1, np.nan, good),
         'inf': np.where(good > 1, np.inf, good)}
  for momentum, graft in (('gradient', 'adam'), ('update', 'sgd')):
    tx = shampoo.scale_by(momentum, root_every=1, start_step=0, block_size=6,
                          graft=graft)
    gradients = [bad] * 3 + [{name: good for name in bad}] * 2
    updates, state = run(tx, gradients)
    for u in updates:
      assert all(np.isfinite(x).all() for x in u.values())
    assert jax.tree.all(jax.tree.map(lambda x: np.isfinite(x).all(), state))
    # Nothing was learnt from what is no number: as after zeros.
    assert (updates[-1]['nan'] == updates[-1]['zero']).all()
    assert (updates[0]['nan'] == 0).all() and (updates[0]['zero'] == 0).all()


def test_a_root_that_fails_stays_what_it_was_and_is_counted(monkeypatch):
  tx = shampoo.scale_by_shampoo(**PLAIN)
  g = {'a': normal(4, 5), 'b': normal(5, 4)}
  _, state = run(tx, [g])
  newton = roots.newton

  def fails(a, p, eps):  # On the first of each stack, that of 'a'.
    h, error = newton(a, p, eps)
    bad = jnp.arange(len(a)) == 0
    return jnp.where(bad[:, None, None], 0, h), jnp.where(bad, wrong, error)

  monkeypatch.setitem(roots.ROOTS, 'newton', fails)
  g = jax.tree.map(lambda x: jnp.float32(x[::-1] * 3), g)
  for wrong in (2 * roots.TOLERATED, jnp.nan):
    u, after = tx.update(g, state)
    assert state.failed == 0 and after.failed == 4
    assert jax.tree.all(jax.tree.map(lambda x, y: (x == y).all(),
                                     state.roots['4x5'], after.roots['4x5']))
    assert np.isfinite(u['a']).all() and (u['a'] != 0).any()


def changed(before, after):
  """Which blocks' roots differ: {pile: [n]}."""
  return {pile: np.any([np.any(np.asarray(a) != np.asarray(b), (1, 2))
                        for a, b in zip(before[pile], after[pile])], 0)
          for pile in before}


def test_every_root_is_computed_once_in_an_interval_and_never_all_at_once():
  every, shapes = 3, [(12, 8), (5, 4), (8, 8)]  # 10 blocks of 4x4, and one 1x4.
  tx = shampoo.scale_by_shampoo(root_every=every, start_step=2, block_size=4)
  update, state = jax.jit(tx.update), tx.init(list(map(jnp.zeros, shapes)))
  visits = {pile: [] for pile in state.roots}
  for i in range(2 * every):
    before = state.roots
    g = [jnp.float32(normal(*shape, seed=i)) for shape in shapes]
    _, state = update(g, state)
    for pile, which in changed(before, state.roots).items():
      visits[pile].append(which)
  assert update._cache_size() == 1  # Nothing is compiled twice.
  for which in visits.values():
    for first in range(every + 1):
      assert np.any(which[first:first + every], 0).all()
  assert max(which.sum() for which in visits['4x4']) == 4


def test_statistics_are_updated_at_their_interval():
  tx = shampoo.scale_by_shampoo(**PLAIN, stats_every=3)
  g = {'a': jnp.float32(normal(4, 5))}
  update, state = jax.jit(tx.update), tx.init(g)
  for i in range(7):
    before = state.stats['4x5'][0]
    _, state = update(g, state)
    assert (before == state.stats['4x5'][0]).all() == (i % 3 != 0)


TREE = {'conv': {'kernel': normal(3, 3, 5, 12)}, 'bn': {'mean': normal(5)},
        'head': {'kernel': normal(12, 7), 'bias': normal(7)}}


@functools.cache
def trained(pmapped, n=7, **options):
  """(params, state) after n steps on a parabola, as host arrays."""
  tx, _ = optim.make(20, name='shampoo', lr=.01, wd=1e-3, block_size=4,
                     **options)

  def step(params, opt):
    grads = jax.tree.map(lambda w: w - .5, params)
    grads['bn']['mean'] *= 0  # Running averages are not trained.
    updates, opt = tx.update(grads, opt, params)
    return optax.apply_updates(params, updates), opt

  params = jax.tree.map(jnp.float32, TREE)
  both = params, tx.init(params)
  if pmapped:
    both, step = parallel.replicate(both), parallel.pmap(step)
  else:
    step = jax.jit(step)
  for _ in range(n):
    both = step(*both)
  if pmapped:
    for leaf in jax.tree.leaves(both):
      leaf = np.asarray(leaf)
      assert (leaf == leaf[:1]).all()
    return parallel.first(both)
  return jax.tree.map(np.asarray, both)


def test_devices_share_the_roots_and_stay_equal(monkeypatch):
  options = dict(root_every=2, start_step=3)
  alone = trained(False, **options)
  shares, newton = [], roots.newton

  def spy(a, p, eps):
    shares.append(len(a))
    return newton(a, p, eps)

  monkeypatch.setitem(roots.ROOTS, 'newton', spy)
  got = trained(True, **options)
  # Six blocks on each pile, three of them due, two axes of a length: to each of
  # four devices a quarter of six, rounded up.
  assert set(shares) == {2}
  for a, b in zip(jax.tree.leaves(alone[0]), jax.tree.leaves(got[0])):
    np.testing.assert_allclose(a, b, atol=1e-5)
  assert (got[0]['bn']['mean'] == np.float32(TREE['bn']['mean'])).all()


def test_a_run_resumed_between_roots_is_bitwise_the_whole_run(tmp_path):
  tx, _ = optim.make(20, name='shampoo', lr=.01, root_every=3, block_size=4,
                     start_step=4, mu_dtype='bfloat16')

  @jax.jit
  def step(state):
    grads = jax.tree.map(lambda w: w - jnp.sin(state.step), state.params)
    updates, opt = tx.update(grads, state.opt, state.params)
    return State(state.step + 1, optax.apply_updates(state.params, updates), opt)

  fresh = state = State.init(jax.tree.map(jnp.float32, TREE), tx)
  for i in range(10):
    if i == 7:
      checkpoints = checkpoint.Checkpoints(str(tmp_path))
      checkpoints.save(parallel.replicate(state), 7)
      checkpoints.close()
    state = step(state)
  again, resumed = checkpoint.Checkpoints(str(tmp_path)).restore_or(fresh)
  assert resumed and again.step == 7
  for _ in range(3):
    again = step(again)
  for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(again)):
    assert a.dtype == b.dtype and (np.asarray(a) == np.asarray(b)).all()


def products(jaxpr):
  """All dot_general of a jaxpr, inner ones too."""
  for eqn in jaxpr.eqns:
    if eqn.primitive.name == 'dot_general':
      yield eqn
    for value in jax.tree.leaves(
        list(eqn.params.values()), is_leaf=lambda x: hasattr(x, 'jaxpr')):
      if hasattr(value, 'jaxpr'):
        yield from products(value.jaxpr)
      elif hasattr(value, 'eqns'):
        yield from products(value)


@pytest.mark.parametrize('name', ['shampoo', 'soap'])
def test_products_are_of_full_float32_precision_whatever_the_gradients(name):
  tx, _ = optim.make(9, name=name, lr=1., clip=0)
  g = {'kernel': jnp.ones([6, 4], jnp.bfloat16)}
  jaxpr, (u, _) = jax.make_jaxpr(tx.update, return_shape=True)(g, tx.init(g), g)
  found = list(products(jaxpr.jaxpr))
  assert len(found) > 5
  for eqn in found:
    assert set(eqn.params['precision']) == {jax.lax.Precision.HIGHEST}
    assert all(x.aval.dtype == jnp.float32 for x in eqn.invars)
  assert u['kernel'].dtype == jnp.bfloat16


def test_it_works_on_a_part_of_a_tree():
  plain = shampoo.scale_by_shampoo(**PLAIN)
  g = {'a': normal(4, 5), 'b': normal(4, 5, seed=1)}
  u, _ = run(optax.masked(plain, {'a': True, 'b': False}), [g] * 2)
  assert distance(u[1]['b'], g['b']) < 1e-6
  assert distance(u[1]['a'], run(plain, [g['a']] * 2)[0][1]) < 1e-6


@pytest.mark.parametrize('options, message', [
    (dict(root_every=30), 'with root_every=30, 29 is the least'),
    (dict(graft='adamm'), 'did you mean adam'),
    (dict(root='newtn'), 'did you mean newton'),
    (dict(momentum='updates'), 'did you mean update'),
    (dict(block=3), 'did you mean block_size'),
    (dict(block_size=0), 'block_size=0 should be a whole number')])
def test_what_makes_no_sense_gets_one_line(options, message):
  with pytest.raises(ValueError, match=message):
    optim.make(10, name='shampoo', lr=1., **options)
