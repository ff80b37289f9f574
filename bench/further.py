"""The second and third part of docs/reproduction.md: what is left, in a budget.

  python -m bench.further --out=DIR \
      --packs=caltech=caltech101.npz,dtd=dtd.npz,cifar=cifar10.npz,large=large.npz \
      --teachers=lite0=teacher.npz,lite1=lite1.npz,large128=A.npz,large160=B.npz
  python -m bench.further --twin=cifar10 --out=DIR/cifar10 \
      --packs=cifar=cifar10.npz --teachers=lite0_cifar=teacher_cifar10.npz

Views and answers are kept on the device (bench/kept.py), so that a stage costs
its students alone. As in bench/reproduce.py, stages that DIR/rows.jsonl has are
skipped, and what would outlast --budget, in seconds, is left for another time, as
is then what turns out twice as slow as forecast.
A stage whose packs or teachers are not given is left, too.
"""

from collections.abc import Sequence
import pathlib
import time

from absl import flags
import jax
import numpy as np

from bench import agenda
from bench import journal
from bench import lab as lab_lib
from big_distill import command
from big_distill import teaching

AHEAD = 6  # Stages whose programs are being compiled.
GRACE = 30  # Seconds that recordings may add to a stage.


def left(rows: list[dict], plan: Sequence[agenda.Stage]) -> list[agenda.Stage]:
  """The stages of a plan that are not finished."""
  ended = {(row['stage'], row['epochs']) for row in rows
           if row['at'] == row['epochs']}
  return [stage for stage in plan
          if (stage.name, stage.epochs) not in ended]


def rows_of(stage: agenda.Stage, marked: lab_lib.Marked, hypers: tuple,
            seconds: float) -> list[dict]:
  """A row for each student of a stage."""
  seeds, *numbers = hypers
  return [dict(
      stage=stage.name, arm=arm.name, tuning=stage.points != 'seeds', seed=seed,
      **{key: float(each[i, j])
         for key, each in zip(('lr', 'wd', 't'), numbers)},
      epochs=marked.epochs, at=marked.at, loss=float(marked.loss[i, j]),
      seconds=round(seconds, 1), **{
          key: round(float(values[i, j]), 5)
          for key, values in marked.scores.items()})
          for i, arm in enumerate(stage.arms) for j, seed in enumerate(seeds)]


def show(stage: agenda.Stage, made: list[dict], seconds: float) -> None:
  """Prints the means over seeds, or the best by val, a line per arm."""
  print(f'{stage.name} at {made[0]["at"]:g} of {made[0]["epochs"]} epochs, '
        f'{seconds:.0f} s', flush=True)
  journal.show(made, [arm.name for arm in stage.arms], stage.points != 'seeds')


def keep(file: pathlib.Path, stage: agenda.Stage, marked: lab_lib.Marked,
         told: np.ndarray, labels: np.ndarray) -> None:
  """What students answer to the test images, for bench/claims.py."""
  answers = marked.answers
  np.savez_compressed(
      file, arms=[arm.name for arm in stage.arms],
      guess=answers.argmax(-1).astype(np.uint8),
      sure=np.exp(answers.max(-1)).astype(np.float16),
      kl=(np.exp(told) * (told - answers)).sum(-1).astype(np.float16),
      label=labels.astype(np.uint8), teacher=told.argmax(-1).astype(np.uint8),
      teacher_sure=np.exp(told.max(-1)).astype(np.float16))


def due(lab: lab_lib.Lab, rows: list[dict],
        names: list[str] | None) -> list[agenda.Stage]:
  """The stages to run, of these names if given; says which lack something."""
  stages = []
  for stage in left(rows, lab.twin.plan):
    if names and stage.name not in names:
      continue
    if lacking := lab.lacks(stage):
      print(f'{stage.name}: left, it wants {", ".join(lacking)}.', flush=True)
    else:
      stages.append(stage)
  if any(arm.begun for stage in stages for arm in stage.arms):
    # Students who began from labels are not kept in files.
    start = [stage for stage in lab.twin.plan if stage.school == 'start']
    stages = [stage for stage in stages if stage not in start]
    first = min(i for i, stage in enumerate(stages)
                if any(arm.begun for arm in stage.arms))
    stages[first:first] = start
  return stages


def main(flag: flags.FlagValues) -> None:
  began = time.monotonic()
  folder = pathlib.Path(flag.out)
  rows = journal.resume(folder)
  lab = lab_lib.Lab(*(dict(item.split('=', 1) for item in each)
                      for each in (flag.packs, flag.teachers)),
                    flag.dtype, flag.tiny, flag.twin, folder,
                    alone=jax.default_backend() == 'cpu')
  stages = due(lab, rows, flag.stages)
  lab.ask()
  for i, stage in enumerate(stages):
    lab.prepare(stages[i:i + AHEAD])
    spent, recording = time.monotonic() - began, lab.recording(stage)
    needs = recording + (GRACE if stage.pauses else lab.forecast(stage))
    if spent + needs > flag.budget:
      print(f'{stage.name}: left for another time, it would take '
            f'{needs:.0f} s.', flush=True)
      continue
    try:
      hypers = agenda.hypers(stage, rows)
      lab.wait(stage)
      started = time.monotonic()
      deadline = began + flag.budget
      if not stage.pauses and flag.budget < np.inf:
        # What is far slower than forecast must not take others' time.
        deadline = min(deadline, started + GRACE + 2 * needs)
      for marked in lab.run(stage, hypers, deadline):
        made = rows_of(stage, marked, hypers, time.monotonic() - started)
        rows += made
        journal.add(folder, made)
        show(stage, made, time.monotonic() - began)
        if marked.at == marked.epochs and stage.points == 'seeds':
          name = stage.name.replace(f'_{stage.epochs}', f'_{marked.epochs}')
          keep(folder / f'{name}.npz', stage, marked,
               lab.told.result()['test'], lab.labels['test'])
      if stage.school == 'start':
        means = [np.mean([row['val_top1'] for row in made
                          if row['arm'] == arm.name]) for arm in stage.arms]
        best = int(np.argmax(means))
        lab.start = jax.tree.map(lambda x, best=best: np.asarray(x[best]),
                                 marked.params)
    except (lab_lib.OutOfTime, ValueError) as error:
      print(f'{stage.name}: left. {type(error).__name__} {error}', flush=True)
  print('left:', ', '.join(
      stage.name for stage in left(rows, lab.twin.plan)) or 'nothing')


def _define_flags() -> None:
  flags.DEFINE_list('packs', None, 'name=FILE of tools/pack.py, ... : caltech, '
                    'dtd, cifar, large.', required=True)
  flags.DEFINE_list('teachers', None, 'name=FILE of bench/probe.py, ... : lite0, '
                    'lite1, large128, large160, lite0_cifar.', required=True)
  flags.DEFINE_string('out', None, 'A folder for rows and answers.',
                      required=True)
  flags.DEFINE_float('budget', np.inf, 'Seconds, compilation included.')
  flags.DEFINE_enum('twin', 'caltech101', list(agenda.TWINS), 'What students '
                    'are examined on.')
  flags.DEFINE_enum('dtype', 'float32', teaching.DTYPES, "Teachers'.")
  flags.DEFINE_list('stages', None, 'These alone, by name.')
  flags.DEFINE_bool('tiny', False, 'Small, short and few: the path alone.')


if __name__ == '__main__':
  command.program(main, _define_flags)
