"""MobileNetV3, with GroupNorm or BatchNorm.

These are the networks of Howard et al. (2019, arXiv 1905.02244) as their
released code and torchvision have them: unlike in the paper's table, Small ends
in 1024 features and has no squeeze after its blocks. Padding is PyTorch's.
There is no dropout: a student that matches functions uses none of the
original's training tricks (Beyer et al., 2022, arXiv 2106.05237).
"""

import functools
import re
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float32
import numpy as np

from big_distill import params as params_lib
from big_distill import registry
from big_distill.ops import bottlenecks
from big_distill.ops import layers
from big_distill.weights import mobilenet_v3 as weights

Row = bottlenecks.Row
VARIANTS = {  # Rows of the paper's tables 1 and 2, features before the head.
    'large': ((
        Row(3, 16, 16, False, nn.relu, 1),
        Row(3, 64, 24, False, nn.relu, 2),
        Row(3, 72, 24, False, nn.relu, 1),
        Row(5, 72, 40, True, nn.relu, 2),
        Row(5, 120, 40, True, nn.relu, 1),
        Row(5, 120, 40, True, nn.relu, 1),
        Row(3, 240, 80, False, nn.hard_swish, 2),
        Row(3, 200, 80, False, nn.hard_swish, 1),
        Row(3, 184, 80, False, nn.hard_swish, 1),
        Row(3, 184, 80, False, nn.hard_swish, 1),
        Row(3, 480, 112, True, nn.hard_swish, 1),
        Row(3, 672, 112, True, nn.hard_swish, 1),
        Row(5, 672, 160, True, nn.hard_swish, 2),
        Row(5, 960, 160, True, nn.hard_swish, 1),
        Row(5, 960, 160, True, nn.hard_swish, 1)), 1280),
    'small': ((
        Row(3, 16, 16, True, nn.relu, 2),
        Row(3, 72, 24, False, nn.relu, 2),
        Row(3, 88, 24, False, nn.relu, 1),
        Row(5, 96, 40, True, nn.hard_swish, 2),
        Row(5, 240, 40, True, nn.hard_swish, 1),
        Row(5, 240, 40, True, nn.hard_swish, 1),
        Row(5, 120, 48, True, nn.hard_swish, 1),
        Row(5, 144, 48, True, nn.hard_swish, 1),
        Row(5, 288, 96, True, nn.hard_swish, 2),
        Row(5, 576, 96, True, nn.hard_swish, 1),
        Row(5, 576, 96, True, nn.hard_swish, 1)), 1024),
}

def plan(variant: str, width: float = 1.) -> tuple[tuple[Row, ...], int]:
  """(rows, features before the head) of a variant, channels times `width`.

  Raises ValueError for a variant that is not in VARIANTS.
  """
  registry.check('variant of MobileNetV3', variant, VARIANTS)
  rows, features = VARIANTS[variant]
  rows = tuple(row._replace(mid=bottlenecks.make_divisible(width * row.mid),
                            out=bottlenecks.make_divisible(width * row.out))
               for row in rows)
  return rows, bottlenecks.make_divisible(width * features)


fold = bottlenecks.fold
LAYOUTS, PUBLISHED, to_ours = weights.LAYOUTS, weights.PUBLISHED, weights.to_ours


NAMES = ('mobilenet_v3_large', 'mobilenet_v3_small', 'mobilenet_v3_large_bn',
         'mobilenet_v3_small_bn')


def named(name: str) -> dict[str, Any] | None:
  """Arguments of Model by a name such as mobilenet_v3_smallx0.5_bn, or None.

  GroupNorm unless the name ends in _bn, as the paper's students have.
  """
  found = re.fullmatch(
      r'mobilenet_v3_(large|small)(?:x(\d+(?:\.\d+)?))?(_bn)?', name)
  return found and dict(variant=found[1], norm='bn' if found[3] else 'gn',
                        width=float(found[2] or 1))


def recognise(flat: dict[str, Any]) -> dict[str, Any] | None:
  """Arguments of Model that fit parameters of either layout, or None."""
  theirs = weights.STEM in flat
  flat = to_ours(flat)
  needed = ('stem/kernel', 'block01/depthwise/kernel', 'pre_logits/kernel',
            'head/kernel')
  if any(name not in flat for name in needed):
    return None
  variants = {name: len(rows) for name, (rows, _) in VARIANTS.items()}
  depth = weights.depth(flat)
  variant = min(variants, key=lambda name: abs(variants[name] - depth))
  return dict(variant=variant, width=_width(variant, flat),
              norm='bn' if any(map(params_lib.is_average, flat)) else 'gn',
              num_classes=flat['head/kernel'].shape[-1],
              **(weights.INPUT if theirs else {}))


def _width(variant, flat):
  """The width, of those that make these channels the shortest to write."""
  features = flat['pre_logits/kernel'].shape[-1]
  channels = [np.shape(flat.get(f'block{i + 1:02d}/{part}/kernel'))[-1:]
              for i in range(weights.depth(flat))
              for part in ('depthwise', 'project')]

  def fits(width):
    rows, last = plan(variant, width)
    return last == features and channels == [
        (c,) for row in rows for c in (row.mid, row.out)]

  near = features / VARIANTS[variant][1]
  widths = sorted((round(near + 1e-4 * n, 4) for n in range(-100, 101)),
                  key=lambda width: (len(f'{width:g}'), abs(width - near)))
  return next(filter(fits, widths), near)


def at_size(flat: dict[str, Any], size: int | None = None
            ) -> tuple[dict[str, Any], int]:
  """(flat, size): the parameters fit images of any size."""
  return flat, size or 64


class Model(nn.Module):
  """Maps images [b, h, w, 3] in [-1, 1] to (logits [b, c], intermediates).

  `variant` is large or small; `norm` is gn or bn (see norms.BatchNorm).

  Intermediates are 'stem', 'block01' and so on and 'top', [b, h, w, f],
  'pre_logits' [b, f] and 'logits'. `dtype` is the precision of activations and
  of the kernels that meet them; parameters, moments and logits are float32.
  `mean` and `std` are those that the weights want of pixels in [0, 1] (see
  layers.normalize). With `folded`, parameters are those that `fold` returns.
  With `remat`, the backward pass computes each block again from its input: the
  same values, in less memory and more time.
  """
  num_classes: int
  variant: str = 'large'
  norm: str = 'gn'
  width: float = 1.
  mean: tuple[float, float, float] = layers.HALF
  std: tuple[float, float, float] = layers.HALF
  dtype: Any = jnp.float32
  folded: bool = False
  remat: bool = False

  @nn.compact
  def __call__(self, images: layers.Images, train: bool = False
               ) -> tuple[Float32[Array, 'b c'], dict[str, Array]]:
    registry.check('norm of MobileNetV3', self.norm, bottlenecks.NORMS)
    rows, features = plan(self.variant, self.width)
    conv = functools.partial(
        bottlenecks.Conv, bottlenecks.NORMS[self.norm][self.folded], train)
    out = {}
    x = layers.normalize(images, self.mean, self.std).astype(self.dtype)
    x = out['stem'] = conv(bottlenecks.make_divisible(16 * self.width), 3, 2,
                           nn.hard_swish, name='stem')(x)
    block = nn.remat(bottlenecks.Block) if self.remat else bottlenecks.Block
    for i, row in enumerate(rows, 1):
      x = out[f'block{i:02d}'] = block(conv, row, name=f'block{i:02d}')(x)
    x = out['top'] = conv(6 * x.shape[-1], act=nn.hard_swish, name='top')(x)

    x = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
    x = nn.hard_swish(bottlenecks.dense(features, name='pre_logits')(x))
    out['pre_logits'] = x
    head = nn.Dense(self.num_classes, name='head',
                    kernel_init=nn.initializers.zeros)
    out['logits'] = head(x)
    return out['logits'], out
