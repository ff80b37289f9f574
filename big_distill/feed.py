"""Batches for a plan: rendered by the host, or by devices that hold the images.

A call is what the devices are asked for at once: one step or, where they hold
the images, up to plan.per_call steps. A call ends where something is due, so
that logs, evaluations and checkpoints come at the steps they would come at
anyway; one program serves calls of any length.

Several steps per call save time on accelerators. On CPU they cost time: in a
loop XLA computes convolutions at a third of their speed (tools/feed.py).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
import dataclasses
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from big_distill import parallel
from big_distill import plan as plan_lib
from big_distill import registry
from big_distill import render
from big_distill import views


class Span(NamedTuple):
  """Steps first ... last - 1, in which models see the views `shown`."""
  first: int
  last: int
  shown: Sequence[views.View]


class Feed:
  """Asks data for batches, and compiles steps that take them.

  data: the functions of input/pipeline.py. crops: their options. spans: start
    -> Spans from there to the end of the run, in order. attach: batch -> what
    else belongs to it. periods: how often anything is due, if not the plan's
    alone.
  """

  def __init__(self, data: Any, source: Any, plan: plan_lib.Plan,
               spans: Callable[[int], Iterable[Span]],
               attach: Callable[[dict], dict] | None = None,
               periods: Sequence[int] | None = None, **crops: Any) -> None:
    self._source, self._plan, self._spans = source, plan, spans
    self._periods = plan.periods if periods is None else periods
    self._data, self._host = data, crops.get('host', (0, 1))
    self._attach = attach
    self._images = None
    if plan.period:
      crops['period'] = plan.period
    if source.resident:
      held = data.hold(source)
      tpu = parallel.platform() == 'tpu'
      self._images = parallel.share(render.spread(held[0]) if tpu else held[0])
      self._draw = registry.bind(data.train_boxes, held=held, **crops)
    else:
      self._draw = registry.bind(data.train_batches, **crops)

  def ends(self, start: int) -> Iterator[int]:
    """The last step of each call from `start`; no call crosses a Span."""
    for span in self._spans(start):
      yield from call_ends(span.first, span.last, self._plan.per_call,
                           self._periods)

  def batches(self, start: int) -> Iterator[dict[str, Any]]:
    """Host batches of these calls."""
    single = itertools.chain.from_iterable(
        self.single(span.shown, span.first, span.last)
        for span in self._spans(start))
    return (single if self._plan.per_call == 1 else
            group(single, start, self.ends(start), self._plan.per_call))

  def single(self, shown: Sequence[views.View], first: int,
             last: int) -> Iterator[dict[str, Any]]:
    """Host batches of single steps first ... last - 1."""
    batches = self._draw(self._source, shown, self._plan.batch_size,
                         self._plan.seed, first, last)
    if not self._attach:
      return batches
    return ({**batch, **self._attach(batch)} for batch in batches)

  def indices(self, first: int, last: int) -> Iterator[np.ndarray]:
    """Which examples steps first ... last - 1 see, int64 [b] of this host."""
    plan = self._plan
    return self._data.indices(self._source, plan.batch_size, plan.seed, first,
                              last, period=plan.period, host=self._host)

  def compile(self, step: Callable, shown: Sequence[views.View],
              calls: bool = True, donate: bool = True) -> Callable:
    """step(state, teachers, batch) -> ..., pmapped, for batches of this feed.

    For calls of several steps where the plan has them, or for single steps.
    """
    donated = (0,) if donate else ()
    many = calls and self._plan.per_call > 1
    if self._images is None:
      return parallel.pmap(step, donate=donated)

    def rendered(state, teachers, batch, images):
      shows = render.views(images, batch['index'], batch['boxes'], shown)
      return step(state, teachers, {**batch, 'views': shows})

    return Rendering(parallel.pmap(
        repeat(rendered) if many else rendered, donate=donated,
        in_axes=(0, 0, 0, None)), self._images)


@dataclasses.dataclass(frozen=True)
class Rendering:
  """A program that also takes the images that devices hold."""
  program: Callable
  images: Any

  def __call__(self, state: Any, teachers: Any, call: Any) -> Any:
    return self.program(state, teachers, call, self.images)


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

  The scalars are those of its last step. What a step returns beside state and
  scalars, leaves [b, ...], is stacked to [b, most, ...].
  """
  def steps(state, teachers, call, *rest):
    count, batches = call['count'][0], {**call}
    del batches['count']
    most = jax.tree.leaves(batches)[0].shape[1]

    def take(i, state):
      after, scalars, *kept = step(state, teachers, jax.tree.map(
          lambda x: x[:, i], batches), *rest)
      return after, scalars, kept

    def body(i, carry):
      state, scalars, kept = take(i, carry[0])
      return state, scalars, jax.tree.map(
          lambda all, x: all.at[i].set(x), carry[2], kept)

    _, scalars, kept = jax.eval_shape(take, 0, state)
    scalars = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), scalars)
    kept = jax.tree.map(lambda x: jnp.zeros((most, *x.shape), x.dtype), kept)
    state, scalars, kept = jax.lax.fori_loop(
        0, count, body, (state, scalars, kept))
    return state, scalars, *jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), kept)

  return steps
