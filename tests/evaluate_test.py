"""Metrics are sums and counts: padding and batch size do not change them.

Tolerances: logits are float32 numbers of size 3, so that logarithms of
probabilities are off by some 1e-6 relatively, and 1e-5 is enough.
"""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from big_distill import classroom
from big_distill import evaluate
from big_distill import exams
from big_distill import metrics
from big_distill import parallel
from big_distill import teaching
from big_distill import views
from big_distill.evaluators import agreement
from big_distill.evaluators import calibration
from big_distill.evaluators import cka
from big_distill.evaluators import classification
from big_distill.evaluators import distance
from big_distill.evaluators import fewshot

N, C = 21, 7
RNG = np.random.default_rng(0)
STUDENT, TEACHER = RNG.normal(size=(2, N, C)).astype(np.float32)
LABEL = RNG.integers(0, C, N).astype(np.int32)


def batches(b, label=LABEL):
  """Batches of b whose 'images' are indices, the tail padded by repetition."""
  for start in range(0, N, b):
    index = np.minimum(np.arange(start, start + b), N - 1)
    yield {'index': index, 'label': label[index],
           'mask': (np.arange(start, start + b) < N).astype(np.float32)}


def run(evaluator, b, label=LABEL, student=STUDENT, teacher=TEACHER):
  """What an evaluator's job makes of all answers, through batches of b."""
  answers = parallel.replicate({('student', 'logits'): student,
                                ('teacher', 'logits'): teacher})
  answer = parallel.pmap(lambda answers, index: jax.tree.map(
      lambda x: x[index], answers))
  job = evaluate.job(evaluator)
  for batch in parallel.prefetch(batches(b, label)):
    job.add(answer(answers, batch['index']), batch['label'], batch['mask'])
  return job.result()


class Whole:
  """An evaluator that is given a whole split."""
  labelled = False
  needs = ('student', 'teacher')

  def measure(self, answers, label, classes):
    return {}


def gather(b):
  """All answers and labels, through batches of b."""
  return run(Whole(), b)


def log_softmax(x):
  x = np.float64(x)
  return x - np.log(np.exp(x).sum(-1, keepdims=True))


@pytest.mark.parametrize('b', [4, 8, 24])
def test_classification_equals_numpy_at_any_batch_size(b):
  order = np.argsort(-STUDENT, axis=-1)
  hit = order == LABEL[:, None]
  want = {'acc@1': hit[:, 0].mean(), 'acc@5': hit[:, :5].any(-1).mean(),
          'loss': -log_softmax(STUDENT)[np.arange(N), LABEL].mean()}
  got = run(classification.Evaluator(), b)
  assert got == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize('b', [4, 8, 24])
def test_distance_equals_numpy_at_any_batch_size(b):
  log_q, log_p = log_softmax(STUDENT), log_softmax(TEACHER)
  order, best = np.argsort(-STUDENT, axis=-1), TEACHER.argmax(-1)[:, None]
  want = {'kl': (np.exp(log_p) * (log_p - log_q)).sum(-1).mean(),
          'euclidean': np.linalg.norm(STUDENT - TEACHER, axis=-1).mean(),
          'top1': (order[:, :1] == best).mean(),
          'top5': (order[:, :5] == best).any(-1).mean()}
  assert run(distance.Evaluator(), b) == pytest.approx(want, rel=1e-5)


def test_a_model_agrees_with_itself():
  got = run(distance.Evaluator(), 8, student=TEACHER)
  assert got == pytest.approx(
      {'kl': 0, 'euclidean': 0, 'top1': 1, 'top5': 1}, abs=1e-6)


@pytest.mark.parametrize('evaluator', [
    agreement.Evaluator(), calibration.Evaluator(), cka.Evaluator('logits'),
    classification.Evaluator(), distance.Evaluator()])
def test_rankings_know_of_every_metric_whether_less_is_better(evaluator):
  sure = 9 * np.eye(C, dtype=np.float32)[LABEL]

  def measured(student):
    got = run(evaluator, 8, student=student, teacher=sure)
    return got if isinstance(got, dict) else evaluator.measure(
        *got, tuple(map(str, range(C))))

  good, bad = measured(sure), measured(STUDENT)
  assert good and all(
      (good[name] < bad[name]) == metrics.less_is_better(f'mine/{name}')
      for name in good)


def test_the_teacher_can_be_classified():
  got = run(classification.Evaluator(who='teacher'), 8)
  assert got['acc@1'] == pytest.approx((TEACHER.argmax(-1) == LABEL).mean())


def test_examples_without_label_do_not_count():
  label = np.where(np.arange(N) % 3, LABEL, -1).astype(np.int32)
  known = label >= 0
  got = run(classification.Evaluator(), 8, label)
  want = (STUDENT.argmax(-1) == label)[known].mean()
  assert got['acc@1'] == pytest.approx(want)


def test_where_no_example_has_a_label_no_metric_follows():
  assert run(classification.Evaluator(), 8, np.full(N, -1, np.int32)) == {}


def test_fewer_than_five_classes_have_a_top_five():
  logits = {'student': jnp.zeros([2, 3]), 'teacher': jnp.zeros([2, 3])}
  label = jnp.asarray([0, 2])
  assert (classification.Evaluator()(logits, label)['acc@5'] == 1).all()
  assert (distance.Evaluator()(logits, label)['top5'] == 1).all()


def test_of_several_labels_any_is_correct_and_none_does_not_count():
  """ImageNet ReaL's accuracy: label sets, empty ones left out."""
  label = (RNG.random((N, C)) < .3).astype(np.int32)
  label[3] = 0
  got = run(classification.Evaluator(), 8, label)
  counted = label.any(-1)
  hit = label[np.arange(N), STUDENT.argmax(-1)]
  assert got['acc@1'] == pytest.approx(hit[counted].mean())
  mean = label[counted] / label[counted].sum(-1, keepdims=True)
  assert got['loss'] == pytest.approx(
      -(mean * log_softmax(STUDENT)[counted]).sum(-1).mean(), rel=1e-5)


@pytest.mark.parametrize('b', [4, 8, 24])
def test_a_split_is_gathered_whole_and_in_order_at_any_batch_size(b):
  answers, label = gather(b)
  assert (answers['student'] == STUDENT).all() and (label == LABEL).all()
  assert answers['teacher'].shape == (N, C)


def test_calibration_error_equals_its_definition():
  answers, label = gather(8)
  got = calibration.Evaluator(bins=5).measure(answers, label, ())
  probs = np.exp(log_softmax(STUDENT))
  confidence, hit = probs.max(-1), probs.argmax(-1) == LABEL
  want = 0.
  for i in range(5):
    inside = (confidence > i / 5) & (confidence <= (i + 1) / 5)
    if inside.any():
      want += inside.mean() * abs(hit[inside].mean()
                                  - confidence[inside].mean())
  assert got['ece'] == pytest.approx(want, rel=1e-5)
  assert got['nll'] == pytest.approx(
      -np.log(probs)[np.arange(N), LABEL].mean(), rel=1e-5)


def test_a_deserved_confidence_has_no_calibration_error():
  """Confidence 3/4, right three times in four."""
  logits = np.log(np.tile([.75, .25], (8, 1)))
  label = np.asarray([0, 0, 0, 1] * 2)
  got = calibration.Evaluator().measure({'student': logits}, label, ())
  assert got['ece'] == pytest.approx(0, abs=1e-12)
  assert got['nll'] == pytest.approx(-.75 * np.log(.75) - .25 * np.log(.25))


def test_agreement_by_class_averages_to_agreement():
  answers, label = gather(8)
  got = agreement.Evaluator().measure(answers, label, tuple('abcdefg'))
  chosen = TEACHER.argmax(-1)
  names = [name for name in got if name.startswith('class/')]
  assert {name[-1] for name in names} == {'abcdefg'[c] for c in chosen}
  share = {name[-1]: got[name] for name in names}
  whole = np.mean([share['abcdefg'[c]] for c in chosen])
  assert whole == pytest.approx((STUDENT.argmax(-1) == chosen).mean())
  assert got['worst'] == min(share.values())


class Called(Whole):
  """Measures nothing but what classes are called."""

  def measure(self, answers, label, classes):
    return classes


def test_classes_of_models_are_called_as_the_teacher_calls_them():
  def names(*known, source=()):
    view = views.View('central')
    room = classroom.Classroom(
        types.SimpleNamespace(num_classes=3), {}, 8, view, [
            types.SimpleNamespace(classes=each) for each in known], 'logits')
    exam = exams.Exam('', Called(), types.SimpleNamespace(classes=source), None,
                      view, 0)
    return exams._metrics(exam, room, [({}, None)])

  assert names((), tuple('abc'), source=tuple('xyz')) == tuple('abc')
  assert names((), source=tuple('xyz')) == tuple('xyz')
  assert names((), source=tuple('xy')) == ()


def test_an_evaluation_leaves_sizes_to_the_models():
  with pytest.raises(ValueError, match='evals.mine.view=central@8: sizes belong'):
    exams.make('mine', dict(type='agreement', view='central@8'), {}, None)


def test_cka_equals_its_gram_form_and_its_identities():
  x, y = RNG.normal(size=(2, 30, 4))
  center = np.eye(30) - 1 / 30
  k, l = center @ x @ x.T @ center, center @ y @ y.T @ center
  want = np.trace(k @ l) / (np.linalg.norm(k) * np.linalg.norm(l))
  turn = np.linalg.qr(RNG.normal(size=(4, 4)))[0]
  assert cka.linear_cka(x, y) == pytest.approx(want)
  assert cka.linear_cka(x[:3], y[:3]) == pytest.approx(
      cka.linear_cka(x[:3] @ turn, 5 * y[:3] + 7))
  assert cka.linear_cka(x, 3 * x @ turn + 1) == pytest.approx(1)


@pytest.mark.parametrize('b', [4, 24])
def test_cka_does_not_see_the_padded_tail(b):
  answers, label = gather(b)
  got = cka.Evaluator().measure(answers, label, ())
  assert got == pytest.approx({'teacher': cka.linear_cka(
      np.float64(STUDENT), np.float64(TEACHER))}, rel=1e-5)


def test_least_squares_solves_its_normal_equations():
  """Fewer examples than features, and more: one formula's two forms agree."""
  x, label = RNG.normal(size=(12, 5)), np.arange(12) % 3
  hot = np.eye(3)[label] > 0
  small = fewshot.fit(x, hot, 4.)
  wide = np.concatenate([x, np.zeros([12, 20])], axis=1)
  z = RNG.normal(size=(50, 5))
  big = fewshot.fit(wide, hot, 4.)
  assert (small(z) == big(np.concatenate([z, np.zeros([50, 20])], 1))).all()
  a = np.concatenate([(x - x.mean(0)) / (x.std(0) + 1e-5), np.ones([12, 1])], 1)
  penalty = np.diag([4.] * 5 + [0.])
  w = np.linalg.solve(a.T @ a + penalty, a.T @ (2 * hot - 1))
  b = np.concatenate([(z - x.mean(0)) / (x.std(0) + 1e-5), np.ones([50, 1])], 1)
  assert (small(z) == (b @ w).argmax(-1)).all()


def test_few_images_of_apart_classes_are_enough():
  label = np.arange(40) % 4
  x = 10 * np.eye(4)[label] + RNG.normal(size=(40, 4)) * .1
  split = {'student': x}, label
  got = fewshot.Evaluator(shots=(1, 5), l2=1.).measure(
      *split, tuple('abcd'), split)
  assert got == {'acc@1_1shot': 1., 'acc@1_5shot': 1.}


def test_images_without_label_change_no_few_shot_result():
  label = np.arange(40) % 4
  x = RNG.normal(size=(40, 4)) + 2 * np.eye(4)[label]
  unknown = np.full(9, -1), 5 * RNG.normal(size=(9, 4))
  evaluator = fewshot.Evaluator(shots=(40,), l2=1.)  # All there are.

  def run(train, test):
    (label, x), (few_label, few) = test, train
    return evaluator.measure({'student': x}, label, tuple('abcd'),
                             ({'student': few}, few_label))

  known = label, x
  both = tuple(np.concatenate(pair) for pair in zip(unknown, known))
  assert 0 < run(known, known)['acc@1_40shot'] < 1
  assert run(both, both) == run(known, known)
  assert run(known, unknown) == run(unknown, known) == {}


def test_one_label_written_as_multi_hot_measures_the_same():
  label = np.where(np.arange(N) % 5, LABEL, -1)
  hot = np.eye(C, dtype=np.int32)[label] * (label >= 0)[:, None]
  answers, _ = gather(8)
  classes = tuple('abcdefg')
  for measure in (
      lambda y: calibration.Evaluator().measure(answers, y, classes),
      lambda y: fewshot.Evaluator(shots=(1, 2)).measure(
          answers, y, classes, (answers, y))):
    with jax.transfer_guard('disallow'):  # As inside the training loop.
      assert measure(label) == pytest.approx(measure(hot))


def test_of_several_labels_any_is_right():
  logits = np.log([[.7, .2, .1], [.1, .2, .7]])
  label = np.asarray([[0, 1, 1], [0, 1, 1]])
  got = calibration.Evaluator(bins=1).measure({'student': logits}, label, ())
  assert got['ece'] == pytest.approx(.7 - .5)
  assert got['nll'] == pytest.approx(-np.log([.2, .1, .2, .7]).mean())
  x = np.eye(3)[[0, 1, 2, 0, 1, 2]]
  label = np.asarray([[1, 1, 0], [0, 1, 0], [0, 0, 1]] * 2)
  got = fewshot.Evaluator(shots=(2,), l2=1e-3).measure(
      {'student': x}, label, tuple('abc'), ({'student': x}, label))
  assert got == {'acc@1_2shot': 1.}


def test_of_no_label_no_calibration_follows():
  assert calibration.Evaluator().measure(
      {'student': STUDENT}, np.full(N, -1), ()) == {}


@pytest.mark.parametrize('room_for, want', [(2, 2), (N, -(-N // 4))])
def test_answers_are_fetched_no_further_than_they_are_kept(
    room_for, want, monkeypatch):
  """Past the limit each one would fill memory, and be forgotten at the end."""
  teacher = teaching.Teacher(
      't', lambda params, images: np.float32(images[:, 0, 0]), {}, 3, 1,
      foreign=True)
  room = classroom.Classroom(None, None, 1, views.View('central'), [teacher],
                             'logits')
  evaluator = classification.Evaluator(who='teacher')
  sight = evaluate.Sight(room, views.View('central'), [evaluator])
  fetched, join = [], parallel.join

  def counted(tree):
    if isinstance(tree, dict):
      fetched.append(tree)
    return join(tree)

  monkeypatch.setattr(parallel, 'join', counted)
  monkeypatch.setattr(evaluate, 'KEPT_BYTES', room_for * 4 * 3 * 4 - 1)
  images = RNG.integers(0, 256, (N, 1, 1, 3), np.uint8)
  kept, job = [], evaluate.job(evaluator)
  sight.show(lambda views: ({**batch, 'views': {'central@1': images[
      batch['index']]}} for batch in batches(4, LABEL % 3)), {}, lambda: [{}],
             [job], kept)
  assert len(fetched) == want and len(kept) == (want if room_for == N else 0)
  hit = images[:, 0, 0].argmax(-1) == LABEL % 3
  assert job.result()['acc@1'] == pytest.approx(hit.mean())
