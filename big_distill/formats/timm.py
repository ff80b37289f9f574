"""safetensors under timm's names, for PyTorch.

weights/FAMILY.py says timm's names and the lines of Python that make timm's model;
they are in the file's metadata, as `python`, and in the model card. timm's models
take normalised float images [batch, 3, size, size]: (pixels / 255 - mean) / std
with the card's mean and deviation. Kernels are float32 or float16.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from big_distill import cards
from big_distill import params as params_lib
from big_distill import pretrained
from big_distill import registry
from big_distill import served as served_lib

SUFFIX = '_timm.safetensors'
WEIGHTS = ('float32', 'float16')
PACKAGES = ('safetensors', 'torch', 'timm')
# Kernels are rounded before they are standardised, not after.
TOLERANCE = {'float16': .1}
CARD = cards.MARK.decode()


def write(served: served_lib.Served, path: str) -> None:
  """Writes a file. Raises ValueError for a model that timm lacks."""
  save(served, path, 'timm')


def read(path: str) -> tuple[cards.Card, served_lib.Answer]:
  """The card of a file and its answer, by PyTorch."""
  return load(path, 'timm')


def load(path: str, layout: str) -> tuple[cards.Card, served_lib.Answer]:
  """As read, of a file in a layout; ValueError where it has no card of ours."""
  import safetensors
  import safetensors.torch
  import torch

  with safetensors.safe_open(path, 'numpy') as file:
    told = (file.metadata() or {}).get(CARD, '')
  card = cards.from_comment(told.encode())
  if not card:
    raise ValueError(f'{path} has no card, so nothing tells its model: load it '
                     f'with {layout}.')
  # The lines in the file are for readers: what a file says is not run.
  space: dict[str, Any] = {}
  exec(lines(card, layout), space)  # pylint: disable=exec-used
  module = space['model'].eval()
  module.load_state_dict(safetensors.torch.load_file(path))
  mean, std = (np.asarray(each, np.float32) for each in (card.mean, card.std))

  def answer(pixels: np.ndarray) -> np.ndarray:
    images = (pixels.astype(np.float32) / 255 - mean) / std
    with torch.no_grad():
      return module(torch.from_numpy(images.transpose(0, 3, 1, 2))).numpy()

  return card, answer


def save(served: served_lib.Served, path: str, layout: str) -> None:
  """Writes a safetensors file in the names of `layout`, timm or torchvision.

  Raises ValueError for a model that the layout lacks.
  """
  import safetensors.numpy

  model, params = pretrained.load(served.file, served.card.size)
  flat = params_lib.flatten(served_lib.WEIGHTS[served.weights](params))
  tensors, python = _converter(served.card, layout)(
      model, served.card.size, flat)
  safetensors.numpy.save_file(
      {name: np.ascontiguousarray(value) for name, value in tensors.items()},
      path, {'python': python, CARD: cards.to_comment(served.card).decode()})


def lines(card: cards.Card, layout: str) -> str:
  """The Python that makes the model of a card in a layout, named `model`."""
  model, shapes = pretrained.shapes_of(size=card.size, family=card.family,
                                       **card.options)
  flat = {name: np.broadcast_to(np.float32(0), leaf.shape)
          for name, leaf in params_lib.flatten(shapes).items()}
  return _converter(card, layout)(model, card.size, flat)[1]


def _converter(card: cards.Card, layout: str) -> Callable:
  weights = registry.load('weights', card.family)
  found = getattr(weights, f'to_{layout}', None)
  if found is None:
    raise ValueError(f'{layout} has no {card.family}: choose another format.')
  return found
