"""MobileNetV3 checkpoints: our own, and torchvision's.

`big_vision` files have our own names. `torchvision` files have those of a
state_dict: np.savez(file, **{k: v.numpy() for k, v in state_dict.items()}).

  features.0.0.weight              stem/kernel, HWIO
  features.0.1.running_var         stem/norm/var
  features.4.block.1.0.weight      block04/depthwise/kernel
  features.4.block.2.fc1.weight    block04/squeeze/reduce/kernel
  features.16.1.bias               top/norm/bias
  classifier.0.weight              pre_logits/kernel
  classifier.3.weight              head/kernel

Weights in torchvision's names are taken to want (pixels - mean) / std of
ImageNet's colours, as torchvision trained its own, unless a card says otherwise.
"""

import re
from typing import Any

import numpy as np

from big_distill import torch_names

PUBLISHED = {}  # torchvision and TF-slim publish no npz files.

# torchvision/transforms/_presets.py, ImageClassification.
INPUT = dict(mean=(.485, .456, .406), std=(.229, .224, .225))

_PARTS = ('expand', 'depthwise', 'squeeze', 'project')  # Of a block, in order.
STEM = 'features.0.0.weight'  # Our name of it is stem/kernel.
_CONV = {'0.weight': 'kernel', '1.weight': 'norm/scale', '1.bias': 'norm/bias',
         '1.running_mean': 'norm/mean', '1.running_var': 'norm/var'}
_SQUEEZE = {'fc1.weight': 'reduce/kernel', 'fc1.bias': 'reduce/bias',
            'fc2.weight': 'expand/kernel', 'fc2.bias': 'expand/bias'}
_DENSE = {'weight': 'kernel', 'bias': 'bias'}


def _names(blocks):
  """{torchvision's name: ours}, given the parts of each block."""
  places = [('features.0.', 'stem/', _CONV),
            (f'features.{len(blocks) + 1}.', 'top/', _CONV),
            ('classifier.0.', 'pre_logits/', _DENSE),
            ('classifier.3.', 'head/', _DENSE)]
  places += [(f'features.{i}.block.{j}.', f'block{i:02d}/{part}/',
              _SQUEEZE if part == 'squeeze' else _CONV)
             for i, parts in enumerate(blocks, 1)
             for j, part in enumerate(parts)]
  return {theirs + their_leaf: ours + our_leaf
          for theirs, ours, leaves in places
          for their_leaf, our_leaf in leaves.items()}


def to_ours(flat: dict[str, Any]) -> dict[str, Any]:
  """Parameters of either layout under our names; other names stay."""
  if STEM not in flat:
    return dict(flat)
  blocks = []
  while True:
    block = re.compile(rf'features\.{len(blocks) + 1}\.block\.(\d)\.(fc)?')
    places = {match.groups() for match in map(block.match, flat) if match}
    if not places:
      break
    squeezes = any(fc for _, fc in places)
    expands = len(places) - squeezes == 3
    has = dict.fromkeys(_PARTS, True) | dict(expand=expands, squeeze=squeezes)
    blocks.append([part for part in _PARTS if has[part]])
  names = _names(blocks)
  return dict(_from_torchvision(names.get(name, name), leaf)
              for name, leaf in flat.items()
              if not name.endswith('.num_batches_tracked'))


def _from_torchvision(name, leaf):
  if name.endswith('/kernel'):
    leaf = leaf.transpose(2, 3, 1, 0) if leaf.ndim == 4 else leaf.T
    leaf = leaf[0, 0] if leaf.ndim == 4 and '/squeeze/' in name else leaf
  return name, leaf.reshape(1, 1, 1, -1) if '/norm/' in name else leaf


def _to_torchvision(flat):
  blocks = [[part for part in _PARTS
             if any(name.startswith(f'block{i + 1:02d}/{part}/')
                    for name in flat)]
            for i in range(depth(flat))]
  names = {ours: theirs for theirs, ours in _names(blocks).items()}
  theirs = {}
  for name, leaf in flat.items():
    leaf = np.asarray(leaf)
    if name.endswith('/kernel'):
      leaf = leaf[None, None] if '/squeeze/' in name else leaf
      leaf = leaf.transpose(3, 2, 0, 1) if leaf.ndim == 4 else leaf.T
    theirs[names[name]] = leaf.reshape(-1) if '/norm/' in name else leaf
  return theirs


LAYOUTS = {'big_vision': dict, 'torchvision': _to_torchvision}


def depth(flat: dict[str, Any]) -> int:
  """Number of blocks in parameters of our names."""
  return sum(bool(re.fullmatch(r'block\d+/depthwise/kernel', name))
             for name in flat)


def to_timm(model: Any, size: int, flat: dict[str, Any]
            ) -> tuple[dict[str, Any], str]:
  """See weights/bit.py. Of width 1 with BatchNorm; timm names no others."""
  del size
  if (model.norm, model.width) != ('bn', 1):
    raise ValueError('timm has MobileNetV3 of width 1 with BatchNorm alone: '
                     'choose torchvision, which has all.')
  theirs = torch_names.timm_blocks(flat)
  last = 1 + max(int(name.split('.')[1]) for name in theirs
                 if name.startswith('blocks.'))
  theirs |= torch_names.norm('top/norm', f'blocks.{last}.0.bn1', flat)
  theirs[f'blocks.{last}.0.conv.weight'] = torch_names.tensor(
      '/kernel', flat['top/kernel'])
  theirs['conv_head.weight'] = flat['pre_logits/kernel'].T[..., None, None]
  theirs['conv_head.bias'] = flat['pre_logits/bias']
  theirs['classifier.weight'] = flat['head/kernel'].T
  theirs['classifier.bias'] = flat['head/bias']
  return theirs, f"""\
import timm
model = timm.create_model('mobilenetv3_{model.variant}_100', bn_eps=1e-3,
                          num_classes={model.num_classes})
"""


def to_torchvision(model: Any, size: int, flat: dict[str, Any]
                   ) -> tuple[dict[str, Any], str]:
  """As to_timm, of torchvision, which has all widths and norms."""
  del size
  norm = ('functools.partial(torch.nn.BatchNorm2d, eps=1e-3)'
          if model.norm == 'bn' else
          'functools.partial(torch.nn.GroupNorm, 8)')
  return _to_torchvision(flat), f"""\
import functools
import torch
import torchvision
model = torchvision.models.mobilenet_v3_{model.variant}(
    num_classes={model.num_classes}, width_mult={model.width},
    norm_layer={norm})
"""
