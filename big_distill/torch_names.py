"""Tensors as PyTorch's models name them and lay them out.

weights/FAMILY.py has the rest: what is of one family alone.
"""

import itertools
import re
from typing import Any

import numpy as np

Flat = dict[str, Any]

_NORM = {'scale': 'weight', 'bias': 'bias', 'mean': 'running_mean',
         'var': 'running_var'}


def tensor(name: str, leaf: np.ndarray) -> np.ndarray:
  """One of our parameters in PyTorch's layout: kernels turned, norms flat."""
  leaf = np.asarray(leaf)
  if name.endswith('/kernel'):
    return leaf.transpose(3, 2, 0, 1) if leaf.ndim == 4 else leaf.T
  return leaf.reshape(-1)


def timm_blocks(flat: Flat) -> Flat:
  """Blocks of MobileNetV3 or EfficientNet-Lite, their stems, under timm's names.

  A stage of timm's is blocks with the same number of channels at their end.
  """
  blocks = sorted({name.split('/')[0] for name in flat
                   if name.startswith('block')})
  stages = itertools.groupby(
      blocks, lambda block: flat[f'{block}/project/kernel'].shape[-1])
  places = {block: f'blocks.{i}.{j}.' for i, (_, stage) in enumerate(stages)
            for j, block in enumerate(stage)} | {'stem': ''}
  found = {}
  for name, leaf in flat.items():
    block, _, inside = name.partition('/')
    if block in places:
      expands = f'{block}/expand/kernel' in flat
      found[places[block] + _inside(block, inside, expands)] = tensor(name, leaf)
      if '/squeeze/' in name and name.endswith('/kernel'):
        found[places[block] + _inside(block, inside, expands)] = tensor(
            name, leaf)[..., None, None]
  return found


def _inside(block, inside, expands):
  """expand/norm/scale -> bn1.weight."""
  if block == 'stem':
    return ('conv_stem.weight' if inside == 'kernel'
            else f'bn1.{_NORM[inside.split("/")[-1]]}')
  part, *_, leaf = inside.split('/')
  if part == 'squeeze':
    layer = re.search('reduce|expand', inside)[0]
    return f'se.conv_{layer}.{"weight" if leaf == "kernel" else leaf}'
  parts = (['expand'] if expands else []) + ['depthwise', 'project']
  convs = (['conv_pw', 'conv_dw', 'conv_pwl'] if expands
           else ['conv_dw', 'conv_pw'])
  at = parts.index(part)
  return (f'{convs[at]}.weight' if leaf == 'kernel'
          else f'bn{at + 1}.{_NORM[leaf]}')


def norm(place: str, theirs: str, flat: Flat) -> Flat:
  """{theirs.weight: ...} of the norm at a place."""
  return {f'{theirs}.{_NORM[name.split("/")[-1]]}': tensor(name, leaf)
          for name, leaf in flat.items() if name.startswith(f'{place}/')}
