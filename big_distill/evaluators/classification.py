"""How well labels are predicted: top-1, top-5 and cross-entropy."""

import dataclasses

import jax
import jax.numpy as jnp

from big_distill import losses


@dataclasses.dataclass(frozen=True)
class Evaluator:
  """Measures the student or, with who='teacher', the teachers' consensus."""
  who: str = 'student'

  labelled = True

  @property
  def needs(self):
    return (self.who,)

  def __call__(self, logits, label):
    """{who: logits [b, c]}, int32 [b] -> {metric: float32 [b]}."""
    logits = logits[self.who]
    target = jnp.log(jax.nn.one_hot(label, logits.shape[-1]))
    _, best = jax.lax.top_k(logits, min(5, logits.shape[-1]))
    hit = best == label[:, None]
    return {'acc@1': hit[:, 0].astype(jnp.float32),
            'acc@5': jnp.any(hit, axis=-1).astype(jnp.float32),
            'loss': losses.xent(logits, target)}
