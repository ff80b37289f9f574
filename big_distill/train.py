"""train(): the loop, from a course to a trained student."""

import math
import time

from absl import logging
import jax

from big_distill import course as course_lib
from big_distill import identity
from big_distill import leaving
from big_distill import metrics
from big_distill import parallel
from big_distill import pretrained
from big_distill import progress
from big_distill import report
from big_distill import runs
from big_distill.durations import due


def train(config, workdir, data, writer, preemption=None, allow=()):
  """Distils as `config` says; returns report.result, or None if preempted.

  `data` has the functions of input/pipeline.py; `writer` keeps metrics
  (writers.py). Resumes from the newest checkpoint in workdir, and writes
  student.npz there at the end. `preemption` says when to leave (leaving.py),
  `allow` which keys may differ from the run in workdir (identity.py).
  """
  preemption = preemption or leaving.Stay()
  known = identity.Identity(workdir, config, allow)
  course = course_lib.make(config, data)
  plan, feed = course.plan, course.feed
  checkpoints = course.open_checkpoints(f'{workdir}/checkpoints')
  state, resumed = checkpoints.restore_or(course.state)
  start = int(state.step)
  known.confirm(plan.total, start, identity.facts(course))
  known.record()
  writer.rewind(start if resumed else -1)
  report.introduce(course, workdir, start)

  state = parallel.replicate(state)
  batches = parallel.prefetch(report.first_batch(feed.batches(start)))
  pace = progress.Progress(start, plan.total, plan.batch_size)
  if not resumed:
    writer.write(0, course.evaluate(0, state.params, course.faculty))
  began = time.monotonic()

  # Anything that moves to a device in here without being asked to is a bug.
  with jax.transfer_guard('disallow'):
    before = start
    for step, batch in zip(feed.ends(start), batches):
      state, scalars = course.steps.take(state, batch, before, step)
      if before == start:
        jax.block_until_ready(scalars)
        logging.info('First step: %.1f s, compilation included.',
                     time.monotonic() - began)
        pace.reset(step)
        preemption.begin()
      before = step

      told = preemption.reached()
      saving = told or due(step, plan.save_every, plan.total)
      logs = due(step, plan.log_every, plan.total)
      if logs or saving:
        row = {f'train/{name}': float(value)
               for name, value in parallel.first(scalars).items()}
        progress.check_finite(step, row, checkpoints)
      if logs:
        # A mean over no example, as of losses where no label is known.
        row = {name: x for name, x in row.items() if not math.isnan(x)}
        row[metrics.EPOCH] = step * plan.batch_size / plan.num_examples
        row |= pace.measure(step) | course.steps.audited
        pace.show(step, row)
        writer.write(step, row)
      if row := course.evaluate(
          step, state.params, course.faculty):
        writer.write(step, row)
        pace.reset(step)
      if saving:
        course.steps.flush()  # What a resumed run will not be asked again.
        checkpoints.save(state, step)
      if told and step < plan.total:
        checkpoints.close()
        logging.info('Preempted: saved step %d. %s', step, leaving.go_on())
        return None

  checkpoints.close()
  student = f'{workdir}/student.npz'
  if jax.process_index() == 0:
    with runs.writing(student):
      pretrained.save(student, parallel.first(state.params), course.layout,
                      course.card)
  return report.result(writer.read(), course)
