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
import optax

from big_distill import bounds
from big_distill import registry

Number = float | Float[Array, '']


def _steps(warmup: int, total: int) -> optax.Schedule:
  """Drops by 10 at 30, 60 and 90 % of the run, as BiT-HyperRule's."""
  return optax.piecewise_constant_schedule(
      1., {total * percent // 100 - warmup: .1 for percent in (30, 60, 90)})


def _wsd(warmup: int, total: int) -> optax.Schedule:
  """Constant, and down by 1 - sqrt over the last fifth (arXiv 2405.18392)."""
  cooldown = max(round(COOLDOWN * total), 1)
  start = total - warmup - cooldown
  return lambda t: 1 - jnp.sqrt(jnp.clip((t - start) / cooldown, 0, 1))


COOLDOWN = .2  # Share of a run of 'wsd'.
SCHEDULES = {  # (warmup, total) -> factor at t steps after the warmup.
    'constant': lambda warmup, total: optax.constant_schedule(1.),
    'cosine': lambda warmup, total: optax.cosine_decay_schedule(
        1., max(total - warmup, 1)),
    'quadratic': lambda warmup, total: optax.polynomial_schedule(
        1., 0., 2, max(total - warmup, 1)),
    'steps': _steps,
    'wsd': _wsd,
}


def make_schedule(total: int, warmup: int = 0,
                  kind: str = 'cosine') -> optax.Schedule:
  """s(t): linear from 0 over `warmup` steps, then e.g. a cosine to 0.

  Raises ValueError for a kind that SCHEDULES lacks, or too long a warmup.
  """
  registry.check('schedule', kind, SCHEDULES)
  if warmup >= total > 0:
    raise ValueError(f'A warmup of {warmup} steps does not fit into a run of '
                     f'{total} steps.')
  rest = SCHEDULES[kind](warmup, total)
  if not warmup:
    return rest
  return optax.join_schedules([optax.linear_schedule(0., 1., warmup), rest],
                              [warmup])


def is_kernel(params: Any) -> Any:
  """A tree of booleans: which leaves are named 'kernel', and so decay."""
  return jax.tree_util.tree_map_with_path(
      lambda path, _: path[-1].key == 'kernel', params)


def make(total: int, *, name: str = 'adam', lr: Number, wd: Number = 0.,
         clip: float | None = 1., warmup: int = 0, schedule: str = 'cosine',
         **options: Any) -> tuple[optax.GradientTransformation, Callable]:
  """-> (optax.GradientTransformation, lr(step)), for a run of `total` steps.

  `clip` bounds the gradient's norm; None or 0 leave it as it is. `options` go
  to scale_by of optimizers/NAME.py. Raises ValueError for a number that is
  negative or not finite, and for a name that there is not.
  """
  for key, value in dict(lr=lr, wd=wd, clip=clip or 0, warmup=warmup).items():
    bounds.check(f'optim.{key}', value, least=0)
  scale_by = registry.bind(registry.load('optimizers', name).scale_by,
                           **options)
  s = make_schedule(total, warmup, schedule)
  tx = optax.chain(
      optax.clip_by_global_norm(clip) if clip else optax.identity(),
      scale_by(),
      optax.scale(lr),
      optax.add_decayed_weights(wd, mask=is_kernel),
      optax.scale_by_schedule(s),
      optax.scale(-1.))
  return tx, lambda step: lr * s(step)
