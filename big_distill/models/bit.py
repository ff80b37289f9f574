"""BiT-ResNet v2: pre-activation ResNet, GroupNorm, weight standardisation.

It computes the function of the released BiT weights (Kolesnikov et al., 2020,
arXiv 1912.11370), with their zero-padded root pool. Names and shapes of
parameters are those of big_vision's npz files, which load as they are.
"""

from collections.abc import Sequence
import re
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float
from jaxtyping import Float32
import numpy as np

from big_distill.ops import initial
from big_distill.ops import layers
from big_distill.ops import norms
from big_distill.ops import pool
from big_distill.weights import bit as weights

AnyArray = Array | np.ndarray
Kernel = Float[AnyArray, 'k k c d']
Map = Float[AnyArray, 'b h w c']

UNITS = {  # Units per block; 50 and deeper from He et al. (arXiv 1512.03385).
    26: (2, 2, 2, 2),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}
GROUPS = 32  # Of GroupNorm; eps is 1e-5 in big_transfer, big_vision and timm.
WS_EPS = 1e-10  # Added to the variance, as big_transfer does (timm: 1e-8).


def units(depth: Any) -> tuple[int, ...]:
  """Units per block, of a depth in UNITS or given as one number per block.

  Raises ValueError for any other depth.
  """
  if isinstance(depth, str) or not isinstance(depth, Sequence):
    if depth not in UNITS:
      raise ValueError(f'BiT has no depth {depth!r}: give one of {list(UNITS)}, '
                       'or units per block such as (1, 1, 1, 1).')
    return UNITS[depth]
  depth = tuple(depth)
  if len(depth) == 1 and depth[0] in UNITS:
    raise ValueError(f'BiT depth {depth} would be one block of {depth[0]} units: '
                     f'for a ResNet-{depth[0]} write depth={depth[0]}.')
  if not depth or any(not isinstance(n, int) or n < 1 for n in depth):
    raise ValueError(f'BiT depth {depth}: every block needs at least one unit.')
  return depth


@jax.custom_vjp
def standardize(kernel: Kernel) -> Float32[Array, 'k k c d']:
  """Gives each output channel zero mean and unit (biased) variance."""
  return _standardize_forward(kernel)[0]


def _standardize_forward(kernel):
  # Autodiff's gradient of means over three axes takes 30 times longer on CPU.
  flat = kernel.astype(jnp.float32).reshape(-1, kernel.shape[-1])
  flat = flat - jnp.mean(flat, axis=0)
  r = jax.lax.rsqrt(jnp.mean(jnp.square(flat), axis=0) + WS_EPS)
  unit = flat * r
  return unit.reshape(kernel.shape), (unit, r)


def _standardize_backward(saved, g):
  unit, r = saved
  flat = g.reshape(unit.shape)
  flat = flat - jnp.mean(flat, axis=0) - unit * jnp.mean(flat * unit, axis=0)
  return ((flat * r).reshape(g.shape),)


standardize.defvjp(_standardize_forward, _standardize_backward)


# Compiles in milliseconds for each shape of a kernel.
_standardize_once = jax.jit(standardize)


def fold(params: Any) -> Any:
  """Standardises every convolution once, for a Model(folded=True)."""
  def leaf(path, value):
    names = [key.key for key in path]
    is_conv = names[-1] == 'kernel' and names[-2].startswith('conv')
    return _standardize_once(value) if is_conv else value
  return jax.tree_util.tree_map_with_path(leaf, params)


LAYOUTS, PUBLISHED, to_ours = weights.LAYOUTS, weights.PUBLISHED, weights.to_ours


NAMES = ('R26x1', 'R50x1', 'R101x1', 'R152x2')


def named(name: str) -> dict[str, Any] | None:
  """Arguments of Model by a name such as R50x1 or R26x0.5, or None."""
  found = re.fullmatch(r'[Rr](\d+)x(\d+(?:\.\d+)?)', name)
  return found and dict(depth=int(found[1]), width=float(found[2]))


def recognise(flat: dict[str, Any]) -> dict[str, Any] | None:
  """Arguments of Model that fit parameters of either layout, or None."""
  flat = to_ours(flat)
  root, head = (np.shape(flat.get(name, 0.))
                for name in ('root_block/conv_root/kernel', 'head/kernel'))
  if not root or not head:
    return None
  depth = []
  while True:
    found = re.compile(rf'block{len(depth) + 1}/unit\d+/conv1/kernel').fullmatch
    units = sum(bool(found(name)) for name in flat)
    if not units:
      break
    depth.append(units)
  return dict(depth=tuple(depth), width=root[-1] / 64, num_classes=head[-1])


def at_size(flat: dict[str, Any], size: int | None = None
            ) -> tuple[dict[str, Any], int]:
  """(flat, size): the parameters fit images of any size."""
  return flat, size or 64


class StdConv(nn.Module):
  """Bias-free convolution with a standardised kernel; pads like PyTorch."""
  features: int
  size: int = 1
  stride: int = 1
  folded: bool = False

  @nn.compact
  def __call__(self, x: Map) -> Float[AnyArray, 'b H W d']:
    shape = (self.size, self.size, x.shape[-1], self.features)
    kernel = self.param('kernel', initial.lecun_normal, shape)
    if not self.folded:
      # Without the barrier XLA standardises anew inside its convolution.
      kernel = jax.lax.optimization_barrier(standardize(kernel))
    return layers.conv(x, kernel, self.stride)


class Unit(nn.Module):
  """Bottleneck; its projection reads the normalised input."""
  mid: int
  stride: int
  folded: bool

  @nn.compact
  def __call__(self, x: Map) -> Float[AnyArray, 'b H W d']:
    def norm(name, x):
      return norms.GroupNorm(GROUPS, relu=True, name=name)(x)

    def conv(name, x, features, size=1, stride=1):
      return StdConv(features, size, stride, self.folded, name=name)(x)

    out = 4 * self.mid
    y = norm('gn1', x)
    if x.shape[-1] != out or self.stride != 1:
      x = conv('conv_proj', y, out, stride=self.stride)
    y = conv('conv1', y, self.mid)
    y = conv('conv2', norm('gn2', y), self.mid, 3, self.stride)
    y = conv('conv3', norm('gn3', y), out)
    return x + y


class Block(nn.Module):
  """Units at one resolution; the first one strides."""
  count: int
  mid: int
  stride: int
  folded: bool
  remat: bool = False

  @nn.compact
  def __call__(self, x: Map) -> Float[AnyArray, 'b H W d']:
    unit = nn.remat(Unit) if self.remat else Unit
    for j in range(self.count):
      x = unit(self.mid, self.stride if j == 0 else 1, self.folded,
               name=f'unit{j + 1:02d}')(x)
    return x


class Root(nn.Module):
  """7x7 convolution and pool, each at stride 2; neither norm nor ReLU."""
  features: int
  folded: bool

  @nn.compact
  def __call__(self, x: Map) -> Float[AnyArray, 'b H W d']:
    x = StdConv(self.features, 7, 2, self.folded, name='conv_root')(x)
    return pool.zero_pad_max_pool(x)


class Model(nn.Module):
  """Maps images [b, h, w, 3] in [-1, 1] to (logits [b, c], intermediates).

  Intermediates are 'stem', 'block1' and so on, [b, h, w, f], 'pre_logits' [b, f]
  and 'logits'. `dtype` is the precision of activations and of the kernels that
  meet them; parameters, moments and logits are float32. `mean` and `std` are
  those that the weights want of pixels in [0, 1] (see layers.normalize). With
  `folded`, kernels are taken to be standardised already (see `fold`). With
  `remat`, the backward pass computes each unit again from its input: the same
  values, in less memory and more time.
  """
  num_classes: int
  depth: int | Sequence[int] = 50
  width: float = 1
  mean: tuple[float, float, float] = layers.HALF
  std: tuple[float, float, float] = layers.HALF
  dtype: Any = jnp.float32
  folded: bool = False
  remat: bool = False

  @nn.compact
  def __call__(self, images: layers.Images, train: bool = False
               ) -> tuple[Float32[AnyArray, 'b c'], dict[str, AnyArray]]:
    del train  # The same in training and evaluation.
    out = {}
    features = int(64 * self.width)
    if not features:
      raise ValueError(f'BiT width={self.width} leaves none of 64 channels: set '
                       '1/64 or more.')
    root = Root(features, self.folded, name='root_block')
    x = layers.normalize(images, self.mean, self.std).astype(self.dtype)
    x = out['stem'] = root(x)
    for i, count in enumerate(units(self.depth)):
      block = Block(count, features * 2**i, 1 if i == 0 else 2, self.folded,
                    self.remat, name=f'block{i + 1}')
      x = out[f'block{i + 1}'] = block(x)

    x = norms.GroupNorm(GROUPS, relu=True, name='norm-pre-head')(x)
    x = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
    out['pre_logits'] = x
    head = nn.Dense(self.num_classes, name='head',
                    kernel_init=nn.initializers.zeros)
    out['logits'] = head(x)
    return out['logits'], out
