"""Programs of the stages of bench/agenda.py, compiled in threads."""

import concurrent.futures
import functools
from typing import Any

import jax
import numpy as np

from bench import agenda
from bench import alone as alone_lib
from bench import kept as kept_lib
from bench import school
from bench import shelf as shelf_lib
from big_distill import packed
from big_distill import pretrained
from big_distill.ops import layers

TINY = dict(family='bit', depth=(1,), width=.125)


def begin(stage: agenda.Stage, params: Any) -> Any:
  """States before the first step of a stage, of parameters [a, s, ...]."""
  return kept_lib.begin(params, stage.optimizer)


class Programs:
  """What trains and examines students; the first to ask begins to compile it."""

  def __init__(self, setting: kept_lib.Setting, data: packed.Data,
               splits: dict[str, str], tiny: bool, alone: bool,
               pool: concurrent.futures.Executor):
    """`splits` {name: split of `data`} are what students are examined on.

    alone: students come one after another (bench/alone.py), not stacked.
    """
    self._setting, self._data, self._splits = setting, data, splits
    self._tiny, self._alone, self._pool = tiny, alone, pool
    self._created: dict[tuple[str, int], concurrent.futures.Future] = {}
    self._learners: dict[tuple, concurrent.futures.Future] = {}
    self._exams: dict[str, concurrent.futures.Future] = {}

  def model(self, stage: agenda.Stage) -> tuple[dict[str, Any], int]:
    """Arguments of pretrained.build, and pixels a side."""
    kwargs, size = agenda.STUDENTS[stage.student]
    if not self._tiny:
      return kwargs, size
    return (TINY if kwargs['family'] == 'bit' else kwargs), size // 4

  def created(self, stage: agenda.Stage, seed: int
              ) -> concurrent.futures.Future:
    """(Model, initial parameters) of a student, being drawn."""
    key = stage.student, seed
    if key not in self._created:
      kwargs, size = self.model(stage)
      self._created[key] = self._pool.submit(functools.partial(
          pretrained.create, size=size, seed=seed,
          num_classes=self._setting.num_classes, **kwargs))
    return self._created[key]

  def key(self, stage: agenda.Stage) -> tuple:
    """What stages that share a learner have in common."""
    return stage.student, stage.optimizer, len(stage.arms), stage.columns

  def learner(self, stage: agenda.Stage, kept: kept_lib.Kept
              ) -> concurrent.futures.Future:
    """kept.make_learn of a stage's students."""
    key, kept = self.key(stage), shelf_lib.shape(kept)
    if key not in self._learners:
      created = self.created(stage, agenda.TUNING_SEED)
      shape = len(stage.arms), stage.columns

      def compile_():
        model, first = created.result()
        if self._alone:  # The first step compiles it.
          return alone_lib.make_learn(self._setting, model, stage.optimizer)
        states = jax.eval_shape(functools.partial(begin, stage), jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((*shape, *x.shape), x.dtype),
            first))
        each, one = jax.ShapeDtypeStruct(shape, np.float32), np.int32(0)
        arm = jax.ShapeDtypeStruct(shape[:1], np.int32)
        args = (states, kept_lib.Hypers(each, each, each, one, one, one),
                kept_lib.Lessons(arm, arm, arm, jax.ShapeDtypeStruct(
                    shape[:1], np.bool_)), kept, one)
        return jax.jit(kept_lib.make_learn(
            self._setting, model, stage.optimizer), donate_argnums=0).lower(
                *args).compile()

      self._learners[key] = self._pool.submit(compile_)
    return self._learners[key]

  def exam(self, stage: agenda.Stage) -> concurrent.futures.Future:
    """school.make_exam of three students [1, 3, ...]."""
    if stage.student not in self._exams:
      created = self.created(stage, agenda.TUNING_SEED)

      def compile_():
        model, first = created.result()
        make = (alone_lib if self._alone else school).make_exam
        exam = make(model, {
            name: school.pixels_of(self._data, split,
                                   f'central@{self.model(stage)[1]}')
            for name, split in self._splits.items()})
        if self._alone:
          return exam
        with layers.stacked():
          exam(jax.tree.map(lambda x: np.stack([[x] * 3]), first))
        return exam

      self._exams[stage.student] = self._pool.submit(compile_)
    return self._exams[stage.student]

  def examine(self, stage: agenda.Stage, params: Any) -> dict[str, np.ndarray]:
    """{name of a split: log-probs [a, s, n, c]}, three students at a time."""
    exam, shape = self.exam(stage).result(), (len(stage.arms), stage.columns)
    n = shape[0] * shape[1]
    flat = jax.tree.map(lambda x: x.reshape(n, *x.shape[2:]), params)
    parts = [exam(jax.tree.map(lambda x, at=at: x[None, at], flat)) for at in
             np.minimum(np.arange(-(-n // 3) * 3), n - 1).reshape(-1, 3)]
    joined = {name: np.concatenate([part[name][0] for part in parts])[:n]
              for name in self._splits}
    return {name: x.reshape(*shape, *x.shape[1:]) for name, x in joined.items()}
