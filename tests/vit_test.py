"""ViT against a forward pass in float64 numpy, at any size, in both layouts."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

import big_distill
from big_distill import costs
from big_distill import npz_files
from big_distill import params as params_lib
from big_distill import pretrained
from big_distill import students
from big_distill import teaching
from big_distill.models import vit
from big_distill.ops import transformer

CLASSES, PATCH = 5, 4
TINY = dict(family='vit', variant=f'mu/{PATCH}', width=16, depth=2, heads=2,
            mlp=24, num_classes=CLASSES)


def made(size=12, **choice):
  """(model, params), all of which are random."""
  model, params = pretrained.create(size=size, **{**TINY, **choice})
  rng = np.random.default_rng(0)
  return model, jax.tree.map(
      lambda x: np.float32(x + rng.normal(0, .3, x.shape)), params)


def images(size=12):
  x = np.random.default_rng(1).uniform(-1, 1, (2, size, size, 3))
  return np.float32(x)


def reference(flat, images, heads=2):
  """Logits by the formulas of arXiv 2010.11929, one head at a time."""
  flat = {name: np.float64(leaf) for name, leaf in flat.items()}

  def norm(x, name):
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt(np.square(x).mean(-1, keepdims=True) + 1e-6)
    return x * flat[f'{name}/scale'] + flat[f'{name}/bias']

  def attend(q, x, name):
    name, y = f'{name}/MultiHeadDotProductAttention_0', 0
    for head in range(heads):
      query, key, value = (
          z @ flat[f'{name}/{which}/kernel'][:, head]
          + flat[f'{name}/{which}/bias'][head]
          for which, z in (('query', q), ('key', x), ('value', x)))
      scores = query @ key.swapaxes(1, 2) / math.sqrt(key.shape[-1])
      weight = np.exp(scores - scores.max(-1, keepdims=True))
      weight = weight / weight.sum(-1, keepdims=True)
      y = y + weight @ value @ flat[f'{name}/out/kernel'][head]
    return y + flat[f'{name}/out/bias']

  def mlp(x, name):
    name = f'{name}/MlpBlock_0'
    x = x @ flat[f'{name}/Dense_0/kernel'] + flat[f'{name}/Dense_0/bias']
    x = x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + .044715 * x**3)))
    return x @ flat[f'{name}/Dense_1/kernel'] + flat[f'{name}/Dense_1/bias']

  b, side, _, _ = images.shape
  n, kernel = side // PATCH, flat['embedding/kernel']
  patches = np.float64(images).reshape(b, n, PATCH, n, PATCH, 3)
  x = np.einsum('bypxqc,pqcf->byxf', patches, kernel).reshape(b, n * n, -1)
  x = x + flat['embedding/bias']
  if 'pos_embedding' in flat:
    x = x + flat['pos_embedding']
  else:  # Waves of 4 quarters: sine and cosine of x, then of y.
    f = x.shape[-1]
    for y in range(n):
      for i in range(n):
        for k in range(f // 4):
          omega = 10_000 ** -(k / (f // 4 - 1))
          x[:, y * n + i, k::f // 4] += [
              math.sin(i * omega), math.cos(i * omega),
              math.sin(y * omega), math.cos(y * omega)]
  if 'cls' in flat:
    x = np.concatenate([np.tile(flat['cls'], (b, 1, 1)), x], axis=1)
  for i in range(2):
    name = f'Transformer/encoderblock_{i}'
    y = norm(x, f'{name}/LayerNorm_0')
    x = x + attend(y, y, name)
    x = x + mlp(norm(x, f'{name}/LayerNorm_1'), name)
  x = norm(x, 'Transformer/encoder_norm')
  if 'MAPHead_0/probe' in flat:
    probe = np.tile(flat['MAPHead_0/probe'], (b, 1, 1))
    x = attend(probe, x, 'MAPHead_0')
    x = (x + mlp(norm(x, 'MAPHead_0/LayerNorm_0'), 'MAPHead_0'))[:, 0]
  else:
    x = x[:, 0] if 'cls' in flat else x.mean(1)
  if 'pre_logits/kernel' in flat:
    x = np.tanh(x @ flat['pre_logits/kernel'] + flat['pre_logits/bias'])
  return x @ flat['head/kernel'] + flat['head/bias']


@pytest.mark.parametrize('choice', [
    dict(pool='gap'), dict(pool='tok', rep_size=6), dict(pool='map'),
    dict(posemb='sincos2d')])
def test_the_function_is_the_published_one(choice):
  model, params = made(**choice)
  logits, out = jax.jit(model.apply)({'params': params}, images())
  want = reference(params_lib.flatten(params), images())
  # Float32 keeps 7 digits, of which two blocks lose two; erf for tanh would
  # cost two more.
  np.testing.assert_allclose(logits, want, rtol=0,
                             atol=1e-5 * np.abs(want).max())
  assert (out['logits'] == logits).all()
  assert {'stem', 'encoderblock_1', 'pre_logits'} <= out.keys()


@pytest.mark.parametrize('moves', [
    lambda x: x, lambda x: 1e-3 * x, lambda x: x + 1000],
                         ids=['unit', 'small', 'far'])
def test_layer_norm_equals_the_formula_however_small_or_far_its_input(moves):
  """Small beside epsilon, or beside the mean, which the fast variance loses."""
  x = np.float32(moves(np.random.default_rng(3).normal(size=(2, 3, 64))))
  got = transformer.layer_norm('norm', jnp.float32).init_with_output(
      jax.random.key(0), x)[0]
  far = np.float64(x) - np.float64(x).mean(-1, keepdims=True)
  want = far / np.sqrt(np.square(far).mean(-1, keepdims=True) + 1e-6)
  # The mean of numbers near 1000 is rounded by 6e-5.
  np.testing.assert_allclose(got, want, atol=2e-4)


@pytest.mark.parametrize('variant, published', [
    ('S/16', 22_050_664), ('B/16', 86_567_656), ('L/16', 304_326_632)])
def test_parameters_are_as_many_as_published(variant, published):
  """timm's and torchvision's counts, less the class token's own position."""
  model = pretrained.build('vit', variant=variant, pool='tok', num_classes=1000)
  image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
  shapes = jax.eval_shape(model.init, jax.random.key(0), image)['params']
  f, depth, _, mlp = vit.VARIANTS[variant[0]]
  block = 4 * f * (f + 1) + f * mlp + mlp + mlp * f + f + 4 * f
  want = (16 * 16 * 3 + 1) * f + 196 * f + f + depth * block + 2 * f \
      + 1000 * (f + 1)
  assert costs.parameters(shapes) == want == published - f


def test_a_new_model_has_no_opinion_and_is_a_function_of_its_seed():
  (_, a), (_, same), (_, other) = (
      pretrained.create(size=8, seed=seed, **TINY) for seed in (0, 0, 1))
  assert not a['head']['kernel'].any() and not a['head']['bias'].any()
  a, same, other = (params_lib.flatten(tree) for tree in (a, same, other))
  for name, leaf in a.items():
    assert (leaf == same[name]).all(), name
    if name.endswith(('kernel', 'pos_embedding')) and 'head' not in name:
      assert (leaf != other[name]).all(), name


def test_softmax_and_moments_are_float32_whatever_the_dtype():
  model, params = made(pool='map', dtype=jnp.bfloat16)
  text = str(jax.make_jaxpr(model.apply)({'params': params}, images()))
  # Two blocks, two norms each, the encoder's and the head's; three attentions.
  for function, count in (('rsqrt', 6), ('exp', 3)):
    given = re.findall(rf':(\w+)\[[\d,]*\] = {function}\b', text)
    assert given == ['f32'] * count
  assert ':bf16[' in text


def test_fewer_bits_change_the_function_a_little():
  model, params = made()
  exact = model.apply({'params': params}, images())[0]
  fast, frozen = pretrained.freeze(model, params, jnp.bfloat16)
  logits = fast.apply({'params': frozen}, images())[0]
  assert logits.dtype == jnp.float32
  error = np.linalg.norm(logits - exact) / np.linalg.norm(exact)
  assert 0 < error < .05  # bfloat16 keeps 2 to 3 digits.


@pytest.mark.parametrize('layout', ['big_vision', 'vision_transformer'])
@pytest.mark.parametrize('choice', [
    dict(pool='gap'), dict(pool='tok'), dict(pool='map'),
    dict(posemb='sincos2d')])
def test_what_is_saved_in_a_layout_loads_as_it_was(layout, choice, tmp_path):
  model, params = made(**choice)
  big_distill.save(tmp_path / 'x.npz', params, layout)
  again, loaded = big_distill.load(tmp_path / 'x.npz')
  for field in ('pool', 'posemb', 'num_classes', 'rep_size'):
    assert getattr(again, field) == getattr(model, field)
  a, b = (m.apply({'params': p}, images())[0]
          for m, p in ((model, params), (again, loaded)))
  np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('choice', [
    *(dict(variant=f'{name}/{14 if name in "HgG" else 16}')
      for name in vit.VARIANTS),
    dict(variant='S/32', pool='tok'), dict(variant='mu/7', pool='map'),
    dict(variant='S/16', posemb='sincos2d', rep_size=384),
    dict(variant='mu/8', width=48, depth=3, heads=4, mlp=40)])
def test_what_a_model_is_is_read_off_the_shapes(choice):
  model = pretrained.build('vit', num_classes=7, **choice)
  side = 2 * int(choice['variant'].split('/')[1])
  shapes = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct(
      (1, side, side, 3), jnp.float32))['params']
  plain = dict(num_classes=7, pool='gap', posemb='learn', rep_size=0)
  assert vit.recognise(params_lib.flatten(shapes)) == plain | choice


def test_published_names_are_files():
  published = {name: pretrained.path_of(name) for name in (
      'ViT-S16 augreg imagenet2012 224', 'ViT-L16 augreg imagenet2012 384',
      'ViT-S16 imagenet2012 90ep')}
  assert list(published.values()) == [
      'gs://vit_models/augreg/S_16-i21k-300ep-lr_0.001-aug_light1-wd_0.03-'
      'do_0.0-sd_0.0--imagenet2012-steps_20k-lr_0.03-res_224.npz',
      'gs://vit_models/augreg/L_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-'
      'do_0.1-sd_0.1--imagenet2012-steps_20k-lr_0.01-res_384.npz',
      'gs://big_vision/vit_s16_i1k_90ep.npz']


def test_names_and_shapes_are_those_of_the_original(tmp_path):
  """As its files list them; PyTorch loaders look for these names."""
  _, params = made(pool='tok')
  big_distill.save(tmp_path / 'x.npz', params, 'vision_transformer')
  shapes = {name: leaf.shape for name, leaf
            in npz_files.load(tmp_path / 'x.npz').items()}
  block = {
      'LayerNorm_0/scale': (16,), 'LayerNorm_0/bias': (16,),
      **{f'MultiHeadDotProductAttention_1/{which}/{name}': shape
         for which in ('query', 'key', 'value')
         for name, shape in (('kernel', (16, 2, 8)), ('bias', (2, 8)))},
      'MultiHeadDotProductAttention_1/out/kernel': (2, 8, 16),
      'MultiHeadDotProductAttention_1/out/bias': (16,),
      'LayerNorm_2/scale': (16,), 'LayerNorm_2/bias': (16,),
      'MlpBlock_3/Dense_0/kernel': (16, 24), 'MlpBlock_3/Dense_0/bias': (24,),
      'MlpBlock_3/Dense_1/kernel': (24, 16), 'MlpBlock_3/Dense_1/bias': (16,)}
  assert shapes == {
      'embedding/kernel': (4, 4, 3, 16), 'embedding/bias': (16,),
      'cls': (1, 1, 16),
      'Transformer/posembed_input/pos_embedding': (1, 10, 16),
      **{f'Transformer/encoderblock_{i}/{name}': shape
         for i in range(2) for name, shape in block.items()},
      'Transformer/encoder_norm/scale': (16,),
      'Transformer/encoder_norm/bias': (16,),
      'head/kernel': (16, 5), 'head/bias': (5,)}


@pytest.mark.parametrize('prefix', ['params/', 'opt/target/'])
def test_nested_checkpoints_are_unwrapped(prefix, tmp_path):
  _, params = made()
  flat = params_lib.flatten(params)
  npz_files.save(tmp_path / 'x.npz', {
      'chrono/x': np.zeros(1),
      **{prefix + name: leaf for name, leaf in flat.items()}})
  loaded = params_lib.flatten(big_distill.load(tmp_path / 'x.npz')[1])
  assert loaded.keys() == flat.keys()
  assert all((loaded[name] == leaf).all() for name, leaf in flat.items())


def test_the_original_s_position_of_the_class_token_is_kept(tmp_path):
  """There the token has a position of its own, the first; here it is added."""
  _, params = made(pool='tok')
  big_distill.save(tmp_path / 'x.npz', params, 'vision_transformer')
  flat = npz_files.load(tmp_path / 'x.npz')
  first = np.random.default_rng(2).normal(size=16)
  flat['Transformer/posembed_input/pos_embedding'][0, 0] = first
  npz_files.save(tmp_path / 'x.npz', flat)
  _, loaded = big_distill.load(tmp_path / 'x.npz')
  np.testing.assert_allclose(loaded['cls'], params['cls'] + first, rtol=1e-5)
  np.testing.assert_array_equal(loaded['pos_embedding'],
                                params['pos_embedding'])


def test_positions_are_resized_linearly_corner_to_corner(tmp_path):
  """A grid that is linear in y and x stays so; corners stay what they were."""
  _, params = made(12)
  y, x = np.mgrid[:3, :3]
  grid = np.stack([y + 2. * x] * 16, axis=-1).reshape(1, 9, 16)
  params['pos_embedding'] = np.float32(grid)
  big_distill.save(tmp_path / 'x.npz', params)
  model, loaded = big_distill.load(tmp_path / 'x.npz', size=20)
  y, x = np.mgrid[:5, :5] / 2
  want = np.stack([y + 2 * x] * 16, axis=-1).reshape(1, 25, 16)
  np.testing.assert_allclose(loaded['pos_embedding'], want, atol=1e-6)
  assert model.apply({'params': loaded}, images(20))[0].shape == (2, CLASSES)


@pytest.mark.parametrize('old, new', [(7, 10), (14, 5), (3, 1), (1, 4)])
def test_positions_are_resized_as_big_vision_does(old, new):
  """scipy's zoom of order 1, grids growing and shrinking."""
  grid = np.float32(np.random.default_rng(4).normal(size=(old, old, 6)))
  flat = {'embedding/kernel': np.zeros([8, 8, 3, 6]),
          'pos_embedding': grid.reshape(1, old * old, 6)}
  got, size = vit.at_size(flat, 8 * new)
  want = scipy.ndimage.zoom(grid, (new / old, new / old, 1), order=1)
  assert size == 8 * new and got['pos_embedding'].dtype == np.float32
  np.testing.assert_allclose(got['pos_embedding'][0], want.reshape(-1, 6),
                             atol=1e-6)


def test_a_teacher_and_a_start_may_be_of_another_size(tmp_path):
  _, params = made(12)
  big_distill.save(tmp_path / 'x.npz', params)
  teacher = teaching.load('prof', init=tmp_path / 'x.npz', size=20)
  assert teacher.answer(teacher.params, images(20)).shape == (2, CLASSES)
  _, start = made(8)
  started = students.init_from(start, tmp_path / 'x.npz')
  assert started['pos_embedding'].shape == (1, 4, 16)
  np.testing.assert_array_equal(started['embedding']['kernel'],
                                params['embedding']['kernel'])


def test_what_does_not_fit_is_said_in_one_line(tmp_path):
  model, params = made(12)
  with pytest.raises(ValueError, match='14 x 14 px do not divide into patches'):
    model.apply({'params': params}, images(14))
  with pytest.raises(ValueError, match='grid of 4 x 4 patches meets 9 learned'):
    model.apply({'params': params}, images(16))
  big_distill.save(tmp_path / 'x.npz', params)
  with pytest.raises(ValueError, match='do not divide into patches'):
    big_distill.load(tmp_path / 'x.npz', size=14)
  for n, kept in ((8, r'\(1, 8, 16\): should be \(1, 4, 16\)'),
                  (0, r'pos_embedding \(16,\): should be')):
    flat = params_lib.flatten(params)
    flat['pos_embedding'] = flat['pos_embedding'][:, :n] if n else np.zeros(16)
    flat['cls'] = np.zeros([1, 1, 16])
    npz_files.save(tmp_path / 'x.npz', flat)
    with pytest.raises(ValueError, match=kept):
      big_distill.load(tmp_path / 'x.npz')
  for choice, message in (
      (dict(variant='Z/16'), 'no ViT'),
      (dict(variant='S'), 'S/16, for example'),
      (dict(pool='gab'), 'did you mean gap'), (dict(heads=3), 'heads share'),
      (dict(rep_size=-1), 'rep_size.*-1'),
      (dict(posemb='sincos'), 'did you mean sincos2d')):
    with pytest.raises(ValueError, match=message):
      made(**choice)
