"""What a student in a workdir answers beside its teachers, asked once.

Answers to an evaluation's photographs are kept in DIR/answers.npz, so that the
next page of the same student need not ask again. A run that is not finished
answers by its newest checkpoint, which is copied before it is opened: the run
may be going on.
"""

from collections.abc import Mapping
import io
import os
import tempfile
from typing import Any, NamedTuple
import zipfile

from absl import logging
from etils import epath
import jax
import numpy as np

from big_distill import checkpoint
from big_distill import contracts
from big_distill import durations
from big_distill import evaluate
from big_distill import exams
from big_distill import faculty as faculty_lib
from big_distill import lessons as lessons_lib
from big_distill import metrics
from big_distill import optim
from big_distill import parallel
from big_distill import pretrained
from big_distill import registry
from big_distill import runs
from big_distill.page import measures
from big_distill.state import State

MOST = 2048  # Photographs that are asked about, spread evenly over a split.
BATCH = 64
KEPT = 'answers.npz'


class Evidence(NamedTuple):
  """A run whose models and images are at hand.

  source: the photographs that `answers` are to; `whole` is how many the split
    has. step: of the student's weights.
  """
  lessons: lessons_lib.Lessons
  exam: exams.Exam
  source: contracts.Source
  whole: int
  answers: measures.Answers
  step: int | None


class _Both(NamedTuple):
  """An evaluator that only asks."""
  needs: tuple[str, ...]
  labelled: bool = False

  def measure(self, answers, label, classes):
    return {}


def gather(run: runs.Run, data: Any) -> Evidence:
  """Asks student and teachers; `data` has the functions of input/pipeline.py.

  Raises ValueError where the run has no weights or evaluation, or where its
  teachers or images are not to be had.
  """
  if run.config is None:
    raise ValueError('there is no config.json in the workdir.')
  config = plain(run.config)
  student = f'{run.path}/student.npz'
  finished = epath.Path(student).exists()
  if finished:
    config['student'] = dict(init=student, size=config['student']['size'])
  name = _named(config)
  lessons = lessons_lib.prepare(config, data)
  exam = exams.make(name, config['evals'][name], config['data'], lessons.load)
  if finished:
    params, step, identity = lessons.room.params, None, pretrained.identity(
        student)
  else:
    params, step = _newest(config, lessons, run.path)
    identity = f'step {step}'
  whole = exam.source.num_examples
  source = exam.source if whole <= MOST else data.only(
      exam.source, np.arange(MOST) * whole // MOST)
  labelled = len(source.classes) == lessons.room.num_classes
  classes = lessons.room.named(source.classes, *lessons.room.teachers_names)
  key = contracts.fingerprint(
      identity, source.title, contracts.pixels_of(source), str(exam.view), labelled,
      [teacher.identity for teacher in lessons.room.teachers])
  found = _kept(run.path, key)
  if found is None:
    found = _ask(lessons, exam, source, params, data)
    if not labelled:
      found['label'] = np.full(source.num_examples, -1, np.int32)
    _keep(run.path, key, found)
  return Evidence(lessons, exam, source, whole, measures.Answers(
      found['student'].astype(float),
      found['teacher'].astype(float) if 'teacher' in found else None,
      found['label'], tuple(classes)), step)


def plain(config: Mapping[str, Any]) -> dict[str, Any]:
  """A config of JSON as this page needs it: each image is asked for once."""
  def tuples(value):
    if isinstance(value, dict):
      return {key: tuples(each) for key, each in value.items()}
    return tuple(map(tuples, value)) if isinstance(value, list) else value

  config = tuples(config)
  config['data'] |= {'cache': 'none', 'resident': False}
  config.pop('steps_per_call', None)
  config.pop('accumulate', None)
  return config


def _named(config):
  """The evaluation that asks the student for logits, its accuracy's first."""
  found = [name for name, section in config.get('evals', {}).items()
           if section['type'] in ('classification', 'distance', 'agreement',
                                  'calibration')
           and section.get('who') != 'teacher']
  first = [metric.split('/')[0] for metric in (
      *metrics.ACCURACY, metrics.VAL, metrics.AGREEMENT)]
  if not found:
    raise ValueError('its config evaluates neither accuracy nor agreement.')
  return min(found, key=lambda name: (
      first.index(name) if name in first else len(first)))


def _newest(config, lessons, workdir):
  """(the student's parameters, step) of the newest checkpoint of a run."""
  folder = epath.Path(workdir, 'checkpoints')
  numbers = checkpoint.steps(folder)
  if not numbers:
    raise ValueError('it has no student.npz and no checkpoint yet.')
  tx, _ = optim.make(lessons.plan.total, warmup=lessons.plan.warmup,
                     **durations.without(config['optim'], 'warmup'))
  with tempfile.TemporaryDirectory() as copy:
    newest = folder / str(numbers[-1])
    _copy(newest, epath.Path(copy, newest.name))
    checkpoints = checkpoint.Checkpoints(copy)
    state, _ = checkpoints.restore_or(
        State.init(lessons.room.params, tx))
    checkpoints.close()
  return state.params, int(state.step)


def _copy(source, to):
  """Copies a folder and all that is in it."""
  to.mkdir()
  for entry in source.iterdir():
    if entry.is_dir():
      _copy(entry, to / entry.name)
    else:
      (to / entry.name).write_bytes(entry.read_bytes())


def _ask(lessons, exam, source, params, data):
  """{'student', 'teacher', 'label'} of all examples of a source."""
  room = lessons.room
  both = _Both(('student', 'teacher') if room.models else ('student',))
  sight, job = evaluate.Sight(room, exam.view, [both]), evaluate.Gather(both)
  devices = jax.local_device_count()
  batches = registry.bind(data.eval_batches, **{
      **lessons.crops, 'host': (0, 1)})
  logging.info('Asking about %d photographs of %s.', source.num_examples,
               source.title)
  sight.show(lambda views: batches(
      source, views, batch_size=-(-BATCH // devices) * devices,
      seed=lessons.plan.seed), parallel.replicate(params),
             faculty_lib.Faculty(room), [job], [])
  answers, label = job.result()
  return {'label': label, **{who: np.float32(x) for who, x in answers.items()}}


def _kept(workdir, key):
  """Answers that were asked for before, or None."""
  path = epath.Path(workdir, KEPT)
  if not path.exists():
    return None
  try:
    with np.load(io.BytesIO(path.read_bytes())) as file:
      found = {name: file[name] for name in file.files}
  except (ValueError, OSError, EOFError, zipfile.BadZipFile):
    return None  # A file cut short is asked for anew.
  return found if str(found.pop('key', '')) == key else None


def _keep(workdir, key, found):
  buffer = io.BytesIO()
  np.savez(buffer, key=key, **found)
  path = os.path.join(workdir, KEPT)
  with runs.writing(path):
    epath.Path(path).write_bytes(buffer.getbuffer())
