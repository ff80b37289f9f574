"""Many students at once: modes, rates and seeds in one program.

Students that learn from one batch share its images and its teacher's answers;
their parameters are stacked, and jax.vmap takes their steps together. An arm is
a mode of teaching, or labels; all arms of a class see the same photographs in
the same order, and those of one draw the same boxes. Seeds differ in how
students begin. The update is that of big_distill.optim.

bench/reproduce.py runs the study of docs/reproduction.md with it.
"""

from collections.abc import Callable, Sequence
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from big_distill import losses
from big_distill import optim
from big_distill import packed
from big_distill import parallel
from big_distill import pretrained
from big_distill import render
from big_distill import steps
from big_distill import teaching
from big_distill import views
from big_distill.pupil import Pupil
from big_distill.state import State


class Arm(NamedTuple):
  """A mode of views.MODES, and whether labels teach in the teacher's place."""
  mode: str
  labels: bool = False


ARMS = {
    **{mode: Arm(mode) for mode in views.MODES},
    'labels': Arm('same/ic', labels=True),
    'labels, mixed up': Arm('funmatch', labels=True),
}


class Setting(NamedTuple):
  """What a class of students has in common."""
  student: dict  # Arguments of pretrained.build.
  size: int
  arms: Sequence[str]
  num_classes: int
  batch_size: int = 128
  group: int = 8  # Of mixup.
  votes: int = 256  # Of a fixed ensemble; the paper has 1,024.
  warmup: float = .05  # Share of a run.
  per_call: int = 80  # Steps of one call of the program.


def schedule(step: Any, total: Any, warmup: Any, cooldown: Any = 0
             ) -> jax.Array:
  """optim.make_schedule's cosine, where its numbers may be tracers.

  With a `cooldown`, in steps, its 'wsd'.
  """
  rest = jnp.clip((step - warmup) / jnp.maximum(total - warmup, 1), 0, 1)
  late = jnp.clip((step - total + cooldown) / jnp.maximum(cooldown, 1), 0, 1)
  return jnp.where(
      step < warmup, step / jnp.maximum(warmup, 1), jnp.where(
          cooldown > 0, 1 - jnp.sqrt(late), .5 * (1 + jnp.cos(jnp.pi * rest))))


def is_recorded(arm: Arm) -> bool:
  """Whether the answers to an image never change, so that a table holds them."""
  mode = views.MODES[arm.mode]
  return not arm.labels and (mode.votes > 0 or mode.teacher.die is None)


def see(setting: Setting, teacher: teaching.Teacher) -> dict[str, tuple]:
  """{arm: the views of its student and of its teacher, None for labels}."""
  seen = {}
  for name in setting.arms:
    mode = views.MODES[ARMS[name].mode]
    seen[name] = (mode.student.at(setting.size), None if ARMS[name].labels
                  else mode.teacher.at(teacher.size))
  return seen


def record(held: tuple, setting: Setting, teacher: teaching.Teacher,
           seed: int) -> dict[str, np.ndarray]:
  """{arm: mean probabilities [n, c]} of teachers whose answers are fixed."""
  images = jax.device_put(held[0])
  parts = np.array_split(np.arange(len(held[1])), -(-len(held[1]) // 256))
  tables = {}
  for name, (_, view) in see(setting, teacher).items():
    if not is_recorded(ARMS[name]):
      continue

    @jax.jit
    def answer(params, images, index, boxes, view=view):
      pixels = render.render(images, index, boxes, view)
      return jax.nn.softmax(teacher.answer(params, steps.scale(pixels)))

    votes = min(views.MODES[ARMS[name].mode].votes, setting.votes) or 1
    total = 0.
    for vote in range(votes):
      frames = packed.boxes(
          view.region, held[0].sizes, views.FRACTION,
          np.random.default_rng([seed, vote, view.die or 0]))
      total += np.concatenate([
          answer(teacher.params, images, part, frames[part])
          for part in parts])
    tables[name] = np.float32(total / votes)
  return tables


def make_begin(setting: Setting) -> Callable:
  """-> begin(seeds [s]) -> States [a, s] before the first step.

  Students of one seed begin alike in all arms.
  """
  @jax.jit
  def enroll(params):
    states = jax.vmap(lambda each: State.init(
        each, optimizer(1., 0., 1.)))(params)
    return jax.tree.map(
        lambda x: jnp.stack([x] * len(setting.arms)), states)

  def begin(seeds):
    each = [pretrained.create(size=setting.size, seed=seed,
                              num_classes=setting.num_classes,
                              **setting.student)[1] for seed in seeds]
    return enroll(jax.tree.map(lambda *x: np.stack(x), *each))

  return begin


def optimizer(lr: Any, wd: Any, factor: Any, name: str = 'adam'
              ) -> optax.GradientTransformation:
  """The update of optim.make where the schedule is at `factor`."""
  return optax.chain(
      optim.make(1, name=name, lr=lr, wd=wd, schedule='constant')[0],
      optax.scale(factor))


def make_step(setting: Setting, model: Any, teacher: teaching.Teacher,
              seed: int) -> Callable:
  """-> step(states, hypers, teacher's params, tables, images, batch).

  It returns (states, losses [a, s]). `hypers` has lr, wd and the temperature t
  [a, s], and total and warmup of the run, in steps.
  """
  seen_by = see(setting, teacher)
  shown = shown_views(setting, teacher)
  lessons = {name: steps.Lesson(
      (), setting.num_classes, seed=seed,
      mix=(lambda seen, rng: steps.mixup(seen, rng, setting.group))
      if views.MODES[ARMS[name].mode].mixup else None)
             for name in setting.arms}

  def answer(params, images):
    (logits, _), moved = model.apply(
        {'params': params}, images, train=True, mutable=['averages'])
    return logits, moved.get('averages', {})

  def targets(seen, teacher_params, tables, index):
    """{arm: log-probs [b, c]}, those that look at images asked together."""
    live = [name for name in setting.arms
            if not ARMS[name].labels and name not in tables]
    told = {name: jnp.log(table[index]) for name, table in tables.items()}
    for name in setting.arms:
      if ARMS[name].labels:
        told[name] = jnp.log(seen[name][teaching.LABELS])
    if live:
      images = jnp.concatenate([seen[name][str(seen_by[name][1])]
                                for name in live])
      logits = teacher.answer(teacher_params, images)
      told |= dict(zip(live, jnp.split(logits, len(live))))
    return jax.lax.stop_gradient(
        {name: losses.temper(each, 1.) for name, each in told.items()})

  def step(states, hypers, teacher_params, tables, images, batch):
    number = states.step[0, 0]
    shows = render.views(images, batch['index'], batch['boxes'], shown)
    seen = {name: lessons[name].see(number, {
        'label': batch['label'],
        'views': {str(view): shows[str(view)] for view in seen_by[name]
                  if view and str(view) in shows}}) for name in setting.arms}
    target = targets(seen, teacher_params, tables, batch['index'])
    factor = schedule(number, hypers['total'], hypers['warmup'])

    def study(state, lr, wd, t, pixels, target):
      pupil = Pupil(answer, 'pixels', optimizer(lr, wd, factor), None,
                    functools.partial(losses.kl, t=t))
      (loss, (_, averages)), grads = pupil.learn(
          state.params, target, {'pixels': pixels})
      after, _ = pupil.update(state, parallel.mean(grads), averages)
      return after, parallel.mean(loss)

    return jax.vmap(jax.vmap(study, (0, 0, 0, 0, None, None)))(
        states, hypers['lr'], hypers['wd'], hypers['t'],
        jnp.stack([seen[name][str(seen_by[name][0])]
                   for name in setting.arms]),
        jnp.stack([target[name] for name in setting.arms]))

  return step


def shown_views(setting: Setting, teacher: teaching.Teacher) -> list:
  """The views that are rendered: all but those of recorded answers."""
  return sorted({view for name, pair in see(setting, teacher).items()
                 for view, of_teacher in zip(pair, (False, True))
                 if view and not (of_teacher and is_recorded(ARMS[name]))},
                key=str)


def make_call(step: Callable) -> Callable:
  """`step` -> the same for a call, pmapped: leaves of its batch [b, k, ...].

  It takes the first `count` of k batches and returns (states, sum of losses).
  """
  def call(states, hypers, teacher_params, tables, images, batches, count):
    def take(i, carry):
      states, total = carry
      states, loss = step(states, hypers, teacher_params, tables, images,
                          jax.tree.map(lambda x: x[:, i], batches))
      return states, total + loss

    return jax.lax.fori_loop(0, count, take, (
        states, jnp.zeros(hypers['lr'].shape)))

  return parallel.pmap(call, donate=(0,))
