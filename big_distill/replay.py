"""Steps whose answers are kept: taught live once, replayed ever after.

What a run asks of its teachers is asked here. A call of steps that nobody has
answered yet teaches live and writes what the teachers agreed on; any other call
reads. At a stated rate a step that was read is answered live as well, so that
answers to other pixels, or of another teacher, do not go unnoticed.
"""

from collections.abc import Callable, Iterator, Mapping
import functools
import itertools
from typing import Any, NamedTuple

import jax
import numpy as np

from big_distill import answers as answers_lib
from big_distill import faculty as faculty_lib
from big_distill import feed as feed_lib
from big_distill import parallel
from big_distill import stacks
from big_distill import steps
from big_distill import store as store_lib
from big_distill import views

# Mean KL in nats past which kept answers are not those of this teacher. A
# teacher that computes in bfloat16 in place of float32 drifts by 5e-6
# (docs/speed.md), float16 answers by 1e-7.
BOUND = 1e-3
PENDING = 2  # Calls whose answers may wait on the devices.


class Options(NamedTuple):
  """config.answers: where answers are kept, how, and how often they are checked.

  top: how many logits are kept; None keeps all, and fewer cost more than they
  save in most cases (docs/topk.md). audit_percent: of steps that are read.
  """
  store: str = ''
  dtype: str = 'float16'
  top: int | None = None
  audit_percent: float = .5

  def form(self, num_classes: int, apart: bool) -> answers_lib.Form:
    """The Form of answers; `apart` where each teacher's are kept."""
    if apart and self.top:
      raise ValueError("answers.top: combine='probs' keeps all logits of each "
                       "teacher; leave top out, or set combine='logits'.")
    if self.top and not 1 <= self.top <= num_classes:
      raise ValueError(f'answers.top={self.top}: keep 1 to {num_classes} logits, '
                       'or all of them with top=None.')
    return answers_lib.Form(self.dtype, self.top)


class Live:
  """Takes the steps of students whose teachers answer every batch.

  Teaching and learning are two programs, one for the teachers and one for the
  `learners`, {name: stacks.Learners}. So learning is one and the same
  computation, whether answers are given now or were kept.
  """

  def __init__(self, lesson: steps.Lesson,
               learners: Mapping[str, stacks.Learners], feed: feed_lib.Feed,
               faculty: Callable[[], list[Any]]) -> None:
    self._lesson, self.learners, self._feed = lesson, learners, feed
    self._faculty = faculty
    self.audited: dict[str, float] = {}  # Metrics of the last audit.
    self._first: Any = None  # What was asked first, and the answers.

  @functools.cached_property
  def teach(self) -> Callable:
    """(steps taken, teachers' params, call) -> next step, {}, kept answers."""
    return self._feed.compile(self._lesson.teach,
                              faculty_lib.seen_by(self._lesson), donate=False)

  def take(self, states: Mapping[str, Any], call: Any, first: int, last: int
           ) -> dict[str, tuple[Any, dict[str, Any]]]:
    """{name: State} and the call of steps first ... last - 1.

    Returns {name: (State, scalars)}; see stacks.py for what stands for them.
    """
    del first, last
    if 'answers' in call:  # They came with the images.
      return self._follow(states, call, call['answers'])
    return self._follow(states, call, self._ask(states, call))

  def _ask(self, states, call):
    """The answers to a call, on the devices; none where only labels teach."""
    if not any(teacher.size for teacher in self._lesson.teachers):
      return []
    state, *_ = states.values()
    step = stacks.cut(state).step
    *_, kept = self.teach(step, self._faculty(), call)
    if self._first is None:
      self._first = (parallel.first(step), parallel.join(call),
                     parallel.join(kept))
    return kept

  def changed(self) -> float | None:
    """Asks once more what was asked first: the largest change of an answer.

    Relative to the largest answer; 0 is bitwise. None if nobody was asked.
    """
    if self._first is None:
      return None
    step, call, before = self._first
    with jax.transfer_guard('allow'):
      *_, after = self.teach(parallel.replicate(step), self._faculty(),
                             parallel.split(call))
    changes = [0.]
    for x, y in zip(jax.tree.leaves(before), jax.tree.leaves(
        parallel.join(after))):
      if (x.view(np.uint8) != y.view(np.uint8)).any():
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        changes.append(float(np.nan_to_num(
            np.abs(x - y), nan=np.inf).max() / np.abs(x).max()))
    return max(changes)

  def _follow(self, states, call, kept):
    call, taken = {**call, 'answers': kept}, {}
    for group in dict.fromkeys(self.learners[name] for name in states):
      taken |= group.step({name: state for name, state in states.items()
                           if self.learners[name] is group}, call)
    return taken

  def kept(self, step: int) -> Any:
    """This host's answers to a step, [b, ...], where they are kept; or None."""
    del step

  def flush(self, leave: int = 0) -> None:
    """Nothing waits to be written."""

  def close(self) -> None:
    """Ends what `take` does."""


class Replay(Live):
  """As Live, of a run whose answers are kept.

  known: which blocks all hosts have, bool [period].
  """

  def __init__(self, lesson: steps.Lesson,
               learners: Mapping[str, stacks.Learners], feed: feed_lib.Feed,
               faculty: faculty_lib.Faculty, store: store_lib.Store,
               known: np.ndarray, audit_percent: float, per_call: int) -> None:
    super().__init__(lesson, learners, feed, faculty)
    self._store, self._known, self._per_call = store, known.copy(), per_call
    self._pending: list[tuple[list[int], Any]] = []
    self._foreign = faculty_lib.is_foreign(lesson)
    self._asker = faculty_lib.Asker(lesson, feed, faculty)
    self._every = (round(100 / audit_percent)
                   if audit_percent and not self._foreign else 0)
    self._drift = parallel.pmap(lambda live, kept: [
        answers_lib.drift(x, y) for x, y in zip(live, lesson.form.unpack(kept))])

  def take(self, states: Mapping[str, Any], call: Any, first: int, last: int
           ) -> dict[str, tuple[Any, dict[str, Any]]]:
    """As Live's: asks the teachers what nobody asked before, and reads the rest.
    """
    blocks = [step % self._store.blocks for step in range(first, last)]
    if self._foreign:
      for block in blocks:
        if not self._known[block]:
          self._store.write(block, self._asker.ask(block)[1])
          self._known[block] = True
    if not self._known[blocks].all():
      kept = self._ask(states, call)
      self._known[blocks] = True
      self._pending.append((blocks, kept))
      taken = self._follow(states, call, kept)
      self.flush(PENDING)
      return taken
    if any(block in waiting for waiting, _ in self._pending
           for block in blocks):
      self.flush()
    for step, block in zip(range(first, last), blocks):
      if self._every and step % self._every == self._every - 1:
        self._audit(step, block)
    return self._follow(states, call, parallel.split(self._read(blocks)))

  def _read(self, blocks):
    kept = [self._store.read(block) for block in blocks]
    if self._per_call == 1:
      return kept[0]
    kept += kept[-1:] * (self._per_call - len(kept))
    return jax.tree.map(lambda *x: np.stack(x, axis=1), *kept)

  def kept(self, step: int) -> Any:
    """As Live's."""
    self.flush()
    block = step % self._store.blocks
    return self._store.read(block) if self._known[block] else None

  def flush(self, leave: int = 0) -> None:
    """Writes answers that wait on the devices, of all but the last calls."""
    while len(self._pending) > leave:
      blocks, kept = self._pending.pop(0)
      kept = parallel.join(kept)
      for i, block in enumerate(blocks):
        self._store.write(block, kept if self._per_call == 1 else
                          jax.tree.map(lambda x, i=i: x[:, i], kept))
      if self._known.all() and not self._pending:
        self._store.release()

  def close(self) -> None:
    """As Live's: another program may record."""
    self._store.release()

  def _audit(self, step, block):
    live, _ = self._asker.ask(block)
    drifts = parallel.join(self._drift(*parallel.split(
        (live, self._store.read(block)))))
    kl = float(np.mean([kl.mean() for kl, _ in drifts]))
    most = float(max(most.max() for _, most in drifts))
    self.audited = {'answers/drift_kl': kl, 'answers/drift_max': most}
    if not kl <= BOUND:
      raise ValueError(
          f'Step {step}: the answers kept in {self._store.folder} are not those '
          f'of this teacher to these images: KL {kl:.3g} nats, past {BOUND:g}, '
          'which no change of dtype explains. Since they were given: '
          f'{answers_lib.changed(self._store.manifest)}. Name another '
          'answers.store, or answers.audit_percent=0 to trust them.')


def spans(known: np.ndarray, total: int, live: list[views.View],
          replayed: list[views.View]) -> Callable[[int], Iterator]:
  """-> start -> Spans of a run whose period has these blocks `known`, [period].

  Steps that the run takes for the first time are live, unless they are known.
  """
  def spans_from(start):
    first = start
    for replay, group in itertools.groupby(
        range(start, min(start + len(known), total)),
        lambda step: bool(known[step % len(known)])):
      last = first + len(list(group))
      yield feed_lib.Span(first, last, replayed if replay else live)
      first = last
    if first < total:
      yield feed_lib.Span(first, total, replayed)

  return spans_from
