"""A lesson: how a student learns from its teachers' answers to one batch.

Pure functions of arrays. A batch arrives as uint8 views and int32 labels. What
can be seen of it is a dict {view: images in [-1, 1], 'labels': one-hot}; mixup
blends all of it alike, and each model looks up what it sees by name. Answers
that teachers gave before come with the batch; they are of the mixture already.
"""

from collections.abc import Callable, Sequence
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float32
from jaxtyping import UInt8
import optax

from big_distill import answers as answers_lib
from big_distill import bounds
from big_distill import labels
from big_distill import losses
from big_distill import parallel
from big_distill import teaching
from big_distill import topk
from big_distill.pupil import Pupil
from big_distill.state import State

Seen = dict[str, Any]  # What can be seen of a batch, leaves [b, ...].


def scale(pixels: UInt8[Array, '*b c']) -> Float32[Array, '*b c']:
  """uint8 [0, 255] -> float32 [-1, 1], as big_vision's value_range."""
  return pixels.astype(jnp.float32) / 127.5 - 1


def mixup(seen: Seen, rng: jax.Array, group: int = 8,
          alpha: float = 1.) -> Seen:
  """Blends each example with its neighbour, all entries alike.

  One coefficient a ~ Beta(alpha, alpha) for the whole step, by default U[0, 1]
  (the paper's mixup with p=1): a x[i] + (1 - a) x[i - 1], neighbours being
  cyclic inside consecutive groups, so that partners do not depend on how a
  batch is split over devices.
  """
  bounds.check('mixup.group', group, least=1, whole=True)
  bounds.check('mixup.alpha', alpha, above=0)
  a = (jax.random.uniform(rng) if alpha == 1
       else jax.random.beta(rng, alpha, alpha))

  def blend(x):
    groups = x.reshape(-1, group, *x.shape[1:])
    return (a * groups + (1 - a) * jnp.roll(groups, 1, axis=1)).reshape(x.shape)

  return jax.tree.map(blend, seen)


def in_parts(function: Callable, parts: int) -> Callable:
  """function(batch) -> (means, rows [b, ...]), on so many parts in turn.

  Means are averaged over the parts, rows laid one after another.
  """
  if parts == 1:
    return function

  def run(batch):
    batch = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), batch)
    means = jax.eval_shape(function, jax.tree.map(lambda x: x[0], batch))[0]

    def add(total, part):
      means, rows = function(part)
      return jax.tree.map(jnp.add, total, means), rows

    total, rows = jax.lax.scan(
        add, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), means), batch)
    return (jax.tree.map(lambda x: x / parts, total),
            jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), rows))

  return run


@dataclasses.dataclass(frozen=True)
class Lesson:
  """What a batch teaches, whoever learns: see, teach, then each pupil learns.

  teachers: of type teaching.Teacher; they agree by `combine`.
  mix: a function like `mixup`, or None.
  period: after so many steps batches repeat, mixed alike; 0: they never do.
  form: how answers are kept, before they teach.
  labelled: whether to log task losses, which nobody learns from.
  accumulate: micro-batches of a device's batch, for less memory. The gradient
    is that of the batch; but BatchNorm uses the moments of each micro-batch, on
    all devices, and its averages move to the mean over micro-batches.
  skips: steps in a row that, if not finite, end the training.
  """
  teachers: tuple[teaching.Teacher, ...]
  num_classes: int
  combine: str = 'logits'
  mix: Callable | None = None
  seed: int = 0
  labelled: bool = True
  accumulate: int = 1
  skips: int = 1
  period: int = 0
  form: answers_lib.Form = answers_lib.Form()

  def see(self, step: Any, batch: dict[str, Any]) -> Seen:
    """What can be seen of a batch. Where a label is unknown, it is all zero."""
    seen: Seen = {view: scale(pixels) for view, pixels in batch['views'].items()}
    seen[teaching.LABELS] = labels.shares(batch['label'], self.num_classes)
    if self.mix:
      if self.period:
        step = step % self.period
      seen = self.mix(seen, jax.random.fold_in(jax.random.key(self.seed), step))
    return seen

  def answer(self, teacher_params: Sequence[Any], seen: Seen
             ) -> list[jax.Array]:
    """Each model's logits, [b, c] float32: a list, of one where they average.

    That is all the target needs of the models, at any temperature.
    """
    # Teachers are arguments, not state: what a step returns it may change.
    answers = [teacher.answer(params, seen[str(teacher.sees)])
               for teacher, params in zip(self.teachers, teacher_params)
               if teacher.size]
    return self.condense(answers)

  def condense(self, answers: Sequence[jax.Array]) -> list[jax.Array]:
    """As `answer`, of answers that the models gave already."""
    if self.combine == 'logits' and answers:
      return [teaching.consensus(answers)]
    return [answer.astype(jnp.float32) for answer in answers]

  def agree(self, answers: Sequence[Any], seen: Seen, t: float = 1.) -> Any:
    """What teachers agree on, for a loss at temperature t.

    Log-probs [b, c], or a TopK if that is what the answers are kept as. The
    answers are those of `answer`; labels are seen. An example without a label
    learns from models alone; if there are none, its log-probs are -inf.
    """
    answers = [*answers]
    if answers and isinstance(answers[0], topk.TopK):
      target, = answers
      return jax.lax.stop_gradient(target)

    def consent(answers):
      # Not losses.temper: a model that says nothing is NaN, and ends the run.
      return jax.nn.log_softmax(
          teaching.consensus(answers, self.combine, t), axis=-1)

    share = seen.get(teaching.LABELS)
    said = [teacher.answer({}, share) for teacher in self.teachers
            if not teacher.size]
    target = consent(answers) if answers else jnp.full_like(said[0], -jnp.inf)
    if said:
      target = jnp.where(labels.has_all(share)[:, None],
                         consent([*answers, *said]), target)
    return jax.lax.stop_gradient(target)

  def teach(self, step: jax.Array, teacher_params: Sequence[Any],
            batch: dict[str, Any]) -> tuple[jax.Array, dict, list[Any]]:
    """What models answer to the batch of a step, for pmap.

    Returns the next step, no scalars, and the answers as `form` keeps them.
    """
    def answer(batch):
      seen = self.see(step, batch)
      return {}, self.form.pack(self.answer(teacher_params, seen))

    return step + 1, {}, in_parts(answer, self.accumulate)(batch)[1]

  def step(self, pupil: Pupil, state: State, teacher_params: Sequence[Any],
           batch: dict[str, Any]) -> tuple[State, dict[str, jax.Array]]:
    """State, teachers' params, batch -> next State, scalars. For pmap.

    A batch may have 'answers', of `teach`: then they teach, and teachers' params
    may be empty. Task losses are means over labelled examples: NaN where there
    is none.
    """
    def study(batch):
      seen = self.see(state.step, batch)
      kept = batch.get('answers')
      if kept is None:
        kept = self.form.pack(self.answer(teacher_params, seen))
      target = self.agree(self.form.unpack(kept), seen,
                          losses.temperature(pupil.loss))
      (loss, (logits, averages)), grads = pupil.learn(
          state.params, target, seen)
      return (loss, grads, averages), (logits, target, seen[teaching.LABELS])

    (loss, grads, averages), (logits, target, share) = in_parts(
        study, self.accumulate)(batch)
    grads = parallel.mean(grads)
    after, updates = pupil.update(state, grads, averages)

    scalars = {'loss': loss, 'entropy_student': losses.entropy(logits).mean(),
               'entropy_teacher': losses.entropy(target).mean()}
    if self.labelled:
      known = labels.has_all(share)
      scalars['known'] = known.mean()
      said = {'student': logits, 'teacher': target}
      if isinstance(target, topk.TopK):  # It may have left the class out.
        del said['teacher']
      for who, answer in said.items():
        task_loss = losses.xent(answer, jnp.log(share))
        scalars[f'task_loss_{who}'] = jnp.where(known, task_loss, 0.).mean()
    scalars = parallel.mean(scalars)
    if self.labelled:
      known = scalars.pop('known')
      for who in said:
        scalars[f'task_loss_{who}'] /= known
    l2_grads = optax.tree.norm(grads)
    after = state.followed_by(
        after, jnp.isfinite(scalars['loss'] + l2_grads), self.skips)
    scalars.update(lr=pupil.lr(state.step), l2_grads=l2_grads,
                   skipped_in_a_row=after.skipped[0], skipped=after.skipped[1],
                   l2_params=optax.tree.norm(after.params),
                   l2_updates=optax.tree.norm(updates))
    return after, scalars
