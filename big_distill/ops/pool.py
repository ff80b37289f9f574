"""The pool of BiT's root: the maximum of windows, written for each platform."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float
import numpy as np

Map = Float[Array | np.ndarray, 'b h w c']


@jax.custom_vjp
def zero_pad_max_pool(x: Map) -> Float[Array, 'b H W c']:
  """Maximum over 3x3 pixels at stride 2, with zeros around x.

  Released BiT weights were trained so; Flax's `max_pool(padding=1)` puts -inf
  around x. Where pixels of a window are equal, who has the gradient is up to the
  platform.
  """
  return _pool_forward(x)[0]


def _pool_forward(x):
  # The gradient of XLA's window maximum is ten times slower on CPU than that of
  # nine slices; these move more of a TPU's memory (docs/tpu.md).
  return jax.lax.platform_dependent(
      x, tpu=_pool_by_windows, default=_pool_by_slices), x


def _pool_backward(x, g):
  def gradient(function):
    return lambda x, g: jax.vjp(function, x)[1](g)

  return jax.lax.platform_dependent(
      x, g, tpu=gradient(_pool_by_windows), default=gradient(_pool_by_slices))


zero_pad_max_pool.defvjp(_pool_forward, _pool_backward)


def _zero_padded(x):
  return jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))


def _pool_by_windows(x):
  return nn.max_pool(_zero_padded(x), (3, 3), (2, 2))


def _pool_by_slices(x):
  h, w = x.shape[1:3]
  x = _zero_padded(x)
  # lax.slice stays a slice where the batch is a symbol; indexing gathers then.
  rows = [jax.lax.slice_in_dim(x, i, i + h, 2, axis=1) for i in range(3)]
  x = jnp.maximum(jnp.maximum(rows[0], rows[1]), rows[2])
  cols = [jax.lax.slice_in_dim(x, i, i + w, 2, axis=2) for i in range(3)]
  return jnp.maximum(jnp.maximum(cols[0], cols[1]), cols[2])
