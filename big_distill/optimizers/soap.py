"""SOAP (arXiv 2409.11321): Adam in the eigenbasis of Shampoo's statistics.

For a block G of a tensor with two or more axes longer than 1 (blocks.py):

  M   <- b1 M + (1 - b1) G
  V   <- b2 V + (1 - b2) (Q'G)^2         Q' along each axis, bias-corrected
  U   =  Q (Q'M / (sqrt(V) + eps))
  S_i <- b2 S_i + (1 - b2) G_i G_i'
  Q_i <- qr(S_i Q_i)                     one step of orthogonal iteration

Bases are refreshed in turn, as Shampoo's roots are: each is `basis_every` steps
old at most. Before its first refresh, which iterates longer, a block uses
Q = I, which is plain Adam. When Q changes, V is rotated by the squared overlaps
of old and new basis, which is exact for uncorrelated coordinates; the authors'
code permutes V instead. Other tensors use Adam.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float32
from jaxtyping import Int
import optax

from big_distill import bounds
from big_distill import parallel
from big_distill.ops import blocks

FIRST = 10  # Iterations of the first refresh.


class SoapState(NamedTuple):
  """Piles are {block shape: [n, ...]}, stacks ([n, d, d] for each axis)."""
  count: jax.Array  # type: ignore[assignment]  # Hides tuple.count.
  stats: Any  # Stacks of S.
  bases: Any  # Stacks of Q, a vector of the basis in each column.
  mu: Any  # Piles of M.
  nu: Any  # Piles of V.


def scale_by(b1: float = 0.95, b2: float = 0.95, eps: float = 1e-8,
             basis_every: int = 10,
             block_size: int = 128) -> optax.GradientTransformation:
  """SOAP, and Adam for vectors.

  The defaults are the authors', but for blocks; theirs are whole axes. Raises
  ValueError for an interval or a block that is not a whole number from 1.
  """
  for name, value in dict(basis_every=basis_every,
                          block_size=block_size).items():
    bounds.check(name, value, least=1, whole=True)

  def labels(params):
    return jax.tree.map(lambda x: (
        'soap' if sum(n > 1 for n in x.shape) >= 2 else 'adam'), params)

  return optax.partition({
      'soap': scale_by_soap(b1, b2, eps, basis_every, block_size),
      'adam': optax.scale_by_adam(b1, b2, eps)}, labels)


def scale_by_soap(b1: float, b2: float, eps: float, basis_every: int,
                  block_size: int) -> optax.GradientTransformation:
  """SOAP alone, for tensors that have two or more axes longer than 1."""
  def piles_of(tree):
    return blocks.Piles([x.shape for x in jax.tree.leaves(tree)], block_size)

  def init(params):
    piles = piles_of(params)
    def zeros():
      return {pile: jnp.zeros(shape) for pile, shape in piles.shapes.items()}
    return SoapState(
        jnp.zeros([], jnp.int32), piles.stacks(blocks.zeros),
        piles.stacks(blocks.eyes), zeros(), zeros())

  def update(updates, state, params=None):
    del params
    with jax.default_matmul_precision('highest'):
      return _update(updates, state)

  def _update(updates, state):
    leaves, tree = jax.tree.flatten(updates)
    piles, t = piles_of(updates), state.count + 1
    grads = piles.gather([g.astype(jnp.float32) for g in leaves])

    turns = blocks.turns(piles.shapes, basis_every, state.count)
    rounds = jnp.where(state.count < basis_every, FIRST, 1)
    stats, bases, mu, nu, steps = {}, {}, {}, {}, {}
    for pile, g in grads.items():
      q = state.bases[pile]
      mu[pile] = b1 * state.mu[pile] + (1 - b1) * g
      v = b2 * state.nu[pile] + (1 - b2) * blocks.contract(g, q)**2
      m = blocks.contract(mu[pile], q) / (1 - b1 ** t)
      u = m / (jnp.sqrt(v / (1 - b2 ** t)) + eps)
      steps[pile] = blocks.contract(u, [x.swapaxes(1, 2) for x in q])
      stats[pile] = tuple(b2 * s + (1 - b2) * x for s, x in zip(
          state.stats[pile], blocks.covariances(g)))
      bases[pile], nu[pile] = _refresh(turns[pile], rounds, stats[pile], q, v)

    out = piles.scatter(steps)
    out = [out[i].astype(g.dtype) for i, g in enumerate(leaves)]
    return tree.unflatten(out), SoapState(t, stats, bases, mu, nu)

  return optax.GradientTransformation(init, update)


def _refresh(turn: blocks.Turn, rounds: Int[Array, ''],
             stats: blocks.Stack, bases: blocks.Stack,
             nu: Float32[Array, 'n ...'],
             ) -> tuple[blocks.Stack, Float32[Array, 'n ...']]:
  """The bases of a pile, refreshed where due, and V rotated to them."""
  def iterate(s, q):
    return jax.lax.fori_loop(0, rounds, lambda _, q: _iterate(s, q), q)

  old, before = [turn.take(q) for q in bases], turn.take(nu)

  def compute():
    new = [parallel.spread(iterate, turn.take(s), q)
           for s, q in zip(stats, old)]
    overlaps = [(q.swapaxes(1, 2) @ fresh)**2 for q, fresh in zip(old, new)]
    return new, blocks.contract(before, overlaps)

  new, after = turn.work(compute, (old, before))
  return tuple(map(turn.put, bases, new)), turn.put(nu, after)


def _iterate(s: Float32[Array, 'n d d'],
             q: Float32[Array, 'n d d']) -> Float32[Array, 'n d d']:
  """qr(S Q); Q where there are no statistics yet."""
  size = jnp.max(jnp.abs(s), (1, 2), keepdims=True)
  fresh, _ = jnp.linalg.qr(s / jnp.where(size > 0, size, 1) @ q)
  return jnp.where((size > 0) & jnp.isfinite(fresh).all((1, 2), keepdims=True),
                   fresh, q)
