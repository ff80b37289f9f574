"""Two processes of two devices train as one, start together, leave together."""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from big_distill import hosts
from big_distill import runs

ROOT = pathlib.Path(__file__).parent.parent
CONFIG = '''
from configs import quickstart

def get_config(arg=None):
  c = quickstart.get_config('tiny=True')
  c.teachers = dict(truth=dict(labels=True))
  c.evals = dict()
  c.optim = dict(name='sgd', lr=.002, wd=1e-4, clip=1.)
  del c.log_percent
  c.total_steps, c.log_steps = 120, 1
  c.checkpoints = dict(every_steps=20)
  return c
'''


@pytest.fixture
def config(tmp_path):
  path = tmp_path / 'config.py'
  path.write_text(CONFIG)
  return path


def start(config, workdir, count, devices, *flags, program=()):
  """So many processes of one run, with a log of each beside the workdir.

  `program` is another than main, with the flags that it has alone.
  """
  with socket.socket() as free:
    free.bind(('localhost', 0))
    address = f'localhost:{free.getsockname()[1]}'
  env = os.environ | {
      'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices}'
                   ' --xla_backend_optimization_level=0'}
  processes = []
  for i in range(count):
    words = [sys.executable, '-m', *(
        program or ['big_distill.main', f'--workdir={workdir}']),
             f'--config={config}', *flags]
    if count > 1:
      words += [f'--coordinator={address}', f'--processes={count}',
                f'--process={i}']
    with open(f'{workdir}.{i}.log', 'w') as log:
      processes.append(subprocess.Popen(words, cwd=ROOT, env=env, stdout=log,
                                        stderr=subprocess.STDOUT))
  return processes


def finish(processes, workdir, timeout=280):
  """[(exit code, output)] of all processes."""
  deadline = time.monotonic() + timeout
  try:
    codes = [process.wait(max(deadline - time.monotonic(), .1))
             for process in processes]
  finally:
    for process in processes:
      process.kill()
  return [(code, pathlib.Path(f'{workdir}.{i}.log').read_text())
          for i, code in enumerate(codes)]


def wait_for_rows(workdir, count, processes):
  while len(runs.rows(workdir / 'metrics.jsonl')) < count:
    assert all(process.poll() is None for process in processes), [
        path.read_text()[-3000:] for path in workdir.parent.glob('*.log')]
    time.sleep(.02)


def weights(workdir):
  with np.load(workdir / 'student.npz') as file:
    return {name: file[name] for name in file.files}


def test_two_processes_leave_together_resume_and_equal_one(
    config, tmp_path):
  one, two = tmp_path / 'one', tmp_path / 'two'
  (code, out), = finish(start(config, one, 1, 4), one)
  assert code == 0, out

  processes = start(config, two, 2, 2)
  wait_for_rows(two, 5, processes)
  processes[1].send_signal(signal.SIGTERM)  # The one that keeps no record.
  left = finish(processes, two)
  assert [code for code, _ in left] == [0, 0], left
  saved, = {line.split('saved step ')[1].split('.')[0]
            for _, out in left for line in out.splitlines()
            if 'saved step' in line}
  assert 0 < int(saved) < 120 and not (two / 'student.npz').exists()

  ended = finish(start(config, two, 2, 2), two)
  assert [code for code, _ in ended] == [0, 0], ended
  assert all(f'resuming at {saved}' in out for _, out in ended)
  assert [row['step'] for row in runs.rows(two / 'metrics.jsonl')
          if 'train/loss' in row] == [*range(1, 121)]
  want, got = weights(one), weights(two)
  for name in want:
    # Sums over devices have another order; steps are small, so that this does
    # not grow.
    np.testing.assert_allclose(got[name], want[name], atol=1e-4, err_msg=name)
  assert np.abs(want['head/kernel']).max() > 1e-3  # From zero.

  # Another config is refused on both, and nothing is written.
  before = (two / 'config.json').read_text()
  refused = finish(start(config, two, 2, 2, '--config.seed=1'), two)
  assert [code for code, _ in refused] == [1, 1], refused
  assert all('seed 0 there, 1 here' in out for _, out in refused)
  assert (two / 'config.json').read_text() == before


def test_when_one_process_is_killed_the_other_ends_within_a_minute(
    config, tmp_path):
  workdir = tmp_path / 'w'
  processes = start(config, workdir, 2, 2,
                    '--config.total_steps=1000000')
  wait_for_rows(workdir, 5, processes)
  processes[1].kill()
  began = time.monotonic()
  (code, _), (killed, _) = finish(processes, workdir, timeout=90)
  assert killed == -signal.SIGKILL and code != 0
  assert time.monotonic() - began < 60


@pytest.mark.parametrize('given, message', [
    (('here:1', None, None), 'go together: given were here:1, None and None'),
    ((None, 2, 0), 'go together'), (('here', 2, 0), '--coordinator=HOST:PORT'),
    (('here:1', 2, 2), r'--process=2: with --processes=2 they are numbered '
                       'from 0 to 1')])
def test_flags_that_do_not_name_the_hosts_are_one_line(given, message):
  with pytest.raises(ValueError, match=message):
    with hosts.joined(*given):
      pass


@pytest.mark.parametrize('process', [0, 1])
def test_hosts_that_stay_away_are_one_line_within_the_stated_time(process):
  with socket.socket() as free:
    free.bind(('localhost', 0))
    address = f'localhost:{free.getsockname()[1]}'
  code = (f'from big_distill import hosts; hosts.START = 3\n'
          f'hosts._initialize({address!r}, 2, {process})\n')
  ran = subprocess.run([sys.executable, '-c', code], cwd=ROOT, text=True,
                       capture_output=True, timeout=60)
  assert ran.returncode == 1
  assert 'Error: The hosts did not come together' in ran.stderr
  assert 'Traceback' not in ran.stderr and '***' not in ran.stderr
