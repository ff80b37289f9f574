"""A member of a class of students: its state, its workdir, its records."""

from collections.abc import Iterable, Mapping
import math
import time
from typing import Any, NamedTuple

from absl import logging
import jax

from big_distill import course as course_lib
from big_distill import doctor
from big_distill import estimate
from big_distill import identity
from big_distill import leaving
from big_distill import ledger
from big_distill import metrics
from big_distill import nonfinite
from big_distill import parallel
from big_distill import pretrained
from big_distill import progress
from big_distill import report
from big_distill import runs
from big_distill import stacks
from big_distill.durations import due


class Seat(NamedTuple):
  """What a run is given: its config, its folder, and what keeps its metrics."""
  config: Mapping[str, Any]
  workdir: str
  writer: Any


class Member:
  """One student in training, resumed from its workdir if it was begun there.

  shows: whether it prints lines on its progress.
  """

  def __init__(self, seat: Seat, course: course_lib.Course,
               known: identity.Identity, shows: bool = True) -> None:
    self.course = course
    self._config, self._workdir, self._writer = seat
    self._shows, plan = shows, course.plan
    self._checkpoints = course.open_checkpoints(f'{seat.workdir}/checkpoints')
    state, self._resumed = self._checkpoints.restore_or(course.state)
    self.step = int(state.step)
    known.confirm(plan.total, self.step, identity.facts(course))
    known.record()
    self._writer.rewind(self.step if self._resumed else -1)
    report.introduce(course, seat.workdir, self.step)
    self.taken = parallel.replicate(state)  # A State, or what stands for it.
    self._pace = progress.Progress(self.step, plan.total, plan.batch_size)

  @property
  def state(self) -> Any:
    """The replicated State."""
    return stacks.cut(self.taken)

  def begin(self) -> None:
    """Evaluates the student that has not learned yet."""
    if not self._resumed:
      self._writer.write(0, self._evaluate(0))

  def _evaluate(self, step):
    return self.course.evaluate(step, self.state.params, self.course.faculty)

  def reset(self, step: int) -> None:
    """Starts the clock anew at a step: what came before is not training."""
    self._pace.reset(step)

  def follow(self, step: int, state: Any, scalars: Any, told: bool,
             seen: ledger.Ledger) -> None:
    """Takes over what a call came to; logs, evaluates and saves what is due.

    Raises ValueError where the loss is not finite.
    """
    self.step, self.taken = step, state
    plan = self.course.plan
    saving = told or due(step, plan.save_every, plan.total)
    logs = due(step, plan.log_every, plan.total)
    if logs or saving:
      row = {f'train/{name}': float(value)
             for name, value in parallel.first(stacks.cut(scalars)).items()}
      nonfinite.check(step, row, self.state, self.course, self._config,
                      self._workdir, self._checkpoints)
    if logs:
      del row[metrics.SKIPPED_IN_A_ROW]
      # A mean over no example, as of losses where no label is known.
      row = {name: x for name, x in row.items() if not math.isnan(x)}
      row[metrics.EPOCH] = step * plan.batch_size / plan.num_examples
      row |= self._pace.measure(step) | self.course.steps.audited
      row |= seen.row(step)
      if self._shows:
        self._pace.show(step, row)
      self._writer.write(step, row)
    if row := self._evaluate(step):
      self._writer.write(step, row)
      self.reset(step)
    if saving:
      self.course.steps.flush()  # What a resumed run will not be asked again.
      self._checkpoints.save(self.state, step)

  def close(self) -> None:
    """Waits for what is being written."""
    self._checkpoints.close()

  def finish(self, findings: list[doctor.Finding]) -> dict[str, Any]:
    """Saves the student; returns report.result.

    `findings` are the doctor's at the end; they are said, and kept.
    """
    self.close()
    for finding in findings:
      logging.log(logging.INFO if finding.status == doctor.OK else logging.ERROR,
                  '%s, %s: %s', finding.status, finding.about, finding.text)
    student = f'{self._workdir}/student.npz'
    if jax.process_index() == 0:
      with runs.writing(student):
        pretrained.save(student, parallel.first(self.state.params),
                        self.course.layout, self.course.card)
      if findings:
        doctor.keep([*doctor.read(self._workdir), *findings], self._workdir)
    return report.result(self._writer.read(), self.course)


def assemble(seats: Mapping[str, Seat], data: Any, allow: Iterable[str] = (),
             layout: str | None = None) -> dict[str, Member]:
  """{name: Member} of all seats: one class, so that they share what they can.

  `layout` is one of stacks.LAYOUTS, or None.
  """
  known = {name: identity.Identity(seat.workdir, {**seat.config}, allow)
           for name, seat in seats.items()}
  courses = course_lib.make_class(
      {name: seat.config for name, seat in seats.items()}, data, layout=layout)
  findings = doctor.check(next(iter(courses.values())))
  members = {name: Member(seat, courses[name], known[name],
                          shows=name == next(iter(seats)))
             for name, seat in seats.items()}
  if jax.process_index() == 0:
    for name, seat in seats.items():
      course = courses[name]
      if members[name].step == course.plan.total:
        continue  # What it found at the end stays.
      doctor.keep([*findings, *doctor.cost(course.plan, course.room,
                                           course.state)], seat.workdir)
  return members


class FirstCall:
  """Says how long all may take; then how long the first call took, compiling."""

  def __init__(self, members: Iterable[Member]) -> None:
    members = [*members]
    if any(member.step < member.course.plan.total for member in members):
      plan = members[0].course.plan
      left = plan.total - min(member.step for member in members)
      logging.info('%s', estimate.text(
          [member.course.room for member in members], left * plan.batch_size))
      logging.info('Compiling the first step ...')
    self._began, self.done = time.monotonic(), False

  def __call__(self, members: Iterable[Member],
               preemption: leaving.Preemption | leaving.Stay,
               step: int) -> None:
    if self.done:
      return
    self.done = True
    members = [*members]
    jax.block_until_ready([member.state for member in members])
    logging.info('First step: %.1f s, compilation included.',
                 time.monotonic() - self._began)
    for member in members:
      member.reset(step)
    preemption.begin()
