"""How long a run will take, said before its first step, by arithmetic."""

import time
from typing import Any

import jax
import jax.numpy as jnp

from big_distill import costs

# What a training step reaches of the rate of a product of matrices, roughly:
# BiT-R50x1 on two CPU cores and on an H100 (docs/speed.md); TPUs are a guess.
SHARE = {'cpu': .5, 'gpu': .15, 'tpu': .3}
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
  taught, _ = costs.training(rooms[0])
  total = images * (taught + sum(costs.training(room)[1] for room in rooms))
  rate = flop_per_s()
  share = SHARE.get(jax.default_backend(), .15)
  return (f'Estimated time: {duration(total / rate / share)}, for '
          f'{total / 1e12:,.3g} TFLOP at {share:.0%} of the '
          f'{rate / 1e9:,.3g} GFLOP/s of a product of matrices here; reading '
          'images and evaluations not counted.')


def duration(seconds: float) -> str:
  """12.3 s, 4.5 min, 6.7 h or 8.9 days."""
  for unit, least in (('days', 2 * 86_400), ('h', 2 * 3600), ('min', 120)):
    if seconds >= least:
      part = {'days': 86_400, 'h': 3600, 'min': 60}[unit]
      return f'{seconds / part:,.3g} {unit}'
  return f'{seconds:.3g} s'
