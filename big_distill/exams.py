"""What is evaluated, on which images, when: from config.evals to metrics."""

import functools
from typing import Any, NamedTuple

from big_distill import evaluate
from big_distill import registry
from big_distill import steps
from big_distill import teaching
from big_distill import views
from big_distill.durations import due


class Exam(NamedTuple):
  """An evaluator, what it is run on, and how often.

  `train` is the second split of an evaluator that trains on features.
  """
  name: str
  evaluator: Any
  source: Any
  train: Any
  view: views.View
  every: int


def make(name, section, data, load, durations):
  """An Exam, from a section of config.evals; `data` is what it may inherit."""
  section = {**section}
  every = durations.pop(section, 'every', default=0)
  view = views.View.parse(section.pop('view', 'central'))
  # Of a mixture, or of images that lack the student's labels, nothing follows.
  inherited = {key: data[key] for key in data if key not in ('parts', 'label')}
  data = {**inherited, **section.pop('data', {})}
  train = section.pop('train', None)
  evaluator = registry.load('evaluators', section.pop('type')).Evaluator
  evaluator = registry.bind(evaluator, **{
      key: tuple(value) if isinstance(value, list) else value
      for key, value in section.items()})()
  if bool(train) != hasattr(evaluator, 'trains'):
    raise ValueError(f'The evaluation {name!r} ' + (
        'takes no split to train on.' if train else
        "needs a split to train on, such as train=dict(split='train')."))
  return Exam(name, evaluator, load(data), load({**data, **train})
              if train else None, view, every)


def make_evaluate(exams, cast, combine, total, eval_batches):
  """-> (step, student params, teachers' params) -> metrics due at that step.

  Every evaluator runs before the first step, every so often, and at the end.
  """
  # Of two exams that differ in images only, one program serves both.
  program = functools.cache(
      lambda evaluator, view: _run(evaluator, view, cast, combine, eval_batches))
  for exam in exams:
    _check(exam, cast)
  runs = [(exam, program(exam.evaluator, exam.view)) for exam in exams]

  def evaluate_due(step, params, teacher_params):
    metrics = {}
    for exam, run in runs:
      if step == 0 or due(step, exam.every, total):
        for metric, value in run(exam, params, teacher_params).items():
          metrics[f'{exam.name}/{metric}'] = float(value)
    return metrics

  return evaluate_due


def _run(evaluator, view, cast, combine, eval_batches):
  """-> (exam, student params, teachers' params) -> {metric: number}."""
  sees = view.at(cast.size) if 'student' in evaluator.needs else None
  taught = [i for i, teacher in enumerate(cast.teachers)
            if teacher.size and 'teacher' in evaluator.needs]
  teachers = [cast.teachers[i]._replace(
      sees=view.at(cast.teachers[i].size)) for i in taught]
  student = cast.answer
  if layer := getattr(evaluator, 'layer', None):
    student = functools.partial(teaching.features, cast.student, layer)
    teachers, combine = [each.layer(layer) for each in teachers], None
  shown = {teacher.sees for teacher in teachers} | ({sees} - {None})
  batches = functools.partial(eval_batches, views=sorted(shown, key=str))
  step = steps.make_eval_step(student, sees, teachers, combine)

  if not hasattr(evaluator, 'measure'):
    mean = evaluate.make(evaluator, step)
    return lambda exam, params, teacher_params: mean(
        params, [teacher_params[i] for i in taught], batches(exam.source))

  gather = evaluate.make_gather(step)

  def run(exam, params, teacher_params):
    shown = [teacher_params[i] for i in taught]
    splits = [gather(params, shown, batches(source))
              for source in (exam.source, exam.train) if source]
    return evaluator.measure(*splits[0], exam.source.classes, *splits[1:])

  return run


def _check(exam, cast):
  """Raises ValueError where an exam cannot be held."""
  evaluator, classes = exam.evaluator, len(exam.source.classes)
  if evaluator.labelled and classes != cast.num_classes:
    raise ValueError(
        f'The evaluation {exam.name!r} needs labels of {cast.num_classes} '
        f'classes; {exam.source.title} has {classes or "none"}.')
  if exam.train and exam.train.classes != exam.source.classes:
    raise ValueError(
        f'The evaluation {exam.name!r} trains on {exam.train.title}, whose '
        f'classes are not those of {exam.source.title}.')
  if exam.train and not classes:
    raise ValueError(f'The evaluation {exam.name!r} needs labels; '
                     f'{exam.source.title} has none.')
  if 'teacher' in evaluator.needs and not cast.models:
    raise ValueError(f'The evaluation {exam.name!r} needs a teacher that is '
                     'a model.')
