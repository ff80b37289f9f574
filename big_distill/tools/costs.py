"""What a step costs besides time: device memory, and exchange between devices.

Both are read off the step itself, before anything runs: memory from the program
that XLA compiled, exchange from its jaxpr.
"""

import os

import jax
import jax.numpy as jnp

from big_distill import jaxprs
from big_distill import parallel
from big_distill import stage as stage_lib
from big_distill import views

CLOSE = 32  # A batch that falls short of the largest by one in so many is it.


def arguments(stage):
  """Shapes and dtypes of what stage.step takes: state, teachers' params, batch."""
  d = jax.local_device_count()

  def replicated(x):
    return jax.ShapeDtypeStruct((d, *jnp.shape(x)), jnp.result_type(x))

  def split(x):
    return jax.ShapeDtypeStruct((d, len(x) // d, *x.shape[1:]), x.dtype)

  return (*jax.tree.map(replicated, (stage.state, stage.cast.teacher_params)),
          jax.tree.map(split, next(stage.batches(0))))


def memory(program):
  """Bytes that a compiled program holds on each device while it runs."""
  # Donated arguments are outputs, too.
  used = program.memory_analysis()
  return (used.argument_size_in_bytes + used.output_size_in_bytes
          - used.alias_size_in_bytes + used.temp_size_in_bytes)


def exchanged(stage):
  """Bytes that each device gives to the others in a step."""
  jaxpr = jax.make_jaxpr(stage.step)(*arguments(stage)).jaxpr
  return jaxprs.total(jaxpr, jaxprs.exchanged)


def available():
  """Bytes that a device has for a program: a CPU, those that are free now."""
  stats = jax.local_devices()[0].memory_stats() or {}
  if 'bytes_limit' in stats:
    return stats['bytes_limit']
  free = os.sysconf('SC_AVPHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
  return free // jax.local_device_count()


def largest(cost, limit):
  """The most n with cost(n) <= limit, to within 1 / CLOSE; 0 if there is none.

  cost(n) grows with n, nearly along a line; it is asked for few values.
  """
  costs = {n: cost(n) for n in (1, 8)}
  while True:
    fits = max((n for n in costs if costs[n] <= limit), default=0)
    over = min((n for n in costs if costs[n] > limit), default=None)
    if over == 1 or over and over - fits <= max(1, fits // CLOSE):
      return fits
    # Along the line through the two that are nearest, never far beyond them.
    low, high = (fits, over) if over else sorted(costs)[-2:]
    slope = max((costs[high] - costs[low]) / (high - low), 1)
    guess = fits + int((limit - costs[fits]) / slope)
    if over:
      guess = min(max(guess, fits + 1), over - 1)
    elif guess - fits <= fits // CLOSE:
      return fits
    n = min(guess, 16 * fits)
    costs[n] = cost(n)


def largest_batch(config, data, limit):
  """(the most images whose step fits into `limit` bytes, the bytes it holds).

  One such step is taken.
  """
  unit = jax.device_count() * config.get('accumulate', 1)
  if views.mode(config['mode']).mixup:
    unit *= {'group': 8, **config.get('mixup', {})}['group']
  steps = {}

  def cost(units):
    stage = stage_lib.set_stage({**config, 'batch_size': units * unit}, data)
    step = stage.step.lower(*arguments(stage)).compile()
    steps[units] = stage, step
    return memory(step)

  units = largest(cost, limit)
  if not units:
    raise ValueError(f'The smallest batch, {unit} images, does not fit into '
                     f'{limit / 1e9:.1f} GB.')
  stage, step = steps[units]
  jax.block_until_ready(step(
      parallel.replicate(stage.state),
      parallel.replicate(stage.cast.teacher_params),
      parallel.split(next(stage.batches(0)))))
  return stage.batch_size, memory(step)
