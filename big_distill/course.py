"""A course: all that lies between a config and its loop.

Config stops at this door: a section is passed whole to the function it is for,
so a misspelt key fails here, with the near name, before anything is computed.
"""

from collections.abc import Callable, Mapping
import functools
from typing import Any, NamedTuple

import numpy as np

from big_distill import cards
from big_distill import checkpoint
from big_distill import classroom
from big_distill import costs
from big_distill import durations
from big_distill import exams
from big_distill import faculty as faculty_lib
from big_distill import feed as feed_lib
from big_distill import kept as kept_lib
from big_distill import lessons as lessons_lib
from big_distill import losses
from big_distill import optim
from big_distill import parallel
from big_distill import plan as plan_lib
from big_distill import pretrained
from big_distill import registry
from big_distill import replay
from big_distill import runs
from big_distill import signatures
from big_distill import stacks
from big_distill import steps
from big_distill import store as store_lib
from big_distill import topk
from big_distill import views
from big_distill.pupil import Pupil
from big_distill.state import State


class Course(NamedTuple):
  """What the loop runs on; see `make`."""
  plan: plan_lib.Plan
  mode: views.Mode
  source: Any
  room: classroom.Classroom
  lesson: steps.Lesson
  pupil: Pupil
  state: State  # Before the first step, on the host.
  feed: feed_lib.Feed
  faculty: faculty_lib.Faculty
  store: store_lib.Store | None
  steps: replay.Live | replay.Replay
  exams: list[exams.Exam]
  evaluate: Callable  # (step, student params, faculty) -> metrics due
  open_checkpoints: Callable
  layout: str
  card: cards.Card
  notes: tuple[str, ...]  # Why the config is as it is, for the log.

  @property
  def shown(self) -> list[views.View]:
    """The views that a step needs if its teachers answer it."""
    asked = [] if self.mode.votes else faculty_lib.seen_by(self.lesson)
    return sorted({self.room.sees, *asked}, key=str)


def make(config: Mapping[str, Any], data: Any, read: bool = True) -> Course:
  """The Course of a config; `data` has the functions of input/pipeline.py.

  Without `read`, teachers' parameters are shapes until they are asked for.
  Raises ValueError where the config asks for what cannot be.
  """
  return make_class({'': config}, data, read)['']


def make_class(configs: Mapping[str, Mapping[str, Any]], data: Any,
               read: bool = True, layout: str | None = None
               ) -> dict[str, Course]:
  """Courses of students that learn together, from the same batches and answers.

  They share all but what is a student's own: its model, view, loss, optimizer,
  evaluations and records. `layout` is one of stacks.LAYOUTS. Raises ValueError
  where they cannot.
  """
  # What is cheap to check comes before what is slow to load.
  own = {name: _Own(config) for name, config in configs.items()}
  leader, *_ = configs.values()
  lessons = lessons_lib.prepare(leader, data, read)
  mode, load, source, plan, crops, options, room, lesson = lessons
  rooms, plans, recipes = {}, {}, {}
  for name, config in configs.items():
    _check_shared(leader, config, name)
    plans[name] = (plan if config is leader else
                   plan_lib.make(config, source.num_examples))
    rooms[name] = (room if config is leader else classroom.join(
        config, mode, source, room.teachers, plans[name].seed))
    recipes[name] = recipe(config, rooms[name], plans[name])
    if lesson.form.top not in (None, room.num_classes):
      topk.check_temperature(losses.temperature(recipes[name].make({}).loss))
  faculty = faculty_lib.Faculty(room)
  store = lessons_lib.open_store(lessons, leader, begin=not mode.votes)

  sees = {each.sees for each in rooms.values()}
  shown = sorted({*sees, *faculty_lib.seen_by(lesson)}, key=str)
  alone, attach = sorted(sees, key=str), None
  spans: Callable = lambda start: [feed_lib.Span(start, plan.total, shown)]
  if store:
    known = parallel.everywhere(store.known)
    if mode.votes:
      _check_recorded(store, known)
      shown, attach = alone, _attaching(store)
    else:
      if not known.all():
        store.claim()
        known = parallel.everywhere(store.known)
      spans = replay.spans(known | faculty_lib.is_foreign(lesson), plan.total,
                           shown, alone)
  periods = sorted({n for each in plans.values() for n in each.periods})
  feed = feed_lib.Feed(data, source, plan, spans, attach, periods, **crops)
  learners = stacks.learners(
      lesson, feed, {name: each.sees for name, each in rooms.items()}, recipes,
      layout)
  taking = (replay.Replay(lesson, learners, feed, faculty, store, known,
                          options.audit_percent, plan.per_call)
            if store and not mode.votes else
            replay.Live(lesson, learners, feed, faculty))
  kept = kept_lib.Kept(store.folder if store else None, plan.batch_size,
                       lessons.host)
  eval_batches = functools.partial(
      registry.bind(data.eval_batches, **crops), batch_size=plan.batch_size,
      seed=plan.seed)
  held = {name: [
      exams.make(exam, section, config['data'], load, plans[name].exams[exam])
      for exam, section in config.get('evals', {}).items()]
          for name, config in configs.items()}
  pupils = {name: each.make({}) for name, each in recipes.items()}
  return {name: Course(
      plans[name], mode, source, rooms[name], lesson, pupils[name],
      State.init(rooms[name].params, pupils[name].tx), feed, faculty,
      store, taking, held[name], exams.make_evaluate(
          held[name], rooms[name], plan.total, eval_batches, kept),
      own[name].open_checkpoints, own[name].layout(rooms[name]),
      _card(config, lessons, rooms[name]), tuple(config.get('notes', ())))
          for name, config in configs.items()}


# What students of one program may differ in, beside their first parameters.
NUMBERS: dict[str, Any] = {
    'lr': np.float32, 'wd': np.float32, 'clip': np.float32, 'warmup': np.int32,
    't': np.float32}


def recipe(config: Mapping[str, Any], room: classroom.Classroom,
           plan: plan_lib.Plan) -> stacks.Recipe:
  """How the student of a config learns."""
  optim_ = {**durations.without(config['optim'], 'warmup'),
            'warmup': plan.warmup}
  loss = {**config.get('loss', {})}

  def make(numbers):
    tx, lr = optim.make(plan.total, **{
        key: numbers.get(key, value) for key, value in optim_.items()})
    return Pupil(room.learn, room.sees, tx, lr, losses.make(**{
        key: numbers.get(key, value) for key, value in loss.items()}))

  make({})  # As arguments of a program numbers cannot be looked at.
  # Without a clip the program has no such step.
  numbers = {key: NUMBERS[key](value) for key, value
             in {**optim_, **loss}.items()
             if key in NUMBERS and (value or key != 'clip')}
  alike = {key: value for key, value in runs.flat(runs.plain({
      'student': config['student'], 'optim': optim_, 'loss': loss})).items()
           if key != 'student.seed' and key.split('.', 1)[-1] not in numbers}
  # A number that is not said is the default, which only `make` knows.
  return stacks.Recipe(
      repr((sorted(alike.items()), sorted(numbers))), make, numbers,
      cards.family_of(room.student), optim_.get('name', 'adam'),
      lambda: costs.flops(room.student, room.params, room.size)
      * plan.batch_size / parallel.device_count())


def _check_shared(leader, config, name):
  """Raises ValueError where a student cannot learn beside the first one."""
  other = [key for key in runs.differences(*(
      {key: value for key, value in runs.plain(each).items()
       if key not in plan_lib.OWN}
      for each in (leader, config)))]
  if other:
    raise ValueError(f'{name} cannot learn together with the others, since its '
                     f'{", ".join(other)} differs: what students that learn '
                     f'together may differ in is {", ".join(plan_lib.OWN)}.')


class _Own:
  """What a config says of a student alone, checked as soon as it is read."""

  def __init__(self, config):
    signatures.check_whole(config)
    self._config = config
    losses.make(**config.get('loss', {}))
    self.open_checkpoints = registry.bind(
        checkpoint.Checkpoints,
        **durations.without(config.get('checkpoints', {}), 'every'))


  def layout(self, room):
    layout = self._config.get('layout', 'big_vision')
    registry.check('layout', layout, pretrained.layouts(room.params))
    return layout


def _card(config, lessons, room):
  """What the student's file says of itself."""
  # Without labels, logits mean what they mean to the teachers.
  classes = room.named(lessons.source.classes, *room.teachers_names)
  return cards.of(
      room.student, size=room.size, fraction=lessons.crops.get(
          'fraction', views.FRACTION), classes=classes,
      trained_by={'config': runs.plain(config), 'teachers': {
          teacher.name: teacher.identity for teacher in room.teachers}})


def _check_recorded(store, known):
  """Raises ValueError unless all answers are there."""
  missing = np.flatnonzero(~known)
  if missing.size:
    raise ValueError(
        f'{store.folder} lacks {missing.size} of {store.blocks} blocks of '
        f'answers, the first being {missing[0]}: run python -m '
        'big_distill.tools.record with this config.')


def _attaching(store):
  """batch -> the answers to its examples."""
  return lambda batch: {'answers': store.read_rows(np.asarray(batch['index']))}
