"""SOAP: Adam in a basis that turns with the gradients.

Tolerances: 1e-5 is 100 roundings of float32, where no basis is at work.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from big_distill import optim
from big_distill import parallel
from big_distill.optimizers import soap


def normal(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape)


def run(tx, gradients):
  state, update, updates = tx.init(gradients[0]), jax.jit(tx.update), []
  for g in gradients:
    u, state = update(jax.tree.map(jnp.float32, g), state)
    updates.append(jax.tree.map(np.asarray, u))
  return updates, state


def distance(got, want):
  return np.linalg.norm(got - want) / np.linalg.norm(want)


def test_without_a_basis_and_on_vectors_it_is_adam():
  gradients = [{'a': normal(8, 6, seed=i), 'b': normal(6, seed=i)}
               for i in range(4)]
  # None of the basis turns before the last step.
  got, _ = run(soap.scale_by(basis_every=4, block_size=2), gradients)
  want, _ = run(optax.scale_by_adam(.95, .95), gradients)
  for u, v in zip(got, want):
    assert distance(u['b'], v['b']) < 1e-5
  assert distance(got[0]['a'], want[0]['a']) < 1e-5
  assert distance(got[3]['a'], want[3]['a']) > .1


def test_in_the_eigenbasis_it_is_adam_of_the_coordinates():
  """Diagonal gradients, rotated: SOAP finds the rotation, Adam is told it."""
  u, _ = np.linalg.qr(normal(6, 6, seed=1))
  v, _ = np.linalg.qr(normal(6, 6, seed=2))
  # Eigenvalues far apart, so that the basis is found soon.
  sizes = [3.**-np.arange(6) * (1 + .2 * normal(6, seed=i)) for i in range(80)]
  got, _ = run(soap.scale_by_soap(.9, .9, 1e-8, 1, 9),
               [u @ np.diag(d) @ v for d in sizes])
  want, _ = run(optax.scale_by_adam(.9, .9), sizes)
  # Rounding is nothing here: the basis is still on its way.
  assert distance(got[-1], u @ np.diag(want[-1]) @ v) < .02


def transcription(gradients, b1, b2, eps, every, first):
  """Of one matrix, in float64, by numpy's QR."""
  l, r = (np.zeros([d, d]) for d in gradients[0].shape)
  ql, qr = (np.eye(d) for d in gradients[0].shape)
  m = v = 0.
  for i, g in enumerate(gradients):
    t = i + 1
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * (ql.T @ g @ qr)**2
    u = (ql.T @ m @ qr / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
    yield ql @ u @ qr.T
    l, r = b2 * l + (1 - b2) * g @ g.T, b2 * r + (1 - b2) * g.T @ g
    if i % every == 0:
      old = ql, qr
      for _ in range(first if i < every else 1):
        ql, qr = np.linalg.qr(l @ ql)[0], np.linalg.qr(r @ qr)[0]
      v = (ql.T @ old[0])**2 @ v @ (old[1].T @ qr)**2


def test_it_follows_its_float64_transcription():
  # Of full rank from the first step on, whose bases are then well defined.
  gradients = [np.diag(2.**-np.arange(6)) + .1 * normal(6, 6, seed=i)
               for i in range(7)]
  got, _ = run(soap.scale_by_soap(.9, .95, 1e-8, 3, 9), gradients)
  wanted = transcription(gradients, .9, .95, 1e-8, 3, soap.FIRST)
  for u, want in zip(got, wanted):
    # Rounding, 6e-8 of the largest eigenvalue, turns the last two eigenvectors
    # by that over their distance, 3e-3 of it: 2e-5.
    assert distance(u, want) < 2e-4


def test_bases_stay_orthonormal_and_finite_whatever_comes():
  good = normal(6, 6)
  gradients = [{'a': x, 'b': x[:5]} for x in (
      0 * good, np.outer(good[0], good[1]), good * 1e-12, good, good * 1e6)]
  updates, state = run(soap.scale_by(basis_every=1, block_size=4), gradients)
  assert np.isfinite(jax.tree.leaves(updates)[0]).all()
  assert (updates[0]['a'] == 0).all()
  for q in jax.tree.leaves(state.inner_states['soap'].inner_state.bases):
    np.testing.assert_allclose(q.swapaxes(1, 2) @ q,
                               np.tile(np.eye(q.shape[-1]), [len(q), 1, 1]),
                               atol=1e-5)


def test_devices_share_the_bases_and_stay_equal():
  tx, _ = optim.make(20, name='soap', lr=.01, basis_every=2, block_size=4)
  params = {'kernel': jnp.float32(normal(12, 7)), 'bias': jnp.zeros(7)}

  def step(params, opt):
    updates, opt = tx.update(jax.tree.map(jnp.sin, params), opt, params)
    return optax.apply_updates(params, updates), opt

  alone = both = params, tx.init(params)
  one, both, many = jax.jit(step), parallel.replicate(both), parallel.pmap(step)
  for _ in range(5):
    alone, both = one(*alone), many(*both)
  for leaf in jax.tree.leaves(both):
    leaf = np.asarray(leaf)
    assert (leaf == leaf[:1]).all()
  np.testing.assert_allclose(parallel.first(both[0])['kernel'],
                             alone[0]['kernel'], atol=1e-5)
