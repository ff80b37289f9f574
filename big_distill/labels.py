"""Labels as datasets give them: one per example, several, or none.

int32 [b], -1 where there is none; or multi-hot int32 [b, c], as ImageNet
ReaL's, all zero where there is none.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Bool
from jaxtyping import Float32
from jaxtyping import Int
import numpy as np

AnyArray = Array | np.ndarray
Label = Int[AnyArray, ' b'] | Int[AnyArray, 'b c']


def is_known(label: Label) -> Bool[AnyArray, ' b']:
  """Whether examples have a label."""
  known = label >= 0 if label.ndim == 1 else (label > 0).any(axis=-1)
  return known  # type: ignore[return-value]  # An array, as label is.


def has_all(share: Float32[AnyArray, 'b c']) -> Bool[AnyArray, ' b']:
  """Whether the labels of all images in a mixture are known, from its shares."""
  known = share.sum(axis=-1) > .999
  return known  # type: ignore[return-value]  # An array, as share is.


def shares(label: Label, num_classes: int) -> Float32[AnyArray, 'b c']:
  """Labels as probabilities of so many classes.

  Several labels share equally. Without one, all are zero. Labels on the host
  are not moved to a device.
  """
  xp = jnp if isinstance(label, jax.Array) else np
  if label.ndim == 1:
    return xp.float32(label[:, None] == xp.arange(num_classes))
  count = xp.sum(label, axis=-1, keepdims=True, dtype=xp.float32)
  return xp.float32(label) / xp.maximum(count, 1)
