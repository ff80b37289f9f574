"""One run per point of a grid, and a table of how they did.

  python -m big_distill.tools.sweep --config=configs/FILE.py --workdir=DIR

The points are what get_sweep() of the config file returns, which takes the
argument that get_config takes: dicts of dotted overrides, such as
[{'optim.lr': 0.003, 'loss.t': 2.}, ...]; common.grid() makes them. Each is a
run of big_distill.main in a folder of DIR that is named for it. Overrides for
all of them are given as to main: --config.data.data_dir=DIR.

  (nothing)  prints the commands, one a line, for a shell or a scheduler
  --index=K  runs point K, as one job of an array; or several, K,L,M, together
  --run      runs all of them here, one after another, then --rank
  --run --together=N  so many at a time in one program: one pass of the teachers
             teaches N students, each of which leaves what it would leave alone;
             --stack=beside, map or vmap says how those learn that differ in
             numbers alone (stacks.py)
  --rank     prints the table of what is finished; writes DIR/sweep.csv

A finished point is skipped and an interrupted one resumes, so the same command
goes on where it was stopped. A point that fails does not stop the others.
"""

import shlex
import signal
import subprocess
import sys

from absl import flags

from big_distill import command as command_lib
from big_distill import leaving
from big_distill import main as main_lib
from big_distill import metrics
from big_distill import runs
from big_distill.tools import points
from big_distill.tools import ranking

# Flags that main has as well, see main.define_shared_flags.
TRAINING = ('allow_changes', 'stack', 'distributed', 'coordinator', 'processes',
            'process')


def run(chosen, execute=None):
  """Runs Points one after another; True if all of them are finished at the end.

  `execute` takes a command and returns its exit code, None if told to leave.
  """
  for point in chosen:
    point.check()
  failed = []
  for i, point in enumerate(chosen, 1):
    def say(what):
      print(f'[{i}/{len(chosen)}] {point.name}: {what}', flush=True)

    if point.finished:
      say('finished before.')
      continue
    say(shlex.join(point.command))
    code = (execute or _execute)(point.command)
    if code:
      say(f'failed with exit code {code}.')
      failed.append(point)
    elif code is None or not point.finished:
      # It was told to leave, and so are we: what is next would be, too.
      say('stopped here; the same command goes on.')
      break
  for point in failed:
    print(f'Failed: {point.name}', flush=True)
  return all(point.finished for point in chosen)


def _execute(command):
  """Runs a command; returns its exit code, None if this program was told to leave.

  SIGTERM is passed on, so that it saves its state. Of Ctrl-C a terminal tells
  both: this program waits for the other.
  """
  told, process = [], None

  def hear(number, frame):
    told.append(number)
    if process and number == signal.SIGTERM:
      process.terminate()

  before = {number: signal.signal(number, hear) for number in leaving.SIGNALS}
  try:
    process = subprocess.Popen(command)
    if signal.SIGTERM in told:  # Before there was one to pass it on to.
      process.terminate()
    code = process.wait()
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
  return None if told else code


def main(flag):
  config = command_lib.file_of(sys.argv)
  # Whoever trains gets these; `flag` has a default for what was not given.
  given = [*(word for word in sys.argv if word.startswith('--config.')),
           *(flag[name].serialize() for name in TRAINING if flag[name].present)]
  every = points.make(config, flag.workdir, given, flag.allow_changes)
  table = f'{runs.folder(flag.workdir)}/sweep.csv'
  indexed = flag['index'].present
  if sum([flag.run, flag.rank, bool(indexed)]) > 1:
    raise ValueError('Of --index, --run and --rank, keep one.')
  if flag.together > 1 and not flag.run:
    raise ValueError('--together says how many --run trains at a time: add '
                     '--run, or leave it out.')
  if indexed:
    sys.exit(not _run_here([every[i] for i in _indices(flag.index, every)],
                           flag))
  elif flag.run:
    whole = run(points.together(every, flag.together, [
        f'--config={config}', f'--workdir={flag.workdir}', *given])
                if flag.together > 1 else every)
    if any(point.finished for point in every):
      ranking.show(every, table, flag.by)
    sys.exit(not whole)
  elif flag.rank:
    ranking.show(every, table, flag.by)
  else:
    for point in every:
      print(shlex.join(point.command))


def _indices(texts, every):
  """--index as whole numbers, checked."""
  for text in texts or ['']:  # An array's variable that is not set, say.
    if not text.isdecimal() or int(text) >= len(every):
      raise ValueError(f'--index={",".join(texts)}: points are numbered 0 to '
                       f'{len(every) - 1}.')
  return [int(text) for text in texts]


def _run_here(chosen, flag):
  """Runs one Point as a command, several in this program; True if finished."""
  if len(chosen) == 1:
    return run(chosen)
  command_lib.narrate()
  for point in chosen:
    point.check()
  left = [point for point in chosen if not point.finished]
  results = main_lib.distil(
      {point.name: (point.config, point.workdir) for point in left}, flag,
      f'{runs.folder(flag.workdir)}/compiled') if left else {}
  if results is None:  # Preempted: the same command goes on.
    sys.exit(0)
  return all(point.finished for point in chosen)


def _define_flags():
  flags.DEFINE_string(
      'config', None, 'A file of configs/ with a get_sweep: FILE.py:name=value')
  flags.DEFINE_string('workdir', None, 'Folder of the folders of all points.')
  flags.DEFINE_list('index', [], 'Run this point, counted from 0, or these.')
  flags.DEFINE_integer('together', 1, 'Points that --run trains at a time.', 1)
  main_lib.define_shared_flags()
  flags.DEFINE_bool('run', False, 'Run all points that are not finished.')
  flags.DEFINE_bool('rank', False, 'Print the table of finished points.')
  flags.DEFINE_string('by', None, 'Metric to rank by; else the first there is '
                      f'of {", ".join(metrics.RANKING)}.')
  flags.mark_flags_as_required(['config', 'workdir'])


if __name__ == '__main__':
  command_lib.program(main, _define_flags)
