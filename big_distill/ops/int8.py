"""Kernels kept as int8: a quarter of float32's bytes, on every device.

Uniform, symmetric and per output channel, as Krishnamoorthi (2018, arXiv
1806.08342) has it for weights: of the numbers that make one output channel,

  step = max |kernel| / 127,  int8 = round(kernel / step),

to the nearest, so that int8 * step is within half a step of the kernel, and
zero where that is. Every leaf called `kernel` is kept so, of dense layers,
attention and convolutions; norms, biases, positions and tokens stay.

In a tree of parameters a kernel then is {'int8': ..., 'step': ...}, so names,
checksums and replicas are as of any other. `restore` belongs into the compiled
function that applies the model: float32 kernels live no longer than its call,
and the model computes with them as ever. It saves memory, not time.
"""

import jax
import jax.numpy as jnp
import numpy as np

STEP = 'step'  # [1, ..., d], float32.
PER_HEAD = ('query', 'key', 'value')  # Kernels [f, heads, d]: two axes are out.


def quantize(params):
  """The parameters, as host arrays, with kernels kept as int8."""
  def leaf(path, value):
    names = [key.key for key in path]
    if names[-1] != 'kernel':
      return value
    return _quantized(np.float32(value),
                      2 if any(name in PER_HEAD for name in names) else 1)

  return jax.tree_util.tree_map_with_path(leaf, params)


def _quantized(kernel, out):
  """Each place along the last `out` axes is a channel and has its own step."""
  inner = tuple(range(kernel.ndim - out))
  step = np.max(np.abs(kernel), axis=inner, keepdims=True) / np.float32(127)
  step[step == 0] = 1  # A channel of zeros; one with a NaN remains NaN.
  rounded = np.clip(np.round(kernel / step), -127, 127)
  return {'int8': rounded.astype(np.int8), STEP: step}


def restore(params):
  """The inverse of quantize, up to half a step: kernels in float32."""
  if 'int8' in params:
    return params['int8'].astype(jnp.float32) * params[STEP]
  return {name: restore(child) if isinstance(child, dict) else child
          for name, child in params.items()}
