"""The state of a training: what a step changes, and what a checkpoint holds."""

import dataclasses
from typing import Any

import flax
import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Bool
import numpy as np
import optax


@flax.struct.dataclass
class State:
  """All that training changes.

  step: int32 [], steps taken.
  skipped: int32 [2], steps whose update was dropped because the loss or its
    gradient was not finite: how many in a row up to now, and how many in all.
  """
  step: jax.Array
  params: Any
  opt: optax.OptState
  skipped: jax.Array | np.ndarray = dataclasses.field(
      default_factory=lambda: np.zeros(2, np.int32))

  @classmethod
  def init(cls, params: Any, tx: optax.GradientTransformation) -> 'State':
    """The State before the first step."""
    return cls(step=jnp.zeros([], jnp.int32), params=params,
               opt=tx.init(params))

  def followed_by(self, after: 'State', finite: Bool[Array, ''],
                  most: int) -> 'State':
    """The State after a step: `after`, or this one where it was not `finite`.

    So is the next one tried, until `most` in a row were not: from then on the
    State stays as it was before the last of them, which can be looked into.
    """
    row, total = self.skipped
    over = row >= most
    row = jnp.where(over, row, jnp.where(finite, 0, row + 1))
    kept = jax.tree.map(lambda new, old: jnp.where(finite & ~over, new, old),
                        after, self)
    return dataclasses.replace(
        kept, step=jnp.where(row < most, self.step + 1, self.step),
        skipped=jnp.stack([row, total + ~(finite | over)]).astype(jnp.int32))
