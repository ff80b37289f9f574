"""A model as it is put to use: from bytes of pixels to logits.

What formats/ write is the function `logits` of a Served: uint8 images, already
of the model's size, become float32 [-1, 1], are normalised and classified. The
batch is free. Kernels are float32, or kept in fewer bits and made float32 again
whenever they are used.
"""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from big_distill import cards
from big_distill import pretrained
from big_distill import registry
from big_distill import steps
from big_distill.ops import int8

Answer = Callable[[np.ndarray], np.ndarray]  # uint8 [b, h, w, 3] -> [b, c]


def _halve(params):
  """Kernels as float16; norms, biases, positions and tokens stay float32."""
  def leaf(path, value):
    if path[-1].key != 'kernel':
      return value
    if np.abs(value).max(initial=0) > np.finfo(np.float16).max:
      raise ValueError(f'{"/".join(key.key for key in path)} has numbers that '
                       'float16 has not: choose --weights=float32 or int8.')
    return np.float16(value)
  return jax.tree_util.tree_map_with_path(leaf, params)


WEIGHTS = {  # What kernels are kept as.
    'float32': lambda params: params,
    'float16': _halve,
    'int8': int8.quantize,
}


@dataclasses.dataclass(frozen=True, eq=False)
class Served:
  """A model with constants folded, its parameters, and what its card says.

  The card has a size. `weights` is a name in WEIGHTS, `kept` the parameters as
  that keeps them. `file` is where they are from.
  """
  file: str
  card: cards.Card
  model: nn.Module
  weights: str
  kept: Any

  @property
  def image(self) -> tuple[int, int, int]:
    """The shape of an image."""
    return self.card.size, self.card.size, 3

  def logits(self, kept: Any, pixels: jax.Array) -> jax.Array:
    """uint8 [b, size, size, 3] -> float32 [b, c]; `kept` as in self.kept."""
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32),
                          int8.restore(kept))
    return self.model.apply({'params': params}, steps.scale(pixels))[0]

  @functools.cached_property
  def answer(self) -> Answer:
    """The function, compiled once for each batch, of numpy arrays."""
    kept, logits = jax.device_put(self.kept), jax.jit(self.logits)
    return lambda pixels: np.asarray(logits(kept, pixels))


def load(file: str, weights: str = 'float32',
         size: int | None = None) -> Served:
  """The model of a checkpoint, at `size` where its card says none.

  Raises ValueError as pretrained.load, for unknown weights, and where neither
  says a size.
  """
  registry.check('kind of weights', weights, WEIGHTS)
  card = pretrained.card(file)
  size = card.size or size
  if not size:
    raise ValueError(f'{file} does not say the size of its images: add '
                     '--size=PIXELS.')
  card = cards.at_size(card, size)
  model, params = pretrained.freeze(*pretrained.load(file, size))
  return Served(file, card, model, weights, WEIGHTS[weights](params))
