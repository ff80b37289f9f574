"""What a run says of itself: the facts at its start, the table at its end."""

from absl import logging
import jax
import numpy as np

from big_distill import costs
from big_distill import exams
from big_distill import labels
from big_distill import metrics
from big_distill import params as params_lib


def introduce(course, workdir, start):
  """Logs each fact one would ask of a dead run."""
  plan, room, source = course.plan, course.room, course.source
  d, h = jax.device_count(), jax.process_count()
  logging.info('jax %s: %d x %s on %d hosts.', jax.__version__, d,
               jax.devices()[0].device_kind, h)
  for note in course.notes:
    logging.info('%s', note)
  logging.info('Images: %s, %d examples, %d classes.', source.title,
               source.num_examples, len(source.classes))
  if source.resident:
    logging.info('Every device holds all images, and renders them.')
  logging.info('Batch: %d = %d hosts x %d devices x %d examples.',
               plan.batch_size, h, d // h, plan.batch_size // d)
  logging.info('Steps: %d = %.4g epochs of %.4g steps; %s.', plan.total,
               plan.epochs, source.num_examples / plan.batch_size,
               f'resuming at {start} from {workdir}' if start
               else f'starting in {workdir}')
  logging.info('Mode: %s.', course.mode)
  tested = [exam.name for exam in course.exams
            if any(exams.is_test(source.title.split()[-1])
                   for source in exam.splits)]
  if tested:
    logging.info('On a test split: %s. Choose nothing by what these measure.',
                 ', '.join(tested))
  for teacher in room.teachers:
    logging.info('Teacher %s sees %s; %s parameters in %.4g MB.', teacher.name,
                 teacher.sees, f'{costs.parameters(teacher.params):,}',
                 costs.nbytes(teacher.params) / 1e6)
  if course.store:
    _introduce_answers(course)
  logging.info('Student sees %s; its parameters:\n%s', room.sees,
               params_lib.overview(room.params))


def _introduce_answers(course):
  """Logs what keeping answers costs and saves."""
  plan, room, store = course.plan, course.room, course.store
  logging.info('Answers in %s: %d of %d blocks are there; %.4g MB in all, %d '
               'bytes an answer.', store.folder, store.known.sum(),
               store.blocks, store.nbytes / 1e6, store.record)
  taught, learnt = costs.training(room)
  if taught:
    logging.info('A step that reads them has %.0f %% of the arithmetic of one '
                 'that asks the teachers.', 100 * learnt / (learnt + taught))
  if plan.period:
    logging.info('A pass is %d steps = %.4g epochs; this run is %.4g passes.',
                 plan.period, plan.period * plan.batch_size / plan.num_examples,
                 plan.total / plan.period)


def first_batch(batches, by_label=False):
  """Passes batches on; of the first one, logs what models will see.

  by_label: whether labels are among the teachers.
  """
  for i, batch in enumerate(batches):
    if i == 0:
      for kind in ('views', 'boxes'):
        for view, x in batch.get(kind, {}).items():
          logging.info('First batch: %s: %s%s', view, x.dtype, list(x.shape))
      # A call of several steps has a row of labels for each.
      label = batch['label'][0] if 'count' in batch else batch['label']
      if by_label and not (known := labels.is_known(label)).all():
        logging.warning('First batch: %d of %d examples have no label, and learn '
                        'nothing from labels.', np.sum(~known), len(known))
    yield batch


def result(rows, course):
  """The outcome of a run, from its metrics; None is what was not measured.

  Reads the evaluators called 'student', 'teacher' and 'agree'.
  """
  def last(name):
    return next((row[name] for row in reversed(rows) if name in row), None)

  def first(name):
    return next((row[name] for row in rows if name in row), None)

  def of_teachers(amount):
    return sum(map(amount, models)) if models else None

  room = course.room
  models = [teacher for teacher in room.models if teacher.model]
  rates = [row[metrics.RATE] for row in rows if metrics.RATE in row]
  return {
      'teacher_top1': last(metrics.TEACHER),
      'student_top1_before': first(metrics.STUDENT),
      'student_top1': last(metrics.STUDENT),
      'agreement_top1': last(metrics.AGREEMENT),
      'kl': last(metrics.AGREE_KL),
      'teacher_params': of_teachers(
          lambda teacher: costs.parameters(teacher.params)),
      'student_params': costs.parameters(room.params),
      'teacher_flops': of_teachers(lambda teacher: costs.flops(
          teacher.model, teacher.params, teacher.size)),
      'student_flops': costs.flops(room.student, room.params, room.size),
      # Logs are equally many steps apart: the mean rate is harmonic.
      'images_per_s': len(rates) / sum(1 / rate for rate in rates)
                      if rates else None,
      'steps': course.plan.total,
  }


def table(result):
  """The result, for a terminal."""
  def percent(value):
    return '-' if value is None else f'{value:.1%}'

  def number(value, unit=''):
    return '-' if value is None else f'{value:,.4g}{unit}'

  def millions(value):
    return '-' if value is None else f'{value / 1e6:,.2f} M'

  lines = [
      ('', 'teacher', 'student'),
      ('top-1 before', '', percent(result['student_top1_before'])),
      ('top-1', percent(result['teacher_top1']),
       percent(result['student_top1'])),
      ('agreement', '', percent(result['agreement_top1'])),
      ('KL', '', number(result['kl'], ' nats')),
      ('parameters', millions(result['teacher_params']),
       millions(result['student_params'])),
      ('FLOPs per image', millions(result['teacher_flops']),
       millions(result['student_flops'])),
      ('speed', '', number(result['images_per_s'], ' images/s')),
  ]
  return '\n'.join(f'{name:<18}{teacher:>14}{student:>16}'
                   for name, teacher, student in lines)
