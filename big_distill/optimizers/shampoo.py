"""Shampoo (arXiv 1802.09568, 2002.09018): a preconditioner on every axis.

For a block G of a tensor, of r axes longer than 1 (blocks.py says which):

  S_i <- b2 S_i + (1 - b2) G_i G_i'      G unfolded along axis i; a sum if b2=1
  H_i <- (S_i + eps lmax(S_i) I)^(-1/p)  p = `exponent`, or 2r
  D   =  M x_1 H_1 ... x_r H_r           M the gradient, or its running mean
  D   <- D |U| / |D|                     norms of whole tensors: grafting

U is the update of a simpler rule, such as Adam's. Its norm makes learning rates
and schedules of that rule fit Shampoo. Before `start_step` U itself is the
update, and always for tensors of fewer than `min_rank` axes longer than 1.

Each step computes the roots of one part of `root_every`, shared out over all
devices (roots.py, parallel.spread), so that steps take equal time. Statistics
and roots are float32, the same on all devices; a checkpoint holds one copy.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float
from jaxtyping import Float32
import optax

from big_distill import bounds
from big_distill import optim
from big_distill import parallel
from big_distill import registry
from big_distill.ops import blocks
from big_distill.ops import roots

MOMENTA = ('gradient', 'update')


def _adagrad(nu, square, b2, t):
  del b2, t
  return nu + square, nu + square


def _rmsprop(nu, square, b2, t):
  del t
  nu = b2 * nu + (1 - b2) * square
  return nu, nu


def _adam(nu, square, b2, t):
  nu, _ = _rmsprop(nu, square, b2, t)
  return nu, nu / (1 - b2 ** t)


GRAFTS = {  # (nu, g^2, b2, t) -> the next nu, v of U = M / (sqrt(v) + eps).
    'none': None,  # D as it is; U = M.
    'sgd': None,  # U = M.
    'adagrad': _adagrad, 'rmsprop': _rmsprop, 'adam': _adam}


class ShampooState(NamedTuple):
  """Stacks are {block shape: ([n, d, d] for each axis)}."""
  count: jax.Array  # type: ignore[assignment]  # Hides tuple.count.
  stats: Any  # Stacks of S.
  roots: Any  # Stacks of H.
  mu: Any  # Running mean of gradients, by tensor; () without momentum.
  nu: Any  # Second moment of the graft, by tensor; () if it has none.
  failed: jax.Array  # Roots so far that were too bad to replace the old.


def scale_by(momentum: str = 'gradient', b1: float = 0.9,
             nesterov: bool = False, coupled_wd: float = 0.,
             mu_dtype: str | None = None,
             **options: Any) -> optax.GradientTransformation:
  """Shampoo with momentum before or after it; options of scale_by_shampoo.

  momentum: of the 'gradient', which is then preconditioned, as in Adam; or of
    the 'update', m <- b1 m + D, as published.
  coupled_wd: times kernels is added to D, so that it enters the momentum of
    updates and is scaled by the learning rate. Set optim.wd=0 beside it.

  The defaults follow Adam's learning rates. The recipe for ResNet-50 that the
  paper refers to (its appendix D) is, with schedule='quadratic' and a warmup
  of 1800 steps:

    momentum='update', graft='sgd', b1=.95, b2=.85, eps=1.5e-5, exponent=4,
    root_every=1, min_rank=1, nesterov=True, coupled_wd=3.75e-4
  """
  registry.check('momentum', momentum, MOMENTA)
  shampoo = registry.bind(scale_by_shampoo, **options)
  decay = (optax.add_decayed_weights(coupled_wd, optim.is_kernel)
           if coupled_wd else optax.identity())
  if momentum == 'gradient':
    return optax.chain(
        shampoo(b1=b1, nesterov=nesterov, mu_dtype=mu_dtype), decay)
  return optax.chain(shampoo(), decay, optax.trace(b1, nesterov, mu_dtype))


def scale_by_shampoo(
    b1: float = 0., b2: float = 0.99, eps: float = 1e-6, nesterov: bool = False,
    block_size: int = 128, min_rank: int = 2, exponent: int | None = None,
    root: str = 'newton', root_every: int = 10, stats_every: int = 1,
    start_step: int = 25, graft: str = 'adam', graft_b2: float = 0.999,
    graft_eps: float = 1e-8, graft_normalized: bool = False,
    mu_dtype: str | None = None) -> optax.GradientTransformation:
  """-> optax.GradientTransformation, without learning rate, decay and sign.

  b1, nesterov: running mean of gradients, bias-corrected; none if b1=0.
  root_every: most steps from one computation of a root to its next.
  stats_every: steps from one update of all statistics to the next.
  graft_normalized: the graft sees each tensor's gradient at norm 1.
  Raises ValueError for a name that there is not or a whole number below 1.
  """
  registry.check('root', root, roots.ROOTS)
  registry.check('graft', graft, GRAFTS)
  whole = dict(block_size=block_size, root_every=root_every,
               stats_every=stats_every, exponent=exponent or 1)
  for name, value in whole.items():
    bounds.check(name, value, least=1, whole=True)
  if start_step < root_every - 1:
    raise ValueError(
        f'start_step={start_step} comes before the first round of roots is '
        f'done: with root_every={root_every}, {root_every - 1} is the least.')
  second_moment = GRAFTS[graft]

  def piles_of(leaves):
    return blocks.Piles([x.shape for x in leaves], block_size, min_rank)

  def init(params):
    piles = piles_of(jax.tree.leaves(params))
    return ShampooState(
        count=jnp.zeros([], jnp.int32),
        stats=piles.stacks(blocks.zeros), roots=piles.stacks(blocks.eyes),
        mu=optax.tree.zeros_like(params, dtype=mu_dtype) if b1 else (),
        nu=optax.tree.zeros_like(params, dtype=jnp.float32)
        if second_moment else (),
        failed=jnp.zeros([], jnp.int32))

  def update(updates, state, params=None):
    del params
    # These matrices are so ill-conditioned that lower precision loses them.
    with jax.default_matmul_precision('highest'):
      return _update(updates, state)

  def _update(updates, state):
    leaves, tree = jax.tree.flatten(updates)
    piles, t = piles_of(leaves), state.count + 1
    grads = [_bounded(g) for g in leaves]

    stats = jax.lax.cond(
        state.count % stats_every == 0,
        lambda: _learn(state.stats, piles.gather(grads), b2),
        lambda: state.stats)
    # Statistics lack b2^n of their weight, having seen n gradients.
    weight = 1 - b2 ** (state.count // stats_every + 1) if b2 < 1 else 1.
    new, failed = {}, state.failed
    turns = blocks.turns(piles.shapes, root_every, state.count)
    for pile, turn in turns.items():
      new[pile], failures = _refresh(
          turn, state.roots[pile], stats[pile], weight, functools.partial(
              roots.ROOTS[root], p=exponent or 2 * len(stats[pile]), eps=eps))
      failed += failures

    means, mu = _means(grads, state.mu, b1, t, nesterov)
    grafted, nu = _graft(grads, means, state.nu, second_moment, t, graft_b2,
                         graft_eps, graft_normalized)
    directions = piles.scatter({
        pile: blocks.contract(x, new[pile])
        for pile, x in piles.gather(means).items()})
    for i, d in directions.items():
      if graft != 'none':
        d *= _norm(grafted[i]) / (_norm(d) + 1e-25)
      use = (state.count >= start_step) & jnp.isfinite(d).all()
      grafted[i] = jnp.where(use, d, grafted[i])

    out = [u.astype(g.dtype) for u, g in zip(grafted, leaves)]
    state = ShampooState(
        t, stats, new,
        optax.tree.cast(tree.unflatten(mu), mu_dtype) if b1 else (),
        tree.unflatten(nu) if second_moment else (), failed)
    return tree.unflatten(out), state

  return optax.GradientTransformation(init, update)


def _bounded(g: Float[Array, '*s']) -> Float32[Array, '*s']:
  """A gradient whose squares have finite sums; 0 where it is not finite."""
  g = g.astype(jnp.float32)
  largest = jnp.max(jnp.abs(g))
  # One NaN or infinity in a running mean would stay there for ever.
  return jnp.where(jnp.isfinite(largest), g * jnp.minimum(1, 1e12 / largest), 0)


def _norm(x: Float32[Array, '...']) -> Float32[Array, '']:
  """|x|, also where the squares of its entries are too small for float32."""
  largest = jnp.max(jnp.abs(x))
  unit = x / jnp.where(largest > 0, largest, 1)
  return largest * jnp.sqrt(jnp.sum(unit**2))


def _learn(stats, piles, b2):
  """Statistics that have also seen these blocks."""
  weight = 1 - b2 if b2 < 1 else 1.
  return {pile: tuple(b2 * s + weight * x for s, x in zip(
      stats[pile], blocks.covariances(piles[pile]))) for pile in stats}


def _refresh(turn, old, stats, weight, root):
  """(roots of one pile, recomputed where due and good, how many failed)."""
  before = [turn.take(h) for h in old]

  def compute():
    parts, failed = list(before), 0
    for d in sorted({s.shape[-1] for s in stats}):  # All of one size at once.
      axes = [i for i, s in enumerate(stats) if s.shape[-1] == d]
      h, error = parallel.spread(root, jnp.concatenate(
          [turn.take(stats[i]) for i in axes]) / weight)
      good = error < roots.TOLERATED
      failed += jnp.sum(~good)
      h = jnp.where(good[:, None, None], h,
                    jnp.concatenate([before[i] for i in axes]))
      for i, part in zip(axes, jnp.split(h, len(axes))):
        parts[i] = part
    return parts, failed

  parts, failed = turn.work(compute, (before, 0))
  return tuple(map(turn.put, old, parts)), failed


def _means(grads, mu, b1, t, nesterov):
  """(Bias-corrected running means of gradients, the next mu), as lists."""
  if not b1:
    return grads, []
  mu = [b1 * m + (1 - b1) * g for m, g in zip(jax.tree.leaves(mu), grads)]
  means = [b1 * m + (1 - b1) * g for m, g in zip(mu, grads)] if nesterov else mu
  correction = 1 - b1 ** (t + nesterov)
  return [m / correction for m in means], mu


def _graft(grads, means, nu, second_moment, t, b2, eps, normalized):
  """(Updates of the rule that is grafted, the next nu), as lists."""
  if normalized:
    grads, means = ([x / (_norm(x) + 1e-25) for x in xs]
                    for xs in (grads, means))
  if not second_moment:
    return list(means), []
  moments = [second_moment(v, g**2, b2, t)
             for v, g in zip(jax.tree.leaves(nu), grads)]
  return ([m / (jnp.sqrt(v) + eps) for m, (_, v) in zip(means, moments)],
          [v for v, _ in moments])
