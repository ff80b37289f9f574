"""Students who learn from views and answers that the device keeps.

bench/study.py renders views and asks the teacher at each step. Here that is
done once: a stream is photographs in an order, framed by boxes that the seed and
the step decide; each of its batches becomes a row of pixels and a row of
answers, and stages that learn from the same stream read the same rows. Rows may
come again (`period`), and one program serves all arms of a number of students:
which rows an arm reads is data.

bench/further.py runs the second half of docs/reproduction.md with it.
"""

from collections.abc import Callable, Iterable
import functools
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
import numpy as np

from bench import study
from big_distill import losses
from big_distill import packed
from big_distill import render
from big_distill import steps
from big_distill import teaching
from big_distill import views
from big_distill.ops import layers
from big_distill.pupil import Pupil
from big_distill.state import State

VIEW = views.MODES['funmatch'].student  # Of all streams: one crop for both.
TOGETHER = 4  # Rows that are rendered and answered at once.


class Setting(NamedTuple):
  """What streams and students have in common."""
  num_classes: int
  batch_size: int = 128
  group: int = 8  # Of mixup.
  seed: int = 0  # Of the streams.


class Stream(NamedTuple):
  """`steps` batches of a split of a pack, drawn as packed.Data draws them."""
  index: np.ndarray  # int32 [steps, b]
  boxes: dict[str, np.ndarray]  # Of each region, int32 [steps, b, 5].
  labels: np.ndarray  # int32 [steps, b]


@flax.struct.dataclass
class Kept:
  """Rows on the device: views of students, and answers of who teaches."""
  views: Any  # uint8 [rows, b, s, s, 3]
  answers: Any  # float32 [rows, b, c], logits or log-probs.


@flax.struct.dataclass
class Lessons:
  """Which rows each arm reads [a]: at step s, number s mod its period."""
  view: Any  # int32, the first of its stream's views.
  answer: Any  # int32, the first of its answers.
  period: Any  # int32
  mixed: Any  # bool, whether its images are mixed up.


@flax.struct.dataclass
class Hypers:
  """Of each student [a, s]: rate, decay, temperature; of the run, in steps."""
  lr: Any
  wd: Any
  t: Any
  total: Any
  warmup: Any
  cooldown: Any  # Steps by 1 - sqrt at the end of a constant rate; 0: a cosine.


def empty(setting: Setting, size: int, views_: int, answers: int) -> Kept:
  """Room for so many rows of views and of answers."""
  b = setting.batch_size
  return Kept(jnp.zeros([views_, b, size, size, 3], jnp.uint8),
              jnp.zeros([answers, b, setting.num_classes]))


def draw(data: packed.Data, split: str, held: tuple, setting: Setting,
         steps_: int, regions: Iterable[str]) -> Stream:
  """The first batches of a split, whose images `held` begins with."""
  shown = [views.View.parse(region) for region in regions]
  batches = list(data.train_boxes(
      data.load(split=split), shown, setting.batch_size, setting.seed, 0,
      steps_, held=held))

  def stack(of):
    return np.stack([of(batch) for batch in batches]).astype(np.int32)

  return Stream(
      stack(lambda batch: batch['index']),
      {str(view): stack(lambda batch, view=view: batch['boxes'][str(view)])
       for view in shown}, stack(lambda batch: batch['label']))


def _mix(images, number, mixed, setting):
  """Images of a step, mixed up or not: steps.Lesson's mixture of that step."""
  rng = jax.random.fold_in(jax.random.key(setting.seed), number)
  return jnp.where(mixed, steps.mixup(images, rng, setting.group), images)


def make_look(setting: Setting, size: int,
              teacher: teaching.Teacher) -> Callable:
  """-> look(images, teacher's params, number, index [b], boxes [b, 5],
  teacher's boxes, mixed) -> (views, answers) of a row.
  """
  def look(images, params, number, index, boxes, asked, mixed):
    seen = render.render(images, index, boxes, VIEW.at(size))
    shown = render.render(images, index, asked, VIEW.at(teacher.size))
    return seen, teacher.answer(params, _mix(
        steps.scale(shown), number, mixed, setting))

  return look


def make_record(setting: Setting, size: int,
                teacher: teaching.Teacher) -> Callable:
  """-> record(kept, images, teacher's params, number [k], index [k, b], boxes
  [k, b, 5], teacher's boxes, view row, answer row, mixed) -> kept, with k more
  rows.
  """
  look = make_look(setting, size, teacher)

  def record(kept, images, params, number, index, boxes, asked, view_row,
             answer_row, mixed):
    seen, answers = jax.lax.map(
        lambda row: look(images, params, *row, mixed),
        (number, index, boxes, asked), batch_size=TOGETHER)
    return Kept(insert(kept.views, seen, view_row),
                insert(kept.answers, answers, answer_row))

  return record


def insert(into: jax.Array, rows: jax.Array, first: Any) -> jax.Array:
  """Rows written from the given one on."""
  return jax.lax.dynamic_update_slice_in_dim(
      into, rows.astype(into.dtype), first, 0)


def of_labels(setting: Setting, labels: jax.Array, numbers: jax.Array,
              mixed: bool) -> jax.Array:
  """Log-probs [n, b, c] by which labels [n, b] teach the steps `numbers`."""
  def shares(labels, number):
    return _mix(jax.nn.one_hot(labels, setting.num_classes), number, mixed,
                setting)

  return jnp.log(jax.vmap(shares)(labels, numbers))


def make_read(setting: Setting) -> Callable:
  """-> read(kept, view, answer, period, mixed, number) -> (pixels [b, s, s, 3],
  the teacher's log-probs [b, c]) of an arm at a step.
  """
  def read(kept, view, answer, period, mixed, number):
    place = number % period
    pixels = _mix(steps.scale(kept.views[view + place]), place, mixed, setting)
    return pixels, losses.temper(kept.answers[answer + place], 1.)

  return read


def make_study(model: Any, optimizer: str) -> Callable:
  """-> study(state, lr, wd, t, factor of the rate, pixels, target) -> (state,
  loss): a step of one student.
  """
  def answer(params, images):
    (logits, _), moved = model.apply(
        {'params': params}, images, train=True, mutable=['averages'])
    return logits, moved.get('averages', {})

  def study_one(state, lr, wd, t, factor, pixels, target):
    pupil = Pupil(
        answer, 'pixels', study.optimizer(lr, wd, factor, optimizer), None,
        functools.partial(losses.kl, t=t))
    (loss, (_, averages)), grads = pupil.learn(
        state.params, target, {'pixels': pixels})
    return pupil.update(state, grads, averages)[0], loss

  return study_one


def make_learn(setting: Setting, model: Any, optimizer: str = 'adam',
               ) -> Callable:
  """-> learn(states [a, s], hypers, lessons, kept, count).

  It takes `count` steps and returns (states, mean losses [a, s]).
  """
  read, study_one = make_read(setting), make_study(model, optimizer)

  def learn(states, hypers, lessons, kept, count):
    def step(_, carry):
      states, total = carry
      number, axes = states.step, axes_of(states)
      pixels, target = jax.vmap(read, (None, 0, 0, 0, 0, None))(
          kept, lessons.view, lessons.answer, lessons.period, lessons.mixed,
          number)
      factor = study.schedule(number, hypers.total, hypers.warmup,
                              hypers.cooldown)
      students = jax.vmap(study_one, (axes, 0, 0, 0, None, None, None),
                          (axes, 0))
      with layers.stacked():
        states, loss = jax.vmap(students, (axes, 0, 0, 0, None, 0, 0),
                                (axes, 0))(
            states, hypers.lr, hypers.wd, hypers.t, factor, pixels, target)
      return states, total + loss

    states, total = jax.lax.fori_loop(0, count, step, (
        states, jnp.zeros(hypers.lr.shape)))
    return states, total / count

  return learn


def begin(params: Any, optimizer: str) -> Any:
  """States of students with these parameters [a, s, ...], at step 0.

  Leaves are [a, s, ...], too, but for counts of steps, which all share.
  """
  def one(params):
    return State.init(params, study.optimizer(1., 0., 1., optimizer))

  axes = axes_of(jax.eval_shape(one, jax.tree.map(lambda x: x[0, 0], params)))
  return jax.vmap(jax.vmap(one, out_axes=axes), out_axes=axes)(params)


def axes_of(states: Any) -> Any:
  """Of each leaf the axis of students: 0, or None for counts of steps.

  jax.vmap makes of a jax.lax.cond whose predicate differs between students the
  computation of both branches: Shampoo's roots would be computed at every step.
  """
  return jax.tree_util.tree_map_with_path(
      lambda path, _: None if getattr(path[-1], 'name', '') in (
          'step', 'count') else 0, states)
