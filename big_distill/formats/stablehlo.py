"""StableHLO, as jax.export writes it: for JAX and other XLA, soon.

A function of uint8 [batch, size, size, 3], which returns float32 logits [batch,
classes], for CPU, CUDA and TPU. JAX promises to read such a file for six months,
so it is for a server that is rolled out, not for an archive: keep the npz. The
card is behind it, as the comment of an empty zip archive, which JAX skips:

  jax.export.deserialize(bytearray(open('student.stablehlo', 'rb').read()))
"""

import jax
from jax import export
import jax.numpy as jnp
import numpy as np

from big_distill import cards
from big_distill import npz_files
from big_distill import served as served_lib

SUFFIX = '.stablehlo'
WEIGHTS = ('float32', 'float16', 'int8')
PACKAGES = ()
PLATFORMS = ('cpu', 'cuda', 'tpu')
MONTHS = 6  # docs.jax.dev/en/latest/export, "Compatibility guarantees".


def write(served: served_lib.Served, path: str) -> None:
  """Writes a file."""
  b, = export.symbolic_shape('b')
  # JAX's arrays: what is done to numpy's would be done before it is written.
  kept = jax.device_put(served.kept)
  module = export.export(
      jax.jit(lambda pixels: served.logits(kept, pixels)), platforms=PLATFORMS)(
          jax.ShapeDtypeStruct((b, *served.image), jnp.uint8))
  with open(path, 'wb') as file:
    file.write(module.serialize() + cards.to_end(served.card))


def read(path: str) -> tuple[cards.Card | None, served_lib.Answer]:
  """The card of a file, if it has one of ours, and its answer."""
  with open(path, 'rb') as file:
    content = file.read()
  try:
    call = jax.jit(export.deserialize(bytearray(content)).call)
  except Exception as error:  # Whatever a parser raises.
    line = str(error).splitlines()[0]
    raise ValueError(f'{path} cannot be read by JAX {jax.__version__}: {line} '
                     f'JAX reads what is at most {MONTHS} months old: export it '
                     'again from its npz.') from error
  return npz_files.load_card(path), lambda pixels: np.asarray(call(pixels))
