"""Makes models, loads them from checkpoints and saves them.

A family of models is a file in models/, which has what contracts.Family says;
no other module names one. Where others have published weights of a family, a
file of the same name in weights/ translates their layouts.
"""

from collections.abc import Callable, Mapping
import os
import pkgutil
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from big_distill import bounds
from big_distill import cards
from big_distill import contracts
from big_distill import models
from big_distill import npz_files
from big_distill import parallel
from big_distill import params as params_lib
from big_distill import registry
from big_distill import torch_files
from big_distill.ops import initial
from big_distill.ops import int8

Made = tuple[nn.Module, Any]  # A model, and its parameters as numpy arrays.

DTYPES = ('float32', 'bfloat16')  # What a model computes in.


def families() -> dict[str, contracts.Family]:
  """{name: family} of all files in models/."""
  names = [module.name for module in pkgutil.iter_modules(models.__path__)]
  return {name: registry.load('models', name) for name in names}


def build(family: str = '', **kwargs: Any) -> nn.Module:
  """A model without parameters: build('bit', num_classes=10, depth=50).

  Raises ValueError for an unknown family, for an option that the family lacks,
  for a width that is not above 0, for a number of classes that is not a whole
  number from 1 and for a dtype that is not in DTYPES. A width of None is the
  variant's.
  """
  if not family:
    raise ValueError('A model has a family: set family to one of '
                     f'{", ".join(families())}.')
  if kwargs.get('width') is not None:
    bounds.check('width', kwargs['width'], above=0)
  if kwargs.get('num_classes') is not None:
    bounds.check('num_classes', kwargs['num_classes'], least=1, whole=True)
  if (dtype := kwargs.get('dtype')) is not None:
    registry.check('dtype of a model', getattr(dtype, '__name__', dtype),
                   DTYPES)
  return registry.bind(registry.load('models', family).Model, **kwargs)()


def create(*, size: int, seed: int = 0, **kwargs: Any) -> Made:
  """A model of `build` for images of a size, with initial values.

  They depend on the seed and on the names of parameters alone. Raises
  ValueError for a size that is not a whole number of pixels, and as `build`.
  """
  bounds.check('size', size, least=1, whole=True)
  model = build(**kwargs)
  return model, initial.draw(model, _image(size), seed)


def path_of(name: Any) -> str:
  """The file of a published name; anything else is a path already.

  Raises ValueError for what looks like a published name and is none.
  """
  name = str(name)
  published = {}
  for family in families().values():
    published.update(family.PUBLISHED)
  if name in published:
    path = published[name]
    return path() if callable(path) else path
  if '/' not in name and not name.endswith(('.npz', '.pth')):
    registry.check('published checkpoint', name, published)
  return os.path.expanduser(name)


def load(file: Any, size: int | None = None) -> Made:
  """The model of a checkpoint and its parameters.

  `file` is a path, an address gs://, or a published name, one of PUBLISHED in
  models/; a file that ends in .pth is a state_dict of PyTorch. The card in the
  file says which model it is; without a card, names and shapes of parameters
  do. model.apply({'params': params}, images)[0] then is float32 logits [b, c] of
  float images [b, h, w, 3] in [-1, 1]. Parameters that depend on the size of
  images are adapted to `size`, or stay as they are without it.

  Raises ValueError where the file is missing, damaged or of no known family,
  where parameters do not fit the model, and where one is not a finite float.
  """
  flat = _flat(file)
  described = card(file, flat)
  model = build(described.family, **described.options)
  family = registry.load('models', described.family)
  ours, size = family.at_size(family.to_ours(flat), size)
  params_lib.check_match(ours, _shapes(model, size), str(file))
  params_lib.check_numbers(ours, file)
  return model, params_lib.unflatten(ours)


def card(file: Any, flat: dict[str, Any] | None = None) -> cards.Card:
  """The card in a checkpoint, or one made from the names of its parameters.

  `flat` are the parameters, if they have been read. Raises ValueError as load.
  """
  if inside := _inside(file):
    return inside
  flat = flat or _flat(file)
  for name, family in families().items():
    if kwargs := family.recognise(flat):
      return cards.of(build(name, **kwargs))
  first = ', '.join(sorted(flat)[:3]) or 'none'
  raise ValueError(f'{file} holds no model of a known family '
                   f'({", ".join(families())}); its first names: {first}.')


def shapes(file, size=None):
  """As load, with shapes in place of values; a card makes that free of reading.

  A file without a card is read, since only its names say what it is.
  """
  if not (inside := _inside(file)):
    model, params = load(file, size)
    return model, jax.eval_shape(lambda: params)
  return shapes_of(size=size or inside.size or 64, family=inside.family,
                   **inside.options)


def shapes_of(*, size, **kwargs):
  """As create, with shapes in place of values."""
  model = build(**kwargs)
  return model, params_lib.unflatten(_shapes(model, size))


def classes(file) -> tuple[str, ...]:
  """Names of a checkpoint's classes, if a card inside tells them."""
  inside = _inside(file)
  return inside.classes if inside else ()


def _inside(file):
  """The card in a file; None where it has none, as those of PyTorch."""
  path = path_of(file)
  return None if path.endswith('.pth') else npz_files.load_card(path)


def identity(file) -> str:
  """16 hexadecimal digits of a checkpoint's parameters and card.

  Of an npz file its checksums are read, not its arrays.
  """
  path = path_of(file)
  if path.endswith('.pth'):
    return params_lib.checksum(_flat(file))
  return npz_files.identity(path)


def _flat(file):
  path = path_of(file)
  if path.endswith('.pth'):
    return params_lib.unwrap(torch_files.load(path))
  flat = params_lib.unwrap(npz_files.load(path))
  if any(name.endswith('/int8') for name in flat):  # As formats/npz.py writes.
    flat = params_lib.flatten(int8.restore(params_lib.unflatten(flat)))
  return flat


def layouts(params: Any) -> Mapping[str, Callable]:
  """{name: our flat parameters -> theirs} of layouts these can be saved in."""
  family = family_of(params_lib.flatten(params))
  return family.LAYOUTS if family else {'big_vision': dict}


def save(file: Any, params: Any, layout: str = 'big_vision',
         card: cards.Card | None = None) -> None:
  """Writes parameters, and the card of their model, into an npz file.

  cards.of(model) makes a card, card(file) reads one. Without one, `load` judges
  by names, which do not tell the mean and std that the weights want. Raises
  ValueError for an unknown layout, and for one whose weights commonly want
  other images than ours, if there is no card.
  """
  flat = params_lib.flatten(params)
  family, known = family_of(flat), layouts(params)
  registry.check('layout', layout, known)
  flat = known[layout](flat)
  if not card and family and 'mean' in family.recognise(flat):
    raise ValueError(f'layout={layout} needs a card: without one, its weights '
                     'are taken to want images of another mean and std. Give '
                     'card=cards.of(model).')
  npz_files.save(file, flat, card)


def freeze(model: nn.Module, params: Any, dtype: Any = jnp.float32) -> Made:
  """The model for evaluation only, with constants folded, computing in `dtype`.

  It is folded on the host, where nothing is compiled for an accelerator.
  """
  family = registry.load('models', cards.family_of(model))
  with parallel.on_host():
    params = jax.device_get(family.fold(jax.device_get(params)))
  return model.clone(folded=True, dtype=dtype), params


def family_of(flat: dict[str, Any]) -> contracts.Family | None:
  """The family whose names these flat parameters have, or None."""
  return next((family for family in families().values()
               if family.recognise(flat)), None)


def _image(size):
  return jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)


def _shapes(model, size):
  return params_lib.flatten(jax.eval_shape(
      model.init, jax.random.key(0), _image(size))['params'])
