"""Teachers asked: their parameters on the devices, and single steps of answers.

Weights are read when somebody first asks. A foreign teacher, a function of the
user's, answers on the host.
"""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from big_distill import feed as feed_lib
from big_distill import parallel
from big_distill import steps
from big_distill import views
from big_distill.classroom import Classroom


class Faculty:
  """The teachers' parameters on the devices, read when somebody first asks."""

  def __init__(self, room: Classroom) -> None:
    self._room, self._params = room, None

  def __call__(self) -> list[Any]:
    if self._params is None:
      with jax.transfer_guard('allow'):
        self._params = parallel.replicate(
            self._room.read_teachers().teacher_params)
    return self._params


class Asker:
  """Asks the teachers about single steps, apart from any student."""

  def __init__(self, lesson: steps.Lesson, feed: feed_lib.Feed,
               faculty: Faculty) -> None:
    self._lesson, self._feed, self._faculty = lesson, feed, faculty
    self._shown = seen_by(lesson)
    self._next = -1
    self._batches: Iterator[dict[str, Any]] = iter(())
    self._see = feed.compile(self._look, self._shown, calls=False, donate=False)
    self._pack = parallel.pmap(self._packed)

  def _look(self, step, teacher_params, batch):
    """(What teachers answer, what foreign ones see) of one step."""
    seen = self._lesson.see(step, batch)
    own = {teacher.name: teacher.answer(params, seen[str(teacher.sees)])
           for teacher, params in zip(self._lesson.teachers, teacher_params)
           if teacher.size and not teacher.foreign}
    return own, {str(teacher.sees): seen[str(teacher.sees)]
                 for teacher in self._lesson.teachers if teacher.foreign}

  def _packed(self, answers):
    logits = self._lesson.condense([
        answers[teacher.name] for teacher in self._lesson.teachers
        if teacher.size])
    return logits, self._lesson.form.pack(logits)

  def ask(self, step: int) -> tuple[list[Any], Any]:
    """(live logits, the same packed) for a step: this host's, [b, ...]."""
    with jax.transfer_guard('allow'):  # Inside the loop, and seldom.
      return self._ask(step)

  def _ask(self, step):
    if step != self._next:  # Steps in a row need one stream of batches.
      self._batches = self._feed.single(self._shown, step, step + 2**20)
    self._next = step + 1
    batch = parallel.split(next(self._batches))
    own, seen = self._see(parallel.replicate(np.int32(step)), self._faculty(),
                          batch)
    for teacher in self._lesson.teachers:
      if teacher.foreign:
        own[teacher.name] = parallel.split(teacher.answer(
            {}, parallel.join(seen[str(teacher.sees)])))
    return parallel.join(self._pack(own))


def is_foreign(lesson: steps.Lesson) -> bool:
  """Whether a teacher answers on the host."""
  return any(teacher.foreign for teacher in lesson.teachers)


def seen_by(lesson: steps.Lesson) -> list[views.View]:
  """The views of a lesson's teachers, each once."""
  return sorted({teacher.sees for teacher in lesson.teachers
                 if isinstance(teacher.sees, views.View)}, key=str)
