"""Shows a split to the models once, and gives all evaluators their answers.

An evaluator is one of two kinds. Most are a function of one example, called
with answers {who: [b, c]} and labels, and give [b] values per metric: these are
summed on the devices and divided once, so that batch size and padding do not
change a metric. What only a whole split can tell has `measure`, given the
answers to all examples as float64 on the host.

Attributes say what an evaluator is shown: `needs`, among 'student' and
'teacher'; `labelled`, whether its labels are of the student's classes; and,
where features are wanted in place of logits, `layer`, a name in models' `out`.
Then each teacher answers under its own name, since features have no consensus.
"""

from collections.abc import Callable, Iterable, Sequence
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from big_distill import contracts
from big_distill import labels
from big_distill import parallel
from big_distill import steps
from big_distill import teaching
from big_distill import views
from big_distill.classroom import Classroom

LOGITS = 'logits'
KEPT_BYTES = 2**30  # Of a teacher's answers to one split, on each host.


def layer_of(evaluator: contracts.Evaluator) -> str:
  """The layer that an evaluator is shown: LOGITS unless it says another."""
  return getattr(evaluator, 'layer', LOGITS)


class Sight:
  """One view of evaluation: what student and teachers answer to it.

  The teachers are frozen, so their answers to a split are computed once and
  kept on the host from one evaluation to the next. Student, teachers and
  evaluators are programs of their own: what is due does not change a bit of
  what they compute.
  """

  def __init__(self, room: Classroom, view: views.View,
               evaluators: Sequence[contracts.Evaluator]):
    layers = {who: sorted({layer_of(each) for each in evaluators
                           if who in each.needs})
              for who in ('student', 'teacher')}
    self.student = view.at(room.size)
    # Labels have no answer to images.
    self._taught = [i for i, teacher in enumerate(room.teachers)
                    if teacher.size]
    self.teachers = [room.teachers[i]._replace(
        sees=view.at(room.teachers[i].size)) for i in self._taught]
    self._layers = layers['teacher']
    self._learnt = parallel.pmap(functools.partial(
        _student_answers, room.student, str(self.student), layers['student']))
    self._teach = parallel.pmap(functools.partial(
        _teacher_answers, self.teachers, room.combine, layers['teacher']))

  @property
  def programs(self) -> dict[str, Callable]:
    """The student's, of (params, views), and the teachers', of foreign ones'
    answers as well.
    """
    return {'student': self._learnt, 'teachers': self._teach}

  def key(self, source: Any) -> str:
    """What the teachers' answers to a split depend on beside the teachers."""
    return contracts.fingerprint(
        source.title, contracts.pixels_of(source), self._layers,
        [(teacher.name, str(teacher.sees)) for teacher in self.teachers])

  def _ask(self, faculty, batch):
    """The teachers' answers to a batch on the devices."""
    params = [faculty()[i] for i in self._taught]
    foreign = {teacher.name: parallel.split(teacher.answer({}, steps.scale(
        parallel.join(batch['views'][str(teacher.sees)]))))
               for teacher in self.teachers if teacher.foreign}
    return self._teach(params, batch['views'], foreign)

  def show(self, batches: Callable[..., Iterable], params: Any,
           faculty: Callable[[], Sequence[Any]], jobs: Sequence[Any],
           kept: list) -> None:
    """Shows batches(views=...) once, and gives every job all answers.

    `kept` holds the teachers' answers to these batches, if it is not empty, and
    is filled with them otherwise. faculty() gives the teachers' parameters.
    """
    learnt, taught = (any(who in job.evaluator.needs for job in jobs)
                      for who in ('student', 'teacher'))
    live = taught and not kept
    shown = {self.student} if learnt else set()
    shown |= {teacher.sees for teacher in self.teachers} if live else set()
    fresh, size = [], 0

    batches = batches(views=sorted(shown, key=str))
    if taught and not live:
      batches = ({**batch, 'answers': answers}
                 for batch, answers in zip(batches, kept))
    for batch in parallel.prefetch(batches):
      answers = {}
      if live:
        answers |= self._ask(faculty, batch)
        if size <= KEPT_BYTES:
          fresh.append(parallel.join(answers))
          size += sum(x.nbytes for x in fresh[-1].values())
          if size > KEPT_BYTES:
            fresh.clear()
      elif taught:
        answers |= batch['answers']
      if learnt:
        answers |= self._learnt(params, batch['views'])
      for job in jobs:
        job.add(answers, batch['label'], batch['mask'])
    kept += fresh


def _student_answers(model, view, layers, params, shown):
  """{('student', layer): [b, ...]}."""
  answers = teaching.layers(model, layers, params, steps.scale(shown[view]))
  return {('student', layer): x for layer, x in answers.items()}


def _teacher_answers(teachers, combine, layers, teacher_params, shown, foreign):
  """{('teacher', LOGITS): the consensus, (name, layer): features}."""
  answers, logits = {}, []
  for teacher, params in zip(teachers, teacher_params):
    if teacher.foreign:  # It has no layers.
      logits.append(foreign[teacher.name])
      continue
    own = teaching.layers(teacher.model, {*layers, LOGITS}, params,
                          steps.scale(shown[str(teacher.sees)]))
    logits.append(own.pop(LOGITS))
    answers |= {(teacher.name, layer): x for layer, x in own.items()}
  return answers | {('teacher', LOGITS): teaching.consensus(logits, combine)}


def _asked(evaluator, answers):
  """{who: [b, ...]}: what an evaluator needs of all answers."""
  layer = layer_of(evaluator)
  return {who: x for (who, which), x in answers.items() if which == layer
          and ('student' if who == 'student' else 'teacher') in evaluator.needs}


class Sums:
  """The means of an evaluator that is a function of one example."""

  def __init__(self, evaluator: contracts.OfExamples):
    self.evaluator = evaluator
    self._sum = _summing(evaluator)
    self._totals = []

  def add(self, answers: dict, label: jax.Array, mask: jax.Array) -> None:
    self._totals.append(self._sum(_asked(self.evaluator, answers), label, mask))

  def result(self) -> dict[str, float]:
    """{metric: mean}; nothing where no example counts."""
    totals = {}
    for part in self._totals:
      for name, value in parallel.first(part).items():
        totals[name] = totals.get(name, 0.) + np.float64(value)
    count = totals.pop('count')
    return {name: float(value / count)
            for name, value in totals.items() if count}


class Gather:
  """All answers and labels of a split, on every host."""

  def __init__(self, evaluator: contracts.OfSplits):
    self.evaluator = evaluator
    self._parts = []

  def add(self, answers: dict, label: jax.Array, mask: jax.Array) -> None:
    answers, label, mask = parallel.first(_gathering()(
        (_asked(self.evaluator, answers), label, mask)))
    real = mask > 0
    self._parts.append(({who: x[real] for who, x in answers.items()},
                        label[real]))

  def result(self) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """({who: float64 [n, c]}, labels int32 [n], or [n, c] where multi-hot)."""
    answers, labels = zip(*self._parts)
    return ({who: np.concatenate([part[who] for part in answers]).astype(float)
             for who in answers[0]}, np.concatenate(labels))


@functools.cache
def _summing(evaluator):
  def sums(answers, label, weight):
    if evaluator.labelled:
      weight *= labels.is_known(label)
    # Masked examples can be NaN, and 0 * NaN is NaN: where() drops them.
    values = {name: jnp.sum(jnp.where(weight > 0, value, 0.))
              for name, value in evaluator(answers, label).items()}
    return parallel.total({'count': jnp.sum(weight), **values})

  return parallel.pmap(sums)


@functools.cache
def _gathering():
  return parallel.pmap(parallel.gather)


def job(evaluator: contracts.Evaluator) -> Sums | Gather:
  """What collects the answers of one split for an evaluator."""
  if isinstance(evaluator, contracts.OfSplits):
    return Gather(evaluator)
  assert isinstance(evaluator, contracts.OfExamples)
  return Sums(evaluator)
