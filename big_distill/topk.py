"""Answers of many classes in few bytes: the largest logits, and their tail.

Of c logits the k largest are kept with their classes. The others, the tail,
are one bucket, whose probability at temperature t needs

  L(b) = logsumexp(b x_i) over the tail, b = 1/t.

L is convex and smooth, and L'(b) is the mean of x under the tail's softmax at
temperature t. Both are kept, exactly, at the temperatures of NODES; between
them a cubic has these values and slopes. So temperature need not be known when
an answer is stored, and loss and gradient know what the tail weighs: a softmax
over the k classes alone would not. How the tail is shared among its classes is
lost: docs/topk.md says what that costs.

Logits have no absolute offset. They are kept relative to the largest one,
which float16 then rounds least where probability is most.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float
from jaxtyping import Float32
from jaxtyping import Int
from jaxtyping import UInt
import numpy as np

Temperature = float | Float[Array, '']

NODES = (10., 5., 2., 1.)  # Temperatures; the paper compares these.
_B = 1 / np.asarray(NODES, np.float32)  # Ascending.


class TopK(NamedTuple):
  """Answers [b, c]: their k largest logits, and what is known of the tail.

  Logits are relative to the largest, and sorted: values[:, 0] is 0. `tail`
  holds L(b) and L'(b) of the docstring above at each of NODES.
  """
  values: Float[Array, '*b k']  # By default float16.
  classes: UInt[Array, '*b k']  # uint16; uint32 beyond 65,536 classes.
  tail: Float32[Array, '*b 2 4']


def _index_dtype(c: int) -> np.dtype:
  return np.dtype('uint16' if c <= 2**16 else 'uint32')


def bytes_per_answer(c: int, k: int | None = None,
                     dtype: str = 'float16') -> int:
  """Bytes of an answer of c classes, dense if k is None."""
  size = jnp.dtype(dtype).itemsize
  if k is None:
    return c * size
  return k * (size + _index_dtype(c).itemsize) + 2 * len(NODES) * 4


def compress(logits: Float[Array, 'b c'], k: int,
             dtype: str = 'float16') -> TopK:
  """Keeps k logits and the tail. Log-probs will do, and may be -inf.

  Raises ValueError unless k is 1 to c.
  """
  c = logits.shape[-1]
  if not 1 <= k <= c:
    raise ValueError(f'k={k} logits cannot be kept of {c} classes: give a k '
                     f'from 1 to {c}.')
  x = logits.astype(jnp.float32)
  x = x - jnp.max(x, axis=-1, keepdims=True)
  values, classes = jax.lax.top_k(x, k)
  tail = jax.vmap(_tail_at, in_axes=(None, 0), out_axes=-1)(
      _without(x, classes), jnp.asarray(_B))
  return TopK(values.astype(dtype), classes.astype(_index_dtype(c)), tail)


def dense(logits: Float[Array, 'b c'],
          dtype: str = 'float16') -> Float[Array, 'b c']:
  """All logits [b, c], in few bytes: relative to the largest one, of dtype.

  float32 keeps them as they are, to the bit.
  """
  if jnp.dtype(dtype) == logits.dtype:
    return logits
  return (logits - jnp.max(logits, axis=-1, keepdims=True)).astype(dtype)


def _without(x: Float32[Array, 'b c'],
             classes: Int[Array, 'b k']) -> Float32[Array, 'b c']:
  """x, but -inf at these classes."""
  return jnp.put_along_axis(x, classes.astype(jnp.int32), -jnp.inf, axis=-1,
                            inplace=False)


def _tail_at(x: Float32[Array, 'b c'],
             b: Float32[Array, '']) -> Float32[Array, 'b 2']:
  """(L(b), L'(b)) of what is not -inf in x, or (-inf, 0) of nothing."""
  value = jax.nn.logsumexp(b * x, axis=-1)
  # Where everything is -inf so is the value, and -inf - -inf is NaN.
  p = jnp.exp(b * x - jnp.where(value == -jnp.inf, 0., value)[..., None])
  return jnp.stack(
      [value, jnp.sum(jnp.where(x == -jnp.inf, 0., p * x), axis=-1)], axis=-1)


def check_temperature(t: Temperature) -> None:
  """Raises ValueError for a temperature, a number, at which tails are not known.
  """
  if not NODES[-1] <= t <= NODES[0]:
    raise ValueError(f'A temperature of {t:g} is outside {NODES[-1]:g} to '
                     f'{NODES[0]:g}, for which the tail of an answer is kept: '
                     'choose t in this range, or keep all logits.')


def tail_logsumexp(answer: TopK, t: Temperature) -> Float32[Array, ' b']:
  """logsumexp(x / t) over the tail of a TopK, for t from 1 to 10.

  Exact at NODES, and -inf where the tail is empty. Raises ValueError for
  another t, unless it is an array, which is not looked at.
  """
  if isinstance(t, (int, float)):
    check_temperature(t)
  b, nodes = 1 / jnp.asarray(t, jnp.float32), jnp.asarray(_B)
  i = jnp.clip(jnp.searchsorted(nodes, b) - 1, 0, len(NODES) - 2)
  width = nodes[i + 1] - nodes[i]
  s = (b - nodes[i]) / width
  value, slope = answer.tail[..., 0, :], answer.tail[..., 1, :]
  empty = value[..., 0] == -jnp.inf
  value = jnp.where(empty[..., None], 0., value)
  # Hermite's cubic. At s=0 and s=1 all terms but one vanish.
  between = ((1 - s)**2 * (1 + 2 * s) * value[..., i]
             + s**2 * (3 - 2 * s) * value[..., i + 1]
             + s * (1 - s)**2 * width * slope[..., i]
             - s**2 * (1 - s) * width * slope[..., i + 1])
  return jnp.where(empty, -jnp.inf, between)


def log_probs(answer: TopK, t: Temperature) -> Float32[Array, 'b n']:
  """Log-probs of a TopK at temperature t: k classes and the tail, n = k + 1."""
  top = answer.values.astype(jnp.float32) / t
  tail = tail_logsumexp(answer, t)[..., None]
  return jax.nn.log_softmax(jnp.concatenate([top, tail], axis=-1), axis=-1)


def in_buckets(
    answer: TopK, logits: Float[Array, 'b c'], t: Temperature,
) -> tuple[Float32[Array, 'b n'], Float32[Array, 'b n']]:
  """Log-probs of a TopK and of a student, of the same buckets.

  Both are at temperature t. The buckets are the k classes and, where k < c, all
  others together.
  """
  log_p = log_probs(answer, t)
  log_q = jax.nn.log_softmax(logits.astype(jnp.float32) / t, axis=-1)
  classes = answer.classes.astype(jnp.int32)
  top = jnp.take_along_axis(log_q, classes, axis=-1)
  if classes.shape[-1] == logits.shape[-1]:
    return log_p[..., :-1], top
  # Not 1 - sum(q), which cancels: the others may weigh next to nothing.
  rest = jax.nn.logsumexp(_without(log_q, classes), axis=-1, keepdims=True)
  return log_p, jnp.concatenate([top, rest], axis=-1)


def entropy(answer: TopK) -> Float32[Array, ' b']:
  """Entropy in nats of all classes at temperature 1: -sum p log p.

  It is logsumexp(x) less the mean of x, and the tail's part of that is kept.
  """
  log_p = log_probs(answer, 1.)
  p = jnp.exp(log_p)
  # log_p[0] = x[0] - logsumexp(x), and x[0] = 0. No p x where p is 0.
  x = jnp.concatenate([answer.values.astype(jnp.float32),
                       answer.tail[..., 1, -1:]], axis=-1)
  return -log_p[..., 0] - jnp.sum(jnp.where(p > 0, p * x, 0.), axis=-1)
