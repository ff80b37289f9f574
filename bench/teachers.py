"""What a teacher loses and saves by fewer bits.

  python -m bench.teachers --csv=bench/teachers.csv

The exact teacher is kept and computes in float32. Beside it is the same one
with its kernels kept as int8, computing in bfloat16, and both: KL and agreement
of what the two answer, and the error of logits relative to their norm. The
bundled teacher answers its test photographs. A BiT-R50x1 of random weights is
larger and answers some of them, at 224 px; of it only the error of logits means
something. All choices are timed in turn, forward only, on one batch.
"""

import functools
import itertools

from absl import flags
import jax
import numpy as np

from big_distill import command
from big_distill import costs
from big_distill import steps
from big_distill import teaching
from big_distill import views
from big_distill.evaluators import distance
from big_distill.tools import stopwatch

TEACHERS = {  # Section of a config, photographs, images per batch.
    'caltech12 teacher': (
        dict(init='caltech12 teacher', size=48), 'test', 64),
    'BiT-R50x1, random weights': (
        dict(random=dict(family='bit', depth=50), size=224, num_classes=1000),
        'test[:32]', 8),
}
EXACT, *_ = CHOICES = [*itertools.product(teaching.WEIGHTS, teaching.DTYPES)]


def photographs(split, size, batch):
  """([images [b, h, w, 3] in [-1, 1]], labels [n]), the last batch padded."""
  pipeline = command.pipeline()

  view = views.View.parse('central').at(size)
  batches = [*pipeline.eval_batches(
      pipeline.load('caltech12', split=split), [view], batch, 0)]
  labels = np.concatenate([each['label'][each['mask'] > 0] for each in batches])
  return [steps.scale(jax.device_put(each['views'][str(view)]))
          for each in batches], labels


def measure(name, section, split, batch, repeats):
  """A row for each of CHOICES."""
  images, labels = photographs(split, section['size'], batch)
  logits, nbytes, runs = {}, {}, {}
  for choice in CHOICES:
    weights, dtype = choice
    teacher = teaching.load(name, weights=weights, dtype=dtype, **section)
    answer = functools.partial(jax.jit(teacher.answer),
                               jax.device_put(teacher.params))
    logits[choice] = np.concatenate(
        [answer(each) for each in images])[:len(labels)]
    nbytes[choice] = costs.nbytes(teacher.params)
    runs[choice] = functools.partial(answer, images[0])

  times, exact = stopwatch.in_turn(runs, repeats=repeats), logits[EXACT]
  return [{'teacher': name, 'size': section['size'], 'photographs': len(labels),
           'weights': choice[0], 'dtype': choice[1], 'bytes': nbytes[choice],
           **(fidelity(exact, logits[choice], labels) if 'init' in section
              else dict.fromkeys(('kl', 'agreement', 'top1'), '')),
           'error': f'{error(exact, logits[choice]):.2g}',
           'batch': batch, 'ms': round(1e3 * times[choice][1], 1)}
          for choice in CHOICES]


def fidelity(exact, logits, labels):
  """Mean KL of the exact teacher from these logits, agreement, accuracy."""
  apart = distance.Evaluator()({'student': exact, 'teacher': logits}, labels)
  return {'kl': f'{apart["kl"].mean():.2g}',
          'agreement': round(float(apart['top1'].mean()), 4),
          'top1': round(float(np.mean(logits.argmax(-1) == labels)), 4)}


def error(exact, logits):
  return np.linalg.norm(logits - exact) / np.linalg.norm(exact)


def main(flag):
  rows = [row for name, about in TEACHERS.items()
          for row in measure(name, *about, flag.repeats)]
  for row in rows:
    print('  '.join(f'{value:>10}' for value in row.values()))
  if flag.csv:
    stopwatch.save(flag.csv, rows, stopwatch.machine())


def _define_flags():
  flags.DEFINE_integer('repeats', 10, 'Rounds.', 1)
  flags.DEFINE_string('csv', None, 'File to write the rows to.')


if __name__ == '__main__':
  command.program(main, _define_flags)
