"""What a run says of itself: the facts at its start, the table at its end."""

from absl import logging
import jax
import jax.numpy as jnp

from big_distill import jaxprs
from big_distill import params as params_lib
from big_distill.ops import int8


def introduce(stage, workdir, start):
  """Logs each fact one would ask of a dead run."""
  cast, d, h = stage.cast, jax.device_count(), jax.process_count()
  n = stage.source.num_examples
  logging.info('jax %s: %d x %s on %d hosts.', jax.__version__, d,
               jax.devices()[0].device_kind, h)
  logging.info('Images: %s, %d examples, %d classes.', stage.source.title, n,
               len(stage.source.classes))
  if stage.source.resident:
    logging.info('Every device holds all images, and renders them.')
  logging.info('Batch: %d = %d hosts x %d devices x %d examples.',
               stage.batch_size, h, d // h, stage.batch_size // d)
  logging.info('Steps: %d = %.4g epochs of %.4g steps; %s.', stage.total,
               stage.total * stage.batch_size / n, n / stage.batch_size,
               f'resuming at {start} from {workdir}' if start
               else f'starting in {workdir}')
  logging.info('Mode: %s.', stage.mode)
  for teacher in cast.teachers:
    logging.info('Teacher %s sees %s; %s parameters in %.4g MB.', teacher.name,
                 teacher.sees, f'{params_lib.count(teacher.params):,}',
                 params_lib.nbytes(teacher.params) / 1e6)
  logging.info('Student sees %s; its parameters:\n%s', cast.sees,
               params_lib.overview(cast.params))


def first_batch(batches):
  """Passes batches on; of the first one, logs what models will see."""
  for i, batch in enumerate(batches):
    if i == 0:
      for kind in ('views', 'boxes'):
        for view, x in batch.get(kind, {}).items():
          logging.info('First batch: %s: %s%s', view, x.dtype, list(x.shape))
    yield batch


def flops(model, params, size):
  """Floating-point operations of one image's forward pass, 2 per multiply-add.

  Those of products and convolutions; padding counts, the rest does not.
  """
  params = jax.eval_shape(int8.restore, params)
  image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
  forward = jax.make_jaxpr(lambda params, image: model.apply(
      {'params': params}, image)[0])(params, image)
  return jaxprs.total(forward.jaxpr, jaxprs.flops)


def result(rows, stage):
  """The outcome of a run, from its metrics; None is what was not measured.

  Reads the evaluators called 'student', 'teacher' and 'agree'.
  """
  def last(name):
    return next((row[name] for row in reversed(rows) if name in row), None)

  def first(name):
    return next((row[name] for row in rows if name in row), None)

  def of_teachers(amount):
    return sum(amount(teacher.model, teacher.params, teacher.size)
               for teacher in cast.models) if cast.models else None

  def parameters(model, params, size):
    del model, size
    return params_lib.count(params)

  cast = stage.cast
  rates = [row['time/img_per_sec'] for row in rows if 'time/img_per_sec' in row]
  return {
      'teacher_top1': last('teacher/acc@1'),
      'student_top1_before': first('student/acc@1'),
      'student_top1': last('student/acc@1'),
      'agreement_top1': last('agree/top1'),
      'kl': last('agree/kl'),
      'teacher_params': of_teachers(parameters),
      'student_params': params_lib.count(cast.params),
      'teacher_flops': of_teachers(flops),
      'student_flops': flops(cast.student, cast.params, cast.size),
      # Logs are equally many steps apart: the mean rate is harmonic.
      'images_per_s': len(rates) / sum(1 / rate for rate in rates)
                      if rates else None,
      'steps': stage.total,
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
