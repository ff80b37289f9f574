"""What is evaluated, on which images, when: from config.evals to metrics."""

from collections.abc import Callable, Mapping, Sequence
import re
from typing import Any, NamedTuple

from big_distill import contracts
from big_distill import durations
from big_distill import evaluate
from big_distill import kept as kept_lib
from big_distill import registry
from big_distill import views
from big_distill.classroom import Classroom


class Exam(NamedTuple):
  """An evaluator, what it is run on, and how often.

  `train` is the second split of an evaluator that trains on features.
  """
  name: str
  evaluator: contracts.Evaluator
  source: contracts.Source
  train: contracts.Source | None
  view: views.View
  every: int

  @property
  def splits(self) -> list[Any]:
    return [source for source in (self.source, self.train) if source]


def is_test(split: str) -> bool:
  """Whether an expression of splits reads a test split."""
  return re.search(r'(^|\+)\s*(test|all$)', split.casefold()) is not None


def make(name: str, section: Mapping[str, Any], data: Mapping[str, Any],
         load: Callable, every: int = 0) -> Exam:
  """An Exam, from a section of config.evals.

  `data` is the section of the training data. Evals inherit its options except
  `parts` and `label`, which describe training alone.
  """
  section = durations.without(section, 'every')
  view = views.View.parse(section.pop('view', 'central'))
  if view.size:
    raise ValueError(f'evals.{name}.view={view}: sizes belong to the models. '
                     f'Leave @{view.size} out.')
  inherited = {key: data[key] for key in data if key not in ('parts', 'label')}
  data = {**inherited, **section.pop('data', {})}
  train = section.pop('train', None)
  evaluator = registry.load('evaluators', section.pop('type')).Evaluator
  evaluator = registry.bind(evaluator, **{
      key: tuple(value) if isinstance(value, list) else value
      for key, value in section.items()})()
  for who in evaluator.needs:
    registry.check(f'who in evals.{name}', who, ('student', 'teacher'))
  if bool(train) != hasattr(evaluator, 'trains'):
    raise ValueError(f'The evaluation {name!r} ' + (
        'takes no split to train on.' if train else
        "needs a split to train on, such as train=dict(split='train')."))
  return Exam(name, evaluator, load(data), load({**data, **train})
              if train else None, view, every)


def make_evaluate(exams: Sequence[Exam], room: Classroom, total: int,
                  eval_batches: Callable,
                  kept: kept_lib.Kept | None = None) -> Callable:
  """-> (step, student params, faculty) -> metrics due at that step.

  faculty() gives the teachers' parameters, where they are asked. Every
  evaluator runs before the first step, every so often, and at the end. All that
  look at one view of one split do so in one pass. What does not depend on the
  student is measured once. `kept` are answers that teachers gave before.
  """
  for exam in exams:
    _check(exam, room)
  sights = {view: evaluate.Sight(room, view, [
      exam.evaluator for exam in exams if exam.view == view])
            for view in {exam.view for exam in exams}}
  kept = kept_lib.Kept() if kept is None else kept
  measured = {}  # Metrics of what is frozen.

  def measure(held, params, faculty):
    """{name of an exam: its metrics}."""
    jobs = {exam.name: [evaluate.job(exam.evaluator) for _ in exam.splits]
            for exam in held}
    passes = {}
    for exam in held:
      for source, job in zip(exam.splits, jobs[exam.name]):
        passes.setdefault((id(source), exam.view), (source, []))[1].append(job)
    for (key, view), (source, collecting) in passes.items():
      del key
      sight = sights[view]
      name = sight.key(source)
      had = len(kept[name])
      sight.show(lambda views, source=source: eval_batches(source, views),
                 params, faculty, collecting, kept[name])
      if len(kept[name]) > had:
        kept.save(name)
    return {exam.name: _metrics(exam, room, [
        job.result() for job in jobs[exam.name]]) for exam in held}

  def evaluate_due(step, params, faculty):
    due = [exam for exam in exams
           if step == 0 or durations.due(step, exam.every, total)]
    metrics = measured | measure(
        [exam for exam in due if exam.name not in measured], params,
        faculty)
    measured.update({exam.name: metrics[exam.name] for exam in due
                     if 'student' not in exam.evaluator.needs})
    return {f'{exam.name}/{metric}': float(value) for exam in due
            for metric, value in metrics[exam.name].items()}

  return evaluate_due


def _metrics(exam, room, results):
  if not isinstance(exam.evaluator, contracts.OfSplits):
    return results[0]
  # Of models' classes, not of those that are learned from labels.
  classes = exam.source.classes if exam.train else room.named(
      *room.teachers_names, exam.source.classes)
  return exam.evaluator.measure(*results[0], classes, *results[1:])


def _check(exam, room):
  """Raises ValueError where an exam cannot be held."""
  evaluator, classes = exam.evaluator, len(exam.source.classes)
  if evaluator.labelled and classes != room.num_classes:
    raise ValueError(
        f'The evaluation {exam.name!r} needs labels of {room.num_classes} '
        f'classes; {exam.source.title} has {classes or "none"}.')
  if exam.train and exam.train.classes != exam.source.classes:
    raise ValueError(
        f'The evaluation {exam.name!r} trains on {exam.train.title}, whose '
        f'classes are not those of {exam.source.title}.')
  if exam.train and not classes:
    raise ValueError(f'The evaluation {exam.name!r} needs labels; '
                     f'{exam.source.title} has none.')
  if 'teacher' in evaluator.needs and not room.models:
    raise ValueError(f'The evaluation {exam.name!r} needs a teacher that is '
                     'a model.')
