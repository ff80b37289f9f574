"""What teachers answer, as it is kept: in which form, how true, by what made.

Files are store.py's.
"""


from collections.abc import Mapping, Sequence
import dataclasses
import importlib.metadata
from typing import Any

import jax
import jax.numpy as jnp

from big_distill import losses
from big_distill import registry
from big_distill import topk

DTYPES = ('float16', 'bfloat16', 'float32')


@dataclasses.dataclass(frozen=True)
class Form:
  """How answers are kept: logits in `dtype`, all of them or the `top` largest.

  Packing float32 logits of all classes changes nothing.
  """
  dtype: str = 'float32'
  top: int | None = None

  def __post_init__(self):
    registry.check('dtype of answers', self.dtype, DTYPES)

  def pack(self, answers: Sequence[jax.Array]) -> list[Any]:
    """Logits [b, c] float32 -> what is kept of them: [b, c] or topk.TopK."""
    if self.top:
      return [topk.compress(x, self.top, self.dtype) for x in answers]
    return [topk.dense(x, self.dtype) for x in answers]

  def unpack(self, kept: Sequence[Any]) -> list[Any]:
    """The inverse of pack, but for rounding."""
    return [x if isinstance(x, topk.TopK) else x.astype(jnp.float32)
            for x in kept]


def drift(live: jax.Array, kept: Any) -> tuple[jax.Array, jax.Array]:
  """How far kept answers are from live logits [b, c].

  (KL(kept || live) in nats, the largest difference of a probability), each [b].
  """
  if isinstance(kept, topk.TopK):
    log_p, log_q = topk.in_buckets(kept, live, 1.)
  else:
    log_p, log_q = losses.temper(kept, 1.), losses.temper(live, 1.)
  return losses.kl(live, kept), jnp.abs(
      jnp.exp(log_p) - jnp.exp(log_q)).max(axis=-1)


def versions() -> dict[str, str]:
  """What decides pixels and rounding beside a config."""
  found = {'device': jax.devices()[0].device_kind}
  for package in ('jax', 'jaxlib', 'tensorflow', 'tensorflow-cpu', 'pillow'):
    try:
      found[package] = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      continue
  return found


def changed(manifest: Mapping[str, Any]) -> str:
  """What is not as it was when answers were given, for a message."""
  before, now = manifest.get('made_by', {}), versions()
  other = [f'{name} {before.get(name)} is now {now.get(name)}'
           for name in {**before, **now} if before.get(name) != now.get(name)]
  return (', '.join(other) or 'no version differs: the teacher or the images '
          'changed under the same name')
