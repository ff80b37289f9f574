"""From a config to the values and functions that the loop runs on.

Config stops at this door: a section is passed whole to the function it is for,
so a misspelt key fails here, with the near name, before anything is computed.
"""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

from absl import logging
import jax

from big_distill import checkpoint
from big_distill import dispatch
from big_distill import exams
from big_distill import losses
from big_distill import optim
from big_distill import parallel
from big_distill import pretrained
from big_distill import registry
from big_distill import render
from big_distill import steps
from big_distill import teaching
from big_distill import views
from big_distill.durations import Durations
from big_distill.input import recorded

KEYS = (  # Everything a config can say; the rest is a misspelling.
    'seed', 'data', 'crops', 'mode', 'mixup', 'batch_size', 'total_steps',
    'total_examples', 'total_epochs', 'log_steps', 'log_examples', 'log_epochs',
    'log_percent', 'student', 'teachers', 'combine', 'loss', 'optim', 'evals',
    'checkpoints', 'layout', 'steps_per_call', 'accumulate')


class Cast(NamedTuple):
  """Who plays: the student, what it sees, and its teachers."""
  student: Any
  params: Any
  size: int
  sees: views.View
  teachers: list[teaching.Teacher]

  def answer(self, params, images):
    """The student's logits [b, c]."""
    return self.student.apply({'params': params}, images)[0]

  def learn(self, params, images):
    """As answer, in training, and the averages it moved: part of params."""
    (logits, _), moved = self.student.apply(
        {'params': params}, images, train=True, mutable=['averages'])
    return logits, moved.get('averages', {})

  @property
  def models(self):
    """Teachers that look at images: all but labels."""
    return [teacher for teacher in self.teachers if teacher.size]

  @property
  def teacher_params(self):
    return [teacher.params for teacher in self.teachers]

  @property
  def num_classes(self):
    return self.student.num_classes


class Stage(NamedTuple):
  """Everything between a config and its loop."""
  cast: Cast
  mode: views.Mode
  source: Any
  state: steps.State
  lesson: steps.Lesson
  step: Callable  # One call of lesson.step, pmapped: State is donated.
  ends: Callable  # start -> the last steps of calls from there.
  batches: Callable  # start -> host batches of these calls.
  evaluate: Callable  # (step, student params, teachers' params) -> metrics due
  open_checkpoints: Callable
  batch_size: int
  total: int
  log_every: int
  save_every: int
  layout: str


def set_stage(config, data):
  """Builds the Stage of a config; see train.train for `data`."""
  config = {**config}
  for key in config:
    registry.check('config key', key, KEYS)

  # What is cheap to check comes before what is slow to load.
  seed, batch_size = config.get('seed', 0), config['batch_size']
  mode = views.mode(config['mode'])
  mix = registry.bind(steps.mixup, **config.get('mixup', {}))
  group = mix.keywords.get('group', 8) if mode.mixup else 1
  accumulate = config.get('accumulate', 1)
  parallel.check_batch(batch_size, group, accumulate)
  loss = losses.make(**config.get('loss', {}))
  host = (jax.process_index(), jax.process_count())
  crops = {**config.get('crops', {}), 'host': host}
  eval_batches = registry.bind(data.eval_batches, **crops)
  load = _loader(data.load)
  source = load(config['data'])
  per_call = config.get('steps_per_call', 1)
  if per_call < 1 or per_call > 1 and not source.resident:
    raise ValueError(f'steps_per_call={per_call}: a call takes one step, or '
                     'several with data.resident=True.')

  durations = Durations(batch_size, source.num_examples)
  total = durations.pop(config, 'total')
  durations = Durations(batch_size, source.num_examples, total)
  log_every = durations.pop(config, 'log', default=max(total // 100, 1))
  saving = {**config.get('checkpoints', {})}
  save_every = durations.pop(saving, 'every', default=0)
  open_checkpoints = registry.bind(checkpoint.Checkpoints, **saving)
  optimizer = {**config['optim']}
  warmup = durations.pop(optimizer, 'warmup', default=0)
  if warmup > total // 10:
    logging.warning('Warmup is shortened from %d to %d steps, a tenth of this '
                    'run.', warmup, total // 10)
    warmup = total // 10
  tx, lr = optim.make(total, warmup=warmup, **optimizer)
  held = [exams.make(name, section, config['data'], load, durations)
          for name, section in config.get('evals', {}).items()]

  cast = _cast(config, mode, source)
  layout = config.get('layout', 'big_vision')
  registry.check('layout', layout, pretrained.layouts(cast.params))
  teachers = tuple(teacher.in_lessons() for teacher in cast.teachers)
  lesson = steps.Lesson(
      cast.learn, cast.sees, teachers, tx, lr, cast.num_classes, loss,
      config.get('combine', 'logits'), mix if mode.mixup else None, seed,
      labelled=len(source.classes) == cast.num_classes, accumulate=accumulate)
  shown = sorted({cast.sees, *(teacher.sees for teacher in teachers
                               if isinstance(teacher.sees, views.View))},
                 key=str)
  recordings = {
      teacher.name: recorded.read(teacher.recording, recorded.manifest(
          teacher, source, mode, seed, **config.get('crops', {})))
      for teacher in cast.teachers if teacher.recording}

  ends = functools.partial(
      dispatch.ends, total=total, most=per_call,
      periods=[log_every, save_every, *(exam.every for exam in held)])
  if source.resident:
    step, train_batches = _resident(lesson, shown, data, source, crops,
                                    per_call)
  else:
    step = parallel.pmap(lesson.step, donate=(0,))
    train_batches = registry.bind(data.train_batches, **crops)

  def batches(start):
    single = recorded.attach(
        train_batches(source, shown, batch_size, seed, start, total),
        recordings)
    if per_call == 1:
      return single
    return dispatch.group(single, start, ends(start), per_call)

  return Stage(
      cast, mode, source, steps.init_state(cast.params, tx), lesson, step=step,
      ends=ends, batches=batches,
      evaluate=exams.make_evaluate(
          held, cast, lesson.combine, total, functools.partial(
              eval_batches, batch_size=batch_size, seed=seed)),
      open_checkpoints=open_checkpoints, batch_size=batch_size, total=total,
      log_every=log_every, save_every=save_every, layout=layout)


def _resident(lesson, shown, data, source, crops, per_call):
  """(step of calls, train_batches) where devices hold the images."""
  held = data.hold(source)
  images = parallel.replicate(held[0])

  def step(state, teachers, batch, images):
    shows = render.views(images, batch['index'], batch['boxes'], shown)
    return lesson.step(state, teachers, {**batch, 'views': shows})

  if per_call > 1:
    step = dispatch.repeat(step)
  step = parallel.pmap(step, donate=(0,))
  return (lambda state, teachers, call: step(state, teachers, call, images),
          registry.bind(data.train_boxes, held=held, **crops))


def _loader(load):
  """load(section of data) -> source, opening what is asked for twice once."""
  opened = {}

  def load_once(section):
    section = {**section}
    key = repr(sorted(section.items()))
    if key not in opened:
      opened[key] = registry.bind(load, **section)()
    return opened[key]

  return load_once


def _cast(config, mode, source):
  """Loads the teachers, then makes a student of as many classes."""
  section = {**config['student']}
  size = section.pop('size', None)
  if size is None:
    raise ValueError('The student does not say the size of its images: set '
                     'config.student.size.')
  classes = section.get('num_classes') or len(source.classes) or None
  teachers = [
      registry.bind(teaching.load, **teacher)(name, num_classes=classes)
      for name, teacher in config.get('teachers', {}).items()]
  known = [teacher.num_classes for teacher in teachers if teacher.num_classes]
  student, params = pretrained.student(
      section, size, (known or [classes])[0], config.get('seed', 0))
  teaching.check(teachers, mode, config.get('combine', 'logits'),
                 student.num_classes, source)
  sees, teacher_views = views.assign(
      mode, size, [teacher.size for teacher in teachers])
  teachers = [teacher._replace(sees=view) if teacher.size else teacher
              for teacher, view in zip(teachers, teacher_views)]
  return Cast(student, params, size, sees, teachers)
