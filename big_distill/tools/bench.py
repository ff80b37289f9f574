"""Where the time of a step goes: teachers, student, optimizer, input.

  python -m big_distill.tools.bench --depth=50 --size=128 --batch=64
  python -m big_distill.tools.bench --config=configs/quickstart.py

The stage is set as training sets it, then its compiled step and three parts of
that step run in turn on one batch of random pixels that is already on the
devices: what the teachers answer, the student's loss and the gradients' mean
over devices, the optimizer's update. Each time is the median of `repeats`
rounds; in a round every part is called `steps` times in a row.

Left out: evaluation, checkpoints, the copy of a batch to the devices, and more
than one host. The whole step is compiled as one and also computes what is
logged, so the parts need not add up to it. Input needs TensorFlow and is
measured only where it is: bundled photographs as uint8 views, read by
the pipeline of training while the devices rest.
"""

import csv
import datetime
import itertools
import os
import platform
import statistics
import subprocess
import sys
import time
from typing import NamedTuple

from absl import app
from absl import flags
import flax
import jax
import jaxlib
from ml_collections import config_flags
import numpy as np

from big_distill import parallel
from big_distill import report
from big_distill import stage as stage_lib
from big_distill import views

_CONFIG = config_flags.DEFINE_config_file(
    'config', None, 'A file of configs/, with arguments; it says all that the '
    'flags of models would.')
_BATCH = flags.DEFINE_integer(
    'batch', None, "Images per step; the config's own, or 32.", lower_bound=1)
_CLASSES = flags.DEFINE_integer(
    'classes', 1000, 'Classes, where the config leaves them to its data.',
    lower_bound=1)
_STEPS = flags.DEFINE_integer(
    'steps', 1, 'Calls in a row that are timed as one; more of them hide the '
    'latency of a fast device, as training does.', lower_bound=1)
_REPEATS = flags.DEFINE_integer('repeats', 10, 'Rounds.', lower_bound=1)
_INPUT = flags.DEFINE_bool(
    'input', True, 'Measure input too, where TensorFlow is installed.')
_CSV = flags.DEFINE_string('csv', None, 'File to write the rows to.')

_MODEL = {  # Flags that stand for a config; teachers default to the student.
    'depth': flags.DEFINE_list('depth', ['50'], 'Depth of the student: 50, or '
                               'units per block such as 1,1,1.'),
    'width': flags.DEFINE_float('width', 1., 'Width of the student.', 0.),
    'size': flags.DEFINE_integer('size', 64, 'Pixels it sees a side.', 1),
    'teacher_depth': flags.DEFINE_list('teacher_depth', None, 'As depth.'),
    'teacher_width': flags.DEFINE_float('teacher_width', None, 'As width.', 0.),
    'teacher_size': flags.DEFINE_integer('teacher_size', None, 'As size.', 1),
    'dtype': flags.DEFINE_enum('dtype', 'float32', ['float32', 'bfloat16'],
                               'Precision of both forwards.'),
    'optim': flags.DEFINE_string('optim', 'adam', 'A file of optimizers/.'),
}
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


class Source(NamedTuple):
  """What a stage asks of its images."""
  title: str
  num_examples: int
  classes: tuple


class Noise:
  """Stands in for input.pipeline: random pixels, one batch for all steps."""

  def __init__(self, classes):
    self.classes = tuple(range(classes))

  def load(self, **options):
    del options  # Which images these would be makes no difference.
    return Source('noise', 10**6, self.classes)

  def train_batches(self, source, shown, batch_size, seed, start, stop, *,
                    host=(0, 1), **crops):
    del start, stop, crops
    rng, b = np.random.default_rng(seed), batch_size // host[1]
    images = {str(view): rng.integers(
        0, 256, (b, view.size, view.size, 3), np.uint8) for view in shown}
    label = rng.integers(0, len(source.classes), b, np.int32)
    return itertools.repeat({'label': label, 'views': images})

  eval_batches = train_batches  # Bound by a stage, though it evaluates nothing.


def set_stage(config, classes):
  """The stage that training would set, on noise and without evaluations."""
  config = {**config, 'evals': {}}
  return stage_lib.set_stage(config, Noise(classes))


def parts(lesson):
  """The three parts of lesson.step, pmapped: teach, learn, update."""
  def teach(step, teacher_params, batch):
    return lesson.teach(teacher_params, lesson.see(step, batch))

  def learn(step, params, target, batch):
    return lesson.learn(params, target, lesson.see(step, batch))

  def update(state, grads):
    return lesson.update(state, grads)[0]

  return (parallel.pmap(teach), parallel.pmap(learn),
          parallel.pmap(update, donate=(0,)))


def time_parts(stage, calls=1, repeats=10):
  """{part: (seconds of its first call, median seconds of a later one)}."""
  teach, learn, update = parts(stage.lesson)
  teachers = parallel.replicate(stage.cast.teacher_params)
  batch = parallel.split(next(stage.batches(0)))
  state = parallel.replicate(stage.state)
  updated = parallel.replicate(stage.state)
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
    state, scalars = stage.step(state, teachers, batch)
    return state, scalars

  runs = {TEACHER: run_teachers, STUDENT: run_student,
          OPTIMIZER: run_optimizer, WHOLE: run_whole}
  first = {part: _seconds(run) for part, run in runs.items()}
  times = {part: [] for part in runs}
  with jax.transfer_guard('disallow'):
    # In turn, so that what else the machine does falls on all parts alike.
    for _ in range(repeats):
      for part, run in runs.items():
        times[part].append(_seconds(run, calls))
  return {part: (first[part], statistics.median(times[part])) for part in runs}


def _seconds(run, calls=1):
  """Of one call, out of so many in a row."""
  began = time.perf_counter()
  for _ in range(calls):
    result = run()
  jax.block_until_ready(result)
  return (time.perf_counter() - began) / calls


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
  first = _seconds(lambda: next(batches))
  # tf.data finds its number of threads and fills its buffer meanwhile.
  for _ in range(8):
    next(batches)
  times = [_seconds(lambda: next(batches), calls) for _ in range(repeats)]
  return first, statistics.median(times)


def bench(stage, config, calls=1, repeats=10, with_input=False):
  """The rows of the table."""
  times, note = time_parts(stage, calls, repeats), ''
  if not with_input:
    note = 'not asked for: --noinput'
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
  return rows + ([Row(INPUT, note=note)] if note else [])


def config_of_flags():
  """A config of the student and the teacher that the flags describe."""
  def model(role):
    def flag(name):
      value = _MODEL.get(role + name, _MODEL[name]).value
      return _MODEL[name].value if value is None else value
    units = [int(n) for n in flag('depth')]
    return dict(depth=units[0] if len(units) == 1 else tuple(units),
                width=flag('width')), flag('size')

  (student, size), (teacher, teacher_size) = model(''), model('teacher_')
  dtype = _MODEL['dtype'].value
  return dict(
      batch_size=32, total_steps=10**6, mode='funmatch', data={},
      student=dict(size=size, dtype=dtype, **student),
      teachers=dict(teacher=dict(random=teacher, size=teacher_size,
                                 dtype=dtype)),
      optim=dict(name=_MODEL['optim'].value, lr=1e-3, wd=1e-4))


def table(rows):
  """The rows, for a terminal."""
  lines = [f'{"":<26}{"ms":>9}{"img/s":>10}{"GFLOP/img":>11}{"GFLOP/s":>9}'
           f'{"share":>7}{"first call":>12}']
  for row in rows:
    if row.ms is None:
      lines.append(f'{row.part:<26}{row.note}')
      continue
    work = (f'{row.gflop_per_image:>11.3g}{row.gflop_per_s:>9.3g}'
            if row.gflop_per_image else ' ' * 20)
    lines.append(f'{row.part:<26}{row.ms:>9.4g}{row.images_per_s:>10,.0f}{work}'
                 f'{row.share:>7.0%}{row.first_s:>10.1f} s')
  return '\n'.join(lines)


def circumstances():
  """What a number needs beside it to be compared with another."""
  git = subprocess.run(['git', 'rev-parse', '--short', 'HEAD'], check=False,
                       cwd=os.path.dirname(__file__), capture_output=True)
  return {'date': datetime.date.today().isoformat(),
          'commit': git.stdout.decode().strip(),
          'device': jax.devices()[0].device_kind,
          'devices': jax.device_count(), 'cpus': os.cpu_count(),
          'python': platform.python_version(), 'jax': jax.__version__,
          'jaxlib': jaxlib.__version__, 'flax': flax.__version__}


def save(path, rows):
  """Writes the rows as CSV, the circumstances repeated in each."""
  around = circumstances()
  with open(path, 'w', newline='') as file:
    writer = csv.DictWriter(file, [*Row._fields, *around])
    writer.writeheader()
    writer.writerows({**row._asdict(), **around} for row in rows)


def main(argv):
  del argv
  try:
    config = {**(_CONFIG.value or config_of_flags())}
    if _BATCH.value:
      config['batch_size'] = _BATCH.value
    stage = set_stage(config, _CLASSES.value)
    rows = bench(stage, config, _STEPS.value, _REPEATS.value, _INPUT.value)
  except ValueError as error:
    sys.exit(f'Error: {error}')
  print(', '.join(f'{name} {value}' for name, value in circumstances().items()))
  print(f'batch {stage.batch_size}; {stage.mode}; backward counted as twice '
        'the forward')
  print(table(rows))
  if _CSV.value:
    save(_CSV.value, rows)


if __name__ == '__main__':
  app.run(main)
