"""Runs evaluators over whole splits; batch size and padding never count.

An evaluator is one of two kinds. Most are a function of one example, called
with answers {who: [b, c]} and labels, and give [b] values per metric: these are
summed on the devices and divided once. What only a whole split can tell has
`measure`, given the answers to all examples as float64 on the host.

Attributes, which say what an evaluator is shown: `needs`, among 'student' and
'teacher'; `labelled`, whether its labels are of the student's classes; and,
where features are wanted in place of logits, `layer`, a name in models' `out`.
"""

import jax.numpy as jnp
import numpy as np

from big_distill import parallel


def make(evaluator, eval_step):
  """-> (student params, teachers' params, batches) -> {metric: mean}.

  Parameters are replicated, batches are the host's, padded and masked; what is
  padding, or has no label where labels are measured, does not count.
  """
  def sums(params, teacher_params, batch):
    answers, label = eval_step(params, teacher_params, batch), batch['label']
    weight = batch['mask']
    if evaluator.labelled:
      weight *= is_known(label)
    # Of what does not count, a value may be NaN.
    values = {name: jnp.sum(jnp.where(weight > 0, value, 0.))
              for name, value in evaluator(answers, label).items()}
    return parallel.total({'count': jnp.sum(weight), **values})

  sums = parallel.pmap(sums)

  def run(params, teacher_params, batches):
    totals = {}
    for batch in parallel.prefetch(batches):
      for name, value in parallel.first(
          sums(params, teacher_params, batch)).items():
        totals[name] = totals.get(name, 0.) + np.float64(value)
    count = totals.pop('count')
    return {name: float(value / count) for name, value in totals.items()}

  return run


def make_gather(eval_step):
  """-> (student params, teachers' params, batches) -> (answers, labels).

  Of all examples of a split, on every host: {who: float64 [n, c]} and [n], or
  [n, c] where an example may have several labels.
  """
  def gather(params, teacher_params, batch):
    return parallel.gather((eval_step(params, teacher_params, batch),
                            batch['label'], batch['mask']))

  gather = parallel.pmap(gather)

  def run(params, teacher_params, batches):
    parts, labels = [], []
    for batch in parallel.prefetch(batches):
      answers, label, mask = parallel.first(
          gather(params, teacher_params, batch))
      real = mask > 0
      parts.append({who: x[real] for who, x in answers.items()})
      labels.append(label[real])
    return ({who: np.concatenate([part[who] for part in parts]).astype(float)
             for who in parts[0]}, np.concatenate(labels))

  return run


def is_known(label):
  """Does an example have a label? int32 [b], -1 if not, or multi-hot [b, c]."""
  return label >= 0 if label.ndim == 1 else label.any(axis=-1)
