"""Vision Transformer: patches as words, positions added, attention between.

It computes the function of big_vision's ViT (Beyer, Zhai, Kolesnikov, 2022,
arXiv 2205.01580); with pool='tok' that of the original (Dosovitskiy et al.,
2021, arXiv 2010.11929). Names and shapes of parameters are those of
big_vision's npz files, which load as they are. Learned positions belong to a
grid of patches and so to one size of images; `at_size` resizes them. There is
neither dropout nor stochastic depth.
"""

import re
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float32
import numpy as np

from big_distill import bounds
from big_distill import registry
from big_distill.ops import initial
from big_distill.ops import layers
from big_distill.ops import transformer
from big_distill.weights import vit as weights

AnyArray = Array | np.ndarray
Shape = transformer.Shape

VARIANTS = {  # Zhai et al. (arXiv 2106.04560), table 2; mu is big_vision's.
    'mu': Shape(32, 1, 2, 128),
    'Ti': Shape(192, 12, 3, 768),
    'S': Shape(384, 12, 6, 1536),
    'M': Shape(512, 12, 8, 2048),
    'B': Shape(768, 12, 12, 3072),
    'L': Shape(1024, 24, 16, 4096),
    'H': Shape(1280, 32, 16, 5120),
    'g': Shape(1408, 40, 16, 6144),
    'G': Shape(1664, 48, 16, 8192),
}
POOLS = ('gap', 'tok', 'map')  # Mean of tokens; a token of its own; attention.
POSEMBS = ('learn', 'sincos2d')


def decode(variant: str, **numbers: int | None) -> tuple[Shape, int]:
  """The (Shape, side of a patch) of a variant such as 'S/16'.

  `numbers` replace the variant's, unless they are None. Raises ValueError for
  an unknown variant and for numbers that make no ViT.
  """
  name, _, patch = variant.partition('/')
  registry.check('ViT', name, VARIANTS)
  if not patch.isdecimal() or not int(patch):
    raise ValueError(f'ViT {variant!r} does not say the side of its patches: '
                     f'{name}/16, for example.')
  shape = VARIANTS[name]._replace(
      **{key: n for key, n in numbers.items() if n is not None})
  if min(shape) < 1 or shape.width % shape.heads:
    raise ValueError(f'ViT {shape}: every number is at least 1, and the heads '
                     'share the width evenly.')
  return shape, int(patch)


def fold(params: Any) -> Any:
  """Returns the parameters: a ViT has no constants to fold."""
  return params


LAYOUTS, PUBLISHED = weights.LAYOUTS, weights.PUBLISHED
to_ours, at_size = weights.to_ours, weights.at_size


NAMES = ('vit_ti16', 'vit_s16', 'vit_s32', 'vit_m16', 'vit_b16', 'vit_b32',
         'vit_l16')


def named(name: str) -> dict[str, Any] | None:
  """Arguments of Model by a name such as vit_s16, or None."""
  found = re.fullmatch(r'vit_([A-Za-z]+)(\d+)', name)
  variants = found and [variant for variant in VARIANTS
                        if found[1] in (variant, variant.lower())]
  # g and G are two: a name as it is written comes first.
  variants = sorted(variants or [], key=lambda each: each != found[1])
  return dict(variant=f'{variants[0]}/{found[2]}') if variants else None


def recognise(flat: dict[str, Any]) -> dict[str, Any] | None:
  """Arguments of Model that fit parameters of either layout, or None."""
  flat = to_ours(flat)
  block = 'Transformer/encoderblock_0/'
  patch, query, mlp, head, rep = (np.shape(flat.get(name, 0.)) for name in (
      'embedding/kernel', block + 'MultiHeadDotProductAttention_0/query/kernel',
      block + 'MlpBlock_0/Dense_0/kernel', 'head/kernel', 'pre_logits/kernel'))
  if [len(each) for each in (patch, query, mlp, head)] != [4, 3, 2, 2]:
    return None
  blocks = {name.split('/')[1] for name in flat
            if name.startswith('Transformer/encoderblock_')}
  shape = Shape(patch[-1], len(blocks), query[1], mlp[-1])
  # If no variant has these numbers, they are given beside the name of any.
  named = [name for name, known in VARIANTS.items() if known == shape]
  pool = ('tok' if 'cls' in flat else
          'map' if 'MAPHead_0/probe' in flat else 'gap')
  return dict(
      num_classes=head[-1], variant=f'{(named or ["mu"])[0]}/{patch[0]}',
      **({} if named else shape._asdict()), pool=pool,
      posemb='learn' if 'pos_embedding' in flat else 'sincos2d',
      rep_size=rep[-1] if rep else 0)


def sincos2d(h: int, w: int, width: int) -> Float32[np.ndarray, '1 n width']:
  """Fixed positions of an h x w grid, as in MoCo v3."""
  if width % 4:
    raise ValueError("posemb='sincos2d' needs a width that is a multiple of 4, "
                     f'not {width}.')
  omega = 10_000. ** -np.linspace(0, 1, width // 4)
  y, x = np.mgrid[:h, :w].reshape(2, h * w, 1) * omega
  waves = [np.sin(x), np.cos(x), np.sin(y), np.cos(y)]
  return np.concatenate(waves, axis=1).astype(np.float32)[None]


class Model(nn.Module):
  """Maps images [b, h, w, 3] in [-1, 1] to (logits [b, c], intermediates).

  `variant` is a row of VARIANTS and the side of a patch; `width`, `depth`,
  `heads` and `mlp`, where given, replace the row's. `rep_size` is the width of
  a tanh layer before the head, 0 for none.

  Intermediates are 'stem' [b, h, w, f], 'encoderblock_0' and so on and
  'encoder_norm', [b, n, f], 'pre_logits' [b, f] and 'logits'. `dtype` is the
  precision of activations and of the kernels that meet them; parameters,
  moments, softmax and logits are float32. `mean` and `std` are those that the
  weights want of pixels in [0, 1] (see layers.normalize). With `remat`, the
  backward pass computes each block again from its input: the same values, in
  less memory and more time.
  """
  num_classes: int
  variant: str = 'S/16'
  width: int | None = None
  depth: int | None = None
  heads: int | None = None
  mlp: int | None = None
  pool: str = 'gap'
  posemb: str = 'learn'
  rep_size: int = 0
  mean: tuple[float, float, float] = layers.HALF
  std: tuple[float, float, float] = layers.HALF
  dtype: Any = jnp.float32
  folded: bool = False
  remat: bool = False

  @nn.compact
  def __call__(self, images: layers.Images, train: bool = False
               ) -> tuple[Float32[Array, 'b c'], dict[str, Array]]:
    del train  # The same in training and evaluation.
    registry.check('pool', self.pool, POOLS)
    registry.check('posemb', self.posemb, POSEMBS)
    bounds.check('rep_size', self.rep_size, least=0, whole=True)
    shape, patch = decode(self.variant, width=self.width, depth=self.depth,
                          heads=self.heads, mlp=self.mlp)
    f = shape.width
    if any(side % patch or not side for side in images.shape[1:3]):
      raise ValueError('Images of {} x {} px do not divide into patches of '
                       '{} px.'.format(*images.shape[1:3], patch))
    embedding = nn.Conv(f, (patch, patch), (patch, patch), 'VALID',
                        dtype=self.dtype, kernel_init=initial.lecun_normal,
                        name='embedding')
    stem = embedding(layers.normalize(images, self.mean, self.std))
    b, h, w, _ = stem.shape
    x = stem.reshape(b, h * w, f) + self.positions(h, w, f).astype(self.dtype)
    if self.pool == 'tok':
      cls = self.param('cls', nn.initializers.zeros, (1, 1, f))
      cls = jnp.broadcast_to(cls.astype(self.dtype), (b, 1, f))
      x = jnp.concatenate([cls, x], axis=1)
    x, out = transformer.Encoder(shape, self.dtype, self.remat,
                                 name='Transformer')(x)

    if self.pool == 'map':
      x = transformer.MAPHead(shape, self.dtype, name='MAPHead_0')(x)
      x = x.astype(jnp.float32)
    else:
      x = x.astype(jnp.float32)
      x = transformer.first(x) if self.pool == 'tok' else jnp.mean(x, axis=1)
    if self.rep_size:
      x = jnp.tanh(nn.Dense(self.rep_size, name='pre_logits',
                            kernel_init=initial.lecun_normal)(x))
    head = nn.Dense(self.num_classes, name='head',
                    kernel_init=nn.initializers.zeros)
    logits = head(x)
    return logits, dict(stem=stem, **out, pre_logits=x, logits=logits)

  def positions(self, h: int, w: int, f: int) -> Float32[AnyArray, '1 n {f}']:
    """Vectors that are added to the tokens of an h x w grid."""
    if self.posemb == 'sincos2d':
      return jnp.asarray(sincos2d(h, w, f))
    if self.has_variable('params', 'pos_embedding'):
      known = self.get_variable('params', 'pos_embedding').shape[1]
      if known != h * w:
        raise ValueError(
            f'A grid of {h} x {w} patches meets {known} learned positions: '
            'make or load the model at the size of the images.')
    return self.param('pos_embedding', initial.normal(f**-.5),
                      (1, h * w, f))

  def fixed_positions(self, size: int) -> Float32[np.ndarray, '1 n f']:
    """Positions of images of a size, where they are not learned."""
    shape, patch = decode(self.variant, width=self.width)
    return sincos2d(size // patch, size // patch, shape.width)
