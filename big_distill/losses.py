"""Distillation losses: student logits and target log-probs [b, c] -> [b].

A target is an array [b, c] or a topk.TopK, which knows the most probable
classes and the weight of all others together. Everything stays in log space and
float32. A target of probability zero has log-probability -inf, as labels do,
and contributes exactly nothing; so does a target of none but such classes,
that of an example without a label.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float
from jaxtyping import Float32

from big_distill import bounds
from big_distill import registry
from big_distill import topk

Logits = Float[Array, 'b c']
Target = Logits | topk.TopK
Temperature = float | Float[Array, '']
Loss = Callable[[Logits, Target], Float32[Array, ' b']]


def _expect(p_log: Float[Array, 'b n'],
            x: Float[Array, 'b n']) -> Float[Array, ' b']:
  """Sum of p x over classes, where p = 0 counts as 0 whatever x is."""
  return jnp.sum(jnp.where(p_log == -jnp.inf, 0., jnp.exp(p_log) * x), axis=-1)


def temper(log_probs: Target, t: Temperature) -> Float32[Array, 'b c']:
  """Log-probs of p^(1/t), renormalised; logits will do.

  Where all are -inf, which says nothing, they stay so. Raises ValueError for a
  TopK, of which a loss asks topk.in_buckets.
  """
  if isinstance(log_probs, topk.TopK):
    raise ValueError('This loss takes answers to all classes, and got the '
                     f'{log_probs.classes.shape[-1]} largest: leave '
                     'answers.top out, or take loss.name=kl.')
  silent = jnp.all(log_probs == -jnp.inf, axis=-1, keepdims=True)
  return jnp.where(silent, -jnp.inf, jax.nn.log_softmax(
      log_probs.astype(jnp.float32) / t, axis=-1))


def _both(
    logits: Logits, target: Target, t: Temperature,
) -> tuple[Float32[Array, 'b n'], Float32[Array, 'b n']]:
  """Log-probs at temperature t of the student and of its target."""
  if isinstance(target, topk.TopK):
    log_p, log_q = topk.in_buckets(target, logits, t)
    return log_q, log_p
  return temper(logits, t), temper(target, t)


def entropy(logits: Target) -> Float32[Array, ' b']:
  """Entropy in nats of softmax(logits), or of a TopK."""
  if isinstance(logits, topk.TopK):
    return topk.entropy(logits)
  log_p = temper(logits, 1.)
  return -_expect(log_p, log_p)


def kl(logits: Logits, target: Target, *, t: Temperature = 1.,
       t2: bool = True) -> Float32[Array, ' b']:
  """KL(target || student) in nats, both at temperature t.

  Of a TopK it is the KL over k + 1 buckets, the last of which holds all other
  classes: never more than over c classes, and equal to it for k = c.

  `t2` multiplies by t^2, which keeps the gradient's size across temperatures
  (Hinton et al., arXiv 1503.02531). The paper's equation has no such factor;
  the authors' code has it.
  """
  log_q, log_p = _both(logits, target, t)
  return (t**2 if t2 else 1.) * _expect(log_p, log_p - log_q)


def xent(logits: Logits, target: Target) -> Float32[Array, ' b']:
  """Cross-entropy in nats with the target distribution."""
  if isinstance(target, topk.TopK):
    return kl(logits, target) + entropy(target)
  return -_expect(temper(target, 1.), temper(logits, 1.))


def hard(logits: Logits, target: Target) -> Float32[Array, ' b']:
  """Cross-entropy in nats with the target's most probable class."""
  log_q = temper(logits, 1.)
  if isinstance(target, topk.TopK):
    best = target.classes[..., :1].astype(jnp.int32)
    return -jnp.take_along_axis(log_q, best, axis=-1)[..., 0]
  best = jnp.argmax(target, axis=-1, keepdims=True)
  loss = -jnp.take_along_axis(log_q, best, axis=-1)[..., 0]
  return jnp.where(jnp.all(target == -jnp.inf, axis=-1), 0., loss)


LOSSES = {'kl': kl, 'xent': xent, 'hard': hard}


def make(name: str = 'kl', **options: Any) -> Loss:
  """A loss by its name, its options bound.

  Raises ValueError for a name or an option that there is not, and a temperature
  that is not above 0.
  """
  registry.check('loss', name, LOSSES)
  if 't' in options:
    bounds.check('loss.t', options['t'], above=0)
  return registry.bind(LOSSES[name], **options)


def temperature(loss: Loss) -> Temperature:
  """The temperature of a loss that `make` returned; 1 where it has none."""
  return getattr(loss, 'keywords', {}).get('t', 1.)
