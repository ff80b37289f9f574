"""train(): the loop, from a config to a trained student, or a class of them."""

import contextlib

from absl import logging
import jax

from big_distill import doctor
from big_distill import leaving
from big_distill import ledger
from big_distill import member as member_lib
from big_distill import parallel
from big_distill import report


def train(config, workdir, data, writer, preemption=None, allow=()):
  """Distils as `config` says; returns report.result, or None if preempted.

  `data` has the functions of input/pipeline.py; `writer` keeps metrics
  (writers.py). Resumes from the newest checkpoint in workdir, and writes
  student.npz there at the end. `preemption` says when to leave (leaving.py),
  `allow` which keys may differ from the run in workdir (identity.py).
  """
  seat = member_lib.Seat(config, workdir, writer)
  results = train_class({'': seat}, data, preemption, allow)
  return results and results['']


def train_class(seats, data, preemption=None, allow=(), layout=None):
  """Trains several students on the same batches and the same answers.

  {name: member.Seat} -> {name: result}, or None if preempted. Each leaves in
  its workdir what it would leave alone. One that diverges is left behind, and
  has no result. `layout` says how students that differ in numbers alone learn
  together (stacks.py); None chooses.
  """
  members = member_lib.assemble(seats, data, allow, layout)
  first, *_ = members.values()
  with contextlib.closing(first.course.steps):
    return _learn(members, first, preemption or leaving.Stay())


def _learn(members, first, preemption):
  """As train_class, of members; the first one knows what all share."""
  feed, steps, plan = first.course.feed, first.course.steps, first.course.plan
  start = before = min(member.step for member in members.values())
  seen = ledger.Ledger(start, plan.log_every, plan.total, feed.indices)
  batches = parallel.prefetch(seen.watch(
      report.first_batch(feed.batches(start), first.course.room.by_label),
      feed.ends(start)))
  for member in members.values():
    member.begin()
  compiled = member_lib.FirstCall(members.values())

  # Anything that moves to a device in here without being asked to is a bug.
  with jax.transfer_guard('disallow'):
    for step, batch in zip(feed.ends(start), batches):
      # A kill may have come between two members' checkpoints: one waits, and
      # waits alone if the other is left behind.
      learning = {name: member for name, member in members.items()
                  if member.step < step}
      taken = steps.take({name: member.taken for name, member
                          in learning.items()}, batch, before,
                         step) if learning else {}
      for name, (state, _) in taken.items():
        members[name].taken = state
      compiled(learning.values(), preemption, step)
      told, before = preemption.reached(), step
      for name, (state, scalars) in taken.items():
        try:
          members[name].follow(step, state, scalars, told, seen)
        except ValueError as error:
          if len(members) == 1:
            raise
          logging.error('%s is left behind: %s', name, error)
          members.pop(name).close()
      if told and step < plan.total:
        for member in members.values():
          member.close()
        logging.info('Preempted: saved step %d. %s', step, leaving.go_on())
        return None

  findings = doctor.unchanged(first.course)
  return {name: member.finish(findings) for name, member in members.items()}
