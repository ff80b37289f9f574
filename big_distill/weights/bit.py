"""Published BiT-ResNet checkpoints, in both of their layouts.

`big_vision` files have our own names. `big_transfer` files have those of the
original TensorFlow release, which the FunMatch release has too:

  resnet/root_block/standardized_conv2d/kernel     root_block/conv_root/kernel
  resnet/block1/unit01/a/standardized_conv2d/...   block1/unit01/conv1/...
  resnet/block1/unit01/a/group_norm/gamma          block1/unit01/gn1/scale
  resnet/block1/unit01/a/proj/standardized_...     block1/unit01/conv_proj/...
  resnet/group_norm/gamma                          norm-pre-head/scale
  resnet/head/conv2d/kernel                        head/kernel
"""

import pathlib
import re
from typing import Any

from big_distill import torch_names

_DATA = pathlib.Path(__file__).parent.parent / 'data'
_DISTILL = 'gs://bit_models/distill/'
_BIT = 'gs://bit_models/'

PUBLISHED = {
    # Ours, of configs/quickstart_teacher.py, which tells how it was made.
    'caltech12 teacher': str(_DATA / 'caltech12_teacher.npz'),
    # The names of big_vision's configs/proj/distill/common.py.
    'BiT-M R152x2 imagenet2012 ic224': _DISTILL + 'R152x2_T_224.npz',
    'BiT-M R152x2 imagenet2012 rc384': _DISTILL + 'R152x2_T_384.npz',
    'BiT-M R152x2 flowers rc128': _DISTILL + 'R152x2_T_flowers128.npz',
    'BiT-M R152x2 pet rc128': _DISTILL + 'R152x2_T_pet128.npz',
    'BiT-M R152x2 food rc128': _DISTILL + 'R152x2_T_food128.npz',
    'BiT-M R152x2 sun rc128': _DISTILL + 'R152x2_T_sun128.npz',
    # The released students, 82.8 % and 80.5 % in the paper.
    'R50x1 imagenet2012 224': _DISTILL + 'R50x1_224.npz',
    'R50x1 imagenet2012 160': _DISTILL + 'R50x1_160.npz',
    # big_transfer, pre-trained on ImageNet-21k and fine-tuned.
    'BiT-M-R50x1': _BIT + 'BiT-M-R50x1.npz',
    'BiT-M-R152x2': _BIT + 'BiT-M-R152x2.npz',
    'BiT-M-R50x1-ILSVRC2012': _BIT + 'BiT-M-R50x1-ILSVRC2012.npz',
}

_LETTERS = {'a': '1', 'b': '2', 'c': '3'}
_NORM = {'gamma': 'scale', 'beta': 'bias'}


def to_ours(flat: dict[str, Any]) -> dict[str, Any]:
  """Parameters of either layout under our names; other names stay."""
  if any(name.startswith('resnet/') for name in flat):
    return dict(_from_big_transfer(*item) for item in flat.items())
  return dict(flat)


def _from_big_transfer(name, leaf):
  ours = re.sub(r'standardized_conv2d(_\d+)?', 'conv', name)
  ours = ours.removeprefix('resnet/')
  ours = ours.replace('root_block/conv/', 'root_block/conv_root/')
  ours = ours.replace('/a/proj/conv/', '/conv_proj/')
  ours = re.sub(r'/([abc])/conv/', lambda m: f'/conv{_LETTERS[m[1]]}/', ours)
  ours = re.sub(r'/([abc])/group_norm(_\d+)?/',
                lambda m: f'/gn{_LETTERS[m[1]]}/', ours)
  ours = re.sub(r'^group_norm(_\d+)?/', 'norm-pre-head/', ours)
  ours = re.sub(r'^head/conv2d(_\d+)?/', 'head/', ours)
  ours = re.sub(r'(gamma|beta)$', lambda m: _NORM[m[1]], ours)
  if ours.endswith(('/scale', '/bias')) and not ours.startswith('head/'):
    leaf = leaf.reshape(1, 1, 1, -1)
  if ours == 'head/kernel' and leaf.shape[:-2] == (1, 1):
    leaf = leaf[0, 0]
  return ours, leaf


def _to_big_transfer(flat):
  letters = {digit: letter for letter, digit in _LETTERS.items()}
  gamma = {'scale': 'gamma', 'bias': 'beta'}
  theirs = {}
  for name, leaf in flat.items():
    if name.startswith('head/'):
      name = name.replace('head/', 'head/conv2d/')
      leaf = leaf.reshape(1, 1, *leaf.shape) if leaf.ndim == 2 else leaf
    elif name.endswith('/kernel'):
      name = re.sub(r'conv_root|(?<=/)conv_proj', lambda m: {
          'conv_root': 'conv', 'conv_proj': 'a/proj/conv'}[m[0]], name)
      name = re.sub(r'/conv(\d)/', lambda m: f'/{letters[m[1]]}/conv/', name)
      name = name.replace('conv/', 'standardized_conv2d/')
    else:
      name = name.replace('norm-pre-head/', 'group_norm/')
      name = re.sub(r'/gn(\d)/', lambda m: f'/{letters[m[1]]}/group_norm/', name)
      name = re.sub(r'(scale|bias)$', lambda m: gamma[m[1]], name)
      leaf = leaf.reshape(-1)
    theirs[f'resnet/{name}'] = leaf
  return theirs


LAYOUTS = {'big_vision': dict, 'big_transfer': _to_big_transfer}


def to_timm(model: Any, size: int, flat: dict[str, Any]
            ) -> tuple[dict[str, Any], str]:
  """(tensors under timm's names, the Python that makes timm's model of them).

  Any width and depth are a timm ResNetV2, named resnetv2_50x1_bit and so on where
  timm has a name. Raises ValueError for channels that timm would round.
  """
  del size
  theirs = {}
  for name, leaf in flat.items():
    value = torch_names.tensor(name, leaf)
    name = re.sub(r'^block(\d+)/unit(\d+)/', lambda m: (
        f'stages.{int(m[1]) - 1}.blocks.{int(m[2]) - 1}.'), name)
    name = (name.replace('root_block/conv_root', 'stem.conv')
            .replace('norm-pre-head', 'norm').replace('head/', 'head.fc/')
            .replace('conv_proj', 'downsample.conv'))
    name = re.sub(r'\bgn(\d)', r'norm\1', name)
    name = re.sub('/(kernel|scale)$', '.weight', name).replace('/', '.')
    theirs[name] = (value[..., None, None] if name == 'head.fc.weight'
                    else value)
  stem = flat['root_block/conv_root/kernel'].shape[-1]
  if stem % 8:
    raise ValueError(f'timm has no BiT with {stem} channels at its root, since '
                     'it rounds to multiples of 8: choose another format.')
  units = [re.match(r'block(\d+)/unit\d+/conv1/kernel', name) for name in flat]
  units = [int(match[1]) for match in units if match]
  depth = [units.count(i) for i in sorted({*units})]
  # timm's eps is 1e-8 where the release has 1e-10; 32 groups need not divide.
  return theirs, f"""\
import functools, math
from timm.layers import GroupNormAct, StdConv2d
from timm.models.resnetv2 import ResNetV2
model = ResNetV2(
    layers={depth}, channels={[4 * stem * 2**i for i in range(len(depth))]},
    stem_chs={stem}, stem_type='fixed', num_classes={model.num_classes},
    conv_layer=functools.partial(StdConv2d, eps=1e-10),
    norm_layer=lambda c, **options: GroupNormAct(
        c, **{{**options, 'num_groups': math.gcd(32, c)}}))
"""
