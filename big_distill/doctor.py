"""Cheap checks of what makes a run worthless: a table of ok, look and wrong.

A run makes the checks of `static` before its first step, and stops at what is
wrong. tools/doctor.py makes all of them, without training.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from absl import logging
import flax.traverse_util
import jax
import numpy as np

from big_distill import classroom
from big_distill import costs
from big_distill import course as course_lib
from big_distill import faculty as faculty_lib
from big_distill import parallel
from big_distill import plan as plan_lib
from big_distill import runs
from big_distill import steps

OK, LOOK, WRONG = 'ok', 'look', 'wrong'
ROUNDING = 1e-3  # Of the largest answer; GPUs may sum in another order.


class Finding(NamedTuple):
  """What a check came to: OK, LOOK or WRONG, about what, in a sentence."""
  status: str
  about: str
  text: str


def static(course: course_lib.Course) -> list[Finding]:
  """What can be seen of models, classes and views before anything is computed.
  """
  findings = []
  for teacher in course.room.models:
    findings += [*_weights(teacher), *_classes(course, teacher)]
  return findings + [*_views(course)]


def check(course: course_lib.Course) -> list[Finding]:
  """Logs what one should look at; raises ValueError for what is wrong.

  Returns what it found.
  """
  findings = static(course)
  for finding in findings:
    if finding.status == LOOK:
      logging.warning('%s: %s', finding.about, finding.text)
  wrong = [finding for finding in findings if finding.status == WRONG]
  if wrong:
    raise ValueError('; '.join(f'{finding.about}: {finding.text}'
                               for finding in wrong))
  return findings


def keep(findings: Sequence[Finding], workdir: str) -> None:
  """Writes workdir/doctor.json, for whoever looks at the run later."""
  runs.save(f'{workdir}/doctor.json', {
      'findings': [finding._asdict() for finding in findings]})


def read(workdir: str) -> list[Finding]:
  """What `keep` wrote; none where there is no such file."""
  kept = runs.load(f'{workdir}/doctor.json') or {'findings': []}
  return [Finding(**finding) for finding in kept['findings']]


def _weights(teacher) -> Iterable[Finding]:
  """Whether a teacher's parameters are finite and its head says anything."""
  about = f'teacher {teacher.name}'
  flat = flax.traverse_util.flatten_dict(teacher.params, sep='/')
  if not flat or any(isinstance(leaf, jax.ShapeDtypeStruct)
                     for leaf in flat.values()):
    yield Finding(OK, about, 'its weights are not read.')
    return
  bad = [name for name, leaf in flat.items()
         if not np.isfinite(np.asarray(leaf, np.float32)).all()]
  if bad:
    yield Finding(WRONG, about, f'{len(bad)} of {len(flat)} parameters are not '
                  f'finite, the first is {bad[0]}. Take another checkpoint.')
  head = [leaf for name, leaf in flat.items()
          if name.startswith('head/kernel')]
  if head and not any(np.any(leaf) for leaf in head):
    yield Finding(WRONG, about, 'its head is all zeros, so it teaches nothing: '
                  'it was not fine-tuned. Train it first (configs/hyperrule.py).')
  elif not bad:
    yield Finding(OK, about, f'all {len(flat)} parameters are finite.')


def _classes(course, teacher) -> Iterable[Finding]:
  """Whether data and evaluations call their classes as the teacher does."""
  known = teacher.classes
  for title, classes in {
      course.source.title: course.source.classes,
      **{exam.source.title: exam.source.classes for exam in course.exams
         if exam.evaluator.labelled}}.items():
    about = f'classes of {title}'
    if not known or not classes:
      continue
    if tuple(known) == tuple(classes):
      yield Finding(OK, about, f'as teacher {teacher.name} has them.')
      continue
    place = next((i for i, pair in enumerate(zip(known, classes))
                  if pair[0] != pair[1]), min(len(known), len(classes)))
    names = [list(each)[place] if place < len(each) else 'nothing'
             for each in (classes, known)]
    yield Finding(
        LOOK if len(known) != len(classes) else WRONG, about,
        f'number {place} is {names[0]!r} here and {names[1]!r} to teacher '
        f'{teacher.name}: labels would mean something else. Rename or reorder '
        'the classes (data.classes), or set data.label=None.')


def _views(course) -> Iterable[Finding]:
  """Whether student and teachers see one region, where the mode says so."""
  room, mode = course.room, course.mode
  for teacher in room.models:
    about = f'views of {teacher.name}'
    if mode.student.region != mode.teacher.region:
      yield Finding(OK, about, f'{teacher.sees}, where the student sees '
                    f'{room.sees}: regions differ, as the mode says.')
    elif teacher.size == room.size:
      yield Finding(OK, about, f'{teacher.sees}: the student sees the same '
                    'tensor.')
    else:
      yield Finding(OK, about, f'{teacher.sees}: the same region as the '
                    f'student, at {teacher.size} in place of {room.size} px.')


def accuracies(course: course_lib.Course) -> list[Finding]:
  """Whether teachers know the labels of a batch, in the view of training."""
  lesson, source = course.lesson, course.source
  models = [teacher for teacher in lesson.teachers
            if teacher.size and not teacher.foreign]
  if not lesson.labelled or not models:
    return [Finding(OK, 'accuracy', 'there are no labels to measure it by.')]
  shown = faculty_lib.seen_by(lesson)
  batch = next(course.feed.single(shown, 0, 1))
  label = np.asarray(batch['label'])
  known = label >= 0 if label.ndim == 1 else label.any(-1)
  if label.ndim == 1 and known.any():
    counts = np.bincount(label[known], minlength=len(source.classes))
  else:
    return [Finding(OK, 'accuracy', 'the first batch has no single labels.')]
  majority, findings = counts.max() / known.sum(), []
  look = course.feed.compile(
      lambda step, params, batch: [teacher.answer(
          params[i], steps.scale(batch['views'][str(teacher.sees)]))
                                   for i, teacher in enumerate(lesson.teachers)
                                   if teacher in models],
      shown, calls=False, donate=False)
  answers = parallel.join(look(parallel.replicate(np.int32(0)),
                               course.faculty(), parallel.split(batch)))
  for teacher, logits in zip(models, answers):
    right = float(np.mean(logits.argmax(-1)[known] == label[known]))
    text = (f'{right:.1%} of the first {known.sum()} images, seen as '
            f'{teacher.sees}; the commonest class has {majority:.1%}, chance '
            f'{1 / len(source.classes):.1%}.')
    # Three standard deviations above the commonest class.
    slack = 3 * np.sqrt(majority * (1 - majority) / known.sum())
    findings.append(Finding(
        OK if right > majority + slack else LOOK,
        f'accuracy of {teacher.name}', text + (
            '' if right > majority + slack else ' Are classes in its order, and '
            'are images normalised as it wants?')))
  return findings


def unchanged(course: course_lib.Course) -> list[Finding]:
  """Whether teachers answer the first batch at the end as they did at first.

  A change says that weights or arithmetic on the devices are not what they were.
  """
  change = course.steps.changed()
  if change is None:
    return []
  about = 'answers at the end'
  if change < ROUNDING:
    return [Finding(OK, about, 'the teachers answer the first batch as they did '
                    'at first, ' + (f'up to rounding ({change:.1g}).' if change
                                    else 'bit for bit.'))]
  return [Finding(WRONG, about, 'the teachers answer the first batch otherwise '
                  f'than at first, by up to {change:.2g} of the largest answer: '
                  'their weights or a device changed under the run. Look at the '
                  'devices, and train again in another --workdir.')]


def cost(plan: plan_lib.Plan, room: classroom.Classroom, state: Any,
         seconds: float | None = None, price: float | None = None
         ) -> list[Finding]:
  """What a run costs: from shapes and, where given, the seconds of a step.

  state: of the student, or its shapes. price: of an hour of all devices, in
    whatever money.
  """
  taught, learnt = costs.training(room)
  images = plan.total * plan.batch_size
  held = costs.nbytes(state) + sum(
      costs.nbytes(teacher.params) for teacher in room.models)
  findings = [
      Finding(OK, 'length', f'{plan.total:,} steps of {plan.batch_size} images = '
              f'{plan.epochs:,.4g} epochs.'),
      Finding(OK, 'arithmetic', f'{(taught + learnt) / 1e9:,.4g} GFLOP an image, '
              f'{taught / (taught + learnt):.0%} of it the teachers\'; '
              f'{images * (taught + learnt) / 1e15:,.4g} PFLOP in all.'),
      Finding(OK, 'memory', f'{held / 1e6:,.4g} MB of state and teachers on each '
              f'device, {4 * costs.parameters(room.params) / 1e6:,.4g} MB of '
              'gradients a step.')]
  if seconds:
    hours = plan.total * seconds / 3600
    findings.append(Finding(
        OK, 'time', f'{plan.batch_size / seconds:,.4g} images/s in three steps: '
        f'{hours:,.3g} hours' + (f', {hours * price:,.2f} at {price:g} an hour.'
                                 if price else '.')))
  return findings


def table(findings: Sequence[Finding]) -> str:
  """For a terminal."""
  width = max(len(finding.about) for finding in findings)
  return '\n'.join(f'{finding.status:6} {finding.about:{width}}  {finding.text}'
                   for finding in findings)
