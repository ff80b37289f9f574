"""Kernels kept as int8: a quarter of float32's bytes, on every device.

Quantisation is uniform, symmetric and per output channel, as Krishnamoorthi
(2018, arXiv 1806.08342) recommends for weights. For each output channel

  step = max |kernel| / 127,  int8 = round(kernel / step),

so that int8 * step differs from the kernel by at most half a step, and zeros
stay zeros. This is done to every leaf called `kernel`, of dense layers,
attention and convolutions; norms, biases, positions and tokens stay float32.

A kernel becomes {'int8': ..., 'step': ...} in the tree of parameters. Call
`restore` inside the compiled function that applies the model: float32 kernels
then exist during its call alone. This saves memory, not time.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from big_distill import params as params_lib

STEP = 'step'  # [1, ..., d], float32.


def quantize(params: Any) -> Any:
  """The parameters, as numpy arrays, with kernels as int8 and steps."""
  return _of_kernels(
      params, lambda value, out: _quantized(np.float32(value), out))


def shapes(params: Any) -> Any:
  """As quantize, of parameters that are shapes."""
  def leaf(value, out):
    return {'int8': jax.ShapeDtypeStruct(value.shape, np.int8),
            STEP: jax.ShapeDtypeStruct(
                (1,) * (value.ndim - out) + value.shape[-out:], np.float32)}

  return _of_kernels(params, leaf)


def _of_kernels(params, change):
  """`params` with change(kernel, how many of its axes are of outputs)."""
  def leaf(path, value):
    if path[-1].key != 'kernel':
      return value
    return change(value, params_lib.output_axes(path))

  return jax.tree_util.tree_map_with_path(leaf, params)


def _quantized(kernel, out):
  """The last `out` axes number the output channels, each with its own step."""
  inner = tuple(range(kernel.ndim - out))
  step = np.max(np.abs(kernel), axis=inner, keepdims=True) / np.float32(127)
  step[step == 0] = 1  # A channel of zeros. A channel with a NaN stays NaN.
  rounded = np.clip(np.round(kernel / step), -127, 127)
  return {'int8': rounded.astype(np.int8), STEP: step}


def restore(params: Any) -> Any:
  """Parameters of quantize with float32 kernels, off by half a step at most."""
  if 'int8' in params:
    return params['int8'].astype(jnp.float32) * params[STEP]
  return {name: restore(child) if isinstance(child, dict) else child
          for name, child in params.items()}
