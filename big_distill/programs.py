"""The programs of a config, for devices that need not be here.

They are those that training runs, made by the same functions from shapes alone:
no weight and no image is read (unread.py).
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from big_distill import classroom
from big_distill import costs
from big_distill import course
from big_distill import evaluate
from big_distill import exams
from big_distill import faculty
from big_distill import feed
from big_distill import lessons
from big_distill import main
from big_distill import parallel
from big_distill import plan as plan_lib
from big_distill import replay
from big_distill import stacks
from big_distill import unread
from big_distill.ops import int8
from big_distill.state import State

AHEAD = 2  # Batches that wait on the devices, as parallel.prefetch has them.


class Program(NamedTuple):
  """A program and how a run uses it; bytes are those of one device.

  whose: 'student' or 'teachers'. trains: or else evaluates. taken: bytes of its
  arguments. beside: of what waits while it runs. batches: of either, those that
  grow with the batch. flops: () -> operations of products and convolutions.
  runs: how often a run calls it; a call of several steps counts as that many.
  """
  name: str
  whose: str
  trains: bool
  lower: Callable[[], Any]
  flops: Callable[[], int]
  taken: int
  beside: int
  batches: int
  runs: int


class Programs(NamedTuple):
  """What a run of a config compiles."""
  plan: plan_lib.Plan
  all: list[Program]


def make(config: Mapping[str, Any], examples: int | None = None,
         classes: int | None = None, evals: bool = True) -> Programs:
  """The programs of a config on the devices of parallel.planned_for.

  examples, classes: of the training data, where they are not known by its name.
  Raises ValueError where the config asks for what cannot be.
  """
  data, config = unread.Shapes(examples, classes), {**config}
  students = config.pop('students', None) or {'': {}}
  configs = {name: unread.config_of(main.overridden(config, name, changes))
             for name, changes in {**students}.items()}
  leader, *_ = configs.values()
  known = lessons.prepare(leader, data, read=False)
  plan, lesson = known.plan, known.lesson
  rooms = {name: known.room if config is leader else classroom.join(
      config, known.mode, known.source, known.room.teachers, plan.seed)
           for name, config in configs.items()}
  recipes = {name: course.recipe(config, rooms[name], plan)
             for name, config in configs.items()}
  sees = {name: room.sees for name, room in rooms.items()}
  shown = sorted({*sees.values(), *(
      () if known.mode.votes else faculty.seen_by(lesson))}, key=str)
  fed = feed.Feed(data, known.source, plan, lambda start: [], **known.crops)
  learners = stacks.learners(lesson, fed, sees, recipes)
  live = replay.Live(lesson, learners, fed, lambda: [])

  d = parallel.device_count()
  states = {name: jax.eval_shape(
      lambda params, name=name: State.init(
          params, recipes[name].make({}).tx), room.params)
            for name, room in rooms.items()}
  teachers = [_weights(teacher, leader) for teacher in known.room.teachers]
  call = _stack(_call(plan, known.source, shown, plan.batch_size // d))
  answers = _stack(_answers(plan, lesson, plan.batch_size // d))
  kept, batch = costs.nbytes((states, teachers)), costs.nbytes(call) // d
  rendering = next(iter(learners.values())).program
  images = (costs.nbytes(rendering.images)
            if isinstance(rendering, feed.Rendering) else 0)
  made = []

  def add(name, whose, program, arguments, own, runs, pixels=()):
    """own: what of `kept` is among its arguments. pixels: of an evaluation."""
    held, beside = [], kept + AHEAD * batch
    if isinstance(program, feed.Rendering):
      held, program = [program.images], program.program
    if pixels:  # The call that was done waits too, and all images.
      beside += batch + AHEAD * costs.nbytes(pixels) // d + images
    made.append(Program(
        name, whose, not pixels, lambda: program.lower(*arguments, *held),
        lambda: costs.operations(program, *arguments, *held),
        costs.nbytes(arguments) // d + costs.nbytes(held),
        beside - costs.nbytes(own),
        (1 + AHEAD) * (batch + costs.nbytes(pixels) // d), runs))

  if known.room.models and not (known.mode.votes or faculty.is_foreign(lesson)):
    # Answers that are kept are given once.
    step = jax.ShapeDtypeStruct((), jnp.int32)
    add('teach', 'teachers', live.teach,
        (_stack(step), _stack(teachers), call), teachers,
        plan.stream if known.options.store else plan.total)
  groups: dict[Any, list[str]] = {}  # Of students, by their program.
  for name, group in learners.items():
    groups.setdefault(group, []).append(name)
  for group, (name, *others) in groups.items():
    add(f'learn {name}'.strip(), 'student', group.program, (
        _stack(states[name]), _stack(recipes[name].numbers),
        {**call, 'answers': answers}), states[name],
        plan.total * (1 + len(others)))
    if evals:
      _add_evals(name, configs[name], known, rooms[name], states[name].params,
                 teachers, 1 + len(others), add)
  return Programs(plan, made)


def _stack(tree):
  """Shapes of one such tree on every device."""
  d = parallel.device_count()
  return jax.tree.map(
      lambda x: jax.ShapeDtypeStruct((d, *x.shape), x.dtype), tree)


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


def _add_evals(name, config, known, room, params, teachers, students, add):
  """The programs that evaluations run, each view's.

  students: how many share them. Teachers are asked with the first alone.
  """
  plan = plan_lib.make(config, known.source.num_examples)
  held = [exams.make(exam, section, config['data'], known.load, plan.exams[exam])
          for exam, section in {**config.get('evals', {})}.items()]
  b = plan.batch_size // parallel.device_count()

  def pixels(sees):
    return _stack({str(each): jax.ShapeDtypeStruct(
        (b, each.size, each.size, 3), jnp.uint8) for each in sees})

  for view in sorted({exam.view for exam in held}, key=str):
    seen = [exam for exam in held if exam.view == view]
    sight = evaluate.Sight(room, view, [exam.evaluator for exam in seen])
    learnt, taught = ([exam for exam in seen if who in exam.evaluator.needs]
                      for who in ('student', 'teacher'))
    if learnt:
      shown = pixels([sight.student])
      add(f'{name or "student"} at {view}', 'student', sight.programs['student'],
          (_stack(params), shown), params,
          students * _batches(learnt, plan, plan.total), shown)
    if taught and room is known.room and not any(
        each.foreign for each in sight.teachers):
      asked = [params for params, each in zip(teachers, room.teachers)
               if each.size]
      shown = pixels([each.sees for each in sight.teachers])
      add(f'teachers at {view}', 'teachers', sight.programs['teachers'],
          (_stack(asked), shown, {}), asked, _batches(taught, plan, 0), shown)


def _batches(held, plan, total):
  """How many batches evaluations show until step `total`, from step 0 on."""
  shown = {}
  for exam in held:
    times = 1 + (-(-total // exam.every) if exam.every else min(total, 1))
    for source in exam.splits:  # Shown once to all that are due.
      shown[id(source)] = max(shown.get(id(source), 0),
                              times * -(-source.num_examples // plan.batch_size))
  return sum(shown.values())
