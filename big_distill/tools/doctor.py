"""Looks a run over before it costs anything.

  python -m big_distill.tools.doctor --config=configs/quickstart.py
  python -m big_distill.tools.doctor --config=configs/imagenet.py --plan

Prints a table: ok, look, or wrong. Weights of teachers, names of classes, views,
the teachers' accuracy on the first batch in the view of training, against
chance and the commonest class; then what the run costs, the time by three steps
that are taken and thrown away. --plan prints the cost alone, from shapes: no
weights are read and no step is compiled. With --slice=v5e-32 the run is compiled for
that TPU slice as well, in minutes. Exits with 1 if anything is wrong.
"""

import sys

from absl import flags
from absl import logging
import jax

from big_distill import command
from big_distill import course as course_lib
from big_distill import doctor
from big_distill import parallel
from big_distill import slices
from big_distill import unread
from big_distill.tools import compile as compile_tool
from big_distill.tools import stopwatch

STEPS = 3


def seconds_of_a_step(course: course_lib.Course) -> float:
  """Of three steps, after one that compiles."""
  state = parallel.replicate(course.state)
  shown = sorted({course.room.sees, *(
      teacher.sees for teacher in course.room.models)}, key=str)
  batches = course.feed.single(shown, 0, STEPS + 1)
  program = course.feed.compile(
      lambda state, params, batch: course.lesson.step(
          course.pupil, state, params, batch), shown, calls=False)

  def step():
    nonlocal state
    state, scalars = program(state, course.faculty(),
                             parallel.split(next(batches)))
    return scalars

  stopwatch.seconds(step)
  return stopwatch.seconds(step, STEPS)


def examine(config, data, plan=False, price=None):
  """All findings about a config; see train for `data`."""
  if plan:
    return doctor.cost(course_lib.make({**config, 'evals': {}}, data,
                                       read=False), price=price)
  course = course_lib.make(config, data)
  findings = doctor.static(course)
  if not any(finding.status == doctor.WRONG for finding in findings):
    findings += doctor.accuracies(course)
  return findings + doctor.cost(course, seconds_of_a_step(course), price)


def on_slice(config, name):
  """Whether a TPU slice, which need not be there, holds the run of a config."""
  found, said = compile_tool.examine(unread.config_of(config), slices.parse(name),
                                     evals=False)
  return doctor.Finding(doctor.OK if found['fits'] else doctor.WRONG,
                        f'slice {name}', said)


def main(flag):
  logging.set_verbosity(logging.WARNING)
  findings = examine({**flag.config}, command.pipeline(), flag.plan,
                     flag.price_per_hour)
  if flag.slice:
    findings.append(on_slice(flag.config, flag.slice))
  print(f'{jax.device_count()} x {jax.devices()[0].device_kind}')
  print(doctor.table(findings))
  sys.exit(any(finding.status == doctor.WRONG for finding in findings))


def _define_flags():
  flags.DEFINE_string('config', None, 'A file of configs/.')
  flags.DEFINE_bool('plan', False, 'Print the cost alone, from shapes.')
  flags.DEFINE_string('slice', None, 'TPU slice to compile for, such as v4-32.')
  flags.DEFINE_float('price_per_hour', None, 'Of all devices, for the cost.', 0.)
  flags.mark_flags_as_required(['config'])


if __name__ == '__main__':
  command.program(main, _define_flags)
