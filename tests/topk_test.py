"""Top-k answers against float64 numpy on all classes, at t from 1 to 10."""

import hypothesis
from hypothesis import strategies
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from big_distill import losses
from big_distill import topk

RNG = np.random.default_rng(0)
B, C = 6, 300
TEMPERATURES = (1., 1.5, 2., 3., 5., 7., 10.)
ANSWERS = {  # float64 [b, c], as teachers may answer.
    'random': RNG.normal(size=(B, C)) * 2,
    'peaked': RNG.normal(size=(B, C)) * 2 + 25 * np.eye(B, C),
    'flat': RNG.normal(size=(B, C)) * .01,
    'long tail': np.log(RNG.gamma(.3, size=(B, C)) + 1e-8),
    'far from zero': RNG.normal(size=(B, C)) * 2 - 1000,
}
STUDENT = RNG.normal(size=(B, C)) * 2
answers = pytest.mark.parametrize('answer', ANSWERS)


def log_softmax(x):
  return x - np.logaddexp.reduce(x, axis=-1, keepdims=True)


def tail_of(x, k):
  """Logits less the largest, of all but the k largest. -> [b, c-k]."""
  return np.sort(x - x.max(-1, keepdims=True))[..., :-k]


def bucketed_kl(answer, student, k, t):
  """t^2 KL over the answer's k largest classes and the rest, and gradient."""
  log_p, log_q = log_softmax(answer / t), log_softmax(student / t)
  order = np.argsort(-answer, axis=-1, kind='stable')
  p, q = (np.take_along_axis(np.exp(x), order, -1) for x in (log_p, log_q))
  joined = [np.concatenate([x[:, :k], x[:, k:].sum(-1, keepdims=True)], -1)
            for x in (p, q)]
  value = t**2 * np.sum(joined[0] * np.log(joined[0] / joined[1]), -1)
  # The tail of the target is shared out as the student shares its own.
  p[:, k:] = joined[0][:, k:] * q[:, k:] / joined[1][:, k:]
  grad = np.empty_like(q)
  np.put_along_axis(grad, order, t * (q - p), -1)
  return value, grad


compress = jax.jit(topk.compress, static_argnums=(1, 2))


@jax.jit
def kl_and_grad(student, target, t):
  values, pull = jax.vjp(lambda s: losses.kl(s, target, t=t), student)
  return values, pull(jnp.ones_like(values))[0]


def f32(x):
  return jnp.asarray(x, jnp.float32)


@answers
def test_the_tail_weighs_what_it_weighs_at_any_temperature(answer):
  x = ANSWERS[answer]
  for k in (1, 16):
    kept = compress(f32(x), k, 'float32')
    for t in TEMPERATURES:
      want = np.logaddexp.reduce(tail_of(x, k) / t, axis=-1)
      # Exact at the nodes, up to the rounding of sums and of logits near 1000.
      error = 1e-4 if t in topk.NODES else 4e-3
      np.testing.assert_allclose(topk.tail_logsumexp(kept, t), want, atol=error)


@answers
def test_kl_and_gradient_are_those_of_k_classes_and_the_rest(answer):
  x = ANSWERS[answer]
  kept = compress(f32(x), 16, 'float32')
  for t in TEMPERATURES:
    value, grad = kl_and_grad(f32(STUDENT), kept, t)
    want, want_grad = bucketed_kl(x, STUDENT, 16, t)
    # A tail 4e-3 off at most, as above, and times t^2.
    np.testing.assert_allclose(value, want, rtol=4e-3, atol=1e-5 * t**2)
    np.testing.assert_allclose(grad, want_grad, atol=4e-3 * t)


@answers
def test_all_classes_kept_give_the_loss_over_all_classes(answer):
  x, student = f32(ANSWERS[answer]), f32(STUDENT)
  kept = compress(x, C, 'float32')
  for loss in losses.LOSSES.values():
    np.testing.assert_allclose(loss(student, kept), loss(student, x),
                               rtol=1e-5, atol=1e-5)
  for t in TEMPERATURES:
    got, want = kl_and_grad(student, kept, t), kl_and_grad(student, x, t)
    # Logits x / t are rounded by 3e-8 of themselves, which t^2 multiplies.
    atol = 2e-6 * t**2 + 3e-8 * float(abs(x).max()) * t
    for one, other in zip(got, want):
      np.testing.assert_allclose(one, other, rtol=1e-5, atol=atol)


@pytest.mark.float16
@answers
def test_float16_hardly_changes_the_loss(answer):
  x, student = f32(ANSWERS[answer]), f32(STUDENT)
  for t in (1., 10.):
    exact, exact_grad = kl_and_grad(student, compress(x, 32, 'float32'), t)
    value, grad = kl_and_grad(student, compress(x, 32), t)
    # float16 is 2^-11 off relatively; logits of any weight lie within 20.
    np.testing.assert_allclose(value, exact, rtol=.01, atol=1e-4)
    np.testing.assert_allclose(grad, exact_grad, atol=.01 * t)


@answers
def test_entropy_is_of_all_classes(answer):
  log_p = log_softmax(ANSWERS[answer])
  kept = compress(f32(ANSWERS[answer]), 16, 'float32')
  np.testing.assert_allclose(losses.entropy(kept),
                             -np.sum(np.exp(log_p) * log_p, -1), atol=2e-4)


def test_kl_is_cross_entropy_less_entropy():
  kept, student = compress(f32(ANSWERS['random']), 16, 'float32'), f32(
      STUDENT)
  np.testing.assert_allclose(
      losses.kl(student, kept),
      losses.xent(student, kept) - losses.entropy(kept), atol=1e-5)


def test_the_hard_target_is_the_most_probable_class():
  x, student = f32(ANSWERS['random']), f32(STUDENT)
  assert (losses.hard(student, compress(x, 3, 'float32'))
          == losses.hard(student, x)).all()


# Renormalised over the k classes, a target leaves the tail without a gradient.
def test_gradient_draws_the_student_towards_the_tails_weight():
  x = np.zeros([1, C])
  student = np.eye(1, C)[:, ::-1] * 3.  # Sure of one class, in the tail.
  kept = compress(f32(x), 4, 'float32')
  grad = kl_and_grad(f32(student), kept, 1.)[1][0]
  assert grad[:4].max() < 0  # Classes of which the student is too unsure,
  assert abs(float(grad.sum())) < 1e-6
  student = np.where(np.arange(C) < 4, 5., 0.)[None]  # or too sure.
  grad = kl_and_grad(f32(student), kept, 1.)[1][0]
  assert grad[:4].min() > 0 and grad[4:].max() < 0


def test_empty_tails_and_certain_answers_stay_finite():
  labels = jnp.log(jax.nn.one_hot(jnp.arange(B), C))
  mixed = jnp.log(.3 * jnp.exp(labels) + .7 * jnp.roll(jnp.exp(labels), 1, 1))
  student = f32(STUDENT * 100)
  for x, k in ((labels, 1), (labels, 4), (mixed, 2), (mixed, 1), (mixed, C)):
    for t in (1., 3.):
      kept = compress(x, k, 'float32')
      value, grad = kl_and_grad(student, kept, t)
      assert np.isfinite(value).all() and np.isfinite(grad).all()
    np.testing.assert_allclose(
        losses.entropy(kept), losses.entropy(x), atol=1e-5)
    if k > 1:  # Nothing is lost of a target of two classes.
      np.testing.assert_allclose(losses.xent(student, kept),
                                 losses.xent(student, x), rtol=1e-5)


@hypothesis.settings(max_examples=50, deadline=None, derandomize=True)
@hypothesis.given(
    seed=strategies.integers(0, 2**32 - 1),
    k=strategies.sampled_from([1, 9, 40]), t=strategies.floats(1, 10),
    scale=strategies.sampled_from([.01, 1., 30.]))
def test_kl_is_never_negative_and_at_most_the_dense_one(seed, k, t, scale):
  rng = np.random.default_rng(seed)
  answer, student = f32(scale * rng.normal(size=(2, 4, 40)))
  kept = compress(answer, k, 'float32')
  dense, value, own = (kl_and_grad(*pair, t)[0] for pair in (
      (student, answer), (student, kept), (answer, kept)))
  assert np.minimum(value, own).min() >= -1e-5 * t**2  # Of sums in float32.
  # Rounding, and the tail between two nodes.
  assert (value <= dense * 1.05 + 1e-3 * t).all()


@pytest.mark.float16
def test_an_answer_has_as_many_bytes_as_said():
  for c, k, dtype in ((1000, 32, 'float16'), (70_000, 8, 'float32'),
                      (300, 300, 'bfloat16')):
    kept = topk.compress(jnp.zeros([3, c]), k, dtype)
    assert sum(x.nbytes for x in kept) == 3 * topk.bytes_per_answer(c, k, dtype)
    assert (kept.classes[0] == jnp.arange(k)).all()
  assert topk.bytes_per_answer(12) == 24 and topk.bytes_per_answer(102) == 204
  assert topk.bytes_per_answer(1000, 32) == 160


@pytest.mark.float16
def test_all_logits_are_kept_relative_to_the_largest():
  x = f32(ANSWERS['far from zero'])
  assert (topk.dense(x, 'float32') == x).all()
  half = topk.dense(x)
  assert half.dtype == jnp.float16 and (half.max(axis=-1) == 0).all()
  # As they are, logits near 1000 would be a quarter off.
  np.testing.assert_allclose(half, x - x.max(axis=-1, keepdims=True), rtol=1e-3)


def test_what_cannot_be_kept_or_told_is_refused():
  with pytest.raises(ValueError, match='k=8 .* of 7 classes'):
    topk.compress(jnp.zeros([1, 7]), 8)
  kept = topk.compress(jnp.zeros([1, 7]), 3, 'float32')
  for t in (.5, 11.):
    with pytest.raises(ValueError, match='outside 1 to 10'):
      losses.kl(jnp.zeros([1, 7]), kept, t=t)
