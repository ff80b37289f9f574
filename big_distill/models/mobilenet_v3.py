"""MobileNetV3, Large and Small, with GroupNorm or with BatchNorm.

The architecture of Howard et al. (arXiv 1905.02244) as TF-slim and torchvision
have it: the last layer of Small has 1,024 features, and squeezing stops before
the last convolution, where the paper's tables differ. FunMatch puts GroupNorm
of 8 groups in the place of BatchNorm everywhere. There is neither dropout nor
an average of weights, since FunMatch uses none of the original's tricks.

Padding is symmetric, as in torchvision, so that its weights give its function.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from big_distill import norms
from big_distill import registry


class Row(NamedTuple):
  """A bottleneck: kernel side, expanded and output features, and so on."""
  size: int
  expanded: int
  out: int
  squeeze: bool
  act: str
  stride: int


LARGE = (  # Table 1 of the MobileNetV3 paper.
    Row(3, 16, 16, False, 'relu', 1),
    Row(3, 64, 24, False, 'relu', 2),
    Row(3, 72, 24, False, 'relu', 1),
    Row(5, 72, 40, True, 'relu', 2),
    Row(5, 120, 40, True, 'relu', 1),
    Row(5, 120, 40, True, 'relu', 1),
    Row(3, 240, 80, False, 'hswish', 2),
    Row(3, 200, 80, False, 'hswish', 1),
    Row(3, 184, 80, False, 'hswish', 1),
    Row(3, 184, 80, False, 'hswish', 1),
    Row(3, 480, 112, True, 'hswish', 1),
    Row(3, 672, 112, True, 'hswish', 1),
    Row(5, 672, 160, True, 'hswish', 2),
    Row(5, 960, 160, True, 'hswish', 1),
    Row(5, 960, 160, True, 'hswish', 1),
)
SMALL = (  # Table 2, with TF-slim's activations.
    Row(3, 16, 16, True, 'relu', 2),
    Row(3, 72, 24, False, 'relu', 2),
    Row(3, 88, 24, False, 'relu', 1),
    Row(5, 96, 40, True, 'hswish', 2),
    Row(5, 240, 40, True, 'hswish', 1),
    Row(5, 240, 40, True, 'hswish', 1),
    Row(5, 120, 48, True, 'hswish', 1),
    Row(5, 144, 48, True, 'hswish', 1),
    Row(5, 288, 96, True, 'hswish', 2),
    Row(5, 576, 96, True, 'hswish', 1),
    Row(5, 576, 96, True, 'hswish', 1),
)
VARIANTS = {'large': (LARGE, 1280), 'small': (SMALL, 1024)}  # And last features.
NORMS = ('gn', 'bn')
ACTS = {'relu': nn.relu, 'hswish': nn.hard_swish, 'none': lambda x: x}


def divisible(features, by=8):
  """The multiple of `by` nearest to features, but not below 90 % of them."""
  near = max(by, int(features + by / 2) // by * by)
  return near + by if near < 0.9 * features else near


def fold(params):
  """Nothing is folded: an average is as fast as a constant."""
  return params


def depthwise(x, kernel, stride):
  """Convolves each channel by itself. [b, h, w, c], [k, k, 1, c]; zero-padded."""
  return jax.lax.platform_dependent(
      x, kernel, cpu=lambda x, kernel: _by_shifts(x, kernel, stride),
      default=lambda x, kernel: _by_groups(x, kernel, stride))


def _by_groups(x, kernel, stride):
  pad = (kernel.shape[0] - 1) // 2
  return jax.lax.conv_general_dilated(
      x, kernel, (stride, stride), ((pad, pad), (pad, pad)),
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      feature_group_count=x.shape[-1])


def _by_shifts(x, kernel, stride):
  """A sum over the pixels of the kernel: 3 to 40 times faster on CPU."""
  size, (h, w) = kernel.shape[0], x.shape[1:3]
  pad = (size - 1) // 2
  x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
  return sum(x[:, i:i + h:stride, j:j + w:stride] * kernel[i, j, 0]
             for i in range(size) for j in range(size))


class Conv(nn.Module):
  """Convolution, norm, activation; depthwise if `features` is None."""
  features: int | None
  act: str
  norm: str
  train: bool
  size: int = 1
  stride: int = 1

  @nn.compact
  def __call__(self, x):
    k, c = self.size, x.shape[-1]
    shape = (k, k, c, self.features) if self.features else (k, k, 1, c)
    kernel = self.param('kernel', nn.initializers.lecun_normal(), shape)
    kernel = kernel.astype(x.dtype)
    if not self.features:
      x = depthwise(x, kernel, self.stride)
    elif k == 1:
      x = jnp.einsum('bhwc,cd->bhwd', x, kernel[0, 0])
    else:
      pad = (k - 1) // 2
      x = jax.lax.conv_general_dilated(
          x, kernel, (self.stride,) * 2, ((pad, pad), (pad, pad)),
          dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
    norm = (norms.GroupNorm(8, name='norm') if self.norm == 'gn' else
            norms.BatchNorm(self.train, name='norm'))
    return ACTS[self.act](norm(x))


class Squeeze(nn.Module):
  """Weighs channels by what the whole image has of them. [b, h, w, c] -> same."""

  @nn.compact
  def __call__(self, x):
    c = x.shape[-1]
    y = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
    y = nn.relu(nn.Dense(divisible(c / 4), name='reduce')(y))
    y = nn.hard_sigmoid(nn.Dense(c, name='expand')(y))
    return x * y[:, None, None].astype(x.dtype)


class Bottleneck(nn.Module):
  """Expand, look around, squeeze, project; added to its input where it fits."""
  row: Row
  norm: str
  train: bool

  @nn.compact
  def __call__(self, x):
    def conv(name, features, act, size=1, stride=1):
      return Conv(features, act, self.norm, self.train, size, stride, name=name)

    row, y = self.row, x
    if row.expanded != x.shape[-1]:
      y = conv('expand', row.expanded, row.act)(y)
    y = conv('depthwise', None, row.act, row.size, row.stride)(y)
    if row.squeeze:
      y = Squeeze(name='squeeze')(y)
    y = conv('project', row.out, 'none')(y)
    return x + y if x.shape == y.shape else y


class Model(nn.Module):
  """Images [b, h, w, 3] in [-1, 1] -> (float32 logits [b, c], out).

  `width` multiplies all features but the last. `out` names the intermediates:
  'stem', 'block01'..., 'conv', 'pre_logits' [b, f] and 'logits'. With norm='bn'
  and train=True, see norms.BatchNorm. With `remat`, the backward pass computes
  each block anew from its input: same values, less memory, more time.
  """
  num_classes: int
  variant: str = 'large'
  norm: str = 'gn'
  width: float = 1.
  dtype: Any = jnp.float32
  folded: bool = False
  remat: bool = False

  @nn.compact
  def __call__(self, images, train=False):
    registry.check('MobileNetV3', self.variant, VARIANTS)
    registry.check('norm', self.norm, NORMS)
    rows, last = VARIANTS[self.variant]
    rows = [row._replace(expanded=divisible(row.expanded * self.width),
                         out=divisible(row.out * self.width)) for row in rows]

    def conv(name, features, size=1, stride=1):
      return Conv(features, 'hswish', self.norm, train, size, stride, name=name)

    out = {}
    stem = conv('stem', divisible(16 * self.width), 3, 2)
    x = out['stem'] = stem(images.astype(self.dtype))
    block = nn.remat(Bottleneck) if self.remat else Bottleneck
    for i, row in enumerate(rows, 1):
      name = f'block{i:02d}'
      x = out[name] = block(row, self.norm, train, name=name)(x)
    x = out['conv'] = conv('conv', 6 * rows[-1].out)(x)

    x = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
    x = nn.hard_swish(nn.Dense(last, name='pre_logits')(x))
    out['pre_logits'] = x
    head = nn.Dense(self.num_classes, name='head',
                    kernel_init=nn.initializers.zeros)
    out['logits'] = head(x)
    return out['logits'], out
