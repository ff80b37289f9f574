"""Models from checkpoints, and students to checkpoints.

A family of models is a file in models/, which has what contracts.Family says;
nothing else names it. Where others have published weights of a family, a file
of the same name in weights/ speaks their layouts.
"""

import contextlib
import functools
import pkgutil
from unittest import mock
import zlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from big_distill import bounds
from big_distill import cards
from big_distill import contracts
from big_distill import models
from big_distill import params as params_lib
from big_distill import registry
from big_distill import torch_files

CONSTANTS = {nn.initializers.zeros: 0, nn.initializers.ones: 1}
HEADS = ('keep', 'drop', 'reshape')


def _families() -> dict[str, contracts.Family]:
  names = [module.name for module in pkgutil.iter_modules(models.__path__)]
  return {name: registry.load('models', name) for name in names}


def build(family='', **kwargs):
  """A model: build(family='bit', num_classes=10, depth=50).

  Raises ValueError for an option that the family lacks, a width that is not
  above 0 and a number of classes that is not a whole number from 1. Of either,
  None is the family's own.
  """
  if not family:
    raise ValueError('A model has a family: set family to one of '
                     f'{", ".join(_families())}.')
  for name, bound in (('width', dict(above=0)),
                      ('num_classes', dict(least=1, whole=True))):
    if kwargs.get(name) is not None:
      bounds.check(name, kwargs[name], **bound)
  return registry.bind(registry.load('models', family).Model, **kwargs)()


def create(*, size, seed=0, **kwargs):
  """(model, params): a model with initial values, as numpy arrays.

  Raises ValueError for a size that is not a whole number of pixels, and as build.

  A value depends on the seed and on the parameter's name. Nothing is compiled
  for the initializers of ops/initial.py, nor for zeros and ones.
  """
  bounds.check('size', size, least=1, whole=True)
  model = build(**kwargs)
  inits = {}

  def param(self, name, init, *args, **kwargs):
    inits['/'.join((*self.path, name))] = functools.partial(
        _initial, seed, init, args)
    return original(self, name, init, *args, **kwargs)

  # Flax tells no one else which parameter has which initializer.
  original = nn.Module.param
  with mock.patch.object(nn.Module, 'param', param):
    shapes = _shapes(model, size)
  with _on_host():
    return model, params_lib.unflatten(
        {name: inits[name](name) for name in shapes})


def _initial(seed, init, args, name):
  if init in CONSTANTS:
    return np.full(args[0], CONSTANTS[init], np.float32)
  stream = np.random.SFC64([seed % 2**64, *name.encode()])
  try:
    return np.asarray(init(stream, *args))
  except TypeError:  # An initializer that takes keys of JAX alone.
    return np.asarray(init(_key(seed, name), *args))


def _key(seed, name):
  return jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))


def _on_host():
  """A context whose computations the CPU does, for which XLA compiles fast."""
  try:
    return jax.default_device(jax.local_devices(backend='cpu')[0])
  except RuntimeError:  # JAX_PLATFORMS leaves it out.
    return contextlib.nullcontext()


def path_of(name):
  """The file behind a published name; anything else is itself a path."""
  name = str(name)
  published = {}
  for family in _families().values():
    published.update(family.PUBLISHED)
  if name in published:
    path = published[name]
    return path() if callable(path) else path
  if '/' not in name and not name.endswith('.npz'):
    registry.check('published checkpoint', name, published)
  return name


def load(file, size=None):
  """(model, params) of a checkpoint: what its card says, or else its names.

  `file` is a path, a gs:// address, or a published name, of PUBLISHED in
  models/; what ends with .pth is a state_dict of PyTorch. Then
  model.apply({'params': params}, images)[0] gives float32 logits [b, c] for
  float images [b, h, w, 3] in [-1, 1]. Where parameters depend on the size of
  images, they are adapted to `size`; without it, they stay as in the file.
  """
  flat = _flat(file)
  described = card(file, flat)
  model = build(described.family, **described.options)
  family = registry.load('models', described.family)
  ours, size = family.at_size(family.to_ours(flat), size)
  params_lib.check_match(ours, _shapes(model, size), str(file))
  params_lib.check_numbers(ours, file)
  return model, params_lib.unflatten(ours)


def card(file, flat=None) -> cards.Card:
  """The card of a checkpoint: the one inside, or else made of its names.

  `flat` are its parameters, where the caller has them already.
  """
  path = path_of(file)
  if not path.endswith('.pth') and (inside := params_lib.load_card(path)):
    return inside
  flat = flat or _flat(file)
  for name, family in _families().items():
    if kwargs := family.recognise(flat):
      return cards.of(build(name, **kwargs))
  first = ', '.join(sorted(flat)[:3]) or 'none'
  raise ValueError(f'{file} holds no model of a known family '
                   f'({", ".join(_families())}); its first names: {first}.')


def shapes(file, size=None):
  """As load, with shapes in place of values; a card makes that free of reading.

  A file without a card is read, since only its names say what it is.
  """
  path = path_of(file)
  if path.endswith('.pth') or not (inside := params_lib.load_card(path)):
    model, params = load(file, size)
    return model, jax.eval_shape(lambda: params)
  return shapes_of(size=size or inside.size or 64, family=inside.family,
                   **inside.options)


def shapes_of(*, size, **kwargs):
  """As create, with shapes in place of values."""
  model = build(**kwargs)
  return model, params_lib.unflatten(_shapes(model, size))


def identity(file) -> str:
  """16 hexadecimal digits of a checkpoint's parameters and card.

  Of an npz file its checksums are read, not its arrays.
  """
  path = path_of(file)
  if path.endswith('.pth'):
    return params_lib.checksum(_flat(file))
  return params_lib.identity(path)


def _flat(file):
  path = path_of(file)
  return params_lib.unwrap(torch_files.load(path) if path.endswith('.pth')
                           else params_lib.load_npz(path))


def layouts(params):
  """{name: our flat params -> theirs}, the layouts these can be saved in."""
  return _layouts(_family_of(params_lib.flatten(params)))


def _layouts(family):
  return family.LAYOUTS if family else {'big_vision': dict}


def save(file, params, layout='big_vision', card: cards.Card | None = None):
  """Writes params in a layout that `load` and the field's tools read.

  The card, of cards.of(model) or card(file), says what the model is. Without
  one `load` goes by names, which tell neither mean nor std of the input.
  """
  flat = params_lib.flatten(params)
  family = _family_of(flat)
  known = _layouts(family)
  registry.check('layout', layout, known)
  flat = known[layout](flat)
  if not card and family and 'mean' in family.recognise(flat):
    raise ValueError(f'Weights in the layout {layout} are taken to want images '
                     'that are normalised otherwise than to [-1, 1]: say what '
                     'these want, by card=cards.of(model).')
  params_lib.save_npz(file, flat, card)


def student(section, size, num_classes=None, seed=0):
  """(model, params) of a section of a config: random, or begun from a file.

  `section` has the arguments of `build`. With `init`, a checkpoint, it needs
  none of them: the file tells them all, mean and std of its input included,
  and those given must fit it. `head` says what becomes of the file's head
  (see init_from); a new head is for `num_classes`, unless the section has its
  own.
  """
  section = {**section}
  init, head = section.pop('init', None), section.pop('head', 'keep')
  registry.check("way with a checkpoint's head", head, HEADS)
  if not init or head != 'keep':
    section.setdefault('num_classes', num_classes)
    if not section['num_classes']:
      raise ValueError('Neither data nor teachers tell how many classes the '
                       'student has: set config.student.num_classes.')
  if not init:
    return create(size=size, seed=seed, **section)
  described = card(init)
  family = section.setdefault('family', described.family)
  if family != described.family:
    raise ValueError(f'init={init} is a {described.family}, not a {family}: '
                     'leave out family, or give another file.')
  model, params = create(
      size=size, seed=seed, **{**described.options, **section})
  return model, init_from(params, init, head)


def init_from(params, file, head='keep'):
  """`params`, with the values of a checkpoint of the same architecture.

  The head of the checkpoint is kept, which wants equal classes; dropped, which
  leaves that of `params`; or reshaped: kept where classes agree, else dropped.
  """
  registry.check("way with a checkpoint's head", head, HEADS)
  wanted = params_lib.flatten(params)
  family = _family_of(wanted)
  size = family.at_size(wanted)[1] if family else None
  given = params_lib.flatten(load(file, size)[1])
  is_head = {name for name in wanted if name.startswith('head/')}
  differs = any(given[name].shape != wanted[name].shape
                for name in is_head & given.keys())
  if head == 'drop' or (head == 'reshape' and differs):
    given |= {name: wanted[name] for name in is_head}
  params_lib.check_match(given, wanted, f'The checkpoint {file} with '
                         f'head={head!r} (of {", ".join(HEADS)})')
  return params_lib.unflatten({name: given[name].astype(leaf.dtype)
                               for name, leaf in wanted.items()})


def freeze(model, params, dtype=jnp.float32):
  """The same function, forward only: constants folded, computed in `dtype`."""
  family = registry.load('models', cards.family_of(model))
  with _on_host():
    params = jax.device_get(family.fold(jax.device_get(params)))
  return model.clone(folded=True, dtype=dtype), params


def _family_of(flat):
  """The contracts.Family that recognises our flat params, or None."""
  return next((family for family in _families().values()
               if family.recognise(flat)), None)


def _shapes(model, size):
  image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
  return params_lib.flatten(
      jax.eval_shape(model.init, jax.random.key(0), image)['params'])
