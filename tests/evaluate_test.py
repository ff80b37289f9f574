"""Metrics are sums and counts: padding and batch size do not change them."""

import jax.numpy as jnp
import numpy as np
import pytest

from big_distill import evaluate
from big_distill import parallel
from big_distill.evaluators import classification
from big_distill.evaluators import distance

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


def step(student, teacher, batch):
  return {'student': student[batch['index']], 'teacher': teacher[batch['index']]}


def run(evaluator, b, label=LABEL, student=STUDENT):
  return evaluate.make(evaluator, step)(
      parallel.replicate(student), parallel.replicate(TEACHER),
      batches(b, label))


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


def test_the_teacher_can_be_classified():
  got = run(classification.Evaluator(who='teacher'), 8)
  assert got['acc@1'] == pytest.approx((TEACHER.argmax(-1) == LABEL).mean())


def test_examples_without_label_do_not_count():
  label = np.where(np.arange(N) % 3, LABEL, -1).astype(np.int32)
  known = label >= 0
  got = run(classification.Evaluator(), 8, label)
  want = (STUDENT.argmax(-1) == label)[known].mean()
  assert got['acc@1'] == pytest.approx(want)


def test_fewer_than_five_classes_have_a_top_five():
  logits = {'student': jnp.zeros([2, 3]), 'teacher': jnp.zeros([2, 3])}
  label = jnp.asarray([0, 2])
  assert (classification.Evaluator()(logits, label)['acc@5'] == 1).all()
  assert (distance.Evaluator()(logits, label)['top5'] == 1).all()
