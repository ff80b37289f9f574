"""How well labels are predicted: top-1, top-5 and cross-entropy."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float

from big_distill import labels
from big_distill import losses
from big_distill import metrics


@dataclasses.dataclass(frozen=True)
class Evaluator:
  """Measures the student or, with who='teacher', the teachers' consensus.

  Where an example has several labels (multi-hot, as ImageNet ReaL's), a class
  is correct if it is any of them, and the cross-entropy is with their mean.
  """
  who: str = 'student'

  labelled = True

  @property
  def needs(self) -> tuple[str, ...]:
    return (self.who,)

  def __call__(self, answers: dict[str, Float[Array, 'b c']],
               label: labels.Label) -> dict[str, Float[Array, ' b']]:
    """Metrics of each example, from logits and labels."""
    logits = answers[self.who]
    share = labels.shares(label, logits.shape[-1])
    _, best = jax.lax.top_k(logits, min(5, logits.shape[-1]))
    hit = jnp.take_along_axis(share, best, axis=-1) > 0
    return {metrics.ACC1: hit[:, 0].astype(jnp.float32),
            metrics.ACC5: jnp.any(hit, axis=-1).astype(jnp.float32),
            metrics.XENT: losses.xent(logits, jnp.log(share))}
