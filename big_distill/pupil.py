"""A pupil: how one student learns from what its teachers agree on."""

from collections.abc import Callable
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from big_distill import losses
from big_distill import params as params_lib
from big_distill.state import State


@dataclasses.dataclass(frozen=True)
class Pupil:
  """How one student learns.

  answer: (params, images) -> (logits [b, c], averages), of the view it `sees`;
    averages replace those leaves of params that no gradient moves.
  tx: the optimizer. lr: step -> learning rate, for the log.
  loss: (student logits, target log-probs) [b, c] -> [b].
  """
  answer: Callable
  sees: Any
  tx: optax.GradientTransformation
  lr: Callable
  loss: Callable = losses.kl

  def learn(self, params: Any, target: Any, seen: dict[str, Any]
            ) -> tuple[Any, Any]:
    """((loss, (logits, averages)), gradients), of this device's examples."""
    def loss_of(params):
      logits, averages = self.answer(params, seen[str(self.sees)])
      return jnp.mean(self.loss(logits, target)), (logits, averages)

    return jax.value_and_grad(loss_of, has_aux=True)(params)

  def update(self, state: State, grads: Any, averages: Any
             ) -> tuple[State, Any]:
    """(the next State, what was added to the parameters)."""
    updates, opt = self.tx.update(grads, state.opt, state.params)
    params = optax.apply_updates(state.params, updates)
    params = params_lib.replace(params, averages)
    return dataclasses.replace(
        state, step=state.step + 1, params=params, opt=opt), updates
