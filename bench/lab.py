"""Where the stages of bench/agenda.py run: images, teachers, compiled programs.

Programs are compiled ahead, in threads, while others run.
"""

from collections.abc import Iterator, Sequence
import concurrent.futures
import functools
import pathlib
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bench import agenda
from bench import kept as kept_lib
from bench import paused
from bench import programs
from bench import reproduce
from bench import school
from bench import shelf as shelf_lib
from big_distill import packed
from big_distill import teaching
from configs import study as config

CALL, FIRST = 80, 8  # Steps of a call, and of a program's first two.
EVERY = 4  # Evaluations of a run.
WARMUP = .05  # Share of a run; of those that are cooled, of 100 epochs.
COOLDOWN = .2
# First guesses, stacked on an accelerator and alone on a CPU: seconds of a step,
# for each student and besides, and to record a row.
GUESS = {False: (.00055, .001, .002), True: (.2, .1, 1.)}
SAVED = 30  # Seconds from one copy of states that may pause to the next.
FEW = {  # In place of configs/study.py's splits.
    'caltech101': dict(val='train[2048:2060]', test='test[:3000][:9]'),
    'cifar10': dict(val='train[:12]', test='test[:3000][:9]'),
}


class OutOfTime(Exception):
  """A stage would not end in time."""


class Marked(NamedTuple):
  """Students at an evaluation."""
  epochs: int  # Of the run.
  at: float  # Epochs.
  loss: np.ndarray  # Mean of the last call [a, s].
  scores: dict[str, np.ndarray]  # {metric: [a, s]}
  answers: np.ndarray  # Log-probs of the test images [a, s, n, c].
  params: Any  # [a, s, ...]


class Lab:
  """Runs stages, of {name: file}; who pauses has states in `folder`.

  alone: students and rows come one after another, as CPUs want them.
  """

  def __init__(self, packs: dict[str, str], teachers: dict[str, str],
               dtype: str, tiny: bool, twin: str, folder: pathlib.Path,
               alone: bool):
    self._pool = concurrent.futures.ThreadPoolExecutor(6)
    self.tiny, self.per_epoch = tiny, .1 if tiny else 8
    self.twin, self._folder = agenda.TWINS[twin], folder
    self.data = {name: packed.Data(file) for name, file in packs.items()}
    own = self.data[self.twin.pack]
    self.setting = kept_lib.Setting(
        len(own.load(split='train').classes), 16 if tiny else 128)
    self._splits = FEW[twin] if tiny else {
        split: config.TWINS[twin][split] for split in ('val', 'test')}
    held = {name: data.hold(data.load(
        split='train[:32]' if tiny else agenda.HELD[name]))
            for name, data in self.data.items()}
    group = [name for name in packs if name != 'large']
    alike = dict(zip(group, shelf_lib.packs([held[name][0] for name in group])))
    images = {name: jax.device_put(alike.get(name, held[name][0]))
              for name in packs}
    self.teachers = {name: teaching.load(
        name, size=32 if tiny else agenda.SIZES[name], dtype=dtype,
        num_classes=self.setting.num_classes,
        **(dict(random=programs.TINY) if tiny else dict(init=file)))
                     for name, file in teachers.items()}
    self.labels = {name: own.hold(own.load(split=split))[1]
                   for name, split in self._splits.items()}
    self._room = shelf_lib.Room(
        self.setting, self.data, held, images, self.teachers, {
            name: jax.device_put(teacher.params)
            for name, teacher in self.teachers.items()}, self.steps,
        {name: 'train[:32]' if tiny else split
         for name, (_, split) in agenda.STREAMS.items()}, self.twin.teacher,
        alone)
    self._programs = programs.Programs(
        self.setting, own, self._splits, tiny, alone, self._pool)
    self.told = None  # {split: the first teacher's log-probs}, being asked.
    self._shelves, self._pace, self._guess = {}, {}, GUESS[alone]
    self.start = None  # Parameters [s, ...] of students that began from labels.

  def lacks(self, stage: agenda.Stage) -> list[str]:
    """Names of packs and teachers that a stage wants and nobody gave."""
    return sorted(set.union(*(self._missing(arm.source) for arm in stage.arms)))

  def _missing(self, source):
    return {agenda.STREAMS[source.stream][0],
            *shelf_lib.teachers_of(source)} - {*self.data, *self.teachers}

  def prepare(self, stages: Sequence[agenda.Stage]) -> None:
    """Begins to compile what these stages need, in their order."""
    for stage in stages:
      for arm in stage.arms:
        self._shelf(stage).prepare(arm.source)
      self._learner(stage)
      self._programs.exam(stage)
      for seed in agenda.SEEDS if stage.points == 'seeds' else ():
        self._programs.created(stage, seed)

  def steps(self, epochs: float) -> int:
    """Steps of so many epochs of 1,024 images."""
    return max(round(epochs * self.per_epoch), 1)

  def forecast(self, stage: agenda.Stage) -> float:
    """Seconds that a stage will take once its rows are recorded."""
    pace = self._pace.get(self._programs.key(stage)) or (
        self._guess[0] * len(stage.arms) * stage.columns + self._guess[1])
    times = 1.3 if stage.cooldowns else 1
    return self.steps(stage.epochs) * pace * times

  def recording(self, stage: agenda.Stage) -> float:
    """Seconds that it will take to record what a stage reads."""
    return self._guess[2] * sum(self._shelf(stage).lacks(source, self.steps(
        max(arm.period or stage.epochs for arm in stage.arms
            if arm.source == source)))
                     for source in {arm.source for arm in stage.arms})

  def wait(self, stage: agenda.Stage) -> None:
    """Returns when the programs of a stage are compiled."""
    self._learner(stage).result()
    self._programs.exam(stage).result()
    self.told.result()
    for arm in stage.arms:
      self._shelf(stage).wait(arm.source)

  def run(self, stage: agenda.Stage, hypers: tuple, deadline: float
          ) -> Iterator[Marked]:
    """Yields Marked at each evaluation; `hypers` are those of agenda.

    Raises OutOfTime where it would not end by `deadline`, of time.monotonic,
    and ValueError where students should have begun who have not.
    """
    seeds, *numbers = hypers
    if self.start is None and any(arm.begun for arm in stage.arms):
      raise ValueError('Nobody began from labels: the stage start_run_200 was '
                       'left.')
    lessons = self._lessons(stage)
    states = jax.jit(functools.partial(programs.begin, stage))(
        self._params(stage, seeds))
    if stage.pauses and self._paused(stage).exists():
      states = paused.load(self._paused(stage), states)
    for length in stage.cooldowns or [stage.epochs]:
      total, cooldown = self.steps(length), 0
      due = int(EVERY * int(states.step) / total) + 1
      warmup = WARMUP * total
      if stage.cooldowns:
        cooldown, due = round(COOLDOWN * total), EVERY
        warmup = WARMUP * self.steps(100)
      plan = kept_lib.Hypers(*map(np.float32, numbers),
                             *map(np.int32, (total, warmup, cooldown)))
      for states, _, _ in self._advance(stage, states, plan, lessons, (
          total - cooldown) * bool(cooldown), deadline):
        pass
      branch = jax.tree.map(jnp.copy, states)
      for branch, loss, step in self._advance(
          stage, branch, plan, lessons, total, deadline):
        if step >= total * due / EVERY:
          due = int(EVERY * step / total) + 1
          answers, told = self._programs.examine(
              stage, branch.params), self.told.result()
          scores = {f'{split}_{metric}': values for split in self._splits
                    for metric, values in reproduce.measure(
                        answers[split], told[split],
                        self.labels[split]).items()}
          yield Marked(length, round(length * step / total, 3), loss, scores,
                       answers['test'], branch.params)

  def _lessons(self, stage):
    """The rows that a stage reads, recorded first."""
    shelf, arms = self._shelf(stage), stage.arms
    periods = [min(self.steps(arm.period or stage.epochs),
                   shelf.rows[arm.source]) for arm in arms]
    for arm, period in sorted(zip(arms, periods), key=lambda pair: (
        not shelf_lib.looks(pair[0].source))):  # They leave views for others.
      shelf.record(arm.source, period)
    return kept_lib.Lessons(
        *(np.asarray(each, np.int32) for each in (
            [shelf.view[arm.source.stream] for arm in arms],
            [shelf.answer[arm.source] for arm in arms], periods)),
        np.asarray([arm.source.mixed for arm in arms]))

  def _params(self, stage, seeds):
    """Initial parameters [a, s, ...]."""
    params = jax.tree.map(lambda *x: np.stack(x), *(
        self._programs.created(stage, seed).result()[1] for seed in seeds))
    return jax.tree.map(lambda *x: jnp.stack(x), *(
        self.start if arm.begun else params for arm in stage.arms))

  def _advance(self, stage, states, hypers, lessons, upto, deadline):
    learn, shelf = self._learner(stage).result(), self._shelf(stage)
    step, key = int(states.step), self._programs.key(stage)
    saved = time.monotonic()
    while step < upto:
      began, count = time.monotonic(), min(CALL - step % CALL, upto - step)
      if stage.pauses and began > min(deadline, saved + SAVED):
        paused.save(self._paused(stage), states)
        saved = began
        if began > deadline:
          raise OutOfTime(f'It goes on another time, at step {step}.')
      if not self._pace.get(key):
        count = min(count, FIRST)
      elif not stage.pauses and (
          began + self._pace[key] * (upto - step) > deadline):
        raise OutOfTime(f'It takes {self._pace[key]:.3f} s a step.')
      states, loss = learn(states, hypers, lessons, shelf.kept, np.int32(count))
      loss = np.asarray(loss)
      # The first call takes longer, others where compilers use the device.
      before, took = self._pace.get(key), (time.monotonic() - began) / count
      self._pace[key] = 0. if before is None else min(before or took, took)
      step += count
      yield states, loss, step

  def _paused(self, stage):
    return self._folder / f'{stage.name}.states'

  def _ask(self):
    """{split: the first teacher's log-probs}."""
    teacher = self.teachers[self.twin.teacher]
    return {split: school.ask(teacher, school.pixels_of(
        self.data[self.twin.pack], name, f'central@{teacher.size}'))
            for split, name in self._splits.items()}

  def ask(self) -> None:
    """Begins to ask the first teacher about the images of examinations."""
    self.told = self._pool.submit(self._ask)

  def _shelf(self, stage):
    size = agenda.STUDENTS[stage.student][1]
    if size not in self._shelves:
      self._shelves[size] = shelf_lib.Shelf(
          self._programs.model(stage)[1], {
              source: epochs for source, epochs in self.twin.room[size].items()
              if not self._missing(source)}, self._room, self._pool)
    return self._shelves[size]

  def _learner(self, stage):
    return self._programs.learner(stage, self._shelf(stage).kept)
