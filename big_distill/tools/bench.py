"""Where the time of a step goes: teachers, student, optimizer, input.

  python -m big_distill.tools.bench --config=configs/bench.py:depth=50,size=128
  python -m big_distill.tools.bench --config=configs/quickstart.py
  python -m big_distill.tools.bench --config=configs/bench.py --largest

A course is made as training makes it, then its compiled step and three parts of
that step run in turn on one batch of random pixels that is already on the
devices: what the teachers answer, the student's loss and the gradients' mean
over devices, the optimizer's update. Each time is the median of `repeats`
rounds; in a round every part is called `steps` times in a row. What the step
holds of a device's memory is XLA's own account of its program; --largest finds
the batch that just fits, and times nothing.

Left out: evaluation, checkpoints, the copy of a batch to the devices, and more
than one host. The whole step is compiled as one and also computes what is
logged, so the parts need not add up to it. Input needs TensorFlow and is
measured only where it is, after the rest: the bundled photographs, whatever the
config's data, as uint8 views from the pipeline of training.
"""

import statistics
import textwrap
from typing import NamedTuple

from absl import flags
from absl import logging
import jax.numpy as jnp

from big_distill import cards
from big_distill import command
from big_distill import costs
from big_distill import course as course_lib
from big_distill import losses
from big_distill import parallel
from big_distill import views
from big_distill.tools import footprint
from big_distill.tools import noise
from big_distill.tools import stopwatch

TEACHER, STUDENT = 'teacher forward', 'student forward + backward'
OPTIMIZER, WHOLE, INPUT = 'optimizer', 'whole step', 'input'


class Row(NamedTuple):
  """A line of the table; a part without a time has a note that says why."""
  part: str
  ms: float | None = None
  images_per_s: float | None = None
  gflop_per_image: float | None = None
  gflop_per_s: float | None = None
  share: float | None = None  # Of the whole step.
  first_s: float | None = None  # The first call, which compiles.
  note: str = ''


def parts(lesson, pupil):
  """The three parts of lesson.step, pmapped: teach, learn, update."""
  def teach(step, teacher_params, batch):
    seen = lesson.see(step, batch)
    return lesson.agree(lesson.answer(teacher_params, seen), seen,
                        losses.temperature(pupil.loss))

  def learn(step, params, target, batch):
    value, grads = pupil.learn(params, target, lesson.see(step, batch))
    return value, parallel.mean(grads)

  def update(state, grads):
    return pupil.update(state, grads, {})[0]

  return (parallel.pmap(teach), parallel.pmap(learn),
          parallel.pmap(update, donate=(0,)))


def time_parts(course, calls=1, repeats=10):
  """{part: (seconds of its first call, median seconds of a later one)}."""
  teach, learn, update = parts(course.lesson, course.pupil)
  teachers = parallel.replicate(course.room.teacher_params)
  batch = parallel.split(next(course.feed.batches(0)))
  state = parallel.replicate(course.state)
  updated = parallel.replicate(course.state)
  target = grads = None

  def run_teachers():
    nonlocal target
    target = teach(state.step, teachers, batch)
    return target

  def run_student():
    nonlocal grads
    _, grads = learn(state.step, state.params, target, batch)
    return grads

  def run_optimizer():  # On a state of its own, since it donates it.
    nonlocal updated
    updated = update(updated, grads)
    return updated

  def run_whole():
    nonlocal state
    (state, scalars), = course.steps.take({'': state}, batch, 0, 1).values()
    return state, scalars

  runs = {TEACHER: run_teachers, STUDENT: run_student,
          OPTIMIZER: run_optimizer, WHOLE: run_whole}
  return stopwatch.in_turn(runs, calls, repeats)


def time_input(course, config, calls=1, repeats=10):
  """(seconds to the first batch, median seconds of a later one)."""
  pipeline = command.pipeline()
  shown = [views.View.parse(view) for view in next(course.feed.batches(0))['views']]
  cache = dict(config['data']).get('cache', 'encoded')
  batches = pipeline.train_batches(
      pipeline.load('caltech12', cache=cache), shown, course.plan.batch_size, 0, 0,
      2**40 // course.plan.batch_size, **dict(config.get('crops', {})))
  first = stopwatch.seconds(lambda: next(batches))
  for _ in range(8):  # What is rendered ahead is used up.
    next(batches)
  times = [stopwatch.seconds(lambda: next(batches), calls)
           for _ in range(repeats)]
  return first, statistics.median(times)


def bench(course, config, calls=1, repeats=10, with_input=False):
  """(the rows of the table, bytes of memory that the step holds)."""
  times, note = time_parts(course, calls, repeats), ''
  if not with_input:
    note = 'left out by --noinput'
  else:
    try:
      times[INPUT] = time_input(course, config, calls, repeats)
    except ImportError as error:
      note = f'no {error.name or "TensorFlow"} here'

  taught, learnt = (flop / 1e9 for flop in costs.training(course.room))
  gflop = {TEACHER: taught or None, STUDENT: learnt, WHOLE: taught + learnt}
  rows = []
  for part, (first, seconds) in times.items():
    rate, work = course.plan.batch_size / seconds, gflop.get(part)
    rows.append(Row(part, 1e3 * seconds, rate, work, work and work * rate,
                    seconds / times[WHOLE][1], first))
  batch = next(course.feed.batches(0))
  return (rows + ([Row(INPUT, note=note)] if note else []),
          footprint.memory(course, batch))


def facts(course, memory):
  """What a number needs beside it to be compared with another."""
  def model(model, params, sees):
    return (f'{cards.family_of(model)}, '
            f'{costs.parameters(params) / 1e6:.3g} M parameters in '
            f'{costs.nbytes(params) / 1e6:.3g} MB, '
            f'{jnp.dtype(model.dtype).name}, sees {sees}')

  room = course.room
  _, learn = footprint.arguments(course, next(course.feed.batches(0)))
  exchanged = costs.exchanged(course.steps.learners[''].program, *learn)
  return {'student': model(room.student, room.params, room.sees),
          'teachers': '; '.join(
              model(teacher.model, teacher.params, teacher.sees)
              if teacher.size else teacher.name for teacher in room.teachers),
          'mixup': course.mode.mixup, 'classes': room.num_classes,
          'batch': course.plan.batch_size, 'memory_bytes': memory,
          'exchanged_bytes': exchanged, **stopwatch.machine()}


def table(rows, known):
  """Facts and rows, for a terminal."""
  def number(x):
    if x is None:
      return '-'
    return f'{x:,.0f}' if x >= 100 else f'{x:#.3g}'.rstrip('.')

  lines = [
      f'Student: {known["student"]}.',
      *(f'Teacher: {teacher}.' for teacher in known['teachers'].split('; ')),
      f'{known["batch"]} images, {known["classes"]} classes; {known["devices"]}'
      f' x {known["device"]}, {known["cpus"]} CPU cores; jax {known["jax"]}.',
      f'A step holds {known["memory_bytes"] / 1e6:,.1f} MB of each device, which '
      f'gives {known["exchanged_bytes"] / 1e6:,.2f} MB to the others.',
      '', f'{"":26}{"ms":>9}{"images/s":>11}{"GFLOP/image":>13}{"GFLOP/s":>11}'
      f'{"share":>7}']
  for row in rows:
    lines.append(f'{row.part:26}' + (
        f'{number(row.ms):>9}{number(row.images_per_s):>11}'
        f'{number(row.gflop_per_image):>13}{number(row.gflop_per_s):>11}'
        f'{row.share:>7.0%}' if row.ms else f'    {row.note}'))
  first = ', '.join(f'{row.part.split()[0]} {row.first_s:.1f} s'
                    for row in rows if row.first_s)
  lines += ['', textwrap.fill(
      f'First calls, which compile: {first}. Backward counts as two forwards. '
      'Input past 100% of the step holds it up.', 78)]
  return '\n'.join(lines)


def _define_flags():
  flags.DEFINE_string(
      'config', None, 'A file of configs/, such as configs/bench.py:depth=50.')
  flags.DEFINE_integer(
      'classes', 1000, 'Classes, where a config leaves them to its data.', 1)
  flags.DEFINE_integer(
      'steps', 1, 'Calls in a row that are timed as one; more of them hide the '
      'latency of a fast device, as training does.', 1)
  flags.DEFINE_integer('repeats', 10, 'Rounds.', 1)
  flags.DEFINE_bool('largest', False, 'Time nothing; find the largest batch '
                    'that fits into the memory of the devices.')
  flags.DEFINE_bool('input', True, 'Measure input, where TensorFlow is.')
  flags.DEFINE_string('csv', None, 'File to write the rows to.')
  flags.mark_flags_as_required(['config'])


def main(flag):
  logging.set_verbosity(logging.WARNING)
  if flag.csv:
    open(flag.csv, 'a').close()  # Better an error now than at the end.
  data = noise.Noise(flag.classes)
  # A step alone, of views that are given to it.
  config = {**flag.config, 'evals': {}, 'steps_per_call': 1,
            'data': {**flag.config.get('data', {}), 'resident': False}}
  if flag.largest:
    limit = costs.available()
    batch, memory = footprint.largest_batch(config, data, limit)
    print(f'The largest batch is {batch:,} images: a step holds '
          f'{memory / 1e9:.1f} of {limit / 1e9:.1f} GB of each device.')
    return
  course = course_lib.make(config, data)
  rows, memory = bench(course, config, flag.steps, flag.repeats, flag.input)
  known = facts(course, memory)
  print(table(rows, known))
  if flag.csv:
    stopwatch.save(flag.csv, [row._asdict() for row in rows], known)


if __name__ == '__main__':
  command.program(main, _define_flags)
