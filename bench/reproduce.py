"""The study of docs/reproduction.md: what is left of it, within a budget.

  python -m big_distill.tools.pack --name=caltech101 --data_dir=TFDS \
      '--splits=train,test[:3000]' --out=caltech101.npz
  python -m bench.probe --pack=caltech101.npz --out=teacher.npz
  python -m bench.reproduce --pack=caltech101.npz --teacher=teacher.npz --out=DIR

Stages come in the order of their claims. A stage that DIR/rows.jsonl has whole
is skipped, and one that would outlast --budget (in seconds) is left for another
time, so the same command goes on where it was stopped. DIR/STAGE.npz keeps what
the students of a stage answer to each test image.
"""

import pathlib
import time
from typing import NamedTuple

from absl import flags
import numpy as np

from bench import journal
from bench import school
from bench import study
from big_distill import command
from big_distill import packed
from big_distill import teaching
from configs import common
from configs import study as config

TUNING_SEED, SEEDS = 0, (1, 2, 3)
LONGEST_TUNING = 100  # Epochs; longer runs take its rates.
EVERY = 4  # Evaluations of a run.


class Stage(NamedTuple):
  """All arms of a school, at one length. A tuning stage walks its POINTS."""
  school: str
  epochs: int
  tuning: bool = False

  @property
  def name(self) -> str:
    return f'{self.school}_{"tune" if self.tuning else "run"}_{self.epochs}'


SCHOOLS = {
    'all': tuple(study.ARMS),
    'patient': ('same/ic', 'funmatch', 'labels, mixed up'),
    'grid': ('funmatch',),
}
POINTS = {  # Rate, decay and temperature of the students of a tuning stage.
    'all': [(lr, config.DECAY, 1.) for lr in config.RATES],
    'grid': [tuple(point.values()) for point in common.sweep()],
}
PLAN = (  # What the claims compare first comes first.
    Stage('all', 30, tuning=True), Stage('all', 30),
    Stage('all', 100, tuning=True), Stage('all', 1000),
    Stage('all', 100), Stage('all', 300),
    Stage('grid', 30, tuning=True), Stage('grid', 100, tuning=True),
    Stage('patient', 3000), Stage('patient', 10_000),
)


def best_rates(rows: list[dict], arms: tuple[str, ...],
               epochs: int) -> np.ndarray:
  """The rate of each arm [a, 1] with the best accuracy on val when tuned."""
  length = min(epochs, LONGEST_TUNING)
  chosen = []
  for arm in arms:
    stage = Stage('all', length, tuning=True).name
    tuned = [row for row in rows if row['arm'] == arm
             and row['stage'] == stage and row['at'] == length]
    if not tuned:
      raise ValueError(f'The rates of {arm!r} at {length} epochs are not tuned '
                       'yet: run that stage first.')
    chosen.append(max(tuned, key=lambda row: row['val_top1'])['lr'])
  return np.asarray(chosen)[:, None]


def measure(answers: np.ndarray, teacher: np.ndarray,
            labels: np.ndarray) -> dict[str, np.ndarray]:
  """{metric: [a, s]} of log-probs [a, s, n, c]; the teacher's are [n, c]."""
  guess, told = answers.argmax(-1), teacher.argmax(-1)
  kl = (np.exp(teacher) * (teacher - answers)).sum(-1)
  return dict(top1=(guess == labels).mean(-1), agree=(guess == told).mean(-1),
              kl=kl.mean(-1))


class Lab:
  """The images and the teacher of the study, and the schools once opened."""

  def __init__(self, pack: str, teacher: str, dtype: str, twin: str,
               tiny: bool):
    self.data, self.tiny = packed.Data(pack), tiny
    images = config.TWINS[twin]
    self.train = images['train']
    self.splits = {split: images[split] for split in ('val', 'test')}
    classes = len(self.data.load(split=self.train).classes)
    size = 32 if tiny else images['teacher_size']
    self.teacher = teaching.load(
        'teacher', size=size, dtype=dtype, num_classes=classes,
        **(dict(random=dict(family='bit', depth=(1,), width=.125)) if tiny
           else dict(init=teacher)))
    self.setting = study.Setting(config.STUDENT, images['size'], (), classes)
    if tiny:
      self.setting = self.setting._replace(
          student=dict(family='bit', depth=(1,), width=.125), size=8,
          batch_size=16, votes=2, per_call=4)
      self.splits, self.train = dict(val='train[32:40]', test='train[40:49]'), (
          'train[:32]')
    self.labels, self.told, self._pixels = {}, {}, {}
    for name, split in self.splits.items():
      self.labels[name] = self.data.hold(self.data.load(split=split))[1]
      self.told[name] = school.ask(self.teacher, school.pixels_of(
          self.data, split, f'central@{size}'))
      self._pixels[name] = school.pixels_of(
          self.data, split, f'central@{self.setting.size}')
    self._schools, self.seconds = {}, {}

  def school(self, name):
    """(a School, its exam), compiled once."""
    if name not in self._schools:
      one = school.School(self.data, self.train, self.setting._replace(
          arms=SCHOOLS[name]), self.teacher)
      self._schools[name] = one, school.make_exam(one.model, self._pixels)
    return self._schools[name]

  def forecast(self, stage):
    """Seconds that a stage will take, 0 if its school has not run yet."""
    one, _ = self.school(stage.school)
    return self.seconds.get(stage.school, 0.) * one.steps(self.epochs(stage))

  def epochs(self, stage):
    return stage.epochs // 10 if self.tiny else stage.epochs

  def run(self, stage, rows):
    """Yields (row of each student at each evaluation, answers of the last)."""
    one, exam = self.school(stage.school)
    arms, epochs = SCHOOLS[stage.school], self.epochs(stage)
    if stage.tuning:
      seeds = [TUNING_SEED] * len(POINTS[stage.school])
      lr, wd, t = (np.tile(each, (len(arms), 1))
                   for each in zip(*POINTS[stage.school]))
    else:
      seeds, lr = SEEDS, np.tile(
          best_rates(rows, arms, stage.epochs), len(SEEDS))
      wd, t = np.full(lr.shape, config.DECAY), np.ones(lr.shape)
    total, due, began = one.steps(epochs), 1, time.monotonic()
    before, clock = 0, began
    for step, loss, params in one.run(seeds, lr, wd, epochs, t):
      now = time.monotonic()
      if before:  # The first call compiles.
        self.seconds[stage.school] = (now - clock) / (step - before)
      before, clock = step, now
      if step < total * due / EVERY:
        continue
      due = int(EVERY * step / total) + 1
      answers = exam(params)
      scores = {f'{split}_{metric}': values for split in self.splits
                for metric, values in measure(
                    answers[split], self.told[split],
                    self.labels[split]).items()}
      made = [dict(
          stage=stage.name, arm=arm, tuning=stage.tuning, seed=seed,
          lr=float(lr[i, j]), wd=float(wd[i, j]), t=float(t[i, j]),
          epochs=stage.epochs,
          at=round(stage.epochs * step / total, 3), loss=float(loss[i, j]),
          seconds=round(now - began, 1), **{
              key: round(float(values[i, j]), 5)
              for key, values in scores.items()})
              for i, arm in enumerate(arms) for j, seed in enumerate(seeds)]
      yield made, answers['test']


def left(rows: list[dict]) -> list[Stage]:
  """The stages of PLAN that are not finished."""
  ended = {(row['stage'], row['arm']) for row in rows
           if row['at'] == row['epochs']}
  return [stage for stage in PLAN
          if any((stage.name, arm) not in ended
                 for arm in SCHOOLS[stage.school])]


def main(flag: flags.FlagValues) -> None:
  if not (flag.teacher or flag.tiny):
    raise ValueError('Nobody teaches: give --teacher=FILE, of bench.probe.')
  began = time.monotonic()
  folder = pathlib.Path(flag.out)
  rows = journal.resume(folder)
  stages = [stage for stage in left(rows)
            if not flag.stages or stage.name in flag.stages]
  lab = Lab(flag.pack, flag.teacher, flag.dtype, flag.twin, flag.tiny)
  print('teacher', {split: round(float(
      (lab.told[split].argmax(-1) == lab.labels[split]).mean()), 4)
                    for split in lab.splits}, flush=True)
  for stage in stages:
    spent = time.monotonic() - began
    if spent + lab.forecast(stage) > flag.budget:
      print(f'{stage.name}: left for another time, it would take '
            f'{lab.forecast(stage):.0f} s.', flush=True)
      continue
    for made, answers in lab.run(stage, rows):
      rows += made
      journal.add(folder, made)
      show(stage, made, time.monotonic() - began)
    if stage.tuning:
      continue
    np.savez_compressed(
        folder / f'{stage.name}.npz', arms=SCHOOLS[stage.school],
        guess=answers.argmax(-1).astype(np.uint8),
        kl=(np.exp(lab.told['test']) * (lab.told['test'] - answers)).sum(
            -1).astype(np.float16),
        label=lab.labels['test'].astype(np.uint8),
        teacher=lab.told['test'].argmax(-1).astype(np.uint8))
  print('left:', ', '.join(stage.name for stage in left(rows)) or 'nothing')


def show(stage: Stage, made: list[dict], seconds: float) -> None:
  """Prints the means over seeds, or the best of the rates, a line per arm."""
  print(f'{stage.name} at {made[0]["at"]:g} epochs, {seconds:.0f} s', flush=True)
  journal.show(made, SCHOOLS[stage.school], stage.tuning)


def _define_flags() -> None:
  flags.DEFINE_string('pack', None, 'Images, of tools/pack.py.', required=True)
  flags.DEFINE_string('teacher', None, 'The teacher, of bench/probe.py; --tiny '
                      'takes a random one.')
  flags.DEFINE_string('out', None, 'A folder for rows and answers.',
                      required=True)
  flags.DEFINE_float('budget', 1e9, 'Seconds, compilation included.')
  flags.DEFINE_enum('dtype', 'float32', teaching.DTYPES, "The teacher's.")
  flags.DEFINE_enum('twin', 'caltech101', list(config.TWINS), 'What the pack '
                    'and the teacher are of, in configs/study.py.')
  flags.DEFINE_list('stages', None, 'These alone, by name.')
  flags.DEFINE_bool('tiny', False, 'Small, short and few: the path alone.')


if __name__ == '__main__':
  command.program(main, _define_flags)
