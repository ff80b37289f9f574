"""Our BiT-ResNet beside the one that is written without care, in one run.

  python -m bench.compare --csv=bench/models.csv

The same network, forward and forward + backward, in float32: ours, one of
Flax's own layers (plain_flax.py) and, where PyTorch is installed, one of its
layers (plain_torch.py), eager, in both of its memory layouts.
"""

import functools

from absl import app
from absl import flags
import jax
import jax.numpy as jnp
import numpy as np

from bench import plain_flax
from big_distill import pretrained
from big_distill.models import bit
from big_distill.tools import bench

CLASSES = 1000
PASSES = ('forward', 'forward + backward')


def ours(depth, images):
  """{pass: function that computes it}."""
  model, params = pretrained.create(seed=0, num_classes=CLASSES, depth=depth,
                                    size=images.shape[1])
  return _jitted(lambda params, x: model.apply({'params': params}, x)[0],
                 params, images)


def plain(depth, images):
  """As `ours`, of Flax's layers."""
  model = plain_flax.Model(CLASSES, bit.units(depth))
  params = jax.jit(model.init)(jax.random.key(0), images)
  return _jitted(model.apply, params, images)


def _jitted(apply, params, images):
  params, images = jax.device_put((params, images))
  forward = jax.jit(apply)
  backward = jax.jit(jax.value_and_grad(lambda params, x: jnp.mean(
      jax.nn.logsumexp(apply(params, x), axis=-1))))
  return {name: functools.partial(run, params, images)
          for name, run in zip(PASSES, (forward, backward))}


def pytorch(depth, images, channels_last):
  """As `ours`, of PyTorch's layers."""
  import torch

  from bench import plain_torch
  layout = torch.channels_last if channels_last else torch.contiguous_format
  model = plain_torch.Model(CLASSES, bit.units(depth)).to(memory_format=layout)
  images = torch.from_numpy(images).permute(0, 3, 1, 2).to(memory_format=layout)

  def forward():
    with torch.no_grad():
      model(images)

  def backward():
    model.zero_grad()
    torch.logsumexp(model(images), -1).mean().backward()

  return dict(zip(PASSES, (forward, backward)))


def contenders(depth, images):
  """{name: {pass: function}}."""
  result = {'plain Flax': plain(depth, images), 'ours': ours(depth, images)}
  try:
    import torch
  except ImportError:
    print('PyTorch is not installed: left out.')
    return result
  version = torch.__version__.partition('+')[0]
  for layout in ('contiguous', 'channels last'):
    result[f'PyTorch {version}, {layout}'] = pytorch(
        depth, images, layout == 'channels last')
  return result


def measure(depth, size, batch, repeats):
  """Rows: what, pass, median ms, images per second, times plain Flax's rate."""
  images = np.random.default_rng(0).uniform(-1, 1, (batch, size, size, 3))
  runs = {(name, part): run
          for name, passes in contenders(depth, np.float32(images)).items()
          for part, run in passes.items()}
  median = {key: seconds for key, (_, seconds)
            in bench.in_turn(runs, repeats=repeats).items()}
  return [{'model': f'BiT-R{depth}x1', 'size': size, 'batch': batch,
           'code': name, 'pass': part, 'ms': round(1e3 * median[name, part], 1),
           'images_per_s': round(batch / median[name, part], 2),
           'times_plain': round(
               median['plain Flax', part] / median[name, part], 2)}
          for name, part in runs]


def main(_):
  flag = flags.FLAGS
  rows = measure(flag.depth, flag.size, flag.batch, flag.repeats)
  for row in rows:
    print(f'{row["code"]:32}{row["pass"]:20}{row["ms"]:9,.1f} ms'
          f'{row["images_per_s"]:9,.1f} images/s{row["times_plain"]:7.2f}')
  if flag.csv:
    bench.save(flag.csv, rows, bench.machine())


if __name__ == '__main__':
  flags.DEFINE_integer('depth', 50, 'Depth of the ResNet.')
  flags.DEFINE_integer('size', 128, 'Pixels of a side.')
  flags.DEFINE_integer('batch', 16, 'Images.')
  flags.DEFINE_integer('repeats', 10, 'Rounds.', 1)
  flags.DEFINE_string('csv', None, 'File to write the rows to.')
  app.run(main)
