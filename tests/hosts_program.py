"""Runs of one set of processes, one after another, for hosts_test.py.

  python -m tests.hosts_program FOLDER JOB,JOB [HOST:PORT PROCESSES PROCESS]

A job NAME trains in FOLDER/NAME, on the images FOLDER/images.npz, and prints
'NAME: ' and its result or its error. Without a coordinator it is one process.
"""

import contextlib
import os
import sys

import jax
import numpy as np

from big_distill import command
from big_distill import course as course_lib
from big_distill import hosts
from big_distill import packed
from big_distill import parallel
from big_distill import train

STEPS = 12
MODEL = dict(family='vit', variant='mu/8')


class Writer(list):
  """Rows in memory; the first process writes their steps to a file, too."""

  def __init__(self, workdir):
    super().__init__()
    self._path = f'{workdir}/rows'

  def read(self):
    return self

  def rewind(self, step):
    pass

  def write(self, step, row):
    self.append({'step': step, **row})
    if jax.process_index() == 0:
      with open(self._path, 'a') as file:
        file.write(f'{step}\n')


def config_of(**changes):
  """A teacher and a student that compile fast, a row for every step."""
  return dict(
      dict(seed=0, data=dict(name='random', resident=True), mode='funmatch',
           mixup=dict(group=4), batch_size=32, total_steps=STEPS, log_steps=1,
           student=dict(MODEL, size=16),
           teachers=dict(prof=dict(random=MODEL, size=16)),
           optim=dict(name='sgd', lr=.002, wd=1e-4, clip=1.),
           checkpoints=dict(every_steps=5, keep=3)), **changes)


def sick(make, when):
  """course.make_class, of teachers that are NaN in steps for which `when` is."""
  def make_class(*args, **options):
    courses = make(*args, **options)
    course = courses['']
    good, taken = course.faculty(), []
    bad = parallel.replicate([jax.tree.map(lambda x: np.full_like(x, np.nan), x)
                              for x in parallel.first(good)])

    def faculty():
      taken.append(1)
      course.faculty._params = bad if when(len(taken)) else good
      return course.faculty()

    course.steps._faculty = faculty
    return courses
  return make_class


JOBS = {  # Name: (what the config changes, which steps are NaN or None).
    'whole': ({}, None), 'again': ({}, None), 'resumed': ({}, None),
    'refused': (dict(seed=1), None),
    'stop': (dict(log_steps=4), lambda step: step >= 6),
    'skip': (dict(on_nonfinite='skip'), lambda step: step % 4 == 0),
    'endless': (dict(total_steps=10**6), None),
}


def run(folder, job):
  """The result of a job; 'refused' goes on where 'whole' has been."""
  changes, when = JOBS[job.rstrip('0123456789')]
  workdir = f'{folder}/{"whole" if job == "refused" else job}'
  make = course_lib.make_class
  if when:
    course_lib.make_class = sick(make, when)
  try:
    rows = Writer(workdir)
    train.train(config_of(**changes), workdir,
                packed.Data(f'{folder}/images.npz'), rows)
    return [row['train/skipped'] for row in rows if 'train/skipped' in row]
  except ValueError as error:
    return error
  finally:
    course_lib.make_class = make


def main(folder, jobs, coordinator=None, processes=None, process=None):
  command.narrate()
  with contextlib.ExitStack() as stack:
    if coordinator:
      stack.enter_context(hosts.joined(coordinator, int(processes),
                                       int(process)))
    for job in jobs.split(','):
      os.makedirs(f'{folder}/{job}', exist_ok=True)
      parallel.meet(job)
      print(f'{job}: {run(folder, job)}', flush=True)


if __name__ == '__main__':
  main(*sys.argv[1:])
