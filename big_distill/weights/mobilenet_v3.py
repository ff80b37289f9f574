"""MobileNetV3 checkpoints: our names, and those of torchvision.

`big_vision` files hold our own names, '/'-joined. `torchvision` files hold the
state_dict of its mobilenet_v3_large or _small, saved with numpy.savez:

  features.0.0.weight, features.0.1.*              stem/kernel, stem/norm/*
  features.2.block.0.0.weight                      block02/expand/kernel
  features.2.block.1.0.weight                      block02/depthwise/kernel
  features.4.block.2.fc1.*, .fc2.*                 block04/squeeze/reduce, /expand
  features.4.block.3.0.weight                      block04/project/kernel
  features.16.0.weight                             conv/kernel
  classifier.0.*, classifier.3.*                   pre_logits/*, head/*

FunMatch released no MobileNetV3, so nothing is published here.
"""

import re

import numpy as np

from big_distill.models import mobilenet_v3

PUBLISHED = {}

_NORM = {'weight': 'scale', 'bias': 'bias', 'running_mean': 'mean',
         'running_var': 'var'}
_DENSE = {'weight': 'kernel', 'bias': 'bias'}
_SQUEEZE = {'fc1': 'reduce', 'fc2': 'expand'}


def to_ours(flat):
  """Either layout -> our names; what is neither passes through unchanged."""
  if 'features.0.0.weight' not in flat:
    return dict(flat)
  last = max(int(name.split('.')[1]) for name in flat
             if name.startswith('features.'))
  ours = {}
  for name, leaf in flat.items():
    if not name.endswith('num_batches_tracked'):
      name, leaf = _from_torchvision(name, np.asarray(leaf), flat, last)
      ours[name] = leaf
  return ours


def _from_torchvision(name, leaf, flat, last):
  words = name.split('.')
  if words[0] == 'classifier':
    name = {'0': 'pre_logits', '3': 'head'}[words[1]]
    return f'{name}/{_DENSE[words[2]]}', leaf.T
  if words[2] != 'block':
    where = {0: 'stem', last: 'conv'}[int(words[1])]
    return _from_conv(where, *words[2:], leaf)
  block, part = f'block{int(words[1]):02d}', int(words[3])
  parts = _parts(flat, f'{".".join(words[:3])}.')
  where = f'{block}/{parts[part]}'
  if parts[part] == 'squeeze':
    return (f'{where}/{_SQUEEZE[words[4]]}/{_DENSE[words[5]]}',
            leaf[:, :, 0, 0].T if leaf.ndim == 4 else leaf)
  return _from_conv(where, *words[4:], leaf)


def _from_conv(where, number, parameter, leaf):
  if number == '0':
    return f'{where}/kernel', leaf.transpose(2, 3, 1, 0)
  return f'{where}/norm/{_NORM[parameter]}', leaf


def _parts(names, prefix):
  """What block.0, block.1 and so on of a torchvision block are."""
  count = 1 + max(int(name.removeprefix(prefix).split('.')[0])
                  for name in names if name.startswith(prefix))
  squeezed = any(f'{prefix}{i}.fc1.weight' in names for i in range(count))
  parts = ['depthwise', *['squeeze'] * squeezed, 'project']
  return ['expand'] * (count - len(parts)) + parts


def _to_torchvision(flat):
  last = 1 + max(int(name[5:7]) for name in flat if name.startswith('block'))
  numbers = {'stem': '0', 'conv': str(last)}
  theirs = {}
  for name, leaf in flat.items():
    words = name.split('/')
    if words[0] in ('pre_logits', 'head'):
      number = {'pre_logits': 0, 'head': 3}[words[0]]
      name, leaf = f'classifier.{number}.{_back(_DENSE)[words[1]]}', leaf.T
    elif words[0] in numbers:
      name, leaf = _to_conv(f'features.{numbers[words[0]]}', words[1:], leaf)
    else:
      order = [part for part in ('expand', 'depthwise', 'squeeze', 'project')
               if any(each.startswith(f'{words[0]}/{part}/') for each in flat)]
      where = f'features.{int(words[0][5:])}.block.{order.index(words[1])}'
      if words[1] == 'squeeze':
        name = (f'{where}.{_back(_SQUEEZE)[words[2]]}.'
                f'{_back(_DENSE)[words[3]]}')
        leaf = leaf.T[:, :, None, None] if leaf.ndim == 2 else leaf
      else:
        name, leaf = _to_conv(where, words[2:], leaf)
    theirs[name] = leaf
  return theirs


def _to_conv(where, words, leaf):
  if words == ['kernel']:
    return f'{where}.0.weight', leaf.transpose(3, 2, 0, 1)
  return f'{where}.1.{_back(_NORM)[words[1]]}', leaf


def _back(table):
  return {ours: theirs for theirs, ours in table.items()}


LAYOUTS = {'big_vision': dict, 'torchvision': _to_torchvision}


def recognise(flat):
  """Arguments of models/mobilenet_v3.py's Model that fit, or None."""
  head = np.shape(flat.get('head/kernel', 0.))
  blocks = sum(bool(re.fullmatch(r'block\d\d/depthwise/kernel', name))
               for name in flat)
  variant = next((name for name, (rows, _) in mobilenet_v3.VARIANTS.items()
                  if len(rows) == blocks), None)
  if not head or variant is None:
    return None
  has = [flat[f'block{i:02d}/project/kernel'].shape[-1]
         for i in range(1, blocks + 1)]
  rows, _ = mobilenet_v3.VARIANTS[variant]
  # Many widths round to the same features: the first will do.
  widths = [1., *(i / 20 for i in range(1, 81))]
  width = next((width for width in widths if has == [
      mobilenet_v3.divisible(row.out * width) for row in rows]), 1.)
  return dict(variant=variant, width=width, num_classes=head[-1],
              norm='bn' if 'stem/norm/mean' in flat else 'gn')
