"""Looks a run over before it costs anything.

  python -m big_distill.tools.doctor --config=configs/quickstart.py
  python -m big_distill.tools.doctor --config=configs/imagenet.py --plan

Prints a table: ok, look, or wrong. Weights of teachers, names of classes, views,
the teachers' accuracy on the first batch in the view of training, against
chance and the commonest class; then what the run costs, the time by three steps
that are taken and thrown away. --plan prints the cost alone, from shapes: no
weights are read and no step is compiled; what is not at hand counts as published,
or as --examples=N --classes=C say, in a row of its own. With --slice=v5e-32 the
run is compiled for that TPU slice as well, in minutes. Exits with 1 if anything is
wrong.
"""

import itertools
import os
import sys
import tempfile

from absl import flags
from absl import logging
import jax

from big_distill import command
from big_distill import course as course_lib
from big_distill import doctor
from big_distill import faculty
from big_distill import lessons
from big_distill import parallel
from big_distill import pretrained
from big_distill import slices
from big_distill import unread
from big_distill.state import State
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
  asker = (faculty.Asker(course.lesson, course.feed, course.faculty)
           if faculty.is_foreign(course.lesson) else None)
  numbers = itertools.count()

  def step():
    nonlocal state
    batch = next(batches)
    if asker:  # As in a run whose answers are not kept yet.
      batch['answers'] = asker.ask(next(numbers))[1]
    state, scalars = program(state, course.faculty(), parallel.split(batch))
    return scalars

  stopwatch.seconds(step)
  return stopwatch.seconds(step, STEPS)


def plan(config, data, examples=None, classes=None, price=None):
  """What the run of a config costs, from shapes alone; see train for `data`.

  Published names tell architectures. Data that is not at hand counts as
  published, or has so many `examples` and `classes`, which is then said.
  """
  findings = []
  config = unread.config_of({**config, 'evals': {}})
  config['data'] = {**config['data'], 'cache': 'none'}
  teachers = {f'teachers.{name}': section
              for name, section in config['teachers'].items()}
  for about, section in {'student': config['student'], **teachers}.items():
    if section.get('init'):
      try:
        pretrained.shapes(section['init'], section.get('size'))
      except ValueError as error:
        raise ValueError(
            f'{about}.init: {error} To plan without that file, describe its '
            f'model in the config: ' + (
                'family, depth and so on in place of init.'
                if about == 'student' else
                "random=dict(family='bit', depth=50) in place of init.")
        ) from error
  try:
    if examples or classes:
      raise ValueError('It was not looked for.')
    lessons.loader(data)(config['data'])
  except ValueError as error:
    data = unread.Shapes(examples, classes)
    try:
      source = data.load(**config['data'])
    except ValueError as unknown:
      raise ValueError(f'{error} {unknown}') from error
    findings.append(doctor.Finding(
        doctor.LOOK, 'data', f'{error} In its place: {source.num_examples:,} '
        f'examples of {len(source.classes)} classes, as '
        f'{"given" if examples or classes else "published"}; --examples=N '
        '--classes=C say otherwise.'))
  known = lessons.prepare(config, data, read=False)
  pupil = course_lib.recipe(config, known.room, known.plan).make({})
  state = jax.eval_shape(lambda params: State.init(params, pupil.tx),
                         known.room.params)
  return findings + doctor.cost(known.plan, known.room, state, price=price)


def examine(config, data, price=None):
  """All findings about a config; see train for `data`."""
  answers = config.get('answers') or {}
  if answers.get('store') and not os.path.exists(answers['store']):
    with tempfile.TemporaryDirectory() as folder:  # A look leaves nothing behind.
      return examine({**config, 'answers': {**answers, 'store': folder}}, data,
                     price)
  course = course_lib.make(config, data)
  findings = doctor.static(course)
  if not any(finding.status == doctor.WRONG for finding in findings):
    findings += doctor.accuracies(course)
  return findings + doctor.cost(course.plan, course.room, course.state,
                                seconds_of_a_step(course), price)


def on_slice(config, which, examples=None, classes=None):
  """Whether a TPU slice, which need not be there, holds the run of a config."""
  try:
    found, said = compile_tool.examine(
        unread.config_of(config), which, examples, classes, evals=False)
    status = doctor.OK if found['fits'] else doctor.WRONG
  except ValueError as error:  # The rest of the table still holds.
    status, said = doctor.WRONG, str(error)
  return doctor.Finding(status, f'slice {which}', said)


def main(flag):
  logging.set_verbosity(logging.WARNING)
  which = slices.parse(flag.slice) if flag.slice else None
  config, data, price = {**flag.config}, command.pipeline(), flag.price_per_hour
  for line in (f'{jax.device_count()} x {jax.devices()[0].device_kind}',
               *config.get('notes', ()),
               *(() if flag.plan else ('Compiling a step, to time three ...',))):
    print(line, flush=True)
  findings = (plan(config, data, flag.examples, flag.classes, price)
              if flag.plan else examine(config, data, price))
  if which:
    findings.append(on_slice(flag.config, which, flag.examples, flag.classes))
  print(doctor.table(findings))
  sys.exit(any(finding.status == doctor.WRONG for finding in findings))


def _define_flags():
  flags.DEFINE_string('config', None, 'A file of configs/.')
  flags.DEFINE_bool('plan', False, 'Print the cost alone, from shapes.')
  flags.DEFINE_integer('examples', None, 'Of data that --plan does not look for.',
                       1)
  flags.DEFINE_integer('classes', None, 'Of that data.', 1)
  flags.DEFINE_string('slice', None, 'TPU slice to compile for, such as v4-32.')
  flags.DEFINE_float('price_per_hour', None, 'Of all devices, for the cost.', 0.)
  flags.mark_flags_as_required(['config'])


if __name__ == '__main__':
  command.program(main, _define_flags)
