"""EfficientNet-Lite 0 to 4: EfficientNets without squeezes, with ReLU6.

The networks of tensorflow/tpu's models/official/efficientnet/lite and of the
PyPI package efficientnet_lite_pytorch, whose logits these equal: blocks are
those of MobileNetV3, padding is TensorFlow's 'SAME'. There is no dropout and
no stochastic depth: a student that matches functions uses none of the
original's training tricks (Beyer et al., 2022, arXiv 2106.05237).
"""

import functools
import math
import re
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float32

from big_distill import params as params_lib
from big_distill import registry
from big_distill.ops import bottlenecks
from big_distill.ops import layers
from big_distill.weights import efficientnet_lite as weights

ROWS = (  # Repeats, kernel, stride, expansion, channels out; lite0's.
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM, TOP = 32, 1280  # Channels, of every variant.
VARIANTS = {  # Times as wide, times as deep; and the size they were made for.
    'lite0': (1., 1., 224),
    'lite1': (1., 1.1, 240),
    'lite2': (1.1, 1.2, 260),
    'lite3': (1.2, 1.4, 280),
    'lite4': (1.4, 1.8, 300),
}
# Pixels of 0 to 255 less 127, over 128: efficientnet_lite_builder.py.
MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3

fold = bottlenecks.fold


def plan(variant: str) -> tuple[bottlenecks.Row, ...]:
  """A variant's blocks. ValueError for a variant that is not in VARIANTS."""
  registry.check('variant of EfficientNet-Lite', variant, VARIANTS)
  width, depth, _ = VARIANTS[variant]
  rows, c = [], STEM
  for i, (repeats, size, stride, expansion, out) in enumerate(ROWS):
    out = bottlenecks.make_divisible(width * out)
    if 0 < i < len(ROWS) - 1:  # The first and the last are never repeated.
      repeats = math.ceil(depth * repeats)
    for first in [True] + [False] * (repeats - 1):
      rows.append(bottlenecks.Row(size, expansion * c, out, False, nn.relu6,
                                   stride if first else 1))
      c = out
  return tuple(rows)


LAYOUTS, PUBLISHED, to_ours = weights.LAYOUTS, weights.PUBLISHED, weights.to_ours


NAMES = tuple(f'efficientnet_{variant}' for variant in VARIANTS)
SIZES = {variant: size for variant, (_, _, size) in VARIANTS.items()}


def named(name: str) -> dict[str, Any] | None:
  """Arguments of Model by a name such as efficientnet_lite0, or None."""
  return dict(variant=name.split('_')[1]) if name in NAMES else None


def recognise(flat: dict[str, Any]) -> dict[str, Any] | None:
  """Arguments of Model that fit parameters of either layout, or None."""
  flat = to_ours(flat)
  needed = ('stem/kernel', 'block01/depthwise/kernel', 'top/kernel',
            'head/kernel')
  if any(name not in flat for name in needed) or 'pre_logits/kernel' in flat:
    return None
  kernels = {name: leaf.shape[-1] for name, leaf in flat.items()
             if re.fullmatch(r'block\d+/(depthwise|project)/kernel', name)}

  def distance(variant):
    """How many kernels would be missing, superfluous, or of other shape."""
    wanted = {f'block{i:02d}/{part}/kernel': c for i, row in enumerate(
        plan(variant), 1)
              for part, c in (('depthwise', row.mid), ('project', row.out))}
    return len(wanted.items() ^ kernels.items())

  return dict(variant=min(VARIANTS, key=distance),
              norm='bn' if any(map(params_lib.is_average, flat)) else 'gn',
              num_classes=flat['head/kernel'].shape[-1])


def at_size(flat: dict[str, Any], size: int | None = None
            ) -> tuple[dict[str, Any], int]:
  """(flat, size): the parameters fit images of any size."""
  return flat, size or 64


class Model(nn.Module):
  """Images [b, h, w, 3] in [-1, 1] -> (float32 logits [b, c], out).

  `out` names the intermediates: 'stem', 'block01'..., 'top', 'pre_logits'
  [b, 1280] and 'logits'. `variant` is one of VARIANTS, `norm` is gn or bn; for
  the latter see norms.BatchNorm. `dtype` is the precision of activations and
  of the kernels that meet them; parameters and moments stay float32. `mean`
  and `std` are what the weights want (layers.normalize). With
  `folded`, parameters are those that `fold` returns.
  """
  num_classes: int
  variant: str = 'lite0'
  norm: str = 'bn'
  mean: tuple[float, float, float] = MEAN
  std: tuple[float, float, float] = STD
  dtype: Any = jnp.float32
  folded: bool = False

  @nn.compact
  def __call__(self, images: layers.Images, train: bool = False
               ) -> tuple[Float32[Array, 'b c'], dict[str, Array]]:
    registry.check('norm of EfficientNet-Lite', self.norm, bottlenecks.NORMS)
    conv = functools.partial(
        bottlenecks.Conv, bottlenecks.NORMS[self.norm][self.folded], train,
        same=True)
    out = {}
    x = layers.normalize(images, self.mean, self.std).astype(self.dtype)
    x = out['stem'] = conv(STEM, 3, 2, nn.relu6, name='stem')(x)
    for i, row in enumerate(plan(self.variant), 1):
      name = f'block{i:02d}'
      x = out[name] = bottlenecks.Block(conv, row, name=name)(x)
    x = out['top'] = conv(TOP, act=nn.relu6, name='top')(x)
    x = out['pre_logits'] = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
    head = nn.Dense(self.num_classes, name='head',
                    kernel_init=nn.initializers.zeros)
    out['logits'] = head(x)
    return out['logits'], out
