"""Distillation losses: (student logits, target log-probs) [b, c] -> [b].

A target is an array [b, c] or a topk.TopK, which knows the most probable
classes and the weight of all others together. Everything stays in log space and
float32. A target of probability zero has log-probability -inf, as labels do,
and contributes exactly nothing.
"""

import jax
import jax.numpy as jnp

from big_distill import bounds
from big_distill import registry
from big_distill import topk


def _expect(p_log, x):
  """Sum of p x over classes, where p = 0 counts as 0 whatever x is."""
  return jnp.sum(jnp.where(p_log == -jnp.inf, 0., jnp.exp(p_log) * x), axis=-1)


def temper(log_probs, t):
  """Log-probs of p^(1/t), renormalised. [b, c] -> [b, c]; logits will do."""
  return jax.nn.log_softmax(log_probs.astype(jnp.float32) / t, axis=-1)


def _both(logits, target, t):
  """Log-probs at temperature t of the student and of its target."""
  if isinstance(target, topk.TopK):
    log_p, log_q = topk.in_buckets(target, logits, t)
    return log_q, log_p
  return temper(logits, t), temper(target, t)


def entropy(logits):
  """Entropy in nats of softmax(logits), or of a TopK. [b, c] -> [b]."""
  if isinstance(logits, topk.TopK):
    return topk.entropy(logits)
  log_p = temper(logits, 1.)
  return -_expect(log_p, log_p)


def kl(logits, target, *, t=1., t2=True):
  """KL(target || student), both at temperature t. [b, c], [b, c] -> [b].

  Of a TopK it is the KL over k + 1 buckets, the last of which holds all other
  classes: never more than over c classes, and equal to it for k = c.

  `t2` multiplies by t^2, which keeps the gradient's size across temperatures
  (Hinton et al., arXiv 1503.02531). The paper's equation has no such factor;
  the authors' code has it.
  """
  log_q, log_p = _both(logits, target, t)
  return (t**2 if t2 else 1.) * _expect(log_p, log_p - log_q)


def xent(logits, target):
  """Cross-entropy with the target distribution. [b, c], [b, c] -> [b]."""
  if isinstance(target, topk.TopK):
    return kl(logits, target) + entropy(target)
  return -_expect(temper(target, 1.), temper(logits, 1.))


def hard(logits, target):
  """Cross-entropy with the target's most probable class. [b, c] -> [b]."""
  log_q = temper(logits, 1.)
  best = (target.classes[..., :1].astype(jnp.int32)
          if isinstance(target, topk.TopK)
          else jnp.argmax(target, axis=-1, keepdims=True))
  return -jnp.take_along_axis(log_q, best, axis=-1)[..., 0]


LOSSES = {'kl': kl, 'xent': xent, 'hard': hard}


def make(name='kl', **options):
  """A loss by its name, its options bound.

  Raises ValueError for a name or an option that there is not, and a temperature
  that is not above 0.
  """
  registry.check('loss', name, LOSSES)
  if 't' in options:
    bounds.check('loss.t', options['t'], above=0)
  return registry.bind(LOSSES[name], **options)


def temperature(loss):
  """The temperature of a loss that `make` returned; 1 where it has none."""
  return getattr(loss, 'keywords', {}).get('t', 1.)
