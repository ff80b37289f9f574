"""A course: all that lies between a config and its loop.

Config stops at this door: a section is passed whole to the function it is for,
so a misspelt key fails here, with the near name, before anything is computed.
"""

from collections.abc import Callable, Mapping
import functools
from typing import Any, NamedTuple

import jax

from big_distill import answers
from big_distill import checkpoint
from big_distill import classroom
from big_distill import durations
from big_distill import exams
from big_distill import feed as feed_lib
from big_distill import losses
from big_distill import optim
from big_distill import plan as plan_lib
from big_distill import pretrained
from big_distill import registry
from big_distill import steps
from big_distill import teaching
from big_distill import views


class Course(NamedTuple):
  """What the loop runs on; see `make`."""
  plan: plan_lib.Plan
  mode: views.Mode
  source: Any
  room: classroom.Classroom
  lesson: steps.Lesson
  pupil: steps.Pupil
  state: steps.State  # Before the first step, on the host.
  feed: feed_lib.Feed
  step: Callable  # (state, teachers' params, call) -> state, scalars; pmapped.
  evaluate: Callable  # (step, student params, teachers' params) -> metrics due
  open_checkpoints: Callable
  layout: str


def make(config: Mapping[str, Any], data: Any) -> Course:
  """The Course of a config; `data` has the functions of input/pipeline.py.

  Raises ValueError where the config asks for what cannot be.
  """
  # What is cheap to check comes before what is slow to load.
  mode = views.mode(config['mode'])
  mix = registry.bind(steps.mixup, **config.get('mixup', {}))
  loss = losses.make(**config.get('loss', {}))
  crops = {**config.get('crops', {}),
           'host': (jax.process_index(), jax.process_count())}
  eval_batches = registry.bind(data.eval_batches, **crops)
  load = loader(data)
  source = load(config['data'])
  plan = plan_lib.make(config, source.num_examples)
  open_checkpoints = registry.bind(
      checkpoint.Checkpoints,
      **durations.without(config.get('checkpoints', {}), 'every'))
  tx, lr = optim.make(plan.total, warmup=plan.warmup,
                      **durations.without(config['optim'], 'warmup'))
  examined = [exams.make(name, section, config['data'], load, plan.exams[name])
              for name, section in config.get('evals', {}).items()]

  room = classroom.load(config, mode, source, plan.seed)
  teaching.check_recordings(room.teachers, mode)
  layout = config.get('layout', 'big_vision')
  registry.check('layout', layout, pretrained.layouts(room.params))
  teachers = tuple(teacher.in_lessons() for teacher in room.teachers)
  lesson = steps.Lesson(
      teachers, room.num_classes, room.combine, mix if mode.mixup else None,
      plan.seed, labelled=len(source.classes) == room.num_classes,
      accumulate=plan.accumulate)
  pupil = steps.Pupil(room.learn, room.sees, tx, lr, loss)
  recordings = {
      teacher.name: answers.read(teacher.recording, answers.manifest(
          teacher, source, mode, plan.seed, **config.get('crops', {})))
      for teacher in room.teachers if teacher.recording}
  shown = sorted({room.sees, *(teacher.sees for teacher in teachers
                               if isinstance(teacher.sees, views.View))},
                 key=str)
  feed = feed_lib.make(data, source, shown, plan, recordings, **crops)
  return Course(
      plan, mode, source, room, lesson, pupil,
      steps.init_state(room.params, tx), feed,
      feed.compile(functools.partial(lesson.step, pupil)),
      exams.make_evaluate(examined, room, plan.total, functools.partial(
          eval_batches, batch_size=plan.batch_size, seed=plan.seed)),
      open_checkpoints, layout)


def loader(data: Any) -> Callable[[Mapping[str, Any]], Any]:
  """-> load(section of data) -> source, which opens equal sections once."""
  opened = {}

  def load(section):
    section = {**section}
    key = repr(sorted(section.items()))
    if key not in opened:
      opened[key] = registry.bind(data.load, **section)()
    return opened[key]

  return load
