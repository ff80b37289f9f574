"""A teacher whose kernels are int8 is nearly itself, and a quarter as large."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from big_distill import costs
from big_distill import optim
from big_distill import parallel
from big_distill import params as params_lib
from big_distill import steps
from big_distill import teaching
from big_distill import views
from big_distill.input import pipeline
from big_distill.ops import int8
from big_distill.pupil import Pupil
from big_distill.state import State
from big_distill.tools import evaluate
from configs import quickstart

C, B, S = 5, 16, 16
MODELS = {  # Every kind of kernel there is.
    'bit': dict(depth=(1, 1), width=.125),
    'vit': dict(variant='mu/8', pool='map', rep_size=8),
    'mobilenet_v3': dict(variant='small', width=.25, norm='bn'),
}


def load(family, **choice):
  return teaching.load('prof', random=dict(family=family, **MODELS[family]),
                       size=S, num_classes=C, **choice)


@pytest.fixture(scope='module', params=MODELS)
def pair(request):
  """A teacher, exact and with kernels kept as int8."""
  exact = load(request.param)
  return exact, exact._replace(params=int8.quantize(exact.params))


@pytest.fixture(scope='module')
def images():
  rng = np.random.default_rng(0)
  return rng.uniform(-1, 1, (4, S, S, 3)).astype(np.float32)


def quantized(kernel, name='conv'):
  return int8.quantize({name: {'kernel': np.float32(kernel)}})[name]['kernel']


def restored(kernel):
  """By the formula, in float64."""
  return np.float64(kernel['int8']) * np.float64(kernel['step'])


@pytest.mark.parametrize('name, shape, out', [
    ('head', (9, 4), 1), ('conv', (3, 3, 2, 4), 1),
    ('depthwise', (5, 5, 1, 4), 1),
    ('query', (6, 2, 4), 2), ('key', (6, 2, 4), 2), ('value', (6, 2, 4), 2),
    ('out', (2, 4, 6), 1)])
def test_weights_are_within_half_a_step_of_their_own_channel(name, shape, out):
  rng = np.random.default_rng(1)
  spread = 10. ** rng.uniform(-3, 3, shape[len(shape) - out:])
  kernel = np.float32(rng.normal(size=shape) * spread)
  kernel[0] = 0
  got = quantized(kernel, name)
  assert got['int8'].dtype == np.int8 and got['int8'].shape == shape
  channels = kernel.reshape(-1, spread.size).T
  steps_ = got['step'].reshape(-1)
  assert got['step'].dtype == np.float32 and len(steps_) == spread.size
  back = restored(got).reshape(-1, spread.size).T
  for channel, step, values in zip(channels, steps_, back):
    assert step == pytest.approx(max(abs(channel)) / 127, rel=1e-6)
    assert abs(values - channel).max() <= step / 2 * (1 + 1e-5)
    assert (values[channel == 0] == 0).all()
    assert abs(values).max() == pytest.approx(max(abs(channel)), rel=1e-6)


def test_what_int8_can_say_it_says_exactly():
  values = np.random.default_rng(2).integers(-127, 128, (20, 3))
  values[0] = 127, -127, 127  # So these are the greatest.
  kernel = values * [2.**-9, 1., 2.**6]
  assert (restored(quantized(kernel)) == kernel).all()


def test_empty_tiny_and_broken_channels():
  kernel = np.float32([[0, 1e-44, np.nan, np.inf, 1], [0, 0, 1, 1, -2]])
  with np.errstate(invalid='ignore'):
    back = restored(quantized(kernel))
  assert (back[:, :2] == 0).all() and np.isfinite(back[:, 4]).all()
  assert np.isnan(back[:, 2]).all() and not np.isfinite(back[:, 3]).all()


def test_kernels_and_nothing_else_take_a_quarter(pair):
  exact, fast = (params_lib.flatten(teacher.params) for teacher in pair)
  kernels = [name for name in exact if name.endswith('kernel')]
  assert len(kernels) > 5
  assert fast.keys() == {
      *(name for name in exact if name not in kernels),
      *(f'{name}/{part}' for name in kernels for part in ('int8', 'step'))}
  for name in exact.keys() & fast.keys():
    assert (exact[name] == fast[name]).all()
  for name in kernels:
    channels = fast[f'{name}/step'].size
    taken = sum(fast[f'{name}/{part}'].nbytes for part in ('int8', 'step'))
    assert taken == exact[name].nbytes / 4 + 4 * channels
  assert costs.nbytes(exact) == sum(4 * x.size for x in exact.values())
  assert costs.nbytes(fast) < .45 * costs.nbytes(exact)  # Tiny ones.


def test_parameters_and_flops_are_those_of_the_exact_teacher(pair):
  exact, fast = pair
  assert costs.parameters(fast.params) == costs.parameters(exact.params)
  assert costs.flops(fast.model, fast.params, S) == costs.flops(
      exact.model, exact.params, S)


def test_it_answers_as_its_restored_kernels_do_and_nearly_as_itself(
    pair, images):
  exact, fast = pair
  flat = params_lib.flatten(fast.params)
  params = params_lib.unflatten({
      name: leaf if name in flat else np.float32(restored(
          {part: flat[f'{name}/{part}'] for part in ('int8', 'step')}))
      for name, leaf in params_lib.flatten(exact.params).items()})
  run = jax.jit(exact.answer)
  got, want, itself = (np.asarray(x) for x in (
      jax.jit(fast.answer)(fast.params, images), run(params, images),
      run(exact.params, images)))
  # The same kernels, but for one rounding of each of a dozen layers.
  np.testing.assert_allclose(got, want, atol=1e-4 * abs(want).max())
  # A step is 1/127 of the greatest weight; a dozen of layers add up.
  error = np.linalg.norm(got - itself) / np.linalg.norm(itself)
  assert 1e-4 < error < .05


def test_layers_are_there_for_evaluators(pair, images):
  want, got = (np.asarray(jax.jit(functools.partial(
      teaching.layers, teacher.model, ['pre_logits']))(
          teacher.params, images)['pre_logits']) for teacher in pair)
  assert got.shape == want.shape
  # As above, for a step of 1/127.
  np.testing.assert_allclose(got, want, atol=.05 * abs(want).max())


def test_a_teacher_is_loaded_as_its_section_says(images):
  """Half precision and int8 together: the head stays in float32."""
  fast = load('bit', weights='int8', dtype='bfloat16')
  got, out = jax.jit(lambda params: teaching.forward(
      fast.model, params, images))(fast.params)
  assert out['block1'].dtype == jnp.bfloat16 and got.dtype == jnp.float32
  head = fast.params['head']
  want = np.float64(out['pre_logits']) @ restored(head['kernel']) + head['bias']
  np.testing.assert_allclose(got, want, atol=1e-5 * abs(want).max())


def linear(params, images):
  return images.reshape(len(images), -1) @ params['kernel'], {}


@pytest.mark.parametrize('accumulate', [1, 2])
def test_a_step_learns_from_it_what_the_exact_one_teaches(accumulate):
  """On four devices; beside labels, as one of several teachers."""
  view = views.View.parse(f'inception#both@{S}')
  rng = np.random.default_rng(3)
  kernel = rng.normal(0, .01, (S * S * 3, C)).astype(np.float32)
  batch = parallel.split({
      'views': {str(view): rng.integers(0, 256, (B, S, S, 3), np.uint8)},
      'label': rng.integers(0, C, B).astype(np.int32)})
  tx, lr = optim.make(10, lr=.01)

  def take(teacher):
    teachers = (teacher._replace(sees=view),
                teaching.load('labels', labels=True, num_classes=C))
    lesson = steps.Lesson(teachers, C, combine='probs', accumulate=accumulate)
    pupil = Pupil(linear, view, tx, lr)
    frozen = parallel.replicate([each.params for each in teachers])
    state = parallel.replicate(State.init({'kernel': kernel}, tx))
    step = parallel.pmap(functools.partial(lesson.step, pupil), donate=(0,))
    for _ in range(2):
      state, scalars = step(state, frozen, batch)
    after = parallel.first(frozen)[0]
    assert all((a == b).all() for a, b in zip(
        jax.tree.leaves(after), jax.tree.leaves(teacher.params)))
    return parallel.first(scalars)

  want, got = (take(load('bit', weights=weights))
               for weights in teaching.WEIGHTS)
  for name in ('loss', 'entropy_teacher', 'l2_grads'):
    assert got[name] == pytest.approx(want[name], rel=.03), name
  assert got['loss'] != want['loss']


def test_on_photographs_it_agrees_with_the_checkpoint_it_came_from():
  config = quickstart.get_config('tiny=True')
  config.teachers.teacher.weights = 'int8'
  config.data.split = 'train[:16]'
  config.evals = {name: dict(type=kind, data=dict(
      name='caltech12', split='test[:40]', data_dir=''))
                  for name, kind in (('agree', 'distance'), ('cka', 'cka'))}
  metrics = evaluate.evaluate(config, 'caltech12 teacher', pipeline)
  assert 0 < metrics['agree/kl'] < 1e-3 and metrics['agree/top1'] > .9
  assert .99 < metrics['cka/teacher'] < 1


@pytest.mark.parametrize('choice, message', [
    (dict(weights='int4'), "no kind of weights 'int4'; did you mean int8"),
    (dict(dtype='bfloat61'), 'did you mean bfloat16'),
    (dict(dtype='int8'), 'known: float32, bfloat16'),
    (dict(labels=True, weights='int8'), 'neither dtype nor weights'),
    (dict(labels=True, dtype='bfloat16'), 'neither dtype nor weights')])
def test_what_cannot_be_is_said_in_one_line(choice, message):
  given = {} if 'labels' in choice else dict(init='never read', size=S)
  with pytest.raises(ValueError, match=message) as error:
    teaching.load('prof', **given, **choice)
  assert len(str(error.value).splitlines()) == 1
