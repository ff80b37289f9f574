"""Where the time of a step goes: teachers, student, optimizer, input.

  python -m big_distill.tools.bench --depth=50 --size=128 --batch=64
  python -m big_distill.tools.bench --config=configs/quickstart.py
  python -m big_distill.tools.bench --depth=50 --size=128 --largest

The stage is set as training sets it, then its compiled step and three parts of
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

import ast
import statistics
import sys
import textwrap
from typing import NamedTuple

from absl import app
from absl import flags
from absl import logging
import jax.numpy as jnp
from ml_collections import config_flags

from big_distill import parallel
from big_distill import params as params_lib
from big_distill import report
from big_distill import stage as stage_lib
from big_distill import views
from big_distill.tools import costs
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


def parts(lesson):
  """The three parts of lesson.step, pmapped: teach, learn, update."""
  def teach(step, teacher_params, batch):
    return lesson.teach(teacher_params, lesson.see(step, batch))

  def learn(step, params, target, batch):
    value, grads = lesson.learn(params, target, lesson.see(step, batch))
    return value, parallel.mean(grads)

  def update(state, grads):
    return lesson.update(state, grads, {})[0]

  return (parallel.pmap(teach), parallel.pmap(learn),
          parallel.pmap(update, donate=(0,)))


def time_parts(stage, calls=1, repeats=10):
  """({part: (seconds of its first call, median seconds of a later one)}, step).

  The step is the compiled program.
  """
  teach, learn, update = parts(stage.lesson)
  teachers = parallel.replicate(stage.cast.teacher_params)
  batch = parallel.split(next(stage.batches(0)))
  state = parallel.replicate(stage.state)
  updated = parallel.replicate(stage.state)
  target = grads = program = None

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
    nonlocal state, program
    program = program or stage.step.lower(state, teachers, batch).compile()
    state, scalars = program(state, teachers, batch)
    return state, scalars

  runs = {TEACHER: run_teachers, STUDENT: run_student,
          OPTIMIZER: run_optimizer, WHOLE: run_whole}
  return stopwatch.in_turn(runs, calls, repeats), program


def time_input(stage, config, calls=1, repeats=10):
  """(seconds to the first batch, median seconds of a later one)."""
  import tensorflow as tf
  tf.config.set_visible_devices([], 'GPU')
  from big_distill.input import pipeline

  shown = [views.View.parse(view) for view in next(stage.batches(0))['views']]
  cache = dict(config['data']).get('cache', 'encoded')
  batches = pipeline.train_batches(
      pipeline.load('caltech12', cache=cache), shown, stage.batch_size, 0, 0,
      2**40 // stage.batch_size, **dict(config.get('crops', {})))
  first = stopwatch.seconds(lambda: next(batches))
  for _ in range(8):  # What is rendered ahead is used up.
    next(batches)
  times = [stopwatch.seconds(lambda: next(batches), calls)
           for _ in range(repeats)]
  return first, statistics.median(times)


def bench(stage, config, calls=1, repeats=10, with_input=False):
  """(the rows of the table, bytes of memory that the step holds)."""
  (times, program), note = time_parts(stage, calls, repeats), ''
  if not with_input:
    note = 'left out by --noinput'
  else:
    try:
      times[INPUT] = time_input(stage, config, calls, repeats)
    except ImportError as error:
      note = f'no {error.name or "TensorFlow"} here'

  cast = stage.cast
  taught = sum(report.flops(teacher.model, teacher.params, teacher.size)
               for teacher in cast.models) / 1e9
  learnt = 3 * report.flops(cast.student, cast.params, cast.size) / 1e9
  gflop = {TEACHER: taught or None, STUDENT: learnt, WHOLE: taught + learnt}
  rows = []
  for part, (first, seconds) in times.items():
    rate, work = stage.batch_size / seconds, gflop.get(part)
    rows.append(Row(part, 1e3 * seconds, rate, work, work and work * rate,
                    seconds / times[WHOLE][1], first))
  return (rows + ([Row(INPUT, note=note)] if note else []),
          costs.memory(program))


def facts(stage, memory):
  """What a number needs beside it to be compared with another."""
  def model(model, params, sees):
    family = type(model).__module__.rsplit('.', 1)[-1]
    return (f'{family}, {params_lib.count(params) / 1e6:.3g} M parameters in '
            f'{params_lib.nbytes(params) / 1e6:.3g} MB, '
            f'{jnp.dtype(model.dtype).name}, sees {sees}')

  cast = stage.cast
  return {'student': model(cast.student, cast.params, cast.sees),
          'teachers': '; '.join(
              model(teacher.model, teacher.params, teacher.sees)
              if teacher.size else teacher.name for teacher in cast.teachers),
          'mixup': stage.mode.mixup, 'classes': cast.num_classes,
          'batch': stage.batch_size, 'memory_bytes': memory,
          'exchanged_bytes': costs.exchanged(stage), **stopwatch.machine()}


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
  """By the command alone, since other commands have a --config too."""
  config_flags.DEFINE_config_file(
      'config', None, 'A file of configs/, in place of all --MODEL flags.')
  integer, real = flags.DEFINE_integer, flags.DEFINE_float
  integer('batch', None, "Images per step; the config's own, or 32.", 1)
  integer('classes', 1000, 'Classes, where a config leaves them to its data.',
          1)
  integer('steps', 1, 'Calls in a row that are timed as one; more of them hide '
          'the latency of a fast device, as training does.', 1)
  integer('repeats', 10, 'Rounds.', 1)
  flags.DEFINE_bool('largest', False, 'Time nothing; find the largest batch '
                    'that fits into the memory of the devices.')
  flags.DEFINE_bool('input', True, 'Measure input, where TensorFlow is.')
  flags.DEFINE_string('csv', None, 'File to write the rows to.')

  # MODEL: what a teacher's flags do not say is as the student's.
  flags.DEFINE_list('depth', ['50'], 'BiT: 50, or units of blocks: 1,1,1.')
  real('width', 1., 'Width of the student.', 0.01)
  integer('size', 64, 'Pixels it sees a side.', 1)
  flags.DEFINE_list('teacher_depth', None, 'As depth.')
  real('teacher_width', None, 'As width.', 0.01)
  integer('teacher_size', None, 'As size.', 1)
  flags.DEFINE_enum('dtype', 'float32', ['float32', 'bfloat16'],
                    'Precision of activations of both.')
  flags.DEFINE_string('optim', 'adam', 'A file of optimizers/, with options: '
                      'shampoo:root_every=1,start_step=0.')


MODEL = ('depth', 'width', 'size', 'teacher_depth', 'teacher_width',
         'teacher_size', 'dtype', 'optim')


def _config(flag):
  """The config that is given, or that the flags describe; no evaluations."""
  if flag.largest and flag.batch:
    raise ValueError('--largest and --batch are both given: keep one.')
  for name in MODEL:
    if flag.config and flag[name].present:
      raise ValueError(f'--{name} and --config are both given: keep one.')
  config = {**(flag.config or _described(flag))}
  # A step alone, of views that are given to it.
  config |= {'evals': {}, 'steps_per_call': 1,
             'data': {**config['data'], 'resident': False}}
  if flag.batch:
    config['batch_size'] = flag.batch
  return config


def _described(flag):
  def depth(units):
    if not all(unit.isdecimal() for unit in units):
      raise ValueError(f'The depth {",".join(units)!r} is neither a number, '
                       'such as 50, nor units of blocks, such as 1,1,1.')
    units = tuple(map(int, units))
    return units[0] if len(units) == 1 else units

  student = dict(depth=depth(flag.depth), width=flag.width)
  teacher = dict(depth=depth(flag.teacher_depth or flag.depth),
                 width=flag.teacher_width or flag.width)
  return dict(
      data={}, mode='funmatch', batch_size=32, total_steps=10**6,
      student=dict(size=flag.size, dtype=flag.dtype, **student),
      teachers=dict(teacher=dict(random=teacher, dtype=flag.dtype,
                                 size=flag.teacher_size or flag.size)),
      optim={'lr': 1e-3, 'wd': 1e-4, **_optimizer(flag.optim)})


def _optimizer(text):
  """'shampoo:root_every=1' -> {'name': 'shampoo', 'root_every': 1}."""
  def value(text):
    try:
      return ast.literal_eval(text)
    except (ValueError, SyntaxError):
      return text

  name, _, options = text.partition(':')
  pairs = [item.partition('=') for item in filter(None, options.split(','))]
  return {'name': name, **{key: value(text) for key, _, text in pairs}}


def main(argv):
  if len(argv) > 1:
    sys.exit(f'Error: Unknown argument {argv[1]!r}.')
  logging.set_verbosity(logging.WARNING)
  flag = flags.FLAGS
  try:
    config = _config(flag)
    if flag.csv:
      open(flag.csv, 'a').close()  # Better an error now than at the end.
    data = noise.Noise(flag.classes)
    if flag.largest:
      limit = costs.available()
      batch, memory = costs.largest_batch(config, data, limit)
      print(f'The largest batch is {batch:,} images: a step holds '
            f'{memory / 1e9:.1f} of {limit / 1e9:.1f} GB of each device.')
      return
    stage = stage_lib.set_stage(config, data)
    rows, memory = bench(stage, config, flag.steps, flag.repeats, flag.input)
    known = facts(stage, memory)
    print(table(rows, known))
    if flag.csv:
      stopwatch.save(flag.csv, [row._asdict() for row in rows], known)
  except (ValueError, OSError) as error:
    sys.exit(f'Error: {error}')


def _parse(argv):
  """Flags, or one line on what is wrong with them."""
  try:
    rest = flags.FLAGS(argv)
    dict(flags.FLAGS.config or {})  # Only now is a missing file noticed.
    return rest
  except (flags.Error, ValueError, OSError) as error:
    # What a config raises comes wrapped into its whole traceback.
    line = str(error).strip().splitlines()[-1].strip()
    sys.exit(f'Error: {line.removeprefix("ValueError: ")}')


if __name__ == '__main__':
  _define_flags()
  app.run(main, flags_parser=_parse)
