"""How far the student is from its teachers: KL, euclidean, agreement."""

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
  """KL in nats at temperature 1; distance of logits; top-k agreement.

  They agree at k when the teachers' first class is among the student's first
  k, as in big_vision.
  """
  labelled = False
  needs = ('student', 'teacher')

  def __call__(self, answers: dict[str, Float[Array, 'b c']],
               label: labels.Label) -> dict[str, Float[Array, ' b']]:
    """Metrics of each example, from logits."""
    del label
    student, teacher = answers['student'], answers['teacher']
    _, best = jax.lax.top_k(student, min(5, student.shape[-1]))
    hit = best == jnp.argmax(teacher, axis=-1, keepdims=True)
    return {metrics.KL: losses.kl(student, teacher),
            metrics.EUCLIDEAN: jnp.linalg.norm(student - teacher, axis=-1),
            metrics.TOP1: hit[:, 0].astype(jnp.float32),
            metrics.TOP5: jnp.any(hit, axis=-1).astype(jnp.float32)}
