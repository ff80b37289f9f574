"""One run of a page, with all that is known of it; a page has one or two."""

from collections.abc import Mapping
import math
import os
from typing import Any, NamedTuple

from big_distill import checkpoint
from big_distill import costs
from big_distill import doctor
from big_distill import metrics
from big_distill import runs
from big_distill import views
from big_distill.page import evidence as evidence_lib
from big_distill.page import html
from big_distill.page import measures
from big_distill.page import pictures

# Pairs of classes, photographs of each, photographs of the greatest KL.
CONFUSIONS, EXAMPLES, DISAGREED = 12, 3, 12


class Side(NamedTuple):
  """A run, its name and look on the page.

  `evidence` and `sheet` are None where `missing` says why; thumbs are
  photographs of the evidence by place.
  """
  name: str
  look: str
  run: runs.Run
  evidence: evidence_lib.Evidence | None
  sheet: pictures.Sheet | None
  missing: str
  total: int | None  # Steps that the run is planned to have.
  failed: int | None  # The steps after which the loss was not finite.
  findings: list[doctor.Finding]
  thumbs: dict[int, Any]

  def hide(self, said: Any) -> str:
    """A sentence, without the folders of this machine."""
    return html.nameless(str(said), paths_of(self.run))

  @property
  def step(self) -> int:
    return int(self.run.rows[-1]['step']) if self.run.rows else 0

  def points(self, metric: str | None) -> list[tuple[float, float]]:
    """(step, value) of a metric, wherever it was logged."""
    return [(row['step'], row[metric]) for row in self.run.rows
            if metric in row]

  @property
  def epochs_per_step(self) -> float | None:
    epochs = [point for point in self.points(metrics.EPOCH) if point[0]]
    return epochs[-1][1] / epochs[-1][0] if epochs else None

  def metric(self, kind: str) -> str | None:
    """The name of a curve: 'student', 'teacher', 'agree' or 'kl'."""
    first = {'student': (*metrics.ACCURACY, metrics.VAL),
             'teacher': (metrics.TEACHER,), 'agree': (metrics.AGREEMENT,),
             'kl': (metrics.AGREE_KL,)}[kind]
    evals = (self.run.config or {}).get('evals', {})
    ending = {'student': metrics.ACC1, 'teacher': metrics.ACC1,
              'agree': metrics.TOP1, 'kl': metrics.KL}[kind]
    who = kind if ending == metrics.ACC1 else 'student'
    others = [f'{name}/{ending}' for name, section in evals.items()
              if section.get('who', 'student') == who]
    return next((name for name in (*first, *others)
                 if name in self.run.metrics), None)

  def last(self, kind: str) -> float | None:
    """The last logged value of a curve; else what the page's answers say."""
    name = self.metric(kind)
    if name:
      return self.run.last(name)
    answers = self.evidence and self.evidence.answers
    if not answers or (kind != 'student' and not answers.taught):
      return None
    if kind in ('student', 'teacher'):
      return answers.accuracy(kind) if answers.labelled else None
    return float((answers.agree if kind == 'agree' else answers.kl).mean())


def paths_of(run: runs.Run) -> list[str]:
  """Paths of this machine that sentences on a run may hold."""
  found = [value.removeprefix('folder:') for value in runs.flat(
      run.config or {}).values() if isinstance(value, str)]
  return [run.path, *(value for value in found if value.startswith('/'))]


def make(path: str, name: str, look: str, data: Any, without: str) -> Side:
  """Reads a workdir and asks its models, with `data`, or says why not.

  `without` is the reason why there is no data. Raises ValueError where a file of
  the run is no JSON.
  """
  run = runs.read(path)
  identity = runs.load(f'{run.path}/identity.json') or {}
  total = (run.result or {}).get('steps') or identity.get('steps')
  evidence, sheet, missing, thumbs = None, None, without, {}
  if data:
    try:
      evidence = evidence_lib.gather(run, data)
      sheet = pictures.sheet(evidence.lessons, data)
      thumbs = pictures.photographs(
          evidence.source, chosen(evidence.answers), data, evidence.exam.view,
          evidence.lessons.crops.get('fraction', views.FRACTION))
    except (ValueError, OSError, ImportError) as error:
      missing = (str(error).strip().splitlines() or [repr(error)])[-1]
  return Side(name, look, run, evidence, sheet, missing, total, _failed(run),
              doctor.read(run.path), thumbs)


def chosen(answers: measures.Answers) -> list[int]:
  """Places of the photographs that a page shows."""
  places = [i for each in measures.confusions(answers)[:CONFUSIONS]
            for i in each.places[:EXAMPLES]]
  return places + (measures.disagreements(answers, DISAGREED)
                   if answers.taught else [])


def _failed(run):
  """The steps taken before the one that was kept in DIR/nan, or None.

  A run that went on from a checkpoint may have left it behind.
  """
  failed = checkpoint.steps(f'{run.path}/nan/state')
  if run.result or not failed or run.rows and run.rows[-1]['step'] > failed[-1]:
    return None
  return failed[-1]


def cost(side: Side) -> Mapping[str, float | None]:
  """Parameters, operations, speed and time of a run, as far as they are known."""
  known: dict[str, Any] = {**(side.run.result or {})}
  if not known and side.evidence:
    room = side.evidence.lessons.room
    models = [teacher for teacher in room.models if teacher.model]
    known = {'student_params': costs.parameters(room.params),
             'student_flops': costs.flops(room.student, room.params, room.size)}
    if models:
      known |= {
          'teacher_params': sum(costs.parameters(teacher.params)
                                for teacher in models),
          'teacher_flops': sum(costs.flops(
              teacher.model, teacher.params, teacher.size)
                               for teacher in models)}
  rates = [rate for _, rate in side.points(metrics.RATE)
           if math.isfinite(rate) and rate > 0]
  rate = len(rates) / sum(1 / rate for rate in rates) if rates else None
  batch = (side.run.config or {}).get('batch_size')
  known |= {'rate': rate, 'images': batch and batch * side.step}
  known['seconds'] = (known['images'] / rate
                      if rate and known['images'] else None)
  student, teacher = (known.get(f'{who}_flops') for who in (
      'student', 'teacher'))
  known['each'] = student and 3 * student + (teacher or 0)
  return known


def names(paths: list[str]) -> list[str]:
  """What runs are called: their folders' names, numbered where they are equal."""
  found = [os.path.basename(path) or path for path in paths]
  if len({*found}) < len(found):
    return [f'{name} ({i})' for i, name in enumerate(found, 1)]
  return found
