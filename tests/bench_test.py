"""The bench runs where TensorFlow is not, and measures the step of training."""

import csv
import functools
import os
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from big_distill import costs
from big_distill import optim
from big_distill import parallel
from big_distill import pretrained
from big_distill import steps
from big_distill import teaching
from big_distill import views
from big_distill.ops import layers
from big_distill.pupil import Pupil
from big_distill.state import State
from big_distill.tools import bench
from big_distill.tools import footprint
from big_distill.tools import noise

PARTS = ['teacher forward', 'student forward + backward', 'optimizer',
         'whole step', 'input']


def run(*flags):
  """Runs the command where TensorFlow cannot be imported."""
  code = ('import runpy, sys\n'
          "for name in ('tensorflow', 'tensorflow_datasets'):\n"
          '  sys.modules[name] = None\n'
          f"sys.argv = ['bench', *{flags}]\n"
          "runpy.run_module('big_distill.tools.bench', run_name='__main__')\n")
  # Speed is no matter here; compiling for it takes most of the time.
  fast = ' --xla_backend_optimization_level=0'
  env = {**os.environ, 'XLA_FLAGS': os.environ.get('XLA_FLAGS', '') + fast}
  return subprocess.run([sys.executable, '-c', code], check=False, text=True,
                        capture_output=True, env=env)


def test_bench_measures_every_part_without_tensorflow(tmp_path):
  path = tmp_path / 'rows.csv'
  ran = run('--config=configs/bench.py:depth=1+1,width=0.125,size=16,optim=sgd',
            '--config.optim.wd=0.001', '--classes=5', '--repeats=2',
            '--steps=2', f'--csv={path}')
  assert ran.returncode == 0, ran.stderr
  assert all(part in ran.stdout for part in PARTS)
  assert max(map(len, ran.stdout.splitlines())) <= 100
  with open(path) as file:
    rows = {row['part']: row for row in csv.DictReader(file)}
  assert list(rows) == PARTS
  for row in rows.values():
    assert row['jax'] == jax.__version__ and row['batch'] == '32'
    for column in ('date', 'device', 'devices', 'cpus', 'python', 'jaxlib',
                   'flax', 'student', 'teachers'):
      assert row[column]
    # Gradients of the student, which has a teacher as large, and scalars.
    parameters = round(float(row['student'].split()[1]) * 1e6)
    assert abs(int(row['exchanged_bytes']) - 4 * parameters) < 200
    assert int(row['memory_bytes']) > 4 * 4 * parameters
  for part in PARTS[:-1]:
    assert float(rows[part]['ms']) > 0 and float(rows[part]['first_s']) > 0
  assert float(rows['whole step']['share']) == 1.
  assert rows['input']['note'] == 'no TensorFlow here'
  assert not rows['input']['ms']


@pytest.mark.parametrize('flag, message', [
    ('--config=configs/bench.py:depth=deep', "'deep' is neither a number"),
    ('--config=configs/bench.py --repeats=0', 'repeats=0'),
    ('--config=configs/bench.py:widht=2', 'did you mean width'),
    ('--config=configs/bench.py:optim=adm', 'did you mean adam'),
    ('--config=configs/nowhere.py', 'configs/nowhere.py')])
def test_a_bad_flag_gets_one_line(flag, message):
  ran = run(*flag.split())
  assert ran.returncode and not ran.stdout
  line, = ran.stderr.strip().splitlines()
  assert line.startswith('Error: ') and message in line


def test_the_parts_in_sequence_are_the_whole_step():
  def answer(params, images):
    return images.reshape(len(images), -1) @ params['kernel']

  rng = np.random.default_rng(0)
  params, taught = ({'kernel': rng.normal(0, .1, (n, 5)).astype(np.float32)}
                    for n in (4 * 4 * 3, 6 * 6 * 3))
  sees, big = views.View.parse('squash@4'), views.View.parse('central@6')
  tx, lr = optim.make(10, name='adam', lr=0.01, wd=1e-3)
  lesson = steps.Lesson(
      (teaching.Teacher('big', answer, taught, 5, 6, sees=big),), 5,
      mix=steps.mixup)
  pupil = Pupil(lambda params, images: (answer(params, images), {}), sees,
                tx, lr)
  data = noise.Noise(5)
  batch = next(data.train_batches(data.load(), [sees, big], 32, 0, 0, 1))
  batch, teachers = parallel.split(batch), parallel.replicate([taught])

  step = parallel.pmap(functools.partial(lesson.step, pupil), donate=(0,))
  teach, learn, update = bench.parts(lesson, pupil)
  whole, state = (parallel.replicate(State.init(params, tx))
                  for _ in range(2))
  for _ in range(3):
    whole, _ = step(whole, teachers, batch)
    target = teach(state.step, teachers, batch)
    _, grads = learn(state.step, state.params, target, batch)
    state = update(state, grads)
  whole, state = parallel.first(whole), parallel.first(state)
  assert whole.step == state.step == 3
  assert np.abs(whole.params['kernel'] - params['kernel']).max() > 0.01
  # Compiled apart, sums are in another order: float32 noise, no more.
  np.testing.assert_allclose(state.params['kernel'], whole.params['kernel'],
                             rtol=1e-4, atol=1e-5)


def test_noise_is_what_the_pipeline_yields():
  shown = [views.View.parse(view) for view in
           ('central@8', 'inception#both@12')]
  data = noise.Noise(5)
  batch = next(data.train_batches(data.load(), shown, 6, 0, 0, 1,
                                  host=(1, 2)))
  assert batch['label'].shape == (3,) and batch['label'].dtype == np.int32
  assert {view: (x.shape, x.dtype.name) for view, x in batch['views'].items()
          } == {'central@8': ((3, 8, 8, 3), 'uint8'),
                'inception#both@12': ((3, 12, 12, 3), 'uint8')}


def test_random_boxes_lie_inside_the_images_that_devices_hold():
  shown = [views.View.parse(view) for view in
           ('inception#a@8', 'inception#a@12', 'random#b@8')]
  data = noise.Noise(5)
  source = data.load(resident=True)
  held = data.hold(source)
  batch = next(data.train_boxes(source, shown, 64, 0, 0, 1, held=held,
                                host=(0, 2)))
  assert {*batch['boxes']} == {'inception#a', 'random#b'}
  for boxes in batch['boxes'].values():
    assert boxes.shape == (32, 5) and boxes.dtype == np.int32
    corner, sides = boxes[:, :2], boxes[:, 2:4]
    assert (corner >= 0).all() and (sides > 0).all()
    assert (corner + sides <= held[0].sizes[batch['index']]).all()
  np.testing.assert_array_equal(batch['label'], held[1][batch['index']])


def test_devices_exchange_gradients_and_scalars():
  rng = np.random.default_rng(0)
  params = {'w': rng.normal(size=(3, 5)).astype(np.float32),
            'b': np.zeros(5, np.float32)}

  def step(params, i):
    def often(total, x):
      return total + parallel.total(x), None  # float32 [], seven times.

    grads = parallel.mean(params)
    total, _ = jax.lax.scan(often, 0., jnp.ones(7))
    large, small = lambda: parallel.gather(params['w']).sum(), lambda: total
    return grads, jax.lax.cond(i[0] > 2, large, small)

  jaxpr = jax.make_jaxpr(parallel.pmap(step))(
      parallel.replicate(params), parallel.split(np.arange(4)))
  got = costs.total(jaxpr.jaxpr, costs.exchange_of)
  assert got == (4 * 15 + 4 * 5) + 7 * 4 + 4 * 15


def test_memory_is_that_of_what_goes_in_and_comes_out_and_lies_between():
  x = jax.ShapeDtypeStruct((256, 256), np.float32)
  n = 4 * 256**2
  program = jax.jit(lambda x, y: (jnp.dot(x @ y, x), y.sum())).lower(
      x, x).compile()
  assert 3 * n < costs.memory(program) < 5 * n
  program = jax.jit(lambda x: x + 1, donate_argnums=0).lower(x).compile()
  assert n <= costs.memory(program) < 1.1 * n


@pytest.mark.parametrize('cost, want', [
    (lambda n: 10 + 7 * n, 1000), (lambda n: 10 + 7 * n + (n > 8) * 2000, 714),
    (lambda n: 7000 + n, 10), (lambda n: 5 * n + 60 * n**.5, 1018),
    (lambda n: 8000, 0), (lambda n: 6 * n + n**1.5 / 50, 1054),
    (lambda n: 5000 * n, 1)])
def test_the_largest_batch_fits_and_few_are_tried(cost, want):
  tried = []

  def counted(n):
    tried.append(n)
    return cost(n)

  n = costs.largest(counted, 7010)
  assert want * (1 - 1 / costs.CLOSE) - 1 <= n <= want
  assert not n or cost(n) <= 7010
  assert len(tried) <= 8


def test_the_largest_batch_is_of_whole_groups_and_a_step_of_it_runs():
  config = dict(
      data={}, mode='funmatch', mixup=dict(group=4),
      batch_size=32, total_steps=9, student=dict(family='bit', size=8, depth=(1,), width=.125),
      teachers=dict(labels=dict(labels=True)), loss=dict(name='xent'),
      optim=dict(name='sgd', lr=1e-3))
  limit = 500_000
  batch, memory = footprint.largest_batch(config, noise.Noise(5), limit)
  assert batch % (4 * 4) == 0 and batch > 32
  assert .8 * limit < memory <= limit
  with pytest.raises(ValueError, match='smallest batch, 16 images'):
    footprint.largest_batch(config, noise.Noise(5), 1000)


def test_flops_are_two_per_multiply_add():
  class Model(nn.Module):
    @nn.compact
    def __call__(self, x):
      x = nn.Conv(8, (3, 3), padding='VALID', use_bias=False)(x)
      x = layers.depthwise(x, self.param('k', nn.initializers.ones,
                                         (3, 3, 1, 8)))
      x = nn.Conv(12, (1, 1), 2, feature_group_count=4, use_bias=False)(x)
      w = self.param('w', nn.initializers.ones, (12, 12))
      x, _ = jax.lax.scan(lambda x, _: (x @ w, None), x, length=3)
      return nn.Dense(7, use_bias=False)(x.reshape(x.shape[0], -1)), {}

  model = Model()
  params = model.init(jax.random.key(0), jnp.zeros([1, 8, 8, 3]))['params']
  want = 2 * (6 * 6 * 8 * 27 + 6 * 6 * 8 * 9 + 3 * 3 * 12 * 2
              + 3 * 9 * 12 * 12 + 3 * 3 * 12 * 7)
  assert costs.flops(model, params, 8) == want


def test_flops_of_a_published_model():
  model = pretrained.build('bit', num_classes=1000, depth=50)
  image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
  params = jax.eval_shape(model.init, jax.random.key(0), image)['params']
  # He et al. count 3.8 G multiply-adds with strides in 1x1 convolutions; with
  # strides in 3x3 ones, as here, 4.1 (torchvision's count of its ResNet-50).
  np.testing.assert_allclose(costs.flops(model, params, 224), 2 * 4.09e9,
                             rtol=.01)
