"""Mixup and the train step: what is consistent, what is replicated.

Tolerances: float32 rounds to 6e-8, pixels and losses are sums over some hundred
numbers near 1, so that 1e-5 is due relatively, and metrics have room for ten
times that. Weights are near 0.1 and move by 0.01 a step, so 1e-6 is a rounding
of gradients by 1e-4.
"""

import functools

import flax.linen as nn
import hypothesis
from hypothesis import strategies
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from big_distill import classroom
from big_distill import losses
from big_distill import optim
from big_distill import parallel
from big_distill import steps
from big_distill import teaching
from big_distill import views
from big_distill.ops import norms
from big_distill.pupil import Pupil
from big_distill.state import State

B, S, C = 32, 4, 3
VIEW = views.View.parse('inception#both@4')


def batch(seed=0, b=B, sizes=(S,)):
  rng = np.random.default_rng(seed)
  shown = {f'inception#both@{s}': rng.integers(0, 256, (b, s, s, 3), np.uint8)
           for s in sizes}
  return {'views': shown, 'label': rng.integers(0, C, b).astype(np.int32)}


def linear(params, images):
  return images.reshape(images.shape[0], -1) @ params['kernel']


def params(seed):
  kernel = np.random.default_rng(seed).normal(size=(S * S * 3, C))
  return {'kernel': jnp.asarray(kernel * .1, jnp.float32)}


def teacher(name='prof', sees=VIEW):
  return teaching.Teacher(name, linear, params(7), C, S, sees=sees)


def train_step(teachers, **kwargs):
  tx, lr = optim.make(100, lr=.01, wd=1e-3)
  loss = kwargs.pop('loss', losses.kl)
  lesson = steps.Lesson(tuple(teachers), C, **kwargs)
  pupil = Pupil(lambda params, images: (linear(params, images), {}), VIEW,
                tx, lr, loss)
  return tx, pmapped(lesson, pupil)


def pmapped(lesson, pupil):
  return parallel.pmap(functools.partial(lesson.step, pupil))


def run(n=3, teachers=None, b=B, **kwargs):
  teachers = teachers or [teacher()]
  tx, step = train_step(teachers, **kwargs)
  state = parallel.replicate(State.init(params(0), tx))
  frozen = parallel.replicate([t.params for t in teachers])
  for i in range(n):
    state, scalars = step(state, frozen, parallel.split(batch(i, b)))
  return state, frozen, scalars


def test_mixup_blends_every_entry_with_one_coefficient_and_one_partner():
  seen = {'a': jnp.arange(16.)[:, None], 'labels': jnp.eye(16)}
  mixed = steps.mixup(seen, jax.random.key(3), group=8)
  a = float(mixed['labels'][0, 0])
  assert 0 < a < 1
  partner = np.roll(np.arange(16).reshape(2, 8), 1, axis=1).ravel()
  for name, x in seen.items():
    want = a * np.asarray(x) + (1 - a) * np.asarray(x)[partner]
    np.testing.assert_allclose(mixed[name], want, rtol=1e-5)


def test_mixup_coefficient_is_uniform():
  mix = jax.vmap(lambda rng: steps.mixup(jnp.eye(8), rng)[0, 0])
  a = np.sort(mix(jax.random.split(jax.random.key(0), 2000)))
  # Kolmogorov-Smirnov: 1.63 / sqrt(n) is passed by chance once in a hundred.
  assert np.abs(a - (np.arange(2000) + .5) / 2000).max() < 1.63 / 2000**.5


def test_mixup_does_not_depend_on_how_a_batch_is_split():
  x, rng = jnp.asarray(np.random.default_rng(0).normal(size=(B, 5))), \
      jax.random.key(1)
  whole = steps.mixup(x, rng)
  parts = jnp.concatenate([steps.mixup(part, rng) for part in x.reshape(4, 8, 5)])
  assert (whole == parts).all()


@hypothesis.settings(max_examples=20, deadline=None, derandomize=True)
@hypothesis.given(strategies.integers(0, 2**32 - 1),
                  strategies.sampled_from([1, 2, 4, 8]),
                  strategies.sampled_from([.2, 1., 3.]))
def test_mixup_keeps_each_group_in_its_range_and_its_sum(seed, group, alpha):
  x = np.random.default_rng(seed).uniform(size=(16, 3)).astype(np.float32)
  mixed = np.asarray(steps.mixup(jnp.asarray(x), jax.random.key(seed), group,
                                 alpha))
  groups, mixed = (y.reshape(-1, group, 3) for y in (x, mixed))
  # Float32 sums of at most 8 numbers below 1.
  np.testing.assert_allclose(mixed.sum(1), groups.sum(1), atol=1e-5)
  assert (mixed >= groups.min(1, keepdims=True) - 1e-6).all()
  assert (mixed <= groups.max(1, keepdims=True) + 1e-6).all()
  assert group > 1 or (abs(mixed - groups) < 1e-6).all()


@pytest.mark.parametrize('options, message', [
    (dict(group=0), 'mixup.group=0 should be a whole number, 1 or more'),
    (dict(group=2.5), 'mixup.group=2.5 should be a whole number'),
    (dict(alpha=0.), 'mixup.alpha=0.0 should be a finite number above 0'),
    (dict(alpha=float('nan')), 'mixup.alpha=nan should be a finite number')])
def test_mixup_of_no_sense_is_refused(options, message):
  with pytest.raises(ValueError, match=message):
    steps.mixup(jnp.eye(8), jax.random.key(0), **options)


def test_student_and_teacher_see_one_tensor_at_equal_size():
  """An identity teacher and student disagree by nothing, mixed or not."""
  for mix in (None, steps.mixup):
    tx, step = train_step([teacher()], mix=mix)
    state = parallel.replicate(State.init(params(7), tx))
    _, scalars = step(state, parallel.replicate([params(7)]),
                      parallel.split(batch()))
    np.testing.assert_allclose(parallel.first(scalars)['loss'], 0, atol=1e-6)


def test_step_equals_its_float64_transcription():
  """One unmixed step's loss and gradient, by hand, on the whole batch."""
  data = batch()
  x = data['views'][str(VIEW)].reshape(B, -1) / 127.5 - 1
  ws, wt = (np.float64(params(i)['kernel']) for i in (0, 7))

  def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)

  p, q = softmax(x @ wt), softmax(x @ ws)
  grad = x.T @ (q - p) / B
  _, _, scalars = run(1)
  got = parallel.first(scalars)
  onehot = np.eye(C)[data['label']]
  for name, want in {
      'loss': np.mean(np.sum(p * np.log(p / q), -1)),
      'entropy_student': -np.mean(np.sum(q * np.log(q), -1)),
      'entropy_teacher': -np.mean(np.sum(p * np.log(p), -1)),
      'task_loss_student': -np.mean(np.sum(onehot * np.log(q), -1)),
      'task_loss_teacher': -np.mean(np.sum(onehot * np.log(p), -1)),
      'l2_grads': np.linalg.norm(grad), 'lr': .01}.items():
    np.testing.assert_allclose(got[name], want, rtol=1e-4, err_msg=name)


@pytest.mark.parametrize('mix', [None, steps.mixup])
def test_task_losses_are_of_labelled_examples(mix):
  """Several labels share equally; a mixture with no label has none."""
  data = batch()
  hot = np.eye(C, dtype=np.int32)[data['label']]
  hot[:4] = [1, 1, 0]
  hot[[5, 6, 20]] = 0
  tx, step = train_step([teacher()], mix=mix)
  state = parallel.replicate(State.init(params(0), tx))
  frozen = parallel.replicate([params(7)])

  def run(label):
    return parallel.first(step(state, frozen, parallel.split(
        {**data, 'label': label.astype(np.int32)}))[1])

  x = data['views'][str(VIEW)].reshape(B, -1) / 127.5 - 1
  share = hot / np.maximum(hot.sum(-1, keepdims=True), 1)
  if mix:
    x, share = steps.mixup((x, share), jax.random.fold_in(jax.random.key(0), 0))
  x, share = np.float64(x), np.float64(share)
  known = share.sum(-1) > .5 if not mix else share.sum(-1) > .999
  assert known.sum() == (B - 3 if not mix else B - 5)
  for who, seed in (('student', 0), ('teacher', 7)):
    z = x @ np.float64(params(seed)['kernel'])
    want = -np.sum(share * (z - np.logaddexp.reduce(z, -1, keepdims=True)), -1)
    np.testing.assert_allclose(run(hot)[f'task_loss_{who}'],
                               want[known].mean(), rtol=1e-4)
  one = np.where(np.arange(B) % 3, data['label'], -1)
  want = run(np.eye(C, dtype=np.int32)[one] * (one >= 0)[:, None])
  for name, value in run(one).items():
    np.testing.assert_allclose(value, want[name], rtol=1e-6, err_msg=name)
    assert np.isfinite(value), name


def test_replicas_stay_equal_and_teachers_untouched():
  state, frozen, scalars = run(3, mix=steps.mixup)
  for leaf in jax.tree.leaves((state, scalars)):
    leaf = np.asarray(leaf)
    assert (leaf == leaf[:1]).all()
  assert (parallel.first(frozen)[0]['kernel'] == params(7)['kernel']).all()
  assert parallel.first(state).step == 3


def test_one_device_and_four_take_the_same_step(monkeypatch):
  many = parallel.first(run(3, mix=steps.mixup)[0].params)['kernel']
  device = jax.local_devices()[:1]
  monkeypatch.setattr(jax, 'local_devices', lambda: device)
  monkeypatch.setattr(jax, 'local_device_count', lambda: 1)
  monkeypatch.setattr(parallel, '_sharding', functools.cache(
      parallel._sharding.__wrapped__))
  monkeypatch.setattr(parallel, 'pmap', lambda f: jax.pmap(
      f, axis_name=parallel.AXIS, devices=device))
  one = parallel.first(run(3, mix=steps.mixup)[0].params)['kernel']
  # Sums over the batch associate differently.
  np.testing.assert_allclose(one, many, atol=1e-6)


@pytest.mark.parametrize('parts', [2, 4])
def test_a_batch_in_parts_takes_the_step_of_the_whole(parts):
  (whole, _, want), (state, _, got) = (
      run(3, b=4 * B, mix=steps.mixup, accumulate=k) for k in (1, parts))
  # Sums over the batch associate differently.
  np.testing.assert_allclose(state.params['kernel'], whole.params['kernel'],
                             atol=1e-6)
  want, got = parallel.first(want), parallel.first(got)
  assert want.keys() == got.keys()
  for name in want:
    np.testing.assert_allclose(got[name], want[name], rtol=1e-4, err_msg=name)


def test_averages_move_to_the_mean_of_the_parts():
  tx, lr = optim.make(100, lr=.01)

  def student(params, images):
    # Of each part it is the square of a mean: no mean over the whole batch.
    moment = jnp.square(parallel.mean(jnp.mean(images)))
    return linear(params, images), {'moment': moment}

  lesson = steps.Lesson((teacher(),), C, accumulate=2)
  start = State.init({**params(0), 'moment': jnp.zeros([])}, tx)
  state, _ = pmapped(lesson, Pupil(student, VIEW, tx, lr))(
      parallel.replicate(start), parallel.replicate([params(7)]),
      parallel.split(batch()))
  x = batch()['views'][str(VIEW)].reshape(4, 2, -1) / 127.5 - 1
  want = np.square(x.mean(axis=(0, 2))).mean()
  np.testing.assert_allclose(state.params['moment'], want, rtol=1e-3)
  assert abs(np.square(x.mean()) / want - 1) > .01


def test_labels_are_a_teacher():
  """With labels the loss is the task loss, in the same step."""
  labels = teaching.load('labels', labels=True, num_classes=C)
  for mix in (None, steps.mixup):
    got = parallel.first(run(1, teachers=[labels], mix=mix, loss=losses.xent)[2])
    np.testing.assert_allclose(got['loss'], got['task_loss_student'], rtol=1e-5)
    assert np.isfinite(list(got.values())).all()


@pytest.mark.parametrize('mix', [None, steps.mixup])
@pytest.mark.parametrize('loss', [losses.kl, losses.xent, losses.hard])
def test_an_example_without_a_label_teaches_nothing_and_its_neighbours_all(
    loss, mix):
  """The step is that of the labelled examples, each counting 1 / b."""
  truth = teaching.load('labels', labels=True, num_classes=C)
  data = batch()
  data['label'][[0, 3, 17]] = -1
  tx, step = train_step([truth], mix=mix, loss=loss)
  state, got = parallel.first(step(
      parallel.replicate(State.init(params(0), tx)), [{}],
      parallel.split(data)))
  x = np.float64(data['views'][str(VIEW)].reshape(B, -1) / 127.5 - 1)
  share = np.eye(C)[data['label']] * (data['label'] >= 0)[:, None]
  if mix:
    x, share = map(np.float64, steps.mixup(
        (np.float32(x), np.float32(share)),
        jax.random.fold_in(jax.random.key(0), 0)))
  known = share.sum(-1) > .999
  assert known.sum() == B - (6 if mix else 3)
  z = x @ np.float64(params(0)['kernel'])
  log_q = z - np.logaddexp.reduce(z, -1, keepdims=True)
  p = np.eye(C)[share.argmax(-1)] if loss is losses.hard else share
  each = -np.sum(p * log_q, -1)
  if loss is losses.kl:
    each += np.sum(p * np.log(np.where(p > 0, p, 1)), -1)
  np.testing.assert_allclose(got['loss'], np.sum(each * known) / B, rtol=1e-4)
  grad = x.T @ ((np.exp(log_q) - p) * known[:, None]) / B
  np.testing.assert_allclose(got['l2_grads'], np.linalg.norm(grad), rtol=1e-4)
  assert np.isfinite(list(got.values())).all()
  assert np.isfinite(state.params['kernel']).all()


def test_without_a_label_models_teach_alone():
  rng = np.random.default_rng(0)
  answers = jnp.asarray(rng.normal(size=(4, C)), jnp.float32)
  share = jnp.asarray([[0, 1, 0], [0, 0, 0], [.4, .6, 0], [.4, 0, 0]],
                      jnp.float32)
  lesson = steps.Lesson((teacher(), teaching.load(
      'labels', labels=True, num_classes=C)), C, combine='probs')
  got = np.exp(lesson.agree([answers], {teaching.LABELS: share}))
  alone = np.exp(answers) / np.exp(answers).sum(-1, keepdims=True)
  np.testing.assert_allclose(got[[1, 3]], alone[[1, 3]], rtol=1e-5)
  np.testing.assert_allclose(got[[0, 2]], (alone + share)[np.array([0, 2])] / 2,
                             rtol=1e-5)


def test_a_model_that_says_nothing_is_not_passed_over():
  sick = jnp.full([2, C], -jnp.inf)
  assert np.isnan(steps.Lesson((teacher(),), C).agree([sick], {})).all()


def test_k_equal_teachers_teach_as_one():
  one = run(2)[0].params['kernel']
  for combine in ('logits', 'probs'):
    three = run(2, teachers=[teacher(str(i)) for i in range(3)],
                combine=combine)[0].params['kernel']
    np.testing.assert_allclose(three, one, atol=1e-6)


def test_consensus_is_the_mean_of_logits_or_of_probabilities():
  logits = [np.random.default_rng(i).normal(size=(4, C)) for i in range(3)]
  e = np.exp(logits)
  probs = (e / e.sum(-1, keepdims=True)).mean(0)
  mean = np.exp(np.mean(logits, 0))
  mean /= mean.sum(-1, keepdims=True)
  for combine, want in {'logits': mean, 'probs': probs}.items():
    got = teaching.consensus([jnp.asarray(x) for x in logits], combine)
    np.testing.assert_allclose(jax.nn.softmax(got), want, rtol=1e-5)


@pytest.mark.parametrize('t', [1., 2., 10.])
def test_mean_of_probabilities_teaches_as_one_kl_per_teacher(t):
  rng = np.random.default_rng(0)
  student, *answers = rng.normal(size=(3, B, C)) * 3
  with np.errstate(divide='ignore'):
    answers.append(np.log(np.eye(C)[rng.integers(0, C, B)]))  # Labels.
  loss = losses.make('kl', t=t)
  target = steps.Lesson((), C, combine='probs').agree(
      [jnp.asarray(x, jnp.float32) for x in answers], {},
      losses.temperature(loss))
  got = jax.grad(lambda x: loss(x, target).sum())(jnp.asarray(student,
                                                              jnp.float32))

  def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)

  # d/dx of t^2 KL(p || softmax(x / t)) is t (softmax(x / t) - p).
  want = t * np.mean([softmax(student / t) - softmax(x / t) for x in answers],
                     axis=0)
  np.testing.assert_allclose(got, want, atol=2e-6 * t)


def test_pixels_are_scaled_to_minus_one_and_one():
  got = steps.scale(jnp.asarray([0, 255, 51], jnp.uint8))
  np.testing.assert_allclose(got, [-1, 1, -.6], atol=1e-6)


def test_teachers_that_cannot_teach_are_refused():
  source = type('Source', (), {'classes': ('a',) * C, 'title': 'x'})
  teaching.check([teacher()], 'logits', C, source)
  with pytest.raises(ValueError, match='knows 3 classes, the student 5'):
    teaching.check([teacher()], 'logits', 5, source)
  with pytest.raises(ValueError, match='no teacher'):
    teaching.check([], 'logits', C, source)
  with pytest.raises(ValueError, match='did you mean probs'):
    teaching.check([teacher()], 'prob', C, source)
  with pytest.raises(ValueError, match='exactly one of'):
    teaching.load('prof')
  with pytest.raises(ValueError, match='size'):
    teaching.load('prof', init='x.npz')


class Normed(nn.Module):
  """A model with running averages, the least there is."""
  num_classes: int = C

  @nn.compact
  def __call__(self, images, train=False):
    x = norms.BatchNorm(name='norm')(images, train).mean(axis=(1, 2))
    logits = nn.Dense(C, name='head')(x)
    return logits, {'logits': logits}


def test_a_step_moves_averages_by_the_batch_and_nothing_else_does():
  model, rng = Normed(), np.random.default_rng(0)
  x = rng.normal(size=(B, S, S, 3)).astype(np.float32)
  weights = jax.device_get(model.init(jax.random.key(0), x)['params'])
  room = classroom.Classroom(model, weights, S, VIEW, [], 'logits')
  tx, lr = optim.make(10, lr=.1, wd=.1)
  lesson = steps.Lesson((teacher(),), C)
  state = parallel.replicate(State.init(weights, tx))
  data = batch()
  after, _ = pmapped(lesson, Pupil(room.learn, VIEW, tx, lr))(
      state, parallel.replicate([params(7)]), parallel.split(data))
  norm = parallel.first(after.params)['norm']
  pixels = np.float64(data['views'][str(VIEW)]) / 127.5 - 1
  mean, var = (f(pixels, axis=(0, 1, 2)) for f in (np.mean, np.var))
  n = pixels.size / 3
  np.testing.assert_allclose(norm['mean'].ravel(), .01 * mean, rtol=1e-4,
                             atol=1e-6)
  np.testing.assert_allclose(norm['var'].ravel(),
                             .99 + .01 * var * n / (n - 1), rtol=1e-5)
  assert (norm['scale'] != 1).all()  # What learns did learn.


def test_averages_that_are_kept_normalise_in_training_too():
  """Else a head that was fitted to them meets other features at its first step."""
  model, rng = Normed(), np.random.default_rng(0)
  x = rng.normal(2, 3, size=(B, S, S, 3)).astype(np.float32)
  weights = jax.device_get(model.init(jax.random.key(0), x)['params'])
  room = classroom.Classroom(model, weights, S, VIEW, [], 'logits', 'keep')
  logits, moved = room.learn(weights, x)
  np.testing.assert_array_equal(logits, room.answer(weights, x))
  assert not moved
  follows, moved = room._replace(averages='follow').learn(weights, x)
  assert moved and abs(follows - logits).max() > .1
  tx, lr = optim.make(10, lr=.1, wd=.1)
  after, _ = pmapped(steps.Lesson((teacher(),), C),
                     Pupil(room.learn, VIEW, tx, lr))(
      parallel.replicate(State.init(weights, tx)),
      parallel.replicate([params(7)]), parallel.split(batch()))
  norm = parallel.first(after.params)['norm']
  assert (norm['mean'] == 0).all() and (norm['var'] == 1).all()
  assert (norm['scale'] != 1).all()


def poisoned(at, count, skips):
  """The States after each of `count` steps; teachers are NaN in steps `at`."""
  tx, step = train_step([teacher()], skips=skips)
  state, states = parallel.replicate(State.init(params(0), tx)), []
  good, bad = (parallel.replicate([jax.tree.map(lambda x, a=a: x * a, params(7))])
               for a in (1., np.nan))
  for i in range(count):
    state, scalars = step(state, bad if i in at else good,
                          parallel.split(batch(i)))
    states.append(parallel.first(state))
    assert int(parallel.first(scalars)['skipped']) == states[-1].skipped[1]
  return states


def equal(a, b):
  return all((x == y).all() for x, y in zip(jax.tree.leaves((a.params, a.opt)),
                                            jax.tree.leaves((b.params, b.opt))))


def test_a_step_that_is_not_finite_ends_training_as_it_was_before_it():
  before, *after = poisoned(at={1}, count=4, skips=1)
  for state in after:
    assert equal(state, before)
    assert int(state.step) == 1 and state.skipped.tolist() == [1, 1]


def test_a_step_that_is_skipped_leaves_no_trace_in_what_is_learned():
  states = poisoned(at={1, 3}, count=5, skips=2)
  assert [int(state.step) for state in states] == [1, 2, 3, 4, 5]
  assert [state.skipped.tolist() for state in states] == [
      [0, 0], [1, 1], [0, 1], [1, 2], [0, 2]]
  assert equal(states[1], states[0]) and equal(states[3], states[2])
  assert not equal(states[2], states[1])
  tx, step = train_step([teacher()])
  state = parallel.replicate(State.init(params(0), tx))
  for i in (0, 2, 4):  # As if the other batches had never been.
    state, _ = step(state, parallel.replicate([params(7)]),
                    parallel.split(batch(i)))
  assert equal(parallel.first(state), states[-1])


def test_too_many_skipped_in_a_row_end_training_before_the_last_of_them():
  states = poisoned(at={1, 2, 3}, count=6, skips=3)
  assert [int(state.step) for state in states] == [1, 2, 3, 3, 3, 3]
  assert states[-1].skipped.tolist() == [3, 3]
  assert equal(states[-1], states[0])
