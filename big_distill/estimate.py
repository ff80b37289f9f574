"""How long a run will take, said before its first step, by arithmetic."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from big_distill import costs

# What a training step reaches of the rate of a product of matrices, roughly:
# BiT-R50x1 on two CPU cores and on an H100 (docs/speed.md); TPUs are a guess.
SHARE = {'cpu': .5, 'gpu': .15, 'tpu': .3}
# The same of a student with depthwise convolutions, whose gradients are slow on
# CPUs: MobileNetV3 and EfficientNet-Lite0 reached .06 to .12 on two cores.
DEPTHWISE = {**SHARE, 'cpu': .1}
SIDE = {'cpu': 1024, 'gpu': 8192, 'tpu': 8192}  # Of the matrices.


def flop_per_s() -> float:
  """Operations a second of a product of float32 matrices, on all devices."""
  platform = jax.default_backend()
  side = SIDE.get(platform, 1024)
  x = jnp.ones([side, side])
  product = jax.jit(jnp.dot)
  product(x, x).block_until_ready()  # Compiles.
  seconds = []
  for _ in range(3):
    began = time.perf_counter()
    product(x, x).block_until_ready()
    seconds.append(time.perf_counter() - began)
  # Devices of a CPU share its cores.
  devices = 1 if platform == 'cpu' else jax.device_count()
  return devices * 2 * side**3 / min(seconds)


def text(rooms: list[Any], images: int) -> str:
  """The sentence about students that learn together, from so many images."""
  platform = jax.default_backend()
  taught, _ = costs.training(rooms[0])
  learnt = [(costs.training(room)[1], DEPTHWISE if _is_depthwise(room.params)
             else SHARE) for room in rooms]
  parts = [(taught, SHARE), *learnt]
  total, rate = images * sum(amount for amount, _ in parts), flop_per_s()
  seconds = images / rate * sum(amount / shares.get(platform, .15)
                                for amount, shares in parts)
  return (f'Estimated time: {duration(seconds)}, for '
          f'{total / 1e12:,.3g} TFLOP at {total / rate / seconds:.0%} of the '
          f'{rate / 1e9:,.3g} GFLOP/s of a product of matrices here; reading '
          'images and evaluations not counted.')


def _is_depthwise(params):
  """Whether a kernel [h, w, i, o] sees one channel alone."""
  shapes = [np.shape(leaf) for leaf in jax.tree.leaves(params)]
  return any(len(shape) == 4 and shape[0] > 1 == shape[2] for shape in shapes)


def duration(seconds: float) -> str:
  """12.3 s, 4.5 min, 6.7 h or 8.9 days."""
  for unit, least in (('days', 2 * 86_400), ('h', 2 * 3600), ('min', 120)):
    if seconds >= least:
      part = {'days': 86_400, 'h': 3600, 'min': 60}[unit]
      return f'{seconds / part:,.3g} {unit}'
  return f'{seconds:.3g} s'
