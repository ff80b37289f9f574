"""Exported files give the model's answers, at any batch, in few bits."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest

from big_distill import cards
from big_distill import exported
from big_distill import params as params_lib
from big_distill import pretrained
from big_distill import served as served_lib
from big_distill import tf_graph
from big_distill import translate
from big_distill.formats import onnx
from big_distill.formats import stablehlo
from big_distill.input import crops
from big_distill.targets import ELEMENTWISE

CLASSES = ('a', 'b', 'c')
# timm_test.py tests formats for PyTorch.
OURS = sorted({*exported.names()} - {'timm', 'torchvision'})
MODELS = {
    'BiT': dict(family='bit', depth=(1, 1), width=.125, size=32),
    # 48 channels, which 32 groups do not divide.
    'BiT-R26x0.75': dict(family='bit', depth=26, width=.75, size=32),
    'MobileNetV3 GN': dict(family='mobilenet_v3', variant='small', width=.25,
                           size=32),
    'MobileNetV3 BN': dict(family='mobilenet_v3', variant='small', width=.25,
                           norm='bn', size=32),
    'EfficientNet-Lite': dict(family='efficientnet_lite', size=32),
    'ViT': dict(family='vit', variant='mu/16', size=32),
    'ViT tok': dict(family='vit', variant='mu/16', pool='tok', size=32),
    'ViT map': dict(family='vit', variant='mu/16', pool='map', rep_size=7,
                    posemb='sincos2d', size=32),
}


def make(path, *, size, **kwargs):
  """A file of a model with numbers of all kinds, and (model, params)."""
  model, params = pretrained.create(size=size, num_classes=3, **kwargs)
  rng = np.random.default_rng(0)
  flat = {}
  for name, leaf in params_lib.flatten(params).items():
    flat[name] = np.float32(leaf + .2 * rng.normal(size=leaf.shape))
    if name.endswith('/var'):
      flat[name] = np.abs(flat[name]) + .5
  params = params_lib.unflatten(flat)
  pretrained.save(path, params, card=cards.of(
      model, size=size, classes=CLASSES, trained_by=dict(config={})))
  return model, params


def pixels(n, size=32):
  return np.random.default_rng(1).integers(
      0, 256, (n, size, size, 3)).astype(np.uint8)


def answer(model, params, images):
  """What the file's model says, not folded, not compiled for export."""
  return np.asarray(jax.jit(model.apply)(
      {'params': params}, np.float32(images) / 127.5 - 1)[0])


@pytest.fixture(scope='module')
def small(tmp_path_factory):
  """(path, model, params) of a BiT."""
  path = str(tmp_path_factory.mktemp('small') / 'student.npz')
  return path, *make(path, **MODELS['BiT'])


@pytest.mark.parametrize('name', MODELS)
def test_onnx_is_the_model_of_every_family_at_any_batch(name, tmp_path):
  path = str(tmp_path / 'student.npz')
  model, params = make(path, **MODELS[name])
  onnx.write(served_lib.load(path), str(tmp_path / 'x.onnx'))
  card, got = onnx.read(str(tmp_path / 'x.onnx'))
  assert card == pretrained.card(path)
  images = pixels(3)
  want = answer(model, params, images)
  assert want.std() > .05
  # Another order of sums, in up to fifty layers.
  for n in (3, 1):
    np.testing.assert_allclose(got(images[:n]), want[:n], rtol=0,
                               atol=1e-4 * want.std())


def test_a_wide_bit_is_exported_for_any_batch(tmp_path):
  """Its 3x3 convolutions have as many channels as Winograd's wants."""
  path = str(tmp_path / 'student.npz')
  model, params = make(path, family='bit', depth=(1,), width=1, size=32)
  stablehlo.write(served_lib.load(path), str(tmp_path / 'x.stablehlo'))
  _, got = stablehlo.read(str(tmp_path / 'x.stablehlo'))
  images = pixels(9)
  want = answer(model, params, images)
  for n in (9, 1):
    np.testing.assert_allclose(got(images[:n]), want[:n], rtol=0,
                               atol=1e-4 * want.std())


@pytest.mark.parametrize('name', ['BiT', 'MobileNetV3 BN', 'ViT tok'])
def test_tensorflow_s_own_operations_are_the_model(name, tmp_path):
  path = str(tmp_path / 'student.npz')
  model, params = make(path, **MODELS[name])
  function = tf_graph.function(served_lib.load(path))
  images = pixels(2)
  want = answer(model, params, images)
  np.testing.assert_allclose(function(images)['logits'], want, rtol=0,
                             atol=1e-4 * want.std())
  used = {op.type for op in function.get_concrete_function().graph
          .get_operations()}
  assert 'XlaCallModule' not in used and 'Conv2D' in used


@pytest.mark.parametrize('name', ELEMENTWISE)
def test_both_targets_have_every_elementwise_operation(name, tmp_path):
  binary = name in ('add', 'sub', 'mul', 'div', 'max', 'min')
  function = {'logistic': jax.nn.sigmoid, 'erf': jax.scipy.special.erf,
              'max': jnp.maximum, 'min': jnp.minimum, 'neg': jnp.negative,
              'rsqrt': jax.lax.rsqrt, 'div': jnp.divide, 'mul': jnp.multiply,
              'sub': jnp.subtract}.get(name) or getattr(jnp, name)

  def logits(scale, images):
    x = images.astype(jnp.float32).reshape(-1, 3) * scale + .5
    return function(x, scale) if binary else function(x)

  scale, images = np.asarray([.01, .02, .03], np.float32), pixels(2, 1)
  want = np.asarray(logits(scale, jnp.asarray(images)))
  graph = onnx.Graph()
  graph.node('Identity', translate.translate(
      logits, scale, (1, 1, 3), graph, 'images'), out='logits')
  session = onnxruntime.InferenceSession(
      onnx.proto(graph, (1, 1, 3), 3).SerializeToString())
  operations = tf_graph.Operations(images)
  # Approximations of transcendental functions differ between libraries.
  for got in (session.run(None, {'images': images})[0],
              translate.translate(logits, scale, (1, 1, 3), operations, images)):
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_what_cannot_be_exported_is_one_line():
  with pytest.raises(ValueError, match='sort, an operation of JAX') as error:
    translate.translate(lambda _, x: jnp.sort(x.astype(jnp.float32)), {},
                        (1, 1, 3), onnx.Graph(), 'images')
  assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize('name', OURS)
@pytest.mark.parametrize('weights', ['float32', 'int8'])
def test_each_format_agrees_keeps_its_card_and_counts_its_bits(
    name, weights, small, tmp_path):
  path, model, params = small
  images = pixels(5)
  row = exported.write(served_lib.load(path, weights), name, str(tmp_path),
                       'student', images, answer(model, params, images))
  file, = tmp_path.iterdir()
  assert str(file) == row.file and (row.format, row.images) == (name, 5)
  card, got = exported.read(row.file)
  assert card == pretrained.card(path)
  want = answer(model, params, images)
  # Half a step of int8 is 1/254 of a kernel's largest number; some layers.
  share = 1e-4 if weights == 'float32' else .2
  np.testing.assert_allclose(got(images), want, rtol=0,
                             atol=share * want.std())
  if weights == 'int8':
    assert abs(got(images) - want).max() > 1e-4 * want.std()


def test_float16_halves_kernels_alone(small):
  path, model, params = small
  kept = params_lib.flatten(served_lib.load(path, 'float16').kept)
  for name, leaf in kept.items():
    assert leaf.dtype == (np.float16 if name.endswith('kernel') else np.float32)


def test_kernels_that_float16_has_not_are_refused(small, tmp_path):
  path, _, params = small
  flat = params_lib.flatten(params)
  flat['head/kernel'] = flat['head/kernel'] * 1e6
  file = str(tmp_path / 'large.npz')
  pretrained.save(file, params_lib.unflatten(flat), card=pretrained.card(path))
  with pytest.raises(ValueError, match='head/kernel has numbers that float16'):
    served_lib.load(file, 'float16')


def test_a_savedmodel_crops_and_resizes_encoded_images_as_evaluation_does(
    small, tmp_path):
  import tensorflow as tf

  from big_distill import photographs
  from big_distill import views
  path, model, params = small
  exported.load('savedmodel').write(served_lib.load(path),
                                    str(tmp_path / 'saved'))
  encoded = photographs.packaged()[::60]
  assert len(encoded) > 2
  view = views.View.parse('central@32')
  shown = np.stack([crops.render(tf.constant(each), [view], 0, 0, 0)[str(view)]
                    for each in encoded])
  call = tf.saved_model.load(str(tmp_path / 'saved')).signatures['encoded']
  got = call(encoded=tf.constant(encoded))
  want = answer(model, params, shown)
  np.testing.assert_allclose(got['logits'], want, rtol=0,
                             atol=1e-4 * want.std())
  np.testing.assert_allclose(
      got['probabilities'], np.asarray(nn.softmax(want)), rtol=0, atol=1e-4)


@pytest.mark.parametrize('factor', [1.01, np.nan])
def test_what_does_not_agree_is_not_left_behind(factor, small, tmp_path,
                                                monkeypatch):
  path, model, params = small
  npz, images = exported.load('npz'), pixels(3)
  args = ('npz', str(tmp_path), 'student', images,
          answer(model, params, images))
  exported.write(served_lib.load(path), *args)
  good = (tmp_path / 'student.npz').read_bytes()
  read = npz.read
  monkeypatch.setattr(npz, 'read', lambda path: (
      None, lambda images: factor * read(path)[1](images)))
  with pytest.raises(ValueError, match='is not written: its logits') as error:
    exported.write(served_lib.load(path), *args)
  assert len(str(error.value).splitlines()) == 1
  file, = tmp_path.iterdir()  # The one that was there before.
  assert file.read_bytes() == good


def test_few_bits_that_change_classes_are_refused(small, tmp_path):
  path, model, params = small
  images = pixels(4)
  other = -answer(model, params, images)
  with pytest.raises(ValueError, match='0% of 4 images keep their class'):
    exported.write(served_lib.load(path, 'int8'), 'npz', str(tmp_path), 'x',
                   images, other)
  assert not [*tmp_path.iterdir()]


def test_an_exported_file_that_is_damaged_or_missing_is_one_line(tmp_path):
  for module in map(exported.load, OURS):
    file = tmp_path / f'x{module.SUFFIX}'
    with pytest.raises(ValueError, match='There is no'):
      exported.read(str(file))
    file.write_bytes(b'nothing of the kind' * 9)
    with pytest.raises(ValueError) as error:
      exported.read(str(file))
    assert len(str(error.value).splitlines()) == 1 and str(file) in str(error)
