"""Breaks runs and files in every way that was seen, and counts what came of it.

  python -m big_distill.tools.torture --workdir=DIR

  kills    a small run is killed with kill -9 at random moments and started
           again, every other time with a bit of its newest checkpoint flipped;
           it must end bitwise as the run that nobody disturbed
  flips    a bit of a checkpoint is flipped: the same numbers are restored, or
           those of the older checkpoint
  inputs   files of each format are damaged at random: read as they were, or
           refused in one line
  disk     a run fills its disk, which then grows: one line, and it resumes
           (where this user may mount disks)
  writers  two programs start in one workdir: one of them is refused

Ends with a line for each and exit code 1 if anything went wrong, which is said.
--kills=40 --flips=40 --inputs=10000 take about 20 minutes on two idle cores.
"""

from collections.abc import Callable, Iterator
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import time
from typing import Any

from absl import flags
from absl import logging
import numpy as np

from big_distill import checkpoint
from big_distill import command
from big_distill import runs
from big_distill.tools import mutants

CONFIG = 'configs/quickstart.py:tiny=True'


class Tally:
  """Counts trials, and says each one that went wrong."""

  def __init__(self, name: str, wish: str) -> None:
    self.name, self._wish, self.good, self.all = name, wish, 0, 0

  def add(self, good: bool, what: str) -> None:
    self.good, self.all = self.good + good, self.all + 1
    if not good:
      print(f'WRONG, {self.name}: {what}', flush=True)

  def __str__(self) -> str:
    return f'{self.name:8} {self.good:,} of {self.all:,} {self._wish}'


def _start(workdir, log, *more):
  command_line = [sys.executable, '-m', 'big_distill.main',
                  f'--config={CONFIG}', f'--workdir={workdir}', *more]
  env = os.environ | {'JAX_COMPILATION_CACHE_DIR': f'{workdir.parent}/compiled'}
  with open(log, 'w') as file:
    return subprocess.Popen(command_line, stdout=file, env=env,
                            stderr=subprocess.STDOUT)


def _end(process, log):
  """(exit code, what was said, whether it is a traceback)."""
  code = process.wait()
  said = log.read_text()
  return code, said, 'Traceback (most recent call last)' in said


def _outcome(workdir):
  """What a run comes to, times left out."""
  with np.load(workdir / 'student.npz') as file:
    weights = {name: file[name].tobytes() for name in file.files}
  return weights, [{name: value for name, value in row.items()
                    if 'time/' not in name}
                   for row in runs.rows(workdir / 'metrics.jsonl')]


def kills(folder: pathlib.Path, count: int, dice: random.Random) -> Tally:
  """Kills a run `count` times; a trial is a kill and the start that follows."""
  tally = Tally('kills', 'ended bitwise as the undisturbed run')
  whole, log = folder / 'whole', folder / 'log'
  began = time.monotonic()
  code, said, _ = _end(_start(whole, log), log)
  if code:
    raise ValueError(f'The undisturbed run failed: {said.splitlines()[-1]}')
  code, *_ = _end(_start(folder / 'timed', log), log)  # Programs are compiled.
  want, seconds = _outcome(whole), time.monotonic() - began
  began = time.monotonic()
  while tally.all < count:
    workdir, killed, wrong = folder / 'killed', 0, []
    shutil.rmtree(workdir, ignore_errors=True)
    while True:
      process = _start(workdir, log)
      try:
        if tally.all + killed < count:
          process.wait(dice.uniform(0, seconds / 2))
      except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        killed += 1
        if killed % 2 == 0:
          _flip_newest(workdir / 'checkpoints', dice)
        continue
      code, said, traceback = _end(process, log)
      if code == 1 and 'to start again' in said.lower():
        shutil.rmtree(workdir / 'checkpoints')  # As the line says.
        continue
      if code or traceback:
        wrong.append(said.splitlines()[-1])
      break
    same = not wrong and _outcome(workdir) == want
    for _ in range(killed):
      tally.add(same, wrong[0] if wrong else 'other numbers at the end')
    logging.info('%s, %.0f s', tally, time.monotonic() - began)
  return tally


def _flip_newest(checkpoints, dice):
  steps = checkpoint.steps(checkpoints)
  files = [path for path in (checkpoints / str(steps[-1])).rglob('*')
           if path.is_file() and path.stat().st_size] if steps else []
  if files:
    file = dice.choice(sorted(files))
    file.write_bytes(mutants.flip(file.read_bytes(), dice))


def disk(folder: pathlib.Path) -> Tally:
  """Fills a disk of 300 kB, which holds one checkpoint and not a second."""
  tally = Tally('disk', 'full disks were one line, and the run resumed')
  small, log = folder / 'disk', folder / 'log'
  small.mkdir()
  if subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=300k', 'tmpfs', small],
                    capture_output=True).returncode:
    logging.warning('Disks cannot be mounted here: that trial is left out.')
    return tally
  try:
    code, said, traceback = _end(_start(small / 'w', log), log)
    subprocess.run(['mount', '-o', 'remount,size=50m', small], check=True)
    again, last, _ = _end(_start(small / 'w', log), log)
    tally.add(code == 1 and not traceback and 'disk is full' in said
              and again == 0, (last if again else said).splitlines()[-1])
  finally:
    subprocess.run(['umount', small], check=True)
  return tally


def writers(folder: pathlib.Path) -> Tally:
  """Starts two programs in one workdir."""
  tally = Tally('writers', 'second writers were refused in one line')
  logs = [folder / f'log{i}' for i in range(2)]
  both = [_start(folder / 'shared', log) for log in logs]
  ends = sorted((_end(process, log) for process, log in zip(both, logs)),
                key=lambda end: end[0])
  codes, said, traceback = zip(*ends)
  tally.add(codes == (0, 1) and not any(traceback) and bool(
      re.search('is being written by process', said[1])), said[1][-300:])
  return tally


def trials(name: str, wish: str,
           outcomes: Iterator[tuple[bool, str]]) -> Tally:
  """The Tally of (whether it is good, what happened)."""
  tally = Tally(name, wish)
  logging.set_verbosity(logging.FATAL)  # What is damaged is said each time.
  for good, what in outcomes:
    tally.add(good, what)
  logging.set_verbosity(logging.INFO)
  return tally


def main(flag: Any) -> None:
  command.narrate()
  folder = pathlib.Path(runs.folder(flag.workdir))
  if folder.exists() and any(folder.iterdir()):
    raise ValueError(f'{folder} is not empty: name a folder that is.')
  folder.mkdir(parents=True, exist_ok=True)
  began, dice = time.monotonic(), random.Random(flag.seed)
  campaign: list[Callable[[], Tally]] = [
      lambda: trials('flips', 'restored as saved, or the older checkpoint',
                     mutants.checkpoints(folder / 'flips', flag.flips, dice)),
      lambda: trials('inputs', 'read as they were, or refused in one line',
                     mutants.inputs(folder / 'inputs', flag.inputs, dice)),
      lambda: writers(folder), lambda: disk(folder),
      lambda: kills(folder, flag.kills, dice)]
  tallies = []
  for part in campaign:
    tallies.append(part())
    print(tallies[-1], flush=True)
  print(f'{time.monotonic() - began:,.0f} s with --seed={flag.seed}.')
  sys.exit(any(tally.good < tally.all for tally in tallies))


def _define_flags():
  flags.DEFINE_string('workdir', None, 'An empty folder for all that is broken.')
  flags.DEFINE_integer('kills', 40, 'How often a run is killed.', 0)
  flags.DEFINE_integer('flips', 40, 'How many bits of checkpoints flip.', 0)
  flags.DEFINE_integer('inputs', 10_000, 'How many files are damaged.', 0)
  flags.DEFINE_integer('seed', 0, 'Of all that is random.')
  flags.mark_flags_as_required(['workdir'])


if __name__ == '__main__':
  command.program(main, _define_flags)
