"""MobileNetV3 against a forward pass in float64 numpy; BatchNorm's laws.

Logits were also compared with torchvision's own modules on the same random
weights: they differ by at most 3e-7 where they are up to 0.57, for Large and
Small at 65 x 96 px.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import big_distill
from big_distill import norms
from big_distill import optim
from big_distill import parallel
from big_distill import params as params_lib
from big_distill import pretrained
from big_distill import stage
from big_distill import steps
from big_distill.models import mobilenet_v3
from big_distill.weights import mobilenet_v3 as weights

CLASSES, SIZE = 5, 33  # Odd sizes tell where zeros are padded.


def made(norm, variant='small', seed=0):
  """(model, params with no zeros or ones in them)."""
  model, params = pretrained.create(
      family='mobilenet_v3', size=SIZE, variant=variant, norm=norm, width=0.25,
      num_classes=CLASSES)
  rng = np.random.default_rng(seed)
  flat = {name: np.float32(
      rng.uniform(.5, 1.5, leaf.shape) if name.endswith(('/scale', '/var'))
      else leaf + rng.normal(0, .2, leaf.shape))
          for name, leaf in params_lib.flatten(params).items()}
  return model, params_lib.unflatten(flat)


@pytest.fixture(scope='module', params=['gn', 'bn'])
def one(request):
  return made(request.param)


@pytest.fixture(scope='module')
def images():
  return np.random.default_rng(1).uniform(-1, 1, (2, SIZE, SIZE, 3)).astype(
      np.float32)


def reference(flat, images, variant='small'):
  """The published tables and formulas, a loop per pixel of each kernel."""
  flat = {name: np.float64(leaf) for name, leaf in flat.items()}

  def relu(x):
    return np.maximum(x, 0)

  def hard_sigmoid(x):
    return np.clip(x + 3, 0, 6) / 6

  act = {'relu': relu, 'hswish': lambda x: x * hard_sigmoid(x),
         'none': lambda x: x}

  def norm(x, name):
    scale, bias = flat[f'{name}/scale'].ravel(), flat[f'{name}/bias'].ravel()
    if f'{name}/mean' in flat:
      x = (x - flat[f'{name}/mean']) / np.sqrt(flat[f'{name}/var'] + 1e-3)
      return x * scale + bias
    b, h, w, c = x.shape
    groups = x.reshape(b, h, w, 8, c // 8)
    mean = groups.mean((1, 2, 4), keepdims=True)
    var = groups.var((1, 2, 4), keepdims=True)
    return ((groups - mean) / np.sqrt(var + 1e-5)).reshape(x.shape) * scale + bias

  def conv(x, name, kind, stride=1):
    kernel = flat[f'{name}/kernel']
    k, (h, w) = len(kernel), x.shape[1:3]
    x = np.pad(x, ((0, 0), (k // 2,) * 2, (k // 2,) * 2, (0, 0)))
    y = 0
    for i in range(k):
      for j in range(k):
        pixel = x[:, i:i + h:stride, j:j + w:stride]
        alone = kernel.shape[2] == 1 and pixel.shape[-1] > 1
        y = y + (pixel * kernel[i, j, 0] if alone else pixel @ kernel[i, j])
    return act[kind](norm(y, f'{name}/norm'))

  def dense(x, name):
    return x @ flat[f'{name}/kernel'] + flat[f'{name}/bias']

  x = conv(np.float64(images), 'stem', 'hswish', 2)
  rows, _ = mobilenet_v3.VARIANTS[variant]
  for i, row in enumerate(rows, 1):
    name, y = f'block{i:02d}', x
    if f'{name}/expand/kernel' in flat:
      y = conv(y, f'{name}/expand', row.act)
    y = conv(y, f'{name}/depthwise', row.act, row.stride)
    if row.squeeze:
      z = relu(dense(y.mean((1, 2)), f'{name}/squeeze/reduce'))
      z = hard_sigmoid(dense(z, f'{name}/squeeze/expand'))
      y = y * z[:, None, None]
    y = conv(y, f'{name}/project', 'none')
    x = x + y if x.shape == y.shape else y
  x = conv(x, 'conv', 'hswish').mean((1, 2))
  return dense(act['hswish'](dense(x, 'pre_logits')), 'head')


def test_the_function_is_the_published_one(one, images):
  model, params = one
  logits, out = jax.jit(model.apply)({'params': params}, images)
  want = reference(params_lib.flatten(params), images)
  np.testing.assert_allclose(logits, want, atol=1e-4 * np.abs(want).max())
  assert (out['logits'] == logits).all() and out['pre_logits'].ndim == 2


@pytest.mark.parametrize('norm', ['gn', 'bn'])
@pytest.mark.parametrize('variant, count', [('large', 5_483_032),
                                            ('small', 2_542_856)])
def test_parameters_are_as_many_as_published(variant, count, norm):
  model = pretrained.build('mobilenet_v3', variant=variant, norm=norm,
                           num_classes=1000)
  image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
  shapes = jax.eval_shape(model.init, jax.random.key(0), image)['params']
  assert params_lib.count(shapes) == count


@pytest.mark.parametrize('size, stride', [(3, 1), (5, 2)])
def test_depthwise_convolutions_are_the_same_on_every_platform(size, stride):
  rng = np.random.default_rng(0)
  x, kernel = rng.normal(size=(2, 9, 8, 6)), rng.normal(size=(size, size, 1, 6))
  a, b = (jax.value_and_grad(
      lambda x, kernel, way=way: jnp.sum(jnp.sin(way(x, kernel, stride))),
      (0, 1))(np.float32(x), np.float32(kernel))
          for way in (mobilenet_v3._by_shifts, mobilenet_v3._by_groups))
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4,
                                 atol=1e-4), a, b)


def train_bn(devices, x, params, monkeypatch):
  """(gradients of x and params, averages) of a batch over so many devices."""
  some = jax.local_devices()[:devices]
  model = norms.BatchNorm(train=True)

  def loss(x, params):
    y, aside = model.apply({'params': params}, x, mutable=['averages'])
    return jnp.mean(jnp.sin(y)), aside['averages']

  def step(x, params):
    # What each device's share adds to the mean over the whole batch.
    (_, averages), grads = jax.value_and_grad(loss, (0, 1), has_aux=True)(
        x, params)
    return grads[0], parallel.mean(grads[1]), averages

  step = jax.pmap(step, axis_name=parallel.AXIS, devices=some,
                  in_axes=(0, None))
  gx, gp, averages = step(x.reshape(devices, -1, *x.shape[1:]), params)
  assert all((np.asarray(leaf) == np.asarray(leaf)[:1]).all()
             for leaf in jax.tree.leaves((gp, averages)))
  return (gx.reshape(x.shape) / devices, jax.tree.map(lambda a: a[0], gp),
          jax.tree.map(lambda a: a[0], averages))


def test_batch_norm_is_synchronised_over_devices(monkeypatch):
  rng = np.random.default_rng(0)
  x = rng.normal(3, 2, (8, 3, 2, 4)).astype(np.float32)
  params = {'scale': rng.normal(size=4), 'bias': rng.normal(size=4),
            'mean': rng.normal(size=4), 'var': rng.uniform(1, 2, 4)}
  params = jax.tree.map(np.float32, params)
  alone, shared = (train_bn(d, x, params, monkeypatch) for d in (1, 4))
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-4,
                                 atol=2e-6), shared, alone)
  _, grads, averages = shared
  assert (grads['mean'] == 0).all() and (grads['var'] == 0).all()
  want = {name: .99 * params[name] + .01 * moment for name, moment in (
      ('mean', x.mean((0, 1, 2))), ('var', x.var((0, 1, 2))))}
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5),
               averages, want)


def test_a_step_moves_averages_by_the_batch_and_nothing_else_does():
  model, params = made('bn')
  cast = stage.Cast(model, params, SIZE, None, [])
  tx, lr = optim.make(10, lr=.01, wd=.1)
  lesson = steps.Lesson(cast.learn, 'x', (), tx, lr, CLASSES)
  x = np.random.default_rng(2).normal(size=(4, 2, SIZE, SIZE, 3))

  @parallel.pmap
  def step(state, x):
    (_, (_, averages)), grads = lesson.learn(
        state.params, jnp.zeros([2, CLASSES]), {'x': x})
    return lesson.update(state, parallel.mean(grads), averages)[0], averages

  state, averages = step(parallel.replicate(steps.init_state(params, tx)),
                         np.float32(x))
  after = params_lib.flatten(parallel.first(state.params))
  averages = params_lib.flatten(parallel.first(averages))
  moved = {name for name in after if name.split('/')[-1] in params_lib.AVERAGES}
  assert averages.keys() == moved and len(moved) == 2 * sum("norm/mean" in name for name in after)
  for name in moved:
    assert (after[name] == averages[name]).all()
    assert (after[name] != params_lib.flatten(params)[name]).any()


@pytest.mark.parametrize('layout', sorted(weights.LAYOUTS))
@pytest.mark.parametrize('variant', ['large', 'small'])
def test_checkpoints_are_recognised_and_come_back_in_both_layouts(
    variant, layout, tmp_path):
  model, params = made('bn', variant)
  big_distill.save(tmp_path / 'x.npz', params, layout)
  again, loaded = big_distill.load(tmp_path / 'x.npz')
  assert (again.variant, again.norm, again.num_classes) == (
      variant, 'bn', CLASSES)
  jax.tree.map(np.testing.assert_array_equal, loaded, params)
  flat = params_lib.load_npz(tmp_path / 'x.npz')
  assert ('features.0.0.weight' in flat) == (layout == 'torchvision')


def test_group_norm_is_recognised_too(tmp_path):
  _, params = made('gn')
  big_distill.save(tmp_path / 'x.npz', params)
  assert big_distill.load(tmp_path / 'x.npz')[0].norm == 'gn'


def test_features_are_multiples_of_eight_near_what_was_asked():
  """Squeeze sizes of the published networks, which this rule gives."""
  squeezes = {72: 24, 120: 32, 480: 120, 672: 168, 960: 240, 16: 8, 96: 24,
              240: 64, 144: 40, 288: 72, 576: 144}
  assert {c: mobilenet_v3.divisible(c / 4) for c in squeezes} == squeezes


@pytest.mark.parametrize('choice, message', [
    (dict(variant='larg'), 'did you mean large'),
    (dict(norm='ln'), 'did you mean'), (dict(widht=1.), 'did you mean width')])
def test_a_misspelling_is_named(choice, message):
  with pytest.raises(ValueError, match=message):
    pretrained.create(family='mobilenet_v3', size=32, num_classes=2, **choice)
