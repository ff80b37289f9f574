"""What a step holds of a device's memory, and the largest batch that fits."""

import jax
import numpy as np

from big_distill import costs
from big_distill import course as course_lib
from big_distill import parallel
from big_distill import plan as plan_lib


def arguments(course, batch):
  """Shapes of what a step's two programs take: the teachers', the student's."""
  state, teachers, batch = costs.step_arguments(
      course.state, course.room.teacher_params, batch)
  kept = jax.eval_shape(course.steps.teach, state.step, teachers, batch)[2]
  return ((state.step, teachers, batch),
          (state, course.steps.learners[''].numbers[''],
           {**batch, 'answers': kept}))


def memory(course, batch):
  """Bytes that a step holds on each device, its larger program's and the rest.

  `batch` may be shapes.
  """
  teach, learn = arguments(course, batch)
  d = jax.local_device_count()
  waiting = [costs.nbytes(course.state) - 4,  # But for the step.
             costs.nbytes(jax.tree.leaves(teach[1])) // d]
  programs = [course.steps.teach, course.steps.learners[''].program]
  return max(costs.memory(program.lower(*taken).compile()) + beside
             for program, taken, beside in zip(
                 programs, (teach, learn), waiting))


def largest_batch(config, data, limit):
  """(the most images whose step fits into `limit` bytes, the bytes it holds).

  One such step is taken.
  """
  unit = (jax.device_count() * config.get('accumulate', 1)
          * plan_lib.group_of(config))
  course = course_lib.make({**config, 'batch_size': unit}, data)
  batch = next(course.feed.batches(0))

  def cost(units):
    return memory(course, jax.tree.map(lambda x: jax.ShapeDtypeStruct(
        (len(x) * units, *x.shape[1:]), x.dtype), batch))

  units = costs.largest(cost, limit)
  if not units:
    raise ValueError(f'The smallest batch, {unit} images, does not fit into '
                     f'{limit / 1e9:.1f} GB.')
  large = parallel.split(jax.tree.map(lambda x: np.repeat(x, units, axis=0),
                                      batch))
  jax.block_until_ready(course.steps.take(
      {'': parallel.replicate(course.state)}, large, 0, 1))
  return units * unit, cost(units)
