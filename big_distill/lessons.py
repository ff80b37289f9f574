"""Lessons: what a config says of images, teachers and answers; no student yet.

Courses are built on them (course.py), and tools that need no student use them
as they are.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from big_distill import answers
from big_distill import bounds
from big_distill import classroom
from big_distill import contracts
from big_distill import durations
from big_distill import faculty
from big_distill import plan as plan_lib
from big_distill import registry
from big_distill import replay
from big_distill import signatures
from big_distill import steps
from big_distill import store
from big_distill import views

BLOCK = 1024  # Examples of a block of answers that are means of votes.


class Lessons(NamedTuple):
  """What a config says of images, teachers and their answers."""
  mode: views.Mode
  load: Callable  # Section of data -> source.
  source: Any
  plan: plan_lib.Plan
  crops: dict[str, Any]  # Options of batches, this host's share among them.
  options: replay.Options
  room: classroom.Classroom
  lesson: steps.Lesson

  @property
  def host(self) -> tuple[int, int]:
    return self.crops['host']


def prepare(config: Mapping[str, Any], data: Any,
            read: bool = True) -> Lessons:
  """The Lessons of a config; `data` has the functions of input/pipeline.py.

  Without `read`, teachers' parameters are shapes until they are asked for.
  Raises ValueError where the config asks for what cannot be.
  """
  signatures.check_whole(config)
  mode = views.mode(config['mode'])
  mix = registry.bind(steps.mixup, **config.get('mixup', {}))
  options = registry.bind(replay.Options, **durations.without(
      config.get('answers', {}), 'period'))()
  crops = {**config.get('crops', {}),
           'host': (jax.process_index(), jax.process_count())}
  registry.bind(data.eval_batches, **crops)
  bounds.check('crops.fraction', crops.get('fraction', views.FRACTION), above=0,
               most=1)
  bounds.check('answers.audit_percent', options.audit_percent, least=0, most=100)
  load = loader(data)
  source = load(config['data'])
  plan = plan_lib.make(config, source.num_examples)
  # Where answers are kept, weights are read when they are missing.
  room = classroom.load(config, mode, source, plan.seed,
                        read=read and not options.store)
  apart = room.combine != 'logits' and len(room.models) > 1
  lesson = steps.Lesson(
      tuple(room.teachers), room.num_classes, room.combine,
      mix if mode.mixup else None, plan.seed,
      labelled=len(source.classes) == room.num_classes,
      accumulate=plan.accumulate, skips=plan.skips, period=plan.period,
      form=options.form(room.num_classes, apart) if options.store
      else answers.Form())
  _check_answers(mode, plan, options, room, lesson)
  return Lessons(mode, load, source, plan, crops, options, room, lesson)


def _check_answers(mode, plan, options, room, lesson):
  """Raises ValueError where answers must be kept, or cannot be."""
  if mode.votes and mode.mixup:
    raise ValueError(f'{mode}: answers that are a mean of votes are to images '
                     'as they are, and cannot be mixed up.')
  if mode.votes and not options.store:
    raise ValueError(f'{mode}: this mode needs its recorded answers, a mean over '
                     f'{mode.votes} views. Make them with python -m '
                     'big_distill.tools.record, and set answers.store=FOLDER.')
  if options.store and not room.models:
    raise ValueError('answers.store: no teacher is a model, so there is nothing '
                     'to keep. Leave it out.')
  if options.store and not plan.period and not mode.votes:
    raise ValueError('answers.store: answers are kept of a stream that repeats. '
                     'Set answers.period_epochs, such as 10.')
  if plan.period and mode.votes:
    raise ValueError(f'{mode}: a mean of votes belongs to an example, whatever '
                     'the step: leave answers.period_epochs out.')
  if faculty.is_foreign(lesson) and not options.store:
    raise ValueError('A teacher of python=FILE.py:make teaches by answers that '
                     'are kept. Set answers.store=FOLDER and '
                     'answers.period_epochs.')


def open_store(lessons: Lessons, config: Mapping[str, Any],
               begin: bool = True) -> store.Store | None:
  """The store that a config names; one that is not there is begun, if asked."""
  options, plan, mode = lessons.options, lessons.plan, lessons.mode
  if not options.store:
    return None
  hosts, lesson = lessons.host[1], lessons.lesson
  count = len(lesson.condense([jnp.zeros([1, 1])] * len(lessons.room.models)))
  rows = -(-BLOCK // hosts) if mode.votes else plan.batch_size // hosts
  like = jax.eval_shape(lesson.form.pack, [jax.ShapeDtypeStruct(
      (rows, lesson.num_classes), jnp.float32)] * count)
  blocks = (-(-lessons.source.num_examples // (rows * hosts)) if mode.votes
            else plan.period)
  return store.Store(
      options.store,
      manifest(lesson, lessons.source, mode, plan, config), like, blocks,
      lessons.host, begin)


def manifest(lesson: steps.Lesson, source: Any, mode: views.Mode,
             plan: plan_lib.Plan, config: Mapping[str, Any]) -> dict[str, Any]:
  """What decides the answers of a run's stream: a dict that JSON can hold."""
  sections = config.get('teachers', {})
  crops = {**{'fraction': views.FRACTION, 'reduced': False},
           **config.get('crops', {})}
  teachers = [
      {'identity': teacher.identity, 'view': str(teacher.sees),
       'dtype': sections[teacher.name].get('dtype', 'float32'),
       'weights': sections[teacher.name].get('weights', 'float32')}
      for teacher in lesson.teachers if teacher.size]
  return {
      'data': source.title, 'images': contracts.pixels_of(source),
      'examples': source.num_examples, 'classes': lesson.num_classes,
      'resident': source.resident, **crops, 'seed': plan.seed,
      'votes': mode.votes, 'teachers': teachers,
      'combine': lesson.combine if len(teachers) > 1 else 'logits',
      'dtype': lesson.form.dtype, 'top': lesson.form.top,
      **({} if mode.votes else {
          'batch_size': plan.batch_size, 'period_steps': plan.period,
          'mixup': {'group': plan.group, **config.get('mixup', {})}
                   if mode.mixup else None})}


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
