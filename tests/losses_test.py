"""Losses against float64 numpy, published identities and their gradients.

Tolerances: logits are below 10, so that float32 rounds them, and logarithms of
their probabilities, to 1e-6; seven classes, and t^2 times less, add up to 1e-5.
"""

import pathlib
import re

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from big_distill import losses
from big_distill import topk

PAGE = pathlib.Path(__file__).parent.parent / 'docs/howto/loss.md'
RNG = np.random.default_rng(0)
STUDENT = RNG.normal(size=(5, 7)) * 3
TEACHER = RNG.normal(size=(5, 7)) * 3


def written():
  """The LOSSES of losses.py once the page on losses has been followed."""
  code = re.search(r'```python\n(def .*?)```', PAGE.read_text(), re.S)[1]
  names = dict(vars(losses))
  exec(code, names)
  return names['LOSSES']


def softmax(x):
  e = np.exp(x - x.max(-1, keepdims=True))
  return e / e.sum(-1, keepdims=True)


def log_probs(x):
  return jnp.asarray(np.log(softmax(x)), jnp.float32)


@pytest.mark.parametrize('t', [1., 2., 10.])
@pytest.mark.parametrize('t2', [True, False])
def test_kl_equals_the_formula_in_float64(t, t2):
  p, q = softmax(TEACHER / t), softmax(STUDENT / t)
  want = (t**2 if t2 else 1) * np.sum(p * np.log(p / q), -1)
  got = losses.kl(jnp.asarray(STUDENT, jnp.float32), log_probs(TEACHER), t=t,
                  t2=t2)
  np.testing.assert_allclose(got, want, rtol=2e-5, atol=1e-5)


def test_kl_of_equals_is_zero_and_otherwise_positive():
  p = log_probs(TEACHER)
  np.testing.assert_allclose(losses.kl(p + 3., p, t=2.), 0, atol=1e-5)
  assert (losses.kl(log_probs(STUDENT), p) > 0).all()


def test_kl_is_cross_entropy_less_the_targets_entropy():
  s, p = log_probs(STUDENT), log_probs(TEACHER)
  np.testing.assert_allclose(
      losses.kl(s, p), losses.xent(s, p) - losses.entropy(p), atol=1e-5)


def test_gradient_of_kl_is_the_difference_of_probabilities():
  for t in (1., 5.):
    grad = jax.grad(lambda s: losses.kl(s, log_probs(TEACHER), t=t).sum())
    want = t * (softmax(STUDENT / t) - softmax(TEACHER / t))
    np.testing.assert_allclose(grad(jnp.asarray(STUDENT, jnp.float32)), want,
                               atol=1e-5)


def test_certain_targets_and_huge_logits_stay_finite():
  labels = jnp.log(jax.nn.one_hot(jnp.arange(5), 7))
  logits = jnp.asarray(STUDENT * 1e4, jnp.float32)
  for loss in written().values():
    value, grad = jax.value_and_grad(lambda s: loss(s, labels).sum())(logits)
    assert np.isfinite(value) and np.isfinite(grad).all()


def test_labels_make_kl_the_usual_cross_entropy():
  labels = np.array([0, 3, 6, 1, 1])
  want = -np.log(softmax(STUDENT))[np.arange(5), labels]
  logits = jnp.asarray(STUDENT, jnp.float32)
  onehot = jnp.log(jax.nn.one_hot(labels, 7))
  for loss in losses.kl, losses.xent, losses.hard:
    np.testing.assert_allclose(loss(logits, onehot), want, rtol=2e-5, atol=1e-5)


def test_an_example_without_a_label_costs_nothing_whatever_the_loss():
  silent = jnp.full([5, 7], -jnp.inf)
  for loss in written().values():
    value, grad = jax.value_and_grad(lambda s: loss(s, silent).sum())(
        jnp.asarray(STUDENT, jnp.float32))
    assert value == 0 and (grad == 0).all()


@pytest.mark.parametrize('t', [1., 2.])
def test_the_loss_that_the_page_adds_is_what_it_says(t):
  squared = written()['squared']
  logits, target = jnp.asarray(STUDENT, jnp.float32), log_probs(TEACHER)
  want = np.sum((softmax(TEACHER / t) - softmax(STUDENT / t)) ** 2, -1)
  kept = topk.compress(jnp.asarray(TEACHER, jnp.float32), 7, 'float32')
  for answer in target, kept:
    np.testing.assert_allclose(squared(logits, answer, t=t), want, atol=1e-5)


def test_a_loss_over_all_classes_refuses_answers_kept_in_part():
  kept = topk.compress(jnp.asarray(TEACHER, jnp.float32), 3)
  with pytest.raises(ValueError, match='got the 3 largest: leave answers.top'):
    losses.temper(kept, 1.)


def test_entropy_of_a_uniform_answer_is_log_c():
  np.testing.assert_allclose(losses.entropy(jnp.zeros([2, 7])), np.log(7),
                             rtol=1e-6)


def test_bfloat16_logits_are_reduced_in_float32():
  got = losses.kl(jnp.asarray(STUDENT, jnp.bfloat16), log_probs(TEACHER))
  assert got.dtype == jnp.float32


def test_misspelt_loss_or_option_names_its_neighbour():
  with pytest.raises(ValueError, match='did you mean kl'):
    losses.make('kll')
  with pytest.raises(ValueError, match='no option of kl'):
    losses.make('kl', temperature=2.)


@pytest.mark.parametrize('t', [0, -1., float('inf'), 'warm'])
def test_a_temperature_is_above_zero_and_finite(t):
  with pytest.raises(ValueError, match='loss.t=.* a finite number above 0'):
    losses.make('kl', t=t)


def test_a_loss_tells_its_temperature():
  assert [losses.temperature(loss) for loss in (
      losses.make('kl', t=3.), losses.make('kl'), losses.make('hard'),
      losses.kl)] == [3., 1., 1., 1.]


def test_shapes_and_dtypes_that_annotations_promise_are_checked():
  logits = jnp.zeros([2, 3])
  for wrong in (jnp.zeros([2, 4]), jnp.zeros([3]), jnp.zeros([2, 3], int)):
    with pytest.raises(jaxtyping.TypeCheckError):
      losses.kl(logits, wrong)
