"""What it brings to ask the teachers once: kept answers, classes of students.

  python -m bench.answers --config=configs/quickstart.py --csv=bench/answers.csv

Steps of one config, on one batch of random pixels: taught live; reading kept
answers; and a class of students, taught live together. A class's rate counts
each image once for every student, as so many runs would have it. The ways take
turns. The time to read an answer and to move it to the devices is measured by
itself.
"""

import tempfile

from absl import flags
from absl import logging

from big_distill import command
from big_distill import costs
from big_distill import course as course_lib
from big_distill import parallel
from big_distill import stacks
from big_distill.tools import noise
from big_distill.tools import stopwatch

PERIOD = 2  # Steps of the store, of which all are alike.


def stepper(courses, batch):
  """-> step(): one step of all students, waited for by who times it."""
  first, *_ = courses.values()
  states = {name: parallel.replicate(course.state)
            for name, course in courses.items()}
  at = 0

  def step():
    nonlocal states, at
    taken = first.steps.take(states, batch, at, at + 1)
    states, at = {name: state for name, (state, _) in taken.items()}, at + 1
    return [scalars for _, scalars in taken.values()]

  return step


def layout_of(courses):
  course, *_ = courses.values()
  learners, *_ = course.steps.learners.values()
  return learners.layout


def measure(config, data, students, calls, repeats, layout=None):
  """Rows: way, students, ms of a step, student-images per second, and so on."""
  config = {**config, 'evals': {}, 'steps_per_call': 1, 'total_steps': 10**6,
            'data': {**config.get('data', {}), 'resident': False}}
  for key in ('total_epochs', 'log_percent'):
    config.pop(key, None)
  with tempfile.TemporaryDirectory() as folder:
    kept = {**config, 'answers': dict(
        store=f'{folder}/answers', period_steps=PERIOD, audit_percent=0)}
    ways = {('live', 1): course_lib.make_class({'': config}, data),
            ('kept answers', 1): course_lib.make_class({'': kept}, data),
            ('live', students): course_lib.make_class(
                {str(i): config for i in range(students)}, data,
                layout=layout)}
    live = ways['live', 1]['']
    batch = parallel.split(next(live.feed.batches(0)))
    runs = {way: stepper(courses, batch) for way, courses in ways.items()}
    for _ in range(PERIOD):  # What is asked for the first time is taught live.
      runs['kept answers', 1]()
    ways['kept answers', 1][''].steps.flush()
    times = stopwatch.in_turn(runs, calls, repeats)
    store = ways['kept answers', 1][''].store
    read = stopwatch.seconds(lambda: parallel.split(store.read(0)), 10)

    room, b = live.room, live.plan.batch_size
    taught = sum(costs.flops(teacher.model, teacher.params, teacher.size)
                 for teacher in room.models)
    learnt = 3 * costs.flops(room.student, room.params, room.size)
    plain = times['live', 1][1]
    return [{
        'way': way, 'students': n, 'ms': round(1e3 * seconds, 2),
        'images_per_s': round(n * b / seconds, 1),
        'times_live': round(n * plain / seconds, 2),
        'by_arithmetic': round(n * (taught + learnt) / (
            n * learnt + (0 if way == 'kept answers' else taught)), 2),
        'read_ms': round(1e3 * read, 3), 'answer_bytes': store.record,
        'layout': layout_of(ways[way, n]),
        'batch': b, 'size': room.size, 'classes': room.num_classes,
    } for (way, n), (_, seconds) in times.items()]


def main(flag):
  logging.set_verbosity(logging.WARNING)
  rows = measure({**flag.config}, noise.Noise(flag.classes), flag.students,
                 flag.steps, flag.repeats, flag.stack)
  for row in rows:
    print(f'{row["way"]:14}{row["students"]:3} students{row["ms"]:10,.1f} ms'
          f'{row["images_per_s"]:12,.0f} student-images/s'
          f'{row["times_live"]:7.2f} of live{row["by_arithmetic"]:7.2f} by '
          'arithmetic')
  print(f'Reading {rows[0]["answer_bytes"]} bytes for each of '
        f'{rows[0]["batch"]} images: {rows[0]["read_ms"]} ms.')
  if flag.csv:
    stopwatch.save(flag.csv, rows, {'name': flag.name, **stopwatch.machine()})


def _define_flags():
  flags.DEFINE_string('config', None, 'A file of configs/.')
  flags.DEFINE_integer('students', 8, 'Of the class.', 2)
  flags.DEFINE_integer('classes', 12, 'Classes, where data would tell.', 1)
  flags.DEFINE_integer('steps', 4, 'Steps in a row that are timed as one.', 1)
  flags.DEFINE_integer('repeats', 5, 'Rounds.', 1)
  flags.DEFINE_enum('stack', None, [*stacks.LAYOUTS], 'Layout of the class.')
  flags.DEFINE_string('name', 'quickstart', 'What the models are called.')
  flags.DEFINE_string('csv', None, 'File to write the rows to.')
  flags.mark_flags_as_required(['config'])


if __name__ == '__main__':
  command.program(main, _define_flags)
