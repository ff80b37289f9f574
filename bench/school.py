"""A class of students, from packed images to what they answer (bench/study.py).
"""

from collections.abc import Callable, Iterator, Sequence
import concurrent.futures
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench import study
from big_distill import feed
from big_distill import packed
from big_distill import parallel
from big_distill import pretrained
from big_distill import steps
from big_distill import teaching
from big_distill import views


def pixels_of(data: packed.Data, split: str, view: str) -> np.ndarray:
  """uint8 [n, s, s, 3] of a view without a die, of a whole split."""
  batches = data.eval_batches(data.load(split=split), [views.View.parse(view)],
                              256, 0)
  return np.concatenate([batch['views'][view][batch['mask'] > 0]
                         for batch in batches])


def ask(teacher: teaching.Teacher, pixels: np.ndarray) -> np.ndarray:
  """The teacher's log-probs [n, c] of uint8 [n, s, s, 3]."""
  answer = jax.jit(lambda params, x: jax.nn.log_softmax(
      teacher.answer(params, steps.scale(x))))
  return by_parts(answer, jax.device_put(teacher.params), pixels)


def by_parts(answer: Callable, params: Any, pixels: np.ndarray) -> np.ndarray:
  """answer(params, pixels) of at most 256 of them at a time."""
  return np.concatenate([answer(params, part) for part in np.array_split(
      pixels, -(-len(pixels) // 256))])


def answering(model: Any) -> Callable:
  """-> answer(params, uint8 [b, s, s, 3]) -> a student's log-probs [b, c]."""
  def answer(params, pixels):
    logits, _ = model.apply({'params': params}, steps.scale(pixels))
    return jax.nn.log_softmax(logits)

  return answer


def make_exam(model: Any, images: dict[str, np.ndarray]) -> Callable:
  """-> exam(params [a, s, ...]) -> {split: log-probs [a, s, n, c]}.

  `images` are uint8 [n, h, w, 3] of each split.
  """
  sizes = {split: len(each) for split, each in images.items()}
  joined = np.concatenate([*images.values()])
  part = min(256, len(joined))
  fill = -len(joined) % part
  joined = np.concatenate([joined, joined[:1].repeat(fill, axis=0)])
  joined = jax.device_put(joined.reshape(-1, part, *joined.shape[1:]))

  answer = answering(model)

  @jax.jit
  def run(params, images):
    answers = jax.lax.map(lambda pixels: jax.vmap(jax.vmap(
        answer, (0, None)), (0, None))(params, pixels), images)
    return jnp.moveaxis(answers, 0, 2)  # [a, s, parts, b, c]

  def exam(params):
    answers = np.asarray(run(params, joined))
    answers = answers.reshape(*answers.shape[:2], -1, answers.shape[-1])
    cuts = np.cumsum([*sizes.values()])
    return dict(zip(sizes, np.split(answers, cuts, axis=2)))

  return exam


class School:
  """A class of students over held images: compiled once, run at any length."""

  def __init__(self, data: packed.Data, split: str, setting: study.Setting,
               teacher: teaching.Teacher, seed: int = 0):
    self.data, self.setting, self.seed = data, setting, seed
    self.source = data.load(split=split)
    self.held = data.hold(self.source)
    self.shown = study.shown_views(setting, teacher)
    self.model = model = pretrained.build(
        num_classes=setting.num_classes, **setting.student)
    self._begin = study.make_begin(setting)
    self._call = study.make_call(study.make_step(setting, model, teacher, seed))
    self._constants = [parallel.replicate(tree) for tree in (
        teacher.params, study.record(self.held, setting, teacher, seed),
        self.held[0])]

  def steps(self, epochs: int) -> int:
    """How many steps so many epochs are."""
    return epochs * self.source.num_examples // self.setting.batch_size

  def run(self, seeds: Sequence[int], lr: np.ndarray, wd: np.ndarray | float,
          epochs: int, t: np.ndarray | float = 1.
          ) -> Iterator[tuple[int, np.ndarray, Any]]:
    """Yields (steps taken, mean loss [a, s] of the call, params) of each call.

    Rates, decays and temperatures are [a, s], or one for all; params, [a, s,
    ...], must be used before the next call.
    """
    total, most = self.steps(epochs), self.setting.per_call
    shape = len(self.setting.arms), len(seeds)
    hypers = parallel.replicate(dict(
        **{key: np.broadcast_to(np.float32(each), shape)
           for key, each in dict(lr=lr, wd=wd, t=t).items()},
        total=np.int32(total),
        warmup=np.int32(self.setting.warmup * total)))
    states = parallel.replicate(jax.device_get(
        self._begin(seeds)))
    single = self.data.train_boxes(
        self.source, self.shown, self.setting.batch_size, self.seed, 0, total,
        held=self.held)
    calls = feed.group(single, 0, feed.call_ends(0, total, most, []), most)
    step = 0
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
      ahead = pool.submit(next, calls, None)
      while call := ahead.result():
        ahead = pool.submit(next, calls, None)
        count = call.pop('count')[0]
        states, loss = self._call(
            states, hypers, *self._constants, parallel.split(call),
            parallel.replicate(count))
        step += count
        yield step, parallel.first(loss) / count, jax.tree.map(
            lambda x: x[0], states.params)
