"""The same training with our layers and with the formulas that they compute.

  python -m bench.curves --csv=bench/curves.csv

Distils the quickstart's teacher into a BiT of width 1 on its photographs, three
times: with layers as they are; with norms, standardisation and convolutions as
one writes them down, whose gradients are autodiff's; and the latter from
parameters multiplied by 1 + 1e-6. ReLUs make training chaotic: what is rounded
in another way soon goes its own, and the third says how far.
"""

import contextlib
from unittest import mock

from absl import flags
from absl import logging
import jax
import jax.numpy as jnp
import numpy as np

from big_distill import command
from big_distill import course as course_lib
from big_distill import parallel
from big_distill.models import bit
from big_distill.ops import layers
from big_distill.ops import norms
from big_distill.ops import pool
from big_distill.ops import winograd
from big_distill.tools import stopwatch
from configs import quickstart

NUDGE = np.float32(1 + 1e-6)


def group_norm(x, scale, bias, groups, eps, relu):
  """The formula of norms.group_norm."""
  shape = x.shape
  x = x.reshape(*shape[:3], groups, -1)
  x = (x - x.mean((1, 2, 4), keepdims=True)) / jnp.sqrt(
      x.var((1, 2, 4), keepdims=True) + eps)
  y = x.reshape(shape) * scale + bias
  return jax.nn.relu(y) if relu else y


def standardize(kernel):
  """The formula of bit.standardize."""
  return (kernel - kernel.mean((0, 1, 2))) / jnp.sqrt(
      kernel.var((0, 1, 2)) + bit.WS_EPS)


@contextlib.contextmanager
def formulas():
  """Models that are traced inside compute these, and XLA's gradients of them."""
  with (mock.patch.object(norms, 'group_norm', group_norm),
        mock.patch.object(layers, 'product', jnp.matmul),
        mock.patch.object(layers, 'pointwise', lambda x, kernel:
                          layers.general_conv(x, kernel, stride=1, groups=1)),
        mock.patch.object(winograd, 'pays', lambda x, kernel: False),
        mock.patch.object(pool, 'zero_pad_max_pool', pool._pool_by_slices),
        mock.patch.object(bit, 'standardize', standardize)):
    yield


def losses(data, steps, nudge=1):
  """Of the first so many steps: [steps]."""
  config = quickstart.get_config('epochs=80').to_dict()
  config |= {'evals': {}, 'student': dict(
      family='bit', depth=(1, 1, 1), width=1., size=48)}
  course = course_lib.make(config, data)
  state = parallel.replicate(course.state.replace(params=jax.tree.map(
      lambda x: x * nudge, course.state.params)))
  batches = parallel.prefetch(course.feed.batches(0))
  curve = []
  for i in range(steps):
    (state, scalars), = course.steps.take(
        {'': state}, next(batches), i, i + 1).values()
    curve.append(scalars['loss'])
  return np.asarray([parallel.first(loss) for loss in curve])


def measure(data, steps):
  """Rows: step, the three losses."""
  ours = losses(data, steps)
  with formulas():
    plain, nudged = losses(data, steps), losses(data, steps, NUDGE)
  return [{'step': i, 'ours': a, 'formulas': b, 'nudged': c}
          for i, (a, b, c) in enumerate(zip(ours, plain, nudged))]


def apart(rows, name):
  """How far losses are from those of the formulas: of five steps, on average."""
  off = np.abs([row[name] / row['formulas'] - 1 for row in rows])
  return off[:5].max(), off.mean()


def main(flag):
  logging.set_verbosity(logging.WARNING)
  pipeline = command.pipeline()
  rows = measure(pipeline, flag.steps)
  for name in ('ours', 'nudged'):
    first, mean = apart(rows, name)
    print(f'{name:8} {first:.1e} in the first five steps, {mean:.1%} on average '
          f'over {len(rows)}')
  if flag.csv:
    stopwatch.save(flag.csv, rows, stopwatch.machine())


def _define_flags():
  flags.DEFINE_integer('steps', 160, 'Steps.', 1)
  flags.DEFINE_string('csv', None, 'File to write the rows to.')


if __name__ == '__main__':
  command.program(main, _define_flags)
