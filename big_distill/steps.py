"""A lesson: how a student learns from its teachers' answers to one batch.

Pure functions of arrays. A batch arrives as uint8 views, int32 labels and the
answers that teachers gave beforehand. What can be seen of it is a dict
{view: images in [-1, 1], 'labels': one-hot, 'recorded NAME': log-probs}; mixup
blends all of it alike, and each model looks up what it sees by name.
"""

from collections.abc import Callable
import dataclasses
from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax

from big_distill import losses
from big_distill import parallel
from big_distill import params as params_lib
from big_distill import teaching


@flax.struct.dataclass
class State:
  """All that training changes, and all that a checkpoint holds."""
  step: jax.Array  # Steps taken: int32 [].
  params: Any
  opt: optax.OptState


def init_state(params, tx):
  """The State before the first step."""
  return State(step=jnp.zeros([], jnp.int32), params=params, opt=tx.init(params))


def scale(pixels):
  """uint8 [0, 255] -> float32 [-1, 1], as big_vision's value_range."""
  return pixels.astype(jnp.float32) / 127.5 - 1


def mixup(seen, rng, group=8, alpha=1.):
  """Blends each example with its neighbour, all entries alike.

  One coefficient a ~ Beta(alpha, alpha) for the whole step, by default U[0, 1]
  (the paper's mixup with p=1): a x[i] + (1 - a) x[i - 1], neighbours being
  cyclic inside consecutive groups, so that partners do not depend on how a
  batch is split over devices.
  """
  a = (jax.random.uniform(rng) if alpha == 1
       else jax.random.beta(rng, alpha, alpha))

  def blend(x):
    groups = x.reshape(-1, group, *x.shape[1:])
    return (a * groups + (1 - a) * jnp.roll(groups, 1, axis=1)).reshape(x.shape)

  return jax.tree.map(blend, seen)


def in_parts(function, parts):
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
  """One training step, in the order it happens: see, teach, learn, update.

  student: (params, images) -> (logits [b, c], averages), of the view it `sees`;
    averages replace those leaves of params that no gradient moves.
  teachers: of type teaching.Teacher; they agree by `combine`.
  loss: (student logits, target log-probs) [b, c] -> [b].
  mix: a function like `mixup`, or None. lr: step -> learning rate, for the log.
  labelled: whether to log task losses, which nobody learns from.
  accumulate: into how many parts a device's batch falls, for less memory. The
    parts' gradients make that of the batch; but BatchNorm's moments are those
    of a part, on all devices, and its averages move to the mean of the parts'.
  """
  student: Callable
  sees: Any
  teachers: tuple[teaching.Teacher, ...]
  tx: optax.GradientTransformation
  lr: Callable
  num_classes: int
  loss: Callable = losses.kl
  combine: str = 'logits'
  mix: Callable | None = None
  seed: int = 0
  labelled: bool = True
  accumulate: int = 1

  def see(self, step, batch):
    """What can be seen of a batch; the zero vector where a label is unknown."""
    seen = {view: scale(pixels) for view, pixels in batch['views'].items()}
    seen[teaching.LABELS] = jax.nn.one_hot(batch['label'], self.num_classes)
    for name, probs in batch.get('answers', {}).items():
      seen[teaching.recorded(name)] = jnp.log(probs.astype(jnp.float32))
    if self.mix:
      seen = self.mix(seen, jax.random.fold_in(jax.random.key(self.seed), step))
    return seen

  def teach(self, teacher_params, seen):
    """The log-probs [b, c] that the teachers agree on."""
    # Teachers are arguments, not state: what a step returns it may change.
    answers = [teacher.answer(params, seen[str(teacher.sees)])
               for teacher, params in zip(self.teachers, teacher_params)]
    agreed = teaching.consensus(answers, self.combine,
                                losses.temperature(self.loss))
    target = losses.temper(agreed, 1.)
    return jax.lax.stop_gradient(target)

  def learn(self, params, target, seen):
    """((loss, (logits, averages)), gradients), of this device's examples."""
    def loss_of(params):
      logits, averages = self.student(params, seen[str(self.sees)])
      return jnp.mean(self.loss(logits, target)), (logits, averages)

    return jax.value_and_grad(loss_of, has_aux=True)(params)

  def update(self, state, grads, averages):
    """(the next State, what was added to the parameters)."""
    updates, opt = self.tx.update(grads, state.opt, state.params)
    params = optax.apply_updates(state.params, updates)
    params = params_lib.replace(params, averages)
    return State(state.step + 1, params, opt), updates

  def step(self, state, teacher_params, batch):
    """State, teachers' params, batch -> next State, scalars. For pmap."""
    def study(batch):
      seen = self.see(state.step, batch)
      target = self.teach(teacher_params, seen)
      (loss, (logits, averages)), grads = self.learn(state.params, target, seen)
      return (loss, grads, averages), (logits, target, seen[teaching.LABELS])

    (loss, grads, averages), (logits, target, labels) = in_parts(
        study, self.accumulate)(batch)
    grads = parallel.mean(grads)
    after, updates = self.update(state, grads, averages)

    scalars = {'loss': loss, 'entropy_student': losses.entropy(logits).mean(),
               'entropy_teacher': losses.entropy(target).mean()}
    if self.labelled:
      labels = jnp.log(labels)
      scalars['task_loss_student'] = losses.xent(logits, labels).mean()
      scalars['task_loss_teacher'] = losses.xent(target, labels).mean()
    scalars = parallel.mean(scalars)
    scalars.update(lr=self.lr(state.step),
                   l2_grads=optax.tree.norm(grads),
                   l2_params=optax.tree.norm(after.params),
                   l2_updates=optax.tree.norm(updates))
    return after, scalars


def make_eval_step(student, sees, teachers, combine='logits'):
  """-> step(student params, teachers' params, batch): {who: logits [b, c]}.

  `who` is 'student', where it `sees` something, and 'teacher', the consensus,
  where there are teachers. With combine=None what teachers answer stays apart,
  under their names: features have no consensus.
  """
  def step(params, teacher_params, batch):
    seen = {view: scale(pixels) for view, pixels in batch['views'].items()}
    answers = {}
    if sees:
      answers['student'] = student(params, seen[str(sees)])
    taught = {teacher.name: teacher.answer(params, seen[str(teacher.sees)])
              for teacher, params in zip(teachers, teacher_params)}
    if not combine:
      return answers | taught
    if taught:
      answers['teacher'] = teaching.consensus([*taught.values()], combine)
    return answers

  return step
