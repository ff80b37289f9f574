"""Blocks of a transformer over tokens, and its pool by attention.

Names and shapes of parameters are those of big_vision's ViT.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float

from big_distill.ops import initial

Tokens = Float[Array, 'b n f']
LN_EPS = 1e-6  # Flax's default, which both releases rely on; PyTorch: 1e-5.


class Shape(NamedTuple):
  """Features of a token, blocks, attention heads, features inside the MLP."""
  width: int
  depth: int
  heads: int
  mlp: int


def first(x: Tokens) -> Float[Array, 'b f']:
  """The first token."""
  # lax.slice stays a slice where the batch is a symbol; indexing gathers then.
  return jax.lax.slice_in_dim(x, 0, 1, axis=1).squeeze(1)


def layer_norm(name: str, dtype: Any) -> nn.LayerNorm:
  """LayerNorm with this module's epsilon."""
  # The moments are float32 in any dtype; the fast variance would cancel.
  return nn.LayerNorm(LN_EPS, dtype, use_fast_variance=False, name=name)


def attention(heads: int, dtype: Any) -> nn.MultiHeadDotProductAttention:
  """Attention under the name that big_vision's files have."""
  return nn.MultiHeadDotProductAttention(
      heads, dtype, kernel_init=initial.xavier_uniform,
      force_fp32_for_softmax=True, name='MultiHeadDotProductAttention_0')


class MLP(nn.Module):
  """Two dense layers with a GELU between them."""
  features: int
  dtype: Any

  @nn.compact
  def __call__(self, x: Tokens) -> Tokens:
    def dense(name, features):
      return nn.Dense(features, dtype=self.dtype, name=name,
                      kernel_init=initial.xavier_uniform,
                      bias_init=initial.normal(1e-6))

    # GELU's approximation by tanh; timm and torchvision compute it by erf.
    y = nn.gelu(dense('Dense_0', self.features)(x), approximate=True)
    return dense('Dense_1', x.shape[-1])(y)


class EncoderBlock(nn.Module):
  """Attention between tokens, then an MLP on each, both residual."""
  shape: Shape
  dtype: Any

  @nn.compact
  def __call__(self, x: Tokens) -> Tokens:
    y = layer_norm('LayerNorm_0', self.dtype)(x)
    x = x + attention(self.shape.heads, self.dtype)(y, y)
    y = layer_norm('LayerNorm_1', self.dtype)(x)
    return x + MLP(self.shape.mlp, self.dtype, name='MlpBlock_0')(y)


class Encoder(nn.Module):
  """Blocks and a last norm; returns the result and each block's by name."""
  shape: Shape
  dtype: Any
  remat: bool = False

  @nn.compact
  def __call__(self, x: Tokens) -> tuple[Tokens, dict[str, Array]]:
    out, block = {}, nn.remat(EncoderBlock) if self.remat else EncoderBlock
    for i in range(self.shape.depth):
      name = f'encoderblock_{i}'
      x = out[name] = block(self.shape, self.dtype, name=name)(x)
    out['encoder_norm'] = layer_norm('encoder_norm', self.dtype)(x)
    return out['encoder_norm'], out


class MAPHead(nn.Module):
  """Pools tokens by the attention of a learned probe."""
  shape: Shape
  dtype: Any

  @nn.compact
  def __call__(self, x: Tokens) -> Float[Array, 'b f']:
    b, _, f = x.shape
    probe = self.param('probe', initial.xavier_uniform, (1, 1, f))
    probe = jnp.broadcast_to(probe.astype(x.dtype), (b, 1, f))
    x = attention(self.shape.heads, self.dtype)(probe, x)
    y = layer_norm('LayerNorm_0', self.dtype)(x)
    x = x + MLP(self.shape.mlp, self.dtype, name='MlpBlock_0')(y)
    return first(x)
