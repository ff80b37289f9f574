"""Batches for a plan: rendered by the host, or by devices that hold the images.

A call is what the devices are asked for at once: one step or, where they hold
the images, up to plan.per_call steps. A call ends where something is due, so
that logs, evaluations and checkpoints come at the steps they would come at
anyway; one program serves calls of any length.

Several steps per call save time on accelerators. On CPU they cost time: in a
loop XLA computes convolutions at a third of their speed (tools/feed.py).
"""

from collections.abc import Callable, Iterator, Sequence
import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from big_distill import answers
from big_distill import parallel
from big_distill import plan as plan_lib
from big_distill import registry
from big_distill import render
from big_distill import views
from big_distill.steps import State


class Feed(NamedTuple):
  """What the loop asks for batches and takes steps with.

  ends: first step -> the last step of each call from there.
  batches: first step -> host batches of these calls.
  compile: step(state, teachers, batch) -> the same for a call, pmapped; state
    is donated.
  """
  ends: Callable[[int], Iterator[int]]
  batches: Callable[[int], Iterator[dict[str, Any]]]
  compile: Callable[[Callable], Callable]


def make(data: Any, source: Any, shown: Sequence[views.View],
         plan: plan_lib.Plan, recordings: dict[str, np.ndarray] | None = None,
         **crops: Any) -> Feed:
  """The Feed of a source, for models that see the views `shown`.

  `data` has the functions of input/pipeline.py; `crops` are its options.
  `recordings` are teachers' answers to all examples.
  """
  ends = functools.partial(
      call_ends, total=plan.total, most=plan.per_call,
      periods=[plan.log_every, plan.save_every, *plan.exams.values()])
  if source.resident:
    held = data.hold(source)
    draw = registry.bind(data.train_boxes, held=held, **crops)
    compile_step = functools.partial(
        _rendering, parallel.replicate(held[0]), shown, plan.per_call)
  else:
    draw = registry.bind(data.train_batches, **crops)
    compile_step = functools.partial(parallel.pmap, donate=(0,))

  def batches(start):
    single = answers.attach(draw(source, shown, plan.batch_size, plan.seed,
                                 start, plan.total), recordings or {})
    return (single if plan.per_call == 1
            else group(single, start, ends(start), plan.per_call))

  return Feed(ends, batches, compile_step)


def _rendering(images, shown, per_call, step):
  """The pmapped step of a call whose views are rendered from held images."""
  def rendered(state, teachers, batch, images):
    shows = render.views(images, batch['index'], batch['boxes'], shown)
    return step(state, teachers, {**batch, 'views': shows})

  program = parallel.pmap(repeat(rendered) if per_call > 1 else rendered,
                          donate=(0,))
  return lambda state, teachers, call: program(state, teachers, call, images)


def call_ends(start: int, total: int, most: int,
              periods: Sequence[int]) -> Iterator[int]:
  """Yields the last step of each call: `most` steps, or what is due sooner."""
  step = start
  while step < total:
    due = (step - step % every + every for every in periods if every)
    step = min(step + most, total, *due)
    yield step


def group(batches: Iterator[dict[str, Any]], start: int, ends: Iterator[int],
          most: int) -> Iterator[dict[str, Any]]:
  """Stacks the batches of each call: leaves [b, ...] -> [b, most, ...].

  A shorter call is padded by repeating its last batch. 'count', int32 [b], is
  the number of real steps, repeated so that it splits over devices.
  """
  for end in ends:
    taken = list(itertools.islice(batches, end - start))
    count, start = len(taken), end
    taken += taken[-1:] * (most - count)
    call = jax.tree.map(lambda *x: np.stack(x, axis=1), *taken)
    yield {'count': np.full(len(call['index']), count, np.int32), **call}


def repeat(step: Callable) -> Callable:
  """step(state, teachers, batch, *rest) -> the same for a call.

  The scalars are those of its last step.
  """
  def steps(state: State, teachers, call, *rest):
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
