"""The programs of a config, for devices that need not be here.

They are those that training runs, made by the same functions from shapes alone:
no weight and no image is read (unread.py).
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from big_distill import costs
from big_distill import course
from big_distill import evaluate
from big_distill import exams
from big_distill import faculty
from big_distill import feed
from big_distill import lessons
from big_distill import parallel
from big_distill import plan as plan_lib
from big_distill import replay
from big_distill import stacks
from big_distill import steps
from big_distill import unread
from big_distill.ops import int8

AHEAD = 2  # Batches that wait on the devices, as parallel.prefetch has them.


class Program(NamedTuple):
  """lower() -> jax.stages.Lowered, and the bytes of a device beside it."""
  name: str
  lower: Callable[[], Any]
  beside: int
  flops: Callable[[], int]  # Of products and convolutions, of one device.


class Programs(NamedTuple):
  """What a run of a config compiles; bytes are those of one device."""
  plan: plan_lib.Plan
  batch_bytes: int
  all: list[Program]


def make(config: Mapping[str, Any], examples: int | None = None,
         classes: int | None = None, evals: bool = True) -> Programs:
  """The programs of a config on the devices of parallel.planned_for.

  examples, classes: of the training data, where they are not known by its name.
  Raises ValueError where the config asks for what cannot be.
  """
  data = unread.Shapes(examples, classes)
  config = unread.config_of(config)
  known = lessons.prepare(config, data, read=False)
  plan, room, lesson = known.plan, known.room, known.lesson
  recipe = course.recipe(config, room, plan)
  pupil = recipe.make({})
  asked = faculty.seen_by(lesson)
  shown = [room.sees] if known.mode.votes else sorted(
      {room.sees, *asked}, key=str)
  fed = feed.Feed(data, known.source, plan, lambda start: [], **known.crops)
  learners = stacks.Learners(lesson, fed, room.sees, {'': recipe})
  live = replay.Live(lesson, {'': learners}, fed, lambda: [])

  d = parallel.device_count()
  state = jax.eval_shape(
      lambda params: steps.init_state(params, pupil.tx), room.params)
  teachers = [_weights(teacher, config) for teacher in room.teachers]
  stack = lambda tree: jax.tree.map(  # One of each on every device.
      lambda x: jax.ShapeDtypeStruct((d, *x.shape), x.dtype), tree)
  call = stack(_call(plan, known.source, shown, plan.batch_size // d))
  answers = stack(_answers(plan, lesson, plan.batch_size // d))
  ahead = AHEAD * _each(call, d)
  programs = []

  def add(name, program, arguments, beside):
    if isinstance(program, feed.Rendering):
      arguments = (*arguments, program.images)
      program = program.program
    programs.append(Program(
        name, lambda: program.lower(*arguments), beside + ahead,
        lambda: costs.total(jax.make_jaxpr(program)(*arguments).jaxpr,
                            costs.flops_of)))

  if room.models and not known.mode.votes:
    add('teach', live.teach, (stack(state.step), stack(teachers), call),
        costs.nbytes(state))
  add('learn', learners.program, (stack(state), stack(recipe.numbers),
                                  {**call, 'answers': answers}),
      costs.nbytes(teachers))
  if evals:
    _add_evals(config, data, known, stack, state, teachers, add)
  return Programs(plan, _each(call, d), programs)


def _each(tree, d):
  return costs.nbytes(tree) // d


def _weights(teacher, config):
  """Shapes of a teacher's parameters, as they are kept."""
  kept = config['teachers'][teacher.name].get('weights', 'float32')
  if kept == 'float32':
    return teacher.params
  return int8.shapes(teacher.params)


def _call(plan, source, shown, b):
  """Shapes of what one device gets of a call."""
  most = (plan.per_call,) if plan.per_call > 1 else ()
  shape = lambda dtype, *rest: jax.ShapeDtypeStruct((b, *most, *rest), dtype)
  call = {'index': shape(jnp.int32), 'label': shape(jnp.int32)}
  if source.resident:
    call['boxes'] = {str(view.region): shape(jnp.int32, 5) for view in shown}
  else:
    call['views'] = {str(view): shape(jnp.uint8, view.size, view.size, 3)
                     for view in shown}
  if most:
    call['count'] = jax.ShapeDtypeStruct((b,), jnp.int32)
  return call


def _answers(plan, lesson, b):
  """Shapes of what teachers answer to a call, as it is kept."""
  models = [teacher for teacher in lesson.teachers if teacher.size]
  count = len(jax.eval_shape(lesson.condense, [
      jax.ShapeDtypeStruct((b, lesson.num_classes), jnp.float32)] * len(models)))
  rows = b * plan.per_call
  kept = jax.eval_shape(lesson.form.pack, [jax.ShapeDtypeStruct(
      (rows, lesson.num_classes), jnp.float32)] * count)
  if plan.per_call == 1:
    return kept
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(
      (b, plan.per_call, *x.shape[1:]), x.dtype), kept)


def _add_evals(config, data, known, stack, state, teachers, add):
  """The programs that evaluations run, each view's."""
  held = [exams.make(name, section, config['data'], known.load)
          for name, section in {**config.get('evals', {})}.items()]
  b = known.plan.batch_size // parallel.device_count()
  waiting = costs.nbytes(state) + costs.nbytes(teachers)
  for view in sorted({exam.view for exam in held}, key=str):
    evaluators = [exam.evaluator for exam in held if exam.view == view]
    sight = evaluate.Sight(known.room, view, evaluators)
    needs = {who for each in evaluators for who in each.needs}
    pixels = lambda sees: stack({str(each): jax.ShapeDtypeStruct(
        (b, each.size, each.size, 3), jnp.uint8) for each in sees})
    if 'student' in needs:
      add(f'student at {view}', sight.programs['student'],
          (stack(state.params), pixels([sight.student])),
          waiting - costs.nbytes(state.params))
    if 'teacher' in needs and not any(each.foreign for each in sight.teachers):
      asked = [params for params, each in zip(teachers, known.room.teachers)
               if each.size]
      add(f'teachers at {view}', sight.programs['teachers'],
          (stack(asked), pixels([each.sees for each in sight.teachers]), {}),
          waiting - costs.nbytes(asked))
