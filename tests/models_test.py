"""BiT against an independent forward pass, written in float64 numpy.

The reference says the textbook formula with loops over kernel positions, and
shares no line with the model. Float32 keeps 7 digits; the tolerances leave two
of them to rounding over the depth of a tiny model.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from big_distill import costs
from big_distill import params as params_lib
from big_distill import pretrained
from big_distill.models import bit
from big_distill.ops import layers
from big_distill.ops import norms
from big_distill.ops import pool as pools

DEPTH = (2, 1)  # With and without projection, with and without stride.
CLASSES = 7


def pad(x, n):
  return np.pad(x, ((0, 0), (n, n), (n, n), (0, 0)))


def standardized(kernel):
  """HWIO, each output channel on its own."""
  kernel = np.float64(kernel)
  out = np.empty_like(kernel)
  for o in range(kernel.shape[-1]):
    k = kernel[..., o]
    out[..., o] = (k - k.mean()) / np.sqrt(k.var() + 1e-10)
  return out


def conv(x, kernel, stride=1):
  size = kernel.shape[0]
  x, kernel = pad(x, size // 2), standardized(kernel)
  h, w = ((n - size) // stride + 1 for n in x.shape[1:3])
  out = np.zeros((len(x), h, w, kernel.shape[-1]))
  for i in range(size):
    for j in range(size):
      out += x[:, i:i + stride * h:stride, j:j + stride * w:stride][
          :, :h, :w] @ kernel[i, j]
  return out


def windows(x):
  """Zero-padded x -> (i, j, its 3x3 window) at stride 2."""
  x = pad(x, 1)
  for i in range((x.shape[1] - 1) // 2):
    for j in range((x.shape[2] - 1) // 2):
      yield i, j, x[:, 2 * i:2 * i + 3, 2 * j:2 * j + 3]


def pool(x):
  b, h, w, c = x.shape
  out = np.zeros((b, (h + 1) // 2, (w + 1) // 2, c))
  for i, j, window in windows(x):
    out[:, i, j] = window.max((1, 2))
  return out


def group_norm(x, scale, bias, groups=32):
  b, h, w, c = x.shape
  x = np.float64(x).reshape(b, h * w, groups, c // groups)
  x = x - x.mean((1, 3), keepdims=True)
  x = x / np.sqrt(np.square(x).mean((1, 3), keepdims=True) + 1e-5)
  return x.reshape(b, h, w, c) * scale.reshape(-1) + bias.reshape(-1)


def relu(x):
  return np.where(x > 0, x, 0)


def forward(flat, images, depth=DEPTH):
  """-> {intermediate: float64}, of '/'-joined names."""
  def norm(name, x):
    return relu(group_norm(x, flat[f'{name}/scale'], flat[f'{name}/bias']))

  out = {}
  x = conv(np.float64(images), flat['root_block/conv_root/kernel'], 2)
  x = out['stem'] = pool(x)
  for i, count in enumerate(depth, 1):
    for j in range(1, count + 1):
      unit = f'block{i}/unit{j:02d}'
      stride = 2 if i > 1 and j == 1 else 1
      y = norm(f'{unit}/gn1', x)
      if j == 1:  # In BiT each block's first unit changes the channels.
        x = conv(y, flat[f'{unit}/conv_proj/kernel'], stride)
      y = conv(y, flat[f'{unit}/conv1/kernel'])
      y = conv(norm(f'{unit}/gn2', y), flat[f'{unit}/conv2/kernel'], stride)
      y = conv(norm(f'{unit}/gn3', y), flat[f'{unit}/conv3/kernel'])
      x = x + y
    out[f'block{i}'] = x
  out['pre_logits'] = norm('norm-pre-head', x).mean((1, 2))
  out['logits'] = out['pre_logits'] @ flat['head/kernel'] + flat['head/bias']
  return out


@jax.jit
def our_group_norm(x, scale, bias):
  return norms.GroupNorm(32).apply({'params': dict(scale=scale, bias=bias)}, x)


@pytest.fixture(scope='module')
def tiny():
  """(model, flat random parameters, images, cotangent of the logits)."""
  rng = np.random.default_rng(0)
  model = pretrained.build('bit', num_classes=CLASSES, depth=DEPTH, width=.5)
  images = rng.uniform(-1, 1, (2, 37, 50, 3)).astype(np.float32)
  shapes = jax.eval_shape(model.init, jax.random.key(0), images)['params']
  flat = {}
  for name, leaf in params_lib.flatten(shapes).items():
    value = .3 * rng.normal(size=leaf.shape)
    flat[name] = np.float32(value + (1. if name.endswith('scale') else .1))
  return model, flat, images, rng.normal(size=(2, CLASSES)).astype(np.float32)


@pytest.fixture(scope='module')
def apply(tiny):
  """flat -> (intermediates, their flat gradient of (logits * cotangent))."""
  model, _, images, cotangent = tiny

  def loss(params):
    logits, out = model.apply({'params': params}, images)
    return jnp.sum(logits * cotangent), out

  grad = jax.jit(jax.grad(loss, has_aux=True))

  def run(flat):
    grads, out = grad(params_lib.unflatten(flat))
    return out, params_lib.flatten(grads)

  return run


@pytest.fixture(scope='module')
def answer(tiny, apply):
  return apply(tiny[1])


# Float32 inputs on which the two moments cancel, or nearly, or overflow half.
SCALES = {
    'unit': lambda x: x,
    'far': lambda x: x + 1000,
    'farther': lambda x: x - 1e5,
    'tiny': lambda x: 1e-3 * x + 1,
    'huge': lambda x: 1e6 * x,
    'channels apart': lambda x: x + 100 * np.arange(x.shape[-1]),
    'images apart': lambda x: x + 1000 * np.arange(len(x))[:, None, None, None],
    'outlier first': lambda x: np.where(np.arange(x[0].size).reshape(
        x[0].shape) < x.shape[-1], 1e4, x),
    'outlier last': lambda x: np.where(np.arange(x[0].size).reshape(
        x[0].shape) < x[0].size - x.shape[-1], x, 1e4),
    'constant': lambda x: np.full_like(x, 777.7),
}


@pytest.mark.parametrize('scales', SCALES)
@pytest.mark.parametrize('c, groups', [(64, 32), (48, 16), (7, 1)])
def test_group_norm_equals_float64_formula(scales, c, groups):
  rng = np.random.default_rng(c)
  x = SCALES[scales](rng.normal(size=(3, 6, 9, c))).astype(np.float32)
  scale, bias = rng.normal(size=(2, 1, 1, 1, c)).astype(np.float32)
  got = our_group_norm(x, scale, bias)
  want = group_norm(x, scale, bias, groups)
  assert got.dtype == jnp.float32
  # E[x^2] - E[x]^2 in float32 would be wrong in the first digit.
  # A sum of at most 378 squares is rounded by 378 * 6e-8, its root by half.
  np.testing.assert_allclose(got, want, rtol=0, atol=2e-5 * abs(want).max())


@pytest.mark.parametrize('scales', ['unit', 'far', 'channels apart'])
def test_gradient_of_group_norm_equals_the_formula(scales):
  rng = np.random.default_rng(1)
  c, groups = 64, 32
  x = SCALES[scales](rng.normal(size=(2, 6, 5, c))).astype(np.float32)
  scale, bias = rng.normal(size=(2, 1, 1, 1, c)).astype(np.float32)
  cotangent = rng.normal(size=x.shape).astype(np.float32)
  got = jax.jit(jax.grad(
      lambda *args: jnp.sum(cotangent * our_group_norm(*args)),
      argnums=(0, 1, 2)))(x, scale, bias)

  y = np.float64(x).reshape(2, 30, groups, c // groups)
  y = y - y.mean((1, 3), keepdims=True)
  std = np.sqrt(np.square(y).mean((1, 3), keepdims=True) + 1e-5)
  y, flow = y / std, (cotangent * np.float64(scale)).reshape(y.shape)
  want = (flow - flow.mean((1, 3), keepdims=True)
          - y * (flow * y).mean((1, 3), keepdims=True)) / std
  wanted = (want.reshape(x.shape),
            (cotangent * y.reshape(x.shape)).sum((0, 1, 2), keepdims=True),
            np.float64(cotangent).sum((0, 1, 2), keepdims=True))
  for a, b in zip(got, wanted):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-4 * abs(b).max())


def test_relu_of_a_group_norm_is_the_relu_after_it():
  rng = np.random.default_rng(1)
  x, cotangent = rng.normal(size=(2, 3, 4, 5, 64)).astype(np.float32)
  scale, bias = rng.normal(size=(2, 64)).astype(np.float32)

  def run(norm):
    y, pull = jax.vjp(norm, x, scale, bias)
    return y, *pull(cotangent)

  fused = run(lambda *args: norms.group_norm(*args, 32, 1e-5, True))
  apart = run(lambda *args: jax.nn.relu(
      norms.group_norm(*args, 32, 1e-5, False)))
  # Sums of at most 60 numbers near 1, in float32.
  for a, b in zip(fused, apart):
    assert float(jnp.abs(b).max()) > 1
    np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize('stride', [1, 2])
def test_a_1x1_convolution_is_one_function_on_every_platform(stride):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, 7, 10, 3)).astype(np.float32)
  kernel = rng.normal(size=(1, 1, 3, 5)).astype(np.float32)
  got, pull = jax.vjp(lambda *args: layers.conv(*args, stride), x, kernel)
  want, other = jax.vjp(lambda *args: layers.general_conv(*args, stride, 1), x,
                        kernel)
  # Sums of 3 products; those of a gradient, of 140, come to some hundreds,
  # which float32 rounds by 2e-5 each time.
  np.testing.assert_allclose(got, want, atol=1e-5)
  for a, b in zip(pull(got), other(got)):
    np.testing.assert_allclose(a, b, atol=1e-3)


@pytest.mark.parametrize('c, d', [(3, 8), (8, 3), (4, 4)])
def test_gradient_of_a_product_is_the_textbooks(c, d):
  rng = np.random.default_rng(c)
  x, kernel, g = (rng.normal(size=shape).astype(np.float32)
                  for shape in [(20, c), (c, d), (20, d)])
  y, pull = jax.vjp(jax.jit(layers.product), x, kernel)
  x, kernel, g64 = map(np.float64, (x, kernel, g))
  for a, b in zip((y, *pull(g)), (x @ kernel, g64 @ kernel.T, x.T @ g64)):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)


def test_gradient_of_standardize_equals_float64_differences():
  rng = np.random.default_rng(7)
  kernel = rng.normal(.3, .1, (3, 3, 4, 5))
  along, cotangent = rng.normal(size=(2, *kernel.shape))
  ahead, behind = (np.sum(cotangent * standardized(kernel + step * along))
                   for step in (1e-6, -1e-6))
  got = jax.vjp(bit.standardize, jnp.float32(kernel))[1](
      jnp.float32(cotangent))[0]
  assert np.sum(got * along) == pytest.approx((ahead - behind) / 2e-6, rel=1e-4)


def test_group_norm_of_bfloat16_takes_its_moments_in_float32():
  x = np.random.default_rng(2).normal(10, 1, (2, 8, 8, 64))
  x = jnp.asarray(x, jnp.bfloat16)
  one, zero = jnp.ones((1, 1, 1, 64)), jnp.zeros((1, 1, 1, 64))
  got = our_group_norm(x, one, zero)
  want = group_norm(np.asarray(x, np.float64), np.ones(64), np.zeros(64))
  assert got.dtype == jnp.bfloat16
  # Only the result is rounded, to 8 bits.
  np.testing.assert_allclose(np.float64(got), want, rtol=2**-8, atol=1e-5)


@pytest.mark.parametrize('shape', [(7, 7, 3, 5), (1, 1, 64, 8), (3, 3, 4, 4)])
def test_standardize_equals_the_formula_for_each_output_channel(shape):
  kernel = np.random.default_rng(3).normal(5, .1, shape).astype(np.float32)
  np.testing.assert_allclose(bit.standardize(kernel), standardized(kernel),
                             rtol=0, atol=1e-4)


def test_standardize_of_a_constant_kernel_is_zero():
  got = bit.standardize(jnp.full((3, 3, 4, 2), .25))
  assert (np.asarray(got) == 0).all()


@pytest.mark.parametrize('h, w', [(8, 8), (7, 10), (1, 5)])
@pytest.mark.parametrize('shift', [0., -3.])
def test_pool_is_the_maximum_over_zero_padding(h, w, shift):
  x = np.random.default_rng(4).normal(shift, 1, (2, h, w, 3))
  x = x.astype(np.float32)
  got = np.asarray(jax.jit(pools.zero_pad_max_pool)(x))
  assert (got == pool(x)).all()
  if shift < 0:
    assert (got[:, 0] >= 0).all()  # Zeros beat what is negative at the edge.


def test_gradient_of_pool_goes_to_each_windows_maximum():
  rng = np.random.default_rng(5)
  x = rng.normal(-.5, 1, (2, 7, 10, 3)).astype(np.float32)
  cotangent = rng.normal(size=(2, 4, 5, 3)).astype(np.float32)
  got = jax.jit(jax.grad(
      lambda x: jnp.sum(cotangent * pools.zero_pad_max_pool(x))))(x)
  want = pad(np.zeros(x.shape), 1)
  for i, j, window in windows(x):
    for b in range(2):
      for c in range(3):
        di, dj = np.unravel_index(window[b, ..., c].argmax(), (3, 3))
        if window[b, di, dj, c] != 0:  # Padding learns nothing.
          want[b, 2 * i + di, 2 * j + dj, c] += cotangent[b, i, j, c]
  np.testing.assert_allclose(got, want[:, 1:-1, 1:-1], atol=1e-6)


def test_every_intermediate_equals_the_float64_forward(tiny, answer):
  want = forward(tiny[1], tiny[2])
  got, _ = answer
  assert got.keys() == want.keys()
  for name, value in want.items():
    assert got[name].dtype == jnp.float32
    assert got[name].shape == value.shape, name
    assert value.std() > .1, name  # Nothing is compared with nothing.
    np.testing.assert_allclose(got[name], value, rtol=0, err_msg=name,
                               atol=1e-5 * abs(value).max())


def test_gradient_equals_float64_finite_differences(tiny, answer):
  _, flat, images, cotangent = tiny
  rng = np.random.default_rng(6)
  for only in ('kernel', 'scale', 'bias', 'conv_root/kernel', 'head/kernel'):
    along = {name: rng.normal(size=leaf.shape) * name.endswith(only)
             for name, leaf in flat.items()}
    ahead, behind = (np.sum(cotangent * forward(
        {name: np.float64(leaf) + step * along[name]
         for name, leaf in flat.items()}, images)['logits'])
                     for step in (1e-8, -1e-8))  # Crosses no ReLU's kink.
    got = sum(np.sum(np.float64(answer[1][name]) * along[name])
              for name in flat)
    assert got == pytest.approx((ahead - behind) / 2e-8, rel=1e-5), only


def test_neither_scale_nor_shift_of_a_kernel_changes_the_answer(
    tiny, apply, answer):
  changed = {name: 3 * leaf + .5 if '/conv' in name else leaf
             for name, leaf in tiny[1].items()}
  np.testing.assert_allclose(apply(changed)[0]['logits'],
                             answer[0]['logits'], atol=1e-4)


@pytest.fixture(scope='module')
def frozen(tiny):
  """(the folded model, its parameters, parameters -> intermediates)."""
  model, params = pretrained.freeze(tiny[0], params_lib.unflatten(tiny[1]))
  run = jax.jit(lambda params: model.apply({'params': params}, tiny[2])[1])
  return model, params, run


def test_folded_model_equals_the_model(tiny, answer, frozen):
  model, params, run = frozen
  assert model.folded and not tiny[0].folded
  got = run(params)
  for name, value in answer[0].items():
    np.testing.assert_allclose(got[name], value, rtol=0, err_msg=name,
                               atol=1e-5 * abs(value).max())
  # Every convolution is standardised, everything else is as it was.
  for name, leaf in params_lib.flatten(params).items():
    want = tiny[1][name]
    want = standardized(want) if '/conv' in name else want
    np.testing.assert_allclose(leaf, want, atol=1e-5, err_msg=name)


def test_folded_model_takes_its_kernels_as_they_are(frozen):
  _, params, run = frozen
  flat = params_lib.flatten(params)
  root = 'root_block/conv_root/kernel'
  twice = params_lib.unflatten(flat | {root: 2 * flat[root]})
  assert (run(twice)['stem'] == 2 * run(params)['stem']).all()


def test_bfloat16_model_is_close_and_answers_in_float32(
    tiny, answer, frozen):
  model = frozen[0].clone(dtype=jnp.bfloat16)
  logits, got = jax.jit(lambda params: model.apply(
      {'params': params}, tiny[2]))(frozen[1])
  assert got['block1'].dtype == got['block2'].dtype == jnp.bfloat16
  assert logits.dtype == got['pre_logits'].dtype == jnp.float32
  # 8 bits are .4 %; a dozen convolutions add up.
  want = np.asarray(answer[0]['logits'])
  error = np.linalg.norm(logits - want) / np.linalg.norm(want)
  assert 1e-5 < error < .02


# From He et al.'s units and BiT's widths; timm prints 25.55 M and 236.34 M.
@pytest.mark.parametrize('depth, width, counts', [
    (50, 1, {1000: 25_549_352, 37: 23_576_165, 101: 23_707_301,
             102: 23_709_350, 397: 24_313_805, 21_843: 68_256_659}),
    (101, 1, {1000: 44_541_480}),
    (152, 2, {1000: 236_335_208, 37: 232_389_797, 101: 232_652_005,
              102: 232_656_102, 397: 233_864_717, 21_843: 321_728_979})])
def test_parameters_are_as_many_as_published(depth, width, counts):
  model = pretrained.build('bit', num_classes=1000, depth=depth, width=width)
  image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
  shapes = jax.eval_shape(model.init, jax.random.key(0), image)['params']
  assert shapes['head']['kernel'].shape == (2048 * width, 1000)
  assert shapes['head']['bias'].shape == (1000,)
  for classes, want in counts.items():
    more = (classes - 1000) * (2048 * width + 1)  # Only the head differs.
    assert costs.parameters(shapes) + more == want


def test_a_new_model_has_no_opinion_and_is_a_function_of_its_seed():
  new, same, other = (params_lib.flatten(pretrained.create(
      family='bit', seed=seed, num_classes=3, depth=[1], width=.125,
      size=16)[1]) for seed in (1, 1, 0))
  assert new['head/kernel'].shape == (32, 3)
  for name, leaf in new.items():
    assert isinstance(leaf, np.ndarray) and leaf.dtype == np.float32
    np.testing.assert_array_equal(leaf, same[name])
    if '/conv' in name:
      assert (leaf != other[name]).all(), name
    else:  # Norms start as the identity, the head at zero.
      assert (leaf == name.endswith('scale')).all(), name


def test_depths_are_those_of_the_papers():
  for depth in bit.UNITS:
    # Three convolutions per unit, the root and the head.
    assert 3 * sum(bit.units(depth)) + 2 == depth
  assert bit.units([3, 1]) == (3, 1)


@pytest.mark.parametrize('depth, message', [
    (34, r'no depth 34: give one of \[26, 50, 101, 152, 200\]'),
    ('50', "no depth '50'"),
    ((), 'at least one unit'),
    ((1, 0, 1), r'\(1, 0, 1\): every block needs at least one unit'),
    ((1, 2.5), 'at least one unit')])
def test_an_impossible_depth_is_named(depth, message):
  with pytest.raises(ValueError, match=message):
    bit.units(depth)


def test_a_misspelt_option_of_a_model_is_named_with_its_neighbour():
  with pytest.raises(ValueError, match="'depht'; did you mean depth"):
    pretrained.build('bit', num_classes=3, depht=50)
  with pytest.raises(ValueError, match="no model 'bitt'; did you mean bit"):
    pretrained.build('bitt', num_classes=3)
