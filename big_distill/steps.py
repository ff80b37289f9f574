"""The two steps, as pure functions of arrays: learn from a batch, answer one.

A batch arrives as uint8 views and int32 labels. What can be seen of it is a
dict {view: images in [-1, 1], 'labels': one-hot}, and mixup blends all of it
alike; the student and each teacher look up what they see by name.
"""

from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax

from big_distill import losses
from big_distill import parallel
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


def shown(batch, num_classes):
  """What can be seen of a batch: its views, scaled, and its labels [b, c].

  An example without a label (-1) has the zero vector.
  """
  seen = {view: scale(pixels) for view, pixels in batch['views'].items()}
  seen[teaching.LABELS] = jax.nn.one_hot(batch['label'], num_classes)
  return seen


def mixup(seen, rng, group=8):
  """Blends each example with its neighbour, all entries alike.

  One coefficient a ~ U[0, 1] for the whole step (the paper's mixup(p=1)):
  a x[i] + (1 - a) x[i - 1], neighbours being cyclic inside consecutive groups,
  so that partners do not depend on how a batch is split over devices.
  """
  a = jax.random.uniform(rng)

  def blend(x):
    groups = x.reshape(-1, group, *x.shape[1:])
    return (a * groups + (1 - a) * jnp.roll(groups, 1, axis=1)).reshape(x.shape)

  return jax.tree.map(blend, seen)


def make_train_step(student, sees, teachers, tx, lr, *, num_classes,
                    loss=losses.kl, combine='logits', mix=None, seed=0,
                    labelled=True):
  """-> step(State, teachers' params, batch): (State, scalars of the step).

  Runs inside parallel.pmap. `student(params, images)` gives logits [b, c] of
  the view it `sees`; `teachers` are teaching.Teacher; `mix` is a function like
  `mixup`, or None; `lr(step)` is logged; `labelled` adds the task losses, which
  are logged and never learned from.
  """
  def step(state, teacher_params, batch):
    seen = shown(batch, num_classes)
    if mix:
      seen = mix(seen, jax.random.fold_in(jax.random.key(seed), state.step))

    # Teachers are arguments, not state: what a step returns it may change.
    answers = [teacher.answer(params, seen[str(teacher.sees)])
               for teacher, params in zip(teachers, teacher_params)]
    target = losses.temper(teaching.consensus(answers, combine), 1.)
    target = jax.lax.stop_gradient(target)

    def loss_of(params):
      logits = student(params, seen[str(sees)])
      return jnp.mean(loss(logits, target)), logits

    grad_of = jax.value_and_grad(loss_of, has_aux=True)
    (value, logits), grads = grad_of(state.params)
    grads = parallel.mean(grads)
    updates, opt = tx.update(grads, state.opt, state.params)
    params = optax.apply_updates(state.params, updates)

    scalars = {'loss': value, 'entropy_student': losses.entropy(logits).mean(),
               'entropy_teacher': losses.entropy(target).mean()}
    if labelled:
      labels = jnp.log(seen[teaching.LABELS])
      scalars['task_loss_student'] = losses.xent(logits, labels).mean()
      scalars['task_loss_teacher'] = losses.xent(target, labels).mean()
    scalars = parallel.mean(scalars)
    scalars.update(lr=lr(state.step),
                   l2_grads=optax.tree.norm(grads),
                   l2_params=optax.tree.norm(params),
                   l2_updates=optax.tree.norm(updates))
    return State(state.step + 1, params, opt), scalars

  return step


def make_eval_step(student, sees, teachers, combine='logits'):
  """-> step(student params, teachers' params, batch): {who: logits [b, c]}.

  `who` is 'student' and 'teacher', the consensus, where there are teachers.
  """
  def step(params, teacher_params, batch):
    seen = {view: scale(pixels) for view, pixels in batch['views'].items()}
    logits = {}
    if sees:
      logits['student'] = student(params, seen[str(sees)])
    if teachers:
      answers = [teacher.answer(params, seen[str(teacher.sees)])
                 for teacher, params in zip(teachers, teacher_params)]
      logits['teacher'] = teaching.consensus(answers, combine)
    return logits

  return step
