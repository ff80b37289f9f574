"""Labels as datasets give them: one per example, several, or none.

int32 [b], -1 where there is none; or multi-hot int32 [b, c], as ImageNet
ReaL's, all zero where there is none.
"""

import jax
import jax.numpy as jnp


def is_known(label):
  """Whether examples have a label. [b] or [b, c] -> bool [b]."""
  return label >= 0 if label.ndim == 1 else label.any(axis=-1)


def shares(label, num_classes):
  """A label as probabilities: [b] or [b, c] -> float32 [b, num_classes].

  Several labels share equally. Without one, all are zero.
  """
  if label.ndim == 1:
    return jax.nn.one_hot(label, num_classes)
  count = jnp.sum(label, axis=-1, keepdims=True, dtype=jnp.float32)
  return label / jnp.maximum(count, 1)
