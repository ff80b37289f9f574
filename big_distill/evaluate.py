"""Runs evaluators over whole splits: sums and counts, divided once."""

import jax.numpy as jnp
import numpy as np

from big_distill import parallel


def make(evaluator, eval_step):
  """-> (student params, teachers' params, batches) -> {metric: mean}.

  Parameters are replicated, batches are the host's, padded and masked; what is
  padding, or has no label where labels are measured, does not count.
  """
  def sums(params, teacher_params, batch):
    logits = eval_step(params, teacher_params, batch)
    weight = batch['mask']
    if evaluator.labelled:
      weight *= (batch['label'] >= 0)
    values = evaluator(logits, batch['label'])
    values = {name: jnp.sum(value * weight) for name, value in values.items()}
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
