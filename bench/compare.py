"""Our BiT-ResNet beside the one that is written without care, in one run.

  python -m bench.compare --csv=bench/models.csv

The same network, forward and forward + backward: ours, one of Flax's own layers
(plain_flax.py) and, where PyTorch is installed, one of its layers
(plain_torch.py): eager, in both of its memory layouts, and on a GPU compiled.
Parameters are float32; activations, and kernels that meet them, --dtype.

Each rate is also given as a share of the peak: that of a product of two large
matrices of that precision, measured in the same run.
"""

import functools

from absl import flags
import jax
import jax.numpy as jnp
import numpy as np

from bench import plain_flax
from big_distill import command
from big_distill import costs
from big_distill import pretrained
from big_distill.models import bit
from big_distill.tools import stopwatch

CLASSES = 1000
PASSES = ('forward', 'forward + backward')
PEAK = 'peak'


def ours(depth, dtype, images):
  """{pass: function that computes it}."""
  model, params = pretrained.create(
      family='bit', num_classes=CLASSES, depth=depth, size=images.shape[1],
      dtype=dtype)
  return _jitted(lambda params, x: model.apply({'params': params}, x)[0],
                 params, images)


def plain(depth, dtype, images):
  """As `ours`, of Flax's layers."""
  model = plain_flax.Model(CLASSES, bit.units(depth), dtype=dtype)
  params = jax.jit(model.init)(jax.random.key(0), images)
  return _jitted(model.apply, params, images)


def _jitted(apply, params, images):
  params, images = jax.device_put((params, images))
  forward = jax.jit(apply)
  backward = jax.jit(jax.value_and_grad(lambda params, x: jnp.mean(
      jax.nn.logsumexp(apply(params, x), axis=-1))))
  return {name: functools.partial(run, params, images)
          for name, run in zip(PASSES, (forward, backward))}


def pytorch(depth, dtype, images, channels_last, compiled=False):
  """As `ours`, of PyTorch's layers."""
  import torch

  from bench import plain_torch
  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  layout = torch.channels_last if channels_last else torch.contiguous_format
  model = plain_torch.Model(CLASSES, bit.units(depth)).to(
      device, memory_format=layout)
  images = torch.from_numpy(images).permute(0, 3, 1, 2).to(
      device, getattr(torch, dtype.name), memory_format=layout)
  apply = torch.compile(model) if compiled else model

  def forward():
    with torch.no_grad():
      apply(images)

  def backward():
    model.zero_grad()
    torch.logsumexp(apply(images).float(), -1).mean().backward()

  def finished(run):
    run()
    if device == 'cuda':
      torch.cuda.synchronize()

  return {name: functools.partial(finished, run)
          for name, run in zip(PASSES, (forward, backward))}


def contenders(depth, dtype, images):
  """{name: {pass: function}}."""
  result = {'plain Flax': plain(depth, dtype, images),
            'ours': ours(depth, dtype, images)}
  try:
    import torch
  except ImportError:
    print('PyTorch is not installed: left out.')
    return result
  version = torch.__version__.partition('+')[0]
  ways = {'contiguous': (False,), 'channels last': (True,)}
  if torch.cuda.is_available():
    ways['channels last, compiled'] = (True, True)
  for name, way in ways.items():
    result[f'PyTorch {version}, {name}'] = pytorch(depth, dtype, images, *way)
  return result


def product(dtype):
  """(a product of two random matrices, its floating-point operations)."""
  n = 2048 if jax.default_backend() == 'cpu' else 8192
  x = jax.random.normal(jax.random.key(0), (n, n), dtype)
  return functools.partial(jax.jit(jnp.matmul), x, x), 2 * n**3


def measure(depth, dtype, size, batch, repeats, calls=1):
  """Rows: what, pass, median ms, images/s, times plain Flax's, share of peak."""
  images = np.random.default_rng(0).uniform(-1, 1, (batch, size, size, 3))
  runs = {(name, part): run for name, passes
          in contenders(depth, dtype, np.float32(images)).items()
          for part, run in passes.items()}
  multiply, operations = product(dtype)
  median = {key: seconds for key, (_, seconds) in stopwatch.in_turn(
      {**runs, PEAK: multiply}, calls, repeats).items()}
  peak = operations / median[PEAK]
  model = pretrained.build('bit', num_classes=CLASSES, depth=depth)
  params = jax.eval_shape(model.init, jax.random.key(0), images)['params']
  one = costs.flops(model, params, size)
  work = dict(zip(PASSES, (one, 3 * one)))
  return [{'model': f'BiT-R{depth}x1', 'size': size, 'batch': batch,
           'dtype': dtype.name, 'code': name, 'pass': part,
           'ms': round(1e3 * median[name, part], 1),
           'images_per_s': round(batch / median[name, part], 2),
           'times_plain': round(
               median['plain Flax', part] / median[name, part], 2),
           'peak_tflop_per_s': round(peak / 1e12, 3),
           'share_of_peak': round(
               batch * work[part] / median[name, part] / peak, 3)}
          for name, part in runs]


def main(flag):
  rows = measure(flag.depth, jnp.dtype(flag.dtype), flag.size, flag.batch,
                 flag.repeats, flag.steps)
  for row in rows:
    print(f'{row["code"]:32}{row["pass"]:20}{row["ms"]:9,.1f} ms'
          f'{row["images_per_s"]:9,.1f} images/s{row["times_plain"]:7.2f}'
          f'{row["share_of_peak"]:7.0%}')
  if flag.csv:
    stopwatch.save(flag.csv, rows, stopwatch.machine())


def _define_flags():
  flags.DEFINE_integer('depth', 50, 'Depth of the ResNet.')
  flags.DEFINE_enum('dtype', 'float32', ['float32', 'bfloat16'], 'Precision.')
  flags.DEFINE_integer('size', 128, 'Pixels of a side.')
  flags.DEFINE_integer('batch', 16, 'Images.')
  flags.DEFINE_integer('repeats', 10, 'Rounds.', 1)
  flags.DEFINE_integer('steps', 1, 'Calls in a row that are timed as one.', 1)
  flags.DEFINE_string('csv', None, 'File to write the rows to.')


if __name__ == '__main__':
  command.program(main, _define_flags)
