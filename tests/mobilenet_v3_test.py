"""MobileNetV3 against an independent forward pass, in float64 numpy.

The reference reads the paper's tables, as they are printed, and says the
textbook formulas with loops over kernel positions. BatchNorm's reference sees
the whole batch, wherever the model's devices have its parts.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from big_distill import cards
from big_distill import costs
from big_distill import npz_files
from big_distill import parallel
from big_distill import params as params_lib
from big_distill import pretrained
from big_distill import students
from big_distill import teaching
from big_distill.models import mobilenet_v3
from big_distill.ops import bottlenecks
from big_distill.ops import layers
from big_distill.ops import norms
from big_distill.weights import mobilenet_v3 as weights

CLASSES = 5
WIDTH = .25
TABLES = {  # Howard et al. (2019): kernel, exp size, #out, SE, NL, s.
    'large': """3 16 16 - RE 1
                3 64 24 - RE 2
                3 72 24 - RE 1
                5 72 40 SE RE 2
                5 120 40 SE RE 1
                5 120 40 SE RE 1
                3 240 80 - HS 2
                3 200 80 - HS 1
                3 184 80 - HS 1
                3 184 80 - HS 1
                3 480 112 SE HS 1
                3 672 112 SE HS 1
                5 672 160 SE HS 2
                5 960 160 SE HS 1
                5 960 160 SE HS 1""",
    'small': """3 16 16 SE RE 2
                3 72 24 - RE 2
                3 88 24 - RE 1
                5 96 40 SE HS 2
                5 240 40 SE HS 1
                5 240 40 SE HS 1
                5 120 48 SE HS 1
                5 144 48 SE HS 1
                5 288 96 SE HS 2
                5 576 96 SE HS 1
                5 576 96 SE HS 1""",
}


def conv(x, kernel, stride=1):
  """Dense, or depthwise where the kernel has one input channel."""
  size = kernel.shape[0]
  n = size // 2
  x = np.pad(x, ((0, 0), (n, n), (n, n), (0, 0)))
  h, w = ((n - size) // stride + 1 for n in x.shape[1:3])
  out = np.zeros((len(x), h, w, kernel.shape[-1]))
  for i in range(size):
    for j in range(size):
      window = x[:, i:i + stride * h:stride, j:j + stride * w:stride]
      weight = np.float64(kernel[i, j])
      out += window * weight[0] if len(weight) == 1 else window @ weight
  return out


def relu(x):
  return np.maximum(x, 0)


def hard_sigmoid(x):
  return np.clip(x + 3, 0, 6) / 6


def hard_swish(x):
  return x * hard_sigmoid(x)


ACTS = {'RE': relu, 'HS': hard_swish, 'linear': lambda x: x}


def group_norm(x, leaf):
  b, h, w, c = x.shape
  x = x.reshape(b, h * w, 8, c // 8)
  x = x - x.mean((1, 3), keepdims=True)
  x = x / np.sqrt(np.square(x).mean((1, 3), keepdims=True) + 1e-5)
  return x.reshape(b, h, w, c) * leaf('scale') + leaf('bias')


def batch_norm(x, leaf):
  return ((x - leaf('mean')) / np.sqrt(leaf('var') + 1e-3) * leaf('scale')
          + leaf('bias'))


def forward(flat, images, variant, norm):
  """-> {intermediate: float64}, of '/'-joined names and norm(x, leaf)."""
  def convolve(name, x, act, stride=1):
    y = conv(x, flat[f'{name}/kernel'], stride)
    return ACTS[act](norm(y, lambda leaf: flat[f'{name}/norm/{leaf}']))

  def dense(name, x):
    return x @ np.float64(flat[f'{name}/kernel']) + flat[f'{name}/bias']

  out = {}
  x = out['stem'] = convolve('stem', np.float64(images), 'HS', 2)
  for i, row in enumerate(TABLES[variant].splitlines(), 1):
    size, _, _, squeezes, act, stride = row.split()
    block, y = f'block{i:02d}', x
    if f'{block}/expand/kernel' in flat:
      y = convolve(f'{block}/expand', y, act)
    assert flat[f'{block}/depthwise/kernel'].shape == (
        int(size), int(size), 1, y.shape[-1])
    y = convolve(f'{block}/depthwise', y, act, int(stride))
    if squeezes == 'SE':
      z = relu(dense(f'{block}/squeeze/reduce', y.mean((1, 2), keepdims=True)))
      y = y * hard_sigmoid(dense(f'{block}/squeeze/expand', z))
    y = convolve(f'{block}/project', y, 'linear')
    x = y + x if x.shape == y.shape else y
    out[block] = x
  x = out['top'] = convolve('top', x, 'HS')
  out['pre_logits'] = hard_swish(dense('pre_logits', x.mean((1, 2))))
  out['logits'] = dense('head', out['pre_logits'])
  return out


def shapes_of(**kwargs):
  model = pretrained.build('mobilenet_v3', **kwargs)
  image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
  return model, jax.eval_shape(model.init, jax.random.key(0), image)['params']


def cast(seed=0, **kwargs):
  """(model, flat random parameters)."""
  rng = np.random.default_rng(seed)
  model, shapes = shapes_of(num_classes=CLASSES, width=WIDTH, **kwargs)
  flat = {}
  for name, leaf in params_lib.flatten(shapes).items():
    fan_in = np.prod(leaf.shape[:-1]) if name.endswith('kernel') else 10
    value = rng.normal(size=leaf.shape) * fan_in**-.5
    value = abs(value) + .5 if name.endswith('var') else value
    flat[name] = np.float32(value + name.endswith('scale'))
  return model, flat


def images(b=2, h=33, w=50):
  x = np.random.default_rng(1).uniform(-1, 1, (b, h, w, 3))
  return x.astype(np.float32)


def assert_close(got, want, tolerance=2e-5):
  """Equal up to float32's rounding over the depth of the network."""
  assert got.keys() == want.keys()
  for name, value in want.items():
    assert got[name].shape == value.shape, name
    assert value.std() > 1e-3, name  # Nothing is compared with nothing.
    np.testing.assert_allclose(got[name], value, rtol=0, err_msg=name,
                               atol=tolerance * abs(value).max())


@pytest.fixture(scope='module')
def large():
  return cast(variant='large', norm='gn')


@pytest.fixture(scope='module')
def small():
  return cast(variant='small', norm='bn')


def test_large_with_group_norm_equals_the_float64_forward(large):
  model, flat = large
  logits, got = jax.jit(lambda params: model.apply(
      {'params': params}, images()))(params_lib.unflatten(flat))
  assert (logits == got['logits']).all() and logits.dtype == jnp.float32
  assert_close(got, forward(flat, images(), 'large', group_norm))


@pytest.fixture(scope='module')
def evaluated(small):
  """Small's intermediates, in evaluation."""
  run = jax.jit(lambda params: small[0].apply({'params': params}, images())[1])
  return run(params_lib.unflatten(small[1]))


def test_small_with_batch_norm_equals_the_float64_forward(small, evaluated):
  assert_close(evaluated, forward(small[1], images(), 'small', batch_norm))


def preset(images):
  """What torchvision's ImageClassification makes of images in [-1, 1]."""
  pixels = (np.float64(images) + 1) / 2
  return (pixels - [.485, .456, .406]) / [.229, .224, .225]


@pytest.fixture(scope='module')
def foreign(small, tmp_path_factory):
  """(a file of torchvision's arrays, the float64 forward of its function)."""
  path = tmp_path_factory.mktemp('foreign') / 'x.npz'
  npz_files.save(path, weights.LAYOUTS['torchvision'](small[1]))
  return path, forward(small[1], preset(images()), 'small', batch_norm)


def test_weights_of_torchvision_see_the_pixels_that_they_want(foreign):
  path, want = foreign
  model, params = pretrained.load(path)
  assert_close(jax.jit(lambda params: model.apply(
      {'params': params}, images())[1])(params), want)


@pytest.mark.parametrize('layout', weights.LAYOUTS)
def test_a_student_of_such_weights_keeps_seeing_them(foreign, layout, tmp_path):
  """Begun from them, by description and without, saved, loaded, folded."""
  path, want = foreign
  for section in ({}, dict(variant='small', norm='bn', width=WIDTH)):
    model, params = students.create(dict(init=str(path), **section), 32, 9)
    assert model.mean == (.485, .456, .406)
  with pytest.raises(ValueError, match='needs a card: without one'):
    pretrained.save(tmp_path / 's.npz', params, 'torchvision')
  pretrained.save(tmp_path / 's.npz', params, layout, cards.of(model))
  model, params = pretrained.freeze(*pretrained.load(tmp_path / 's.npz'))
  assert_close(jax.jit(lambda params: model.apply(
      {'params': params}, images())[1])(params), want)
  whole = teaching.load('int8', init=str(tmp_path / 's.npz'), size=32,
                        weights='int8')
  got = jax.jit(whole.answer)(whole.params, images())
  assert abs(got - want['logits']).max() < .05 * abs(want['logits']).max()


def test_a_half_as_mean_and_deviation_leaves_images_alone(small):
  x = jnp.ones((1, 2, 2, 3), jnp.bfloat16)
  assert layers.normalize(x) is x is layers.normalize(x, [.5] * 3, [.5] * 3)
  y = layers.normalize(x, (0, .5, 1), (1, 2, .25))
  assert y.dtype == jnp.float32 and (y[0, 0, 0] == jnp.asarray([1, .25, 0])).all()


@pytest.fixture(scope='module')
def short():
  """Small's first four blocks, whose gradients compile in a third of the time.

  They have all kinds of parts, and blocks with and without a residual.
  """
  with pytest.MonkeyPatch.context() as patch:
    rows, _ = mobilenet_v3.VARIANTS['small']
    patch.setitem(mobilenet_v3.VARIANTS, 'short', (rows[:4], 128))
    patch.setitem(TABLES, 'short', '\n'.join(
        TABLES['small'].splitlines()[:4]))
    yield cast(variant='short', norm='bn')


def learn(model, flat, x, cotangent, devices):
  """Logits, averages and mean gradient of a batch split over `devices`."""
  def step(params, x, cotangent):
    def loss(params):
      (logits, _), aside = model.apply({'params': params}, x, train=True,
                                       mutable=['averages'])
      return jnp.mean(jnp.sum(cotangent * logits, -1)), (logits, aside)

    (_, (logits, aside)), grads = jax.value_and_grad(loss, has_aux=True)(params)
    return logits, aside['averages'], parallel.mean(grads)

  split = [v.reshape(devices, -1, *v.shape[1:]) for v in (x, cotangent)]
  logits, averages, grads = jax.pmap(
      step, axis_name=parallel.AXIS, in_axes=(None, 0, 0),
      devices=jax.local_devices()[:devices])(params_lib.unflatten(flat), *split)
  for leaf in jax.tree.leaves((averages, grads)):
    leaf = np.asarray(leaf)
    assert (leaf == leaf[:1]).all()  # Replicas stay equal.
  return logits.reshape(-1, CLASSES), *(
      params_lib.flatten(jax.tree.map(lambda leaf: np.asarray(leaf[0]), tree))
      for tree in (averages, grads))


@pytest.fixture(scope='module')
def taught(short):
  """{devices: what `learn` returns}, of one batch."""
  x = images(8, 32, 32)
  cotangent = np.random.default_rng(2).normal(size=(8, CLASSES))
  return {d: learn(*short, x, np.float32(cotangent), d) for d in (1, 4)}


def test_four_devices_normalise_as_one_with_the_whole_batch(taught):
  (logits, averages, grads), (logits4, averages4, grads4) = taught.values()
  assert_close({'logits': logits4}, {'logits': logits})
  assert averages4.keys() == averages.keys()
  for name, value in averages.items():
    # Float32's 6e-8 through four blocks and their norms, forward and back.
    np.testing.assert_allclose(averages4[name], value, rtol=0, err_msg=name,
                               atol=1e-5 * max(1, abs(value).max()))
  norm = sum(np.sum(np.square(leaf)) for leaf in grads.values())**.5
  for name, value in grads.items():
    np.testing.assert_allclose(grads4[name], value, rtol=0, err_msg=name,
                               atol=1e-4 * norm)


def test_training_equals_float64_and_sows_the_next_averages(short, taught):
  flat, sown = short[1], []

  def norm(x, leaf):
    mean, var, n = x.mean((0, 1, 2)), x.var((0, 1, 2)), x[..., 0].size
    sown.append([.99 * leaf('mean') + .01 * mean,
                 .99 * leaf('var') + .01 * var * n / (n - 1)])
    return batch_norm(x, lambda name: {'mean': mean, 'var': var}[name]
                      if name in ('mean', 'var') else leaf(name))

  want = forward(flat, images(8, 32, 32), 'short', norm)
  logits, averages, _ = taught[4]
  assert_close({'logits': logits}, {'logits': want['logits']}, 1e-4)
  # In the order in which the network applies them, as `sown` is.
  order = ['stem', *(f'block{i:02d}/{part}' for i in range(1, 5)
                     for part in ('expand', 'depthwise', 'project')), 'top']
  order = [name for name in order if f'{name}/norm/mean' in flat]
  assert averages.keys() == {name for name in flat
                             if name.endswith(('/mean', '/var'))}
  assert len(order) == len(sown)
  for name, values in zip(order, sown):
    for leaf, value in zip(('mean', 'var'), values):
      got = averages[f'{name}/norm/{leaf}']
      assert got.shape == flat[f'{name}/norm/{leaf}'].shape
      assert (got != flat[f'{name}/norm/{leaf}']).any()
      np.testing.assert_allclose(got, value, atol=1e-5, err_msg=name)


def test_no_gradient_moves_an_average(short, taught):
  params = params_lib.unflatten(short[1])
  evaluated = jax.jit(jax.grad(lambda params: short[0].apply(
      {'params': params}, images(2, 32, 32))[0].sum()))(params)
  for grads in (params_lib.flatten(evaluated), taught[1][2]):
    for name, leaf in grads.items():
      assert (leaf == 0).all() == name.endswith(('/mean', '/var')), name


@pytest.mark.parametrize('devices', [0, 1, 4])
@pytest.mark.parametrize('far', [0., 1000.])
def test_batch_norm_and_its_gradient_equal_the_formula(devices, far):
  rng = np.random.default_rng(3)
  shape = (8, 3, 2, 6)
  x = (rng.normal(size=shape) + far + np.arange(6)).astype(np.float32)
  cotangent = rng.normal(size=shape).astype(np.float32)
  params = dict(zip(('scale', 'bias', 'mean'), np.float32(
      rng.normal(size=(3, 1, 1, 1, 6)))))
  params |= {'mean': params['mean'] + np.float32(far),
             'var': np.ones((1, 1, 1, 6), np.float32)}

  def flow(params, x, cotangent):
    def loss(params, x):
      y, aside = norms.BatchNorm().apply({'params': params}, x, train=True,
                                          mutable=['averages'])
      return jnp.sum(y * cotangent), (y, aside)
    (dp, dx), (y, aside) = jax.grad(loss, (0, 1), has_aux=True)(params, x)
    return y, aside['averages'], parallel.total(dp), dx

  if devices:
    y, averages, dp, dx = jax.pmap(
        flow, axis_name=parallel.AXIS, in_axes=(None, 0, 0),
        devices=jax.local_devices()[:devices])(
            params, *(v.reshape(devices, -1, *shape[1:])
                      for v in (x, cotangent)))
  else:  # As anyone may call it, outside pmap.
    y, averages, dp, dx = jax.jit(flow)(params, x, cotangent)

  axes = (0, 1, 2)
  z = np.float64(x) - np.float64(x).mean(axes)
  var = np.square(z).mean(axes)
  z = z / np.sqrt(var + 1e-3)
  out = cotangent * np.float64(params['scale'])
  want = (out - out.mean(axes) - z * (out * z).mean(axes)) / np.sqrt(var + 1e-3)
  wanted = [
      (y, z * params['scale'] + params['bias']), (dx, want),
      (dp['scale'], (cotangent * z).sum(axes)),
      (dp['bias'], np.float64(cotangent).sum(axes)),
      (averages['mean'], .99 * params['mean'] + .01 * np.float64(x).mean(axes)),
      (averages['var'], .99 + .01 * var * 48 / 47)]
  for got, value in wanted:
    got = np.asarray(got)
    got = got[:1] if got.size != x.size else got
    np.testing.assert_allclose(got.ravel(), value.ravel(), rtol=1e-6, atol=5e-5)


def test_batch_norm_of_what_does_not_vary_is_its_bias():
  x = np.random.default_rng(5).uniform(1e3, 1e4, 32).astype(np.float32)
  x = np.broadcast_to(x, (4, 1, 3, 5, 32))
  params = {name: np.full((1, 1, 1, 32), value, np.float32) for name, value
            in dict(scale=2., bias=3., mean=0., var=1.).items()}
  for devices in (1, 4):
    y, aside = jax.pmap(lambda x: norms.BatchNorm().apply(
        {'params': params}, x, train=True, mutable=['averages']),
                        axis_name=parallel.AXIS,
                        devices=jax.local_devices()[:devices])(x[:devices])
    # A sum of 60 numbers of 1e4 in a row is rounded by .02 each time, so that
    # the mean is off by .002, which is scaled by at most 2 / eps^.5 = 63; the
    # mean of squares is off by 20, of which a hundredth is moved. Luck may make
    # that five times as much.
    np.testing.assert_allclose(y, 3., atol=1.)
    np.testing.assert_allclose(aside['averages']['var'], .99, atol=1.)


def test_batch_norm_of_a_single_pixel_is_its_bias():
  params = {name: np.full((1, 1, 1, 2), value, np.float32) for name, value
            in dict(scale=2., bias=3., mean=0., var=1.).items()}
  y, aside = jax.pmap(lambda x: norms.BatchNorm().apply(
      {'params': params}, x, train=True, mutable=['averages']),
                      axis_name=parallel.AXIS,
                      devices=jax.local_devices()[:1])(np.ones((1, 1, 1, 1, 2)))
  assert (y == 3).all()
  np.testing.assert_allclose(aside['averages']['var'], .99)


def test_folded_batch_norms_are_multiply_adds_of_the_same_function(
    small, evaluated):
  model, params = pretrained.freeze(small[0], params_lib.unflatten(small[1]))
  run = jax.jit(lambda params: model.apply({'params': params}, images())[1])
  assert model.folded and not small[0].folded
  assert_close(run(params), evaluated)
  flat = params_lib.flatten(params)
  assert flat.keys() == {name for name in small[1]
                         if not params_lib.is_average(name)}
  for name, leaf in flat.items():  # Norms alone are changed.
    assert (leaf == small[1][name]).all() != ('/norm/' in name), name


def test_group_norm_has_nothing_to_fold(large):
  _, params = pretrained.freeze(large[0], params_lib.unflatten(large[1]))
  flat = params_lib.flatten(params)
  assert flat.keys() == large[1].keys()
  assert all((leaf == large[1][name]).all() for name, leaf in flat.items())


def test_bfloat16_model_is_close_and_answers_in_float32(small, evaluated):
  model, params = pretrained.freeze(
      small[0], params_lib.unflatten(small[1]), jnp.bfloat16)
  logits, got = jax.jit(lambda params: model.apply(
      {'params': params}, images()))(params)
  assert got['block01'].dtype == got['top'].dtype == jnp.bfloat16
  assert logits.dtype == got['pre_logits'].dtype == jnp.float32
  # 8 bits are .4 %; thirty convolutions add up.
  want = np.asarray(evaluated['logits'])
  error = np.linalg.norm(logits - want) / np.linalg.norm(want)
  assert 1e-5 < error < .05


@pytest.mark.parametrize('h, w', [(8, 8), (7, 10), (1, 2)])
@pytest.mark.parametrize('size, stride', [(3, 1), (3, 2), (5, 1), (5, 2)])
def test_depthwise_convolution_equals_the_formula(h, w, size, stride):
  rng = np.random.default_rng(4)
  x = rng.normal(size=(2, h, w, 3)).astype(np.float32)
  kernel = rng.normal(size=(size, size, 1, 3)).astype(np.float32)
  want = conv(np.float64(x), kernel, stride)
  for convolve in (layers.depthwise, layers.general_depthwise):
    got = convolve(x, kernel, stride)
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_only_cpu_takes_depthwise_convolutions_apart():
  x, kernel = np.zeros((1, 8, 8, 4)), np.zeros((3, 3, 1, 4))
  traced = jax.jit(layers.depthwise).trace(x, kernel)
  for platform, convolves in {'cpu': False, 'cuda': True, 'tpu': True}.items():
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert ('stablehlo.convolution' in text) == convolves, platform


@pytest.mark.parametrize('variant, features, parameters', [
    ('large', 1280, 5_483_032), ('small', 1024, 2_542_856)])
def test_parameters_are_as_many_as_torchvision_says(
    variant, features, parameters):
  for norm in ('gn', 'bn'):
    _, shapes = shapes_of(num_classes=1000, variant=variant, norm=norm)
    assert costs.parameters(shapes) == parameters
    assert shapes['head']['kernel'].shape == (features, 1000)


@pytest.mark.parametrize('variant', TABLES)
def test_channels_and_squeezes_are_those_of_the_table(variant):
  flat = params_lib.flatten(shapes_of(num_classes=2, variant=variant)[1])
  squeezed = {72: 24, 120: 32, 480: 120, 672: 168, 960: 240, 16: 8, 96: 24,
              240: 64, 144: 40, 288: 72, 576: 144}  # torchvision's sizes.
  for i, row in enumerate(TABLES[variant].splitlines(), 1):
    _, mid, out, squeezes, _, _ = row.split()
    c = 16 if i == 1 else c  # noqa: F821, the last row's out.
    block, mid, out = f'block{i:02d}', int(mid), int(out)
    assert flat[f'{block}/project/kernel'].shape == (1, 1, mid, out)
    assert (f'{block}/expand/kernel' in flat) == (mid != c)
    assert (f'{block}/squeeze/reduce/kernel' in flat) == (squeezes == 'SE')
    if squeezes == 'SE':
      shape = flat[f'{block}/squeeze/reduce/kernel'].shape
      assert shape == (mid, squeezed[mid])
    c = out


def test_channels_are_multiples_of_eight_and_lose_no_tenth():
  for channels, want in {1: 8, 8.8: 8, 9: 16, 12: 16, 18: 24, 20: 24,
                         59: 56, 60: 64, 100: 104, 1280: 1280}.items():
    assert bottlenecks.make_divisible(channels) == want


def test_a_new_model_has_no_opinion_and_normalises_nothing_yet():
  _, params = pretrained.create(size=8, family='mobilenet_v3', num_classes=3,
                                variant='small', norm='bn', width=.125)
  for name, leaf in params_lib.flatten(params).items():
    if name.startswith('head/') or name.endswith(('/bias', '/mean')):
      assert (leaf == 0).all(), name
    elif name.endswith(('/scale', '/var')):
      assert (leaf == 1).all(), name
    else:
      assert leaf.std() > 0, name


@pytest.mark.parametrize('kwargs, message', [
    (dict(variant='larg'), "no variant of MobileNetV3 'larg'; did you mean la"),
    (dict(norm='ln'), "no norm of MobileNetV3 'ln'; did you mean"),
    (dict(widht=1.), "'widht'; did you mean width")])
def test_a_bad_option_is_named_with_its_neighbour(kwargs, message):
  with pytest.raises(ValueError, match=message):
    shapes_of(num_classes=2, **kwargs)
