"""The optimizer: clip, precondition, decay weights, follow the schedule.

The update is the paper's (section 3 of its appendix and its released code):

  g <- g min(1, clip / |g|)          over all parameters
  u <- adam(g)                       or another file of optimizers/
  w <- w - s(t) (lr u + wd w)        wd on kernels only, not scaled by lr

with s(t) in [0, 1] the schedule at the 0-based step t.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float
from jaxtyping import Int
import optax

from big_distill import bounds
from big_distill import registry

Number = float | Float[Array, '']
Whole = int | Int[Array, '']

MU_DTYPES = ('float32', 'bfloat16')  # Of running means of gradients.
COOLDOWN = .2  # Share of a run of 'wsd'.


def _cooldown(total):
  return max(round(COOLDOWN * total), 1)


SCHEDULES = {  # (share of what follows the warmup, step, total) -> factor.
    'constant': lambda x, step, total: 1.,
    'cosine': lambda x, step, total: .5 * (1 + jnp.cos(jnp.pi * x)),
    'quadratic': lambda x, step, total: (1 - x)**2,
    # By 10 at 30, 60 and 90 % of the run, as BiT-HyperRule's.
    'steps': lambda x, step, total: .1**sum(
        step >= total * percent // 100 for percent in (30, 60, 90)),
    # Constant, and down by 1 - sqrt over the last fifth (arXiv 2405.18392).
    'wsd': lambda x, step, total: 1 - jnp.sqrt(jnp.clip(
        1 - (total - step) / _cooldown(total), 0, 1)),
}


def make_schedule(total: int, warmup: Whole = 0,
                  kind: str = 'cosine') -> optax.Schedule:
  """s(t): linear from 0 over `warmup` steps, then e.g. a cosine to 0.

  Raises ValueError for a kind that SCHEDULES lacks, or too long a warmup.
  """
  registry.check('schedule', kind, SCHEDULES)
  if not isinstance(warmup, jax.Array) and warmup >= total > 0:
    raise ValueError(f'A warmup of {warmup} steps does not fit into a run of '
                     f'{total} steps.')

  def factor(step):
    step = jnp.asarray(step)
    x = jnp.clip((step - warmup) / jnp.maximum(total - warmup, 1), 0, 1)
    return jnp.where(step < warmup, step / jnp.maximum(warmup, 1),
                     SCHEDULES[kind](x, step, total))

  return factor


def is_kernel(params: Any) -> Any:
  """A tree of booleans: which leaves are named 'kernel', and so decay."""
  return jax.tree_util.tree_map_with_path(
      lambda path, _: path[-1].key == 'kernel', params)


def make(total: int, *, name: str = 'adam', lr: Number, wd: Number = 0.,
         clip: Number | None = 1., warmup: Whole = 0, schedule: str = 'cosine',
         **options: Any) -> tuple[optax.GradientTransformation, Callable]:
  """-> (optax.GradientTransformation, lr(step)), for a run of `total` steps.

  `clip` bounds the gradient's norm; None or 0 leave it as it is. `options` go
  to scale_by of optimizers/NAME.py. Raises ValueError for a number that is
  negative or not finite, and for a name that there is not. Numbers may be
  tracers, so that one program serves many of them.
  """
  clips = isinstance(clip, jax.Array) or bool(clip)
  for key, value in dict(lr=lr, wd=wd, clip=clip if clips else 0,
                         warmup=warmup).items():
    bounds.check(f'optim.{key}', value, least=0)
  if options.get('mu_dtype'):
    registry.check('mu_dtype', options['mu_dtype'], MU_DTYPES)
  scale_by = registry.bind(registry.load('optimizers', name).scale_by,
                           **options)
  s = make_schedule(total, warmup, schedule)
  tx = optax.chain(
      optax.clip_by_global_norm(clip) if clips else optax.identity(),
      scale_by(),
      optax.scale(lr),
      optax.add_decayed_weights(wd, mask=is_kernel),
      optax.scale_by_schedule(s),
      optax.scale(-1.))
  return tx, lambda step: lr * s(step)
