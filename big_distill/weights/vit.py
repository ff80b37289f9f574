"""Published ViT checkpoints, in both of their layouts, at any image size.

`big_vision` files have our own names. `vision_transformer` files have those of
the original release, which AugReg's files have too:

  Transformer/posembed_input/pos_embedding         pos_embedding
  Transformer/encoderblock_0/LayerNorm_2/scale     .../LayerNorm_1/scale
  .../MultiHeadDotProductAttention_1/query/kernel  .../..._0/query/kernel
  .../MlpBlock_3/Dense_0/kernel                    .../MlpBlock_0/Dense_0/kernel

There the first position belongs to `cls`; here it is added to `cls`. Parameters
that the original does not have, such as a MAP head, keep our names.
"""

import math
import re
from typing import Any

import numpy as np

from big_distill import torch_names

_AUGREG = 'gs://vit_models/augreg/'
_BIG_VISION = 'gs://big_vision/'

PUBLISHED = {
    # timm's models/vision_transformer.py: AugReg (Steiner et al., arXiv
    # 2106.10270), pre-trained on ImageNet-21k and fine-tuned at 224 or 384 px.
    **{f'ViT-{name} augreg imagenet2012 {size}':
       f'{_AUGREG}{file}--imagenet2012-steps_20k-lr_{lr}-res_{size}.npz'
       for size in (224, 384) for name, lr, file in (
           ('S16', 0.03, 'S_16-i21k-300ep-lr_0.001-aug_light1-wd_0.03-do_0.0'
            '-sd_0.0'),
           ('B16', 0.01, 'B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0'
            '-sd_0.0'),
           ('L16', 0.01, 'L_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.1'
            '-sd_0.1'))},
    # big_vision's models/vit.py: plain S/16 from scratch (arXiv 2205.01580).
    **{f'ViT-S16 imagenet2012 {epochs}ep':
       f'{_BIG_VISION}vit_s16_i1k_{epochs}ep.npz' for epochs in (90, 150, 300)},
}

_OURS = {  # vision_transformer counts all modules of a block, Flax each kind.
    'MultiHeadDotProductAttention_1': 'MultiHeadDotProductAttention_0',
    'LayerNorm_2': 'LayerNorm_1',
    'MlpBlock_3': 'MlpBlock_0',
    'Transformer/posembed_input/pos_embedding': 'pos_embedding',
}


def to_ours(flat: dict[str, Any]) -> dict[str, Any]:
  """Parameters of either layout under our names; other names stay."""
  theirs = re.compile('|'.join(_OURS))
  ours = {theirs.sub(lambda m: _OURS[m[0]], name): leaf
          for name, leaf in flat.items()}
  n = _count(ours)
  if 'cls' in ours and n == math.isqrt(n)**2 + 1:
    positions = ours['pos_embedding']
    ours['cls'] = ours['cls'] + positions[:, :1]
    ours['pos_embedding'] = positions[:, 1:]
  return ours


def _count(flat):
  """Number of learned positions, 0 if there are none."""
  shape = np.shape(flat.get('pos_embedding', 0.))
  return shape[1] if len(shape) == 3 else 0


def _to_vision_transformer(flat):
  theirs = {ours: name for name, ours in _OURS.items()}
  inside = re.compile('|'.join(theirs))
  flat = {inside.sub(lambda m: theirs[m[0]], name)
          if name.startswith(('Transformer/encoderblock_', 'pos_embedding'))
          else name: leaf for name, leaf in flat.items()}
  name = theirs['pos_embedding']
  if 'cls' in flat and name in flat:
    flat[name] = np.pad(flat[name], ((0, 0), (1, 0), (0, 0)))
  return flat


LAYOUTS = {'big_vision': dict, 'vision_transformer': _to_vision_transformer}


def at_size(flat: dict[str, Any], size: int | None = None
            ) -> tuple[dict[str, Any], int]:
  """(our parameters for images of this size, the size); None: as they are.

  A grid of learned positions is resized as in big_vision: linearly, with
  corners on corners, without antialiasing.
  """
  patch, n = flat['embedding/kernel'].shape[0], _count(flat)
  old = math.isqrt(n)
  size = size or patch * max(old, 1)
  new = size // patch
  if n and new != old and old**2 == n:
    grid = np.float32(flat['pos_embedding']).reshape(old, old, -1)
    to = np.linspace(0, old - 1, new)
    hat = np.maximum(1 - abs(to[:, None] - np.arange(old)), 0)  # [new, old]
    grid = np.einsum('yi,xj,ijf->yxf', hat, hat, grid, optimize=True)
    flat = flat | {'pos_embedding': grid.reshape(1, new * new, -1).astype(
        flat['pos_embedding'].dtype)}
  return flat, size


def to_timm(model: Any, size: int, flat: dict[str, Any]
            ) -> tuple[dict[str, Any], str]:
  """See weights/bit.py. Pooled by a mean or a token; timm has no `rep_size`."""
  if model.pool == 'map' or model.rep_size:
    raise ValueError(f'timm has no ViT of this kind with pool={model.pool} and '
                     f'rep_size={model.rep_size}: choose another format.')
  block = 'Transformer/encoderblock_'
  attention = 'MultiHeadDotProductAttention_0'
  depth = len({name.split('/')[1] for name in flat if name.startswith(block)})
  patch, _, _, width = flat['embedding/kernel'].shape

  def dense(place, name):
    return {f'{name}.weight': np.asarray(flat[f'{place}/kernel']).T,
            f'{name}.bias': flat[f'{place}/bias']}

  def norm(place, name):
    return {f'{name}.weight': flat[f'{place}/scale'],
            f'{name}.bias': flat[f'{place}/bias']}

  theirs = {
      'pos_embed': flat.get('pos_embedding', model.fixed_positions(size)),
      'patch_embed.proj.weight': torch_names.tensor(
          '/kernel', flat['embedding/kernel']),
      'patch_embed.proj.bias': flat['embedding/bias'],
      **norm('Transformer/encoder_norm', 'norm'), **dense('head', 'head')}
  if model.pool == 'tok':
    theirs['cls_token'] = flat['cls']
  for i in range(depth):
    ours, place = f'{block}{i}', f'blocks.{i}'
    for leaf, name, shape in (('kernel', 'weight', (width, width)),
                              ('bias', 'bias', (width,))):
      theirs[f'{place}.attn.qkv.{name}'] = np.concatenate([
          np.asarray(flat[f'{ours}/{attention}/{part}/{leaf}']).reshape(
              shape).T for part in ('query', 'key', 'value')])
    theirs[f'{place}.attn.proj.weight'] = np.asarray(
        flat[f'{ours}/{attention}/out/kernel']).reshape(width, width).T
    theirs[f'{place}.attn.proj.bias'] = flat[f'{ours}/{attention}/out/bias']
    theirs |= norm(f'{ours}/LayerNorm_0', f'{place}.norm1')
    theirs |= norm(f'{ours}/LayerNorm_1', f'{place}.norm2')
    theirs |= dense(f'{ours}/MlpBlock_0/Dense_0', f'{place}.mlp.fc1')
    theirs |= dense(f'{ours}/MlpBlock_0/Dense_1', f'{place}.mlp.fc2')
  heads = flat[f'{block}0/{attention}/query/kernel'].shape[1]
  mlp = flat[f'{block}0/MlpBlock_0/Dense_0/kernel'].shape[-1]
  pool = 'token' if model.pool == 'tok' else 'avg'
  return theirs, f"""\
from timm.models.vision_transformer import VisionTransformer
model = VisionTransformer(
    img_size={size}, patch_size={patch}, embed_dim={width}, depth={depth},
    num_heads={heads}, mlp_ratio={mlp / width}, num_classes={model.num_classes},
    class_token={model.pool == 'tok'}, no_embed_class=True,
    global_pool='{pool}', fc_norm=False, act_layer='gelu_tanh')
"""
