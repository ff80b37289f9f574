"""Students one after another, for CPUs, in place of bench/kept.py's all at once.

XLA's convolutions on CPUs are several times slower inside a loop, and where
students are stacked. So here Python loops over steps and students, and calls
programs of one student. Numbers are those of bench/kept.py but for rounding.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench import kept as kept_lib
from bench import school
from bench import study
from big_distill import teaching


def make_record(setting: kept_lib.Setting, size: int,
                teacher: teaching.Teacher) -> Callable:
  """kept.make_record, a row at a time."""
  look = jax.jit(kept_lib.make_look(setting, size, teacher))
  insert = jax.jit(kept_lib.insert, donate_argnums=0)

  def record(kept, images, params, number, index, boxes, asked, view_row,
             answer_row, mixed):
    seen, answers = map(jnp.stack, zip(*(
        look(images, params, *row, mixed)
        for row in zip(number, index, boxes, asked))))
    return kept_lib.Kept(insert(kept.views, seen, view_row),
                         insert(kept.answers, answers, answer_row))

  return record


def make_learn(setting: kept_lib.Setting, model: Any, optimizer: str = 'adam',
               ) -> Callable:
  """kept.make_learn, a student at a time."""
  read = jax.jit(kept_lib.make_read(setting))
  study_one = jax.jit(kept_lib.make_study(model, optimizer), donate_argnums=0)

  def learn(states, hypers, lessons, kept, count):
    axes, shape = kept_lib.axes_of(states), hypers.lr.shape
    # Copies: what all share must outlive the first student's step.
    each = {at: jax.tree.map(
        lambda axis, x, at=at: jnp.array(x if axis is None else x[at]), axes,
        states, is_leaf=lambda axis: axis is None) for at in np.ndindex(shape)}
    losses, first = {at: [] for at in each}, int(states.step)
    for number in range(first, first + int(count)):
      factor = study.schedule(number, hypers.total, hypers.warmup,
                              hypers.cooldown)
      arms = [read(kept, *arm, number) for arm in zip(
          lessons.view, lessons.answer, lessons.period, lessons.mixed)]
      for at in each:
        each[at], loss = study_one(
            each[at], hypers.lr[at], hypers.wd[at], hypers.t[at], factor,
            *arms[at[0]])
        losses[at].append(loss)

    def join(axis, *x):
      return x[0] if axis is None else jnp.stack(x).reshape(shape + x[0].shape)

    states = jax.tree.map(join, axes, *each.values(),
                          is_leaf=lambda axis: axis is None)
    return states, np.reshape([np.mean(each) for each in losses.values()],
                              shape)

  return learn


def make_exam(model: Any, images: dict[str, np.ndarray]) -> Callable:
  """school.make_exam, a student and 256 images at a time."""
  answer = jax.jit(school.answering(model))

  def exam(params):
    shape = jax.tree.leaves(params)[0].shape[:2]
    each = [jax.tree.map(lambda x, at=at: x[at], params)
            for at in np.ndindex(shape)]
    asked = {split: np.stack([school.by_parts(answer, one, pixels)
                              for one in each])
             for split, pixels in images.items()}
    return {split: x.reshape(*shape, *x.shape[1:]) for split, x in asked.items()}

  return exam
