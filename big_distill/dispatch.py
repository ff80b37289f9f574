"""Several steps per call of a compiled program.

Where the devices hold the images, what the host sends for a step is small: the
boxes of many steps travel together, and one call takes all of them in a loop on
the device. A call ends where something is due, so that logs, evaluations and
checkpoints come at the steps they would come at anyway; it runs as many of its
steps as it is told to, so that one program serves calls of any length.

On CPU this does not pay: in a loop XLA computes convolutions at a third of their
speed (tools/feed.py measures it).
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np


def ends(start, total, most, periods):
  """Yields the last step of each call: `most` steps, or what is due sooner."""
  step = start
  while step < total:
    due = (step - step % every + every for every in periods if every)
    step = min(step + most, total, *due)
    yield step


def group(batches, start, ends, most):
  """Host batches of steps -> of calls, leaves [b, ...] -> [b, most, ...].

  'count', equal for all examples, says how many steps are real.
  """
  for end in ends:
    held = list(itertools.islice(batches, end - start))
    count, start = len(held), end
    held += held[-1:] * (most - count)
    call = jax.tree.map(lambda *x: np.stack(x, axis=1), *held)
    yield {'count': np.full(len(call['index']), count, np.int32), **call}


def repeat(step):
  """step(state, teachers, batch, *rest) -> the same for a call.

  The scalars are those of its last step.
  """
  def steps(state, teachers, call, *rest):
    count, batches = call['count'][0], {**call}
    del batches['count']

    def take(i, state):
      return step(state, teachers, jax.tree.map(lambda x: x[:, i], batches),
                  *rest)

    scalars = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype),
                           jax.eval_shape(take, 0, state)[1])
    return jax.lax.fori_loop(0, count, lambda i, carry: take(i, carry[0]),
                             (state, scalars))

  return steps
