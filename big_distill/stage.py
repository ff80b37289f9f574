"""From a config to the values and functions that the loop runs on.

Config stops at this door: a section is passed whole to the function it is for,
so a misspelt key fails here, with the near name, before anything is computed.
"""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax

from big_distill import checkpoint
from big_distill import evaluate
from big_distill import losses
from big_distill import optim
from big_distill import parallel
from big_distill import pretrained
from big_distill import registry
from big_distill import steps
from big_distill import teaching
from big_distill import views
from big_distill.durations import due
from big_distill.durations import Durations

KEYS = (  # Everything a config can say; the rest is a misspelling.
    'seed', 'data', 'crops', 'mode', 'mixup', 'batch_size', 'total_steps',
    'total_examples', 'total_epochs', 'log_steps', 'log_examples', 'log_epochs',
    'log_percent', 'student', 'teachers', 'combine', 'loss', 'optim', 'evals',
    'checkpoints', 'layout')


class Cast(NamedTuple):
  """Who plays: the student, what it sees, and its teachers."""
  student: Any
  params: Any
  size: int
  sees: views.View
  teachers: list[teaching.Teacher]

  def answer(self, params, images, train=False):
    """The student's logits [b, c]."""
    return self.student.apply({'params': params}, images, train=train)[0]

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
  step: Callable  # lesson.step, pmapped: State is donated.
  batches: Callable  # start -> host batches of steps start, start + 1, ...
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
  parallel.check_batch(batch_size, group)
  loss = losses.make(**config.get('loss', {}))
  host = (jax.process_index(), jax.process_count())
  crops = {**config.get('crops', {}), 'host': host}
  train_batches = registry.bind(data.train_batches, **crops)
  eval_batches = registry.bind(data.eval_batches, **crops)
  load = functools.cache(
      lambda *options: registry.bind(data.load, **dict(options))())
  source = load(*config['data'].items())

  durations = Durations(batch_size, source.num_examples)
  total = durations.pop(config, 'total')
  durations = Durations(batch_size, source.num_examples, total)
  log_every = durations.pop(config, 'log', default=max(total // 100, 1))
  saving = {**config.get('checkpoints', {})}
  save_every = durations.pop(saving, 'every', default=0)
  open_checkpoints = registry.bind(checkpoint.Checkpoints, **saving)
  optimizer = {**config['optim']}
  warmup = durations.pop(optimizer, 'warmup', default=0)
  tx, lr = optim.make(total, warmup=warmup, **optimizer)
  exams = [_exam(name, section, config, load, durations)
           for name, section in config.get('evals', {}).items()]

  cast = _cast(config, mode, source)
  layout = config.get('layout', 'big_vision')
  registry.check('layout', layout, pretrained.layouts(cast.params))
  lesson = steps.Lesson(
      functools.partial(cast.answer, train=True), cast.sees,
      tuple(cast.teachers), tx, lr, cast.num_classes, loss,
      config.get('combine', 'logits'), mix if mode.mixup else None, seed,
      labelled=len(source.classes) == cast.num_classes)
  shown = {cast.sees, *(teacher.sees for teacher in cast.models)}
  batches = functools.partial(
      train_batches, source, sorted(shown, key=str), batch_size, seed,
      stop=total)

  return Stage(
      cast, mode, source, steps.init_state(cast.params, tx), lesson,
      step=parallel.pmap(lesson.step, donate=(0,)), batches=batches,
      evaluate=_evaluation(exams, cast, lesson.combine, total, functools.partial(
          eval_batches, batch_size=batch_size, seed=seed)),
      open_checkpoints=open_checkpoints, batch_size=batch_size, total=total,
      log_every=log_every, save_every=save_every, layout=layout)


def _cast(config, mode, source):
  """Loads the teachers, then makes a student of as many classes."""
  if mode.votes:
    raise ValueError(f'{mode}: a mean over {mode.votes} votes is a recorded '
                     'answer, and there is no recording to teach from.')
  section = {**config['student']}
  init, head = section.pop('init', None), section.pop('head', 'keep')
  size = section.pop('size', None)
  if size is None:
    raise ValueError('The student does not say the size of its images: set '
                     'config.student.size.')
  classes = section.pop('num_classes', None) or len(source.classes) or None
  teachers = [
      registry.bind(teaching.load, **teacher)(name, num_classes=classes)
      for name, teacher in config.get('teachers', {}).items()]
  known = [teacher.num_classes for teacher in teachers if teacher.num_classes]
  classes = config['student'].get('num_classes') or (known or [classes])[0]
  combine = config.get('combine', 'logits')
  teaching.check(teachers, combine, classes, source)

  student, params = pretrained.create(
      size=size, num_classes=classes, seed=config.get('seed', 0), **section)
  if init:
    params = pretrained.init_from(params, init, head)
  sees, teacher_views = views.assign(
      mode, size, [teacher.size for teacher in teachers])
  teachers = [teacher._replace(sees=view) if teacher.size else teacher
              for teacher, view in zip(teachers, teacher_views)]
  return Cast(student, params, size, sees, teachers)


class Exam(NamedTuple):
  """An evaluator, what it is run on, and how often."""
  name: str
  evaluator: Any
  source: Any
  view: views.View
  every: int


def _exam(name, section, config, load, durations):
  """An Exam, from a section of config.evals."""
  section = {**section}
  every = durations.pop(section, 'every', default=0)
  view = views.View.parse(section.pop('view', 'central'))
  options = {**config['data'], **section.pop('data', {})}
  evaluator = registry.load('evaluators', section.pop('type')).Evaluator
  evaluator = registry.bind(evaluator, **section)()
  return Exam(name, evaluator, load(*options.items()), view, every)


def _evaluation(exams, cast, combine, total, eval_batches):
  """-> (step, student params, teachers' params) -> metrics due at that step.

  Every evaluator runs before the first step, every so often, and at the end.
  """
  models = [i for i, teacher in enumerate(cast.teachers) if teacher.size]
  runs = []
  for exam in exams:
    needs, classes = exam.evaluator.needs, len(exam.source.classes)
    if exam.evaluator.labelled and classes != cast.num_classes:
      raise ValueError(
          f'The evaluation {exam.name!r} needs labels of {cast.num_classes} '
          f'classes; {exam.source.title} has {classes or "none"}.')
    if 'teacher' in needs and not models:
      raise ValueError(f'The evaluation {exam.name!r} needs a teacher that is '
                       'a model.')
    sees = exam.view.at(cast.size) if 'student' in needs else None
    teachers = [teacher._replace(sees=exam.view.at(teacher.size))
                for teacher in cast.models if 'teacher' in needs]
    shown = {teacher.sees for teacher in teachers} | ({sees} - {None})
    runs.append((
        exam, bool(teachers), functools.partial(
            eval_batches, exam.source, sorted(shown, key=str)),
        evaluate.make(exam.evaluator, steps.make_eval_step(
            cast.answer, sees, teachers, combine))))

  def evaluate_due(step, params, teacher_params):
    metrics = {}
    for exam, taught, batches, run in runs:
      if step == 0 or due(step, exam.every, total):
        shown = [teacher_params[i] for i in models] if taught else []
        for metric, value in run(params, shown, batches()).items():
          metrics[f'{exam.name}/{metric}'] = value
    return metrics

  return evaluate_due
