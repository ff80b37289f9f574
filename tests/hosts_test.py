"""Two processes of two devices train as one, start together, leave together.

Tolerances: sums over devices have another order, which float32 rounds; steps are
small, so that this does not grow.
"""

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time
import types

import numpy as np
import pytest

from big_distill import command
from big_distill import main
from big_distill import packed
from big_distill import render
from big_distill import runs
from big_distill import train
from big_distill.input import pipeline
from big_distill.tools import pack
from tests import hosts_program
from tests.configs_test import Rows

ROOT = pathlib.Path(__file__).parent.parent
CONFIG = '''
from configs import quickstart
from tests import hosts_program

def get_config(arg=None):
  c = quickstart.get_config('tiny=True')
  c.teachers = dict(truth=dict(labels=True))
  c.evals = dict()
  c.optim = dict(name='sgd', lr=.002, wd=1e-4, clip=1.)
  del c.log_percent, c.student
  c.student = dict(hosts_program.MODEL, size=16)
  c.total_steps, c.log_steps = 1000, 1
  c.checkpoints = dict(every_steps=100)
  return c
'''


def start(words, log, count, devices):
  """So many processes of `python WORDS`, with a log of each.

  {address}, {count} and {process} in words are filled in.
  """
  with socket.socket() as free:
    free.bind(('localhost', 0))
    address = f'localhost:{free.getsockname()[1]}'
  env = os.environ | {
      'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices}'
                   ' --xla_backend_optimization_level=0'}
  processes = []
  for i in range(count):
    told = [word.format(address=address, count=count, process=i)
            for word in words]
    with open(f'{log}.{i}.log', 'w') as file:
      processes.append(subprocess.Popen([sys.executable, *told], cwd=ROOT,
                                        env=env, stdout=file,
                                        stderr=subprocess.STDOUT))
  return processes


def finish(processes, log, timeout=280):
  """[(exit code, output)] of all processes."""
  deadline = time.monotonic() + timeout
  try:
    codes = [process.wait(max(deadline - time.monotonic(), .1))
             for process in processes]
  finally:
    for process in processes:
      process.kill()
  return [(code, pathlib.Path(f'{log}.{i}.log').read_text())
          for i, code in enumerate(codes)]


def wait_for_lines(path, count, processes):
  while not path.exists() or len(path.read_text().splitlines()) < count:
    assert all(process.poll() is None for process in processes), [
        log.read_text()[-3000:] for log in path.parent.parent.glob('*.log')]
    time.sleep(.02)


def said(out, job):
  """What a job of hosts_program came to."""
  line, = [line for line in out.splitlines() if line.startswith(f'{job}: ')]
  return line.removeprefix(f'{job}: ')


def weights(workdir):
  with np.load(workdir / 'student.npz') as file:
    return {name: file[name] for name in file.files}


def check_close(got, want):
  for name in want:
    np.testing.assert_allclose(got[name], want[name], atol=1e-4, err_msg=name)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A folder with images, in which one process of four devices has trained."""
  folder = tmp_path_factory.mktemp('hosts')
  rng = np.random.default_rng(0)
  images = [rng.integers(0, 256, (20, 24, 3), np.uint8) for _ in range(48)]
  np.savez(folder / 'images.npz', classes=[*map(str, range(12))], **pack.pack(
      (render.pack(images), np.arange(48) % 12), 'train', 20, 90))
  train.train(hosts_program.config_of(), str(folder / 'one'),
              packed.Data(str(folder / 'images.npz')), Rows())
  return folder


def copy_at(step, workdir, to):
  """A copy of a workdir as it was when a step was saved."""
  shutil.copytree(workdir, to)
  for path in (to / 'checkpoints').iterdir():
    if path.name.isdigit() and int(path.name) > step:
      shutil.rmtree(path)
  for name in ('student.npz', 'rows'):
    (to / name).unlink(missing_ok=True)


@pytest.fixture(scope='module')
def two(folder):
  """What two processes said of jobs; then one was killed: (codes, outputs)."""
  copy_at(5, folder / 'one', folder / 'again')
  processes = start(
      ['-m', 'tests.hosts_program', str(folder),
       'whole,again,refused,stop,skip,endless', '{address}', '{count}',
       '{process}'], folder / 'two', 2, 2)
  wait_for_lines(folder / 'endless' / 'rows', 5, processes)
  processes[1].kill()
  began = time.monotonic()
  ended = finish(processes, folder / 'two', timeout=90)
  return ended, time.monotonic() - began


def test_two_processes_equal_one_and_resume_what_it_began(folder, two):
  want = weights(folder / 'one')
  check_close(weights(folder / 'whole'), want)
  check_close(weights(folder / 'again'), want)
  assert np.abs(want['head/kernel']).max() > 1e-3  # From zero.
  assert all(f'resuming at 5 from {folder}/again' in out for _, out in two[0])


def test_another_config_is_refused_on_both_and_nothing_is_written(folder, two):
  for _, out in two[0]:
    assert 'seed 0 there, 1 here' in said(out, 'refused')
  assert runs.load(folder / 'whole' / 'config.json')['seed'] == 0


def test_both_stop_at_the_step_that_is_not_finite_and_keep_it_once(folder, two):
  stops = [said(out, 'stop') for _, out in two[0]]
  assert stops[0] == stops[1]
  assert stops[0].startswith('Step 6: the teacher prof is the first that is not '
                             'finite')
  kept = folder / 'stop' / 'nan'
  assert sorted(path.name for path in kept.iterdir()) == [
      'batch_00000.npz', 'batch_00001.npz', 'config.json', 'state']
  assert [path.name for path in (kept / 'state').iterdir()] == ['5']
  for i in range(2):  # Half of the batch each.
    with np.load(kept / f'batch_{i:05}.npz') as file:
      assert {len(file[name]) for name in file.files} == {16}


def test_both_skip_the_same_steps(two):
  skips = [said(out, 'skip') for _, out in two[0]]
  assert skips[0] == skips[1] == str(
      [float(step // 4) for step in range(1, hosts_program.STEPS + 1)])


def test_when_one_process_is_killed_the_other_ends_within_a_minute(two):
  ((code, _), (killed, _)), seconds = two
  assert killed == -signal.SIGKILL and code != 0
  assert seconds < 60


@pytest.mark.parametrize('devices', [1, 2, 8])
def test_other_numbers_of_devices_resume_what_four_began(folder, two, devices):
  jobs = [f'resumed{devices}{i}' for i in range(2)]
  for begun, job in zip(('one', 'whole'), jobs):
    copy_at(5, folder / begun, folder / job)
  log = folder / f'on{devices}'
  (code, out), = finish(start(
      ['-m', 'tests.hosts_program', str(folder), ','.join(jobs)], log, 1,
      devices), log)
  assert code == 0, out
  assert f'1 hosts x {devices} devices' in out
  want = weights(folder / 'one')
  for job in jobs:
    assert f'resuming at 5 from {folder}/{job}' in out
    check_close(weights(folder / job), want)


def test_ctrl_c_of_one_has_both_leave_at_one_step_and_one_process_goes_on(
    tmp_path):
  config, workdir = tmp_path / 'config.py', tmp_path / 'w'
  config.write_text(CONFIG)
  processes = start(
      ['-m', 'big_distill.main', f'--config={config}', f'--workdir={workdir}',
       '--coordinator={address}', '--processes={count}', '--process={process}'],
      workdir, 2, 2)
  wait_for_lines(workdir / 'metrics.jsonl', 5, processes)
  processes[1].send_signal(signal.SIGINT)  # The one that keeps no record.
  left = finish(processes, workdir)
  assert [code for code, _ in left] == [0, 0], left
  assert all(out.count('Preempted: saved step ') == 1 for _, out in left)
  assert sum('Ctrl-C: leaves after this step' in out for _, out in left) == 1
  saved, = {int(out.split('saved step ')[1].split('.')[0]) for _, out in left}
  assert 0 < saved < 1000 and not (workdir / 'student.npz').exists()
  # Four devices of this process go on, a few steps.
  resumed, made = Rows(), command.call(str(config))
  made.total_steps = saved + 3
  train.train(made, str(workdir), pipeline, resumed)
  assert [row['step'] for row in runs.rows(workdir / 'metrics.jsonl')
          if 'train/loss' in row] == [*range(1, saved + 1)]
  assert [row['step'] for row in resumed if 'train/loss' in row] == [
      *range(saved + 1, saved + 4)]


@pytest.mark.parametrize('given, message', [
    (('here:1', None, None), 'go together: given were here:1, None and None'),
    ((None, 2, None), 'go together: given were None, 2 and None'),
    ((None, 2, 0), 'go together'),
    (('here', 2, 0), '--coordinator=here has no port: write'),
    (('here:1', 2, 2), r'--process=2: with --processes=2 they are numbered '
                       'from 0 to 1')])
def test_flags_that_do_not_name_the_hosts_are_one_line(given, message):
  flag = types.SimpleNamespace(distributed=False, **dict(
      zip(('coordinator', 'processes', 'process'), given)))
  with pytest.raises(ValueError, match=message):
    with main.among_hosts(flag):
      pass


@pytest.mark.parametrize('process', [0, 1])
def test_hosts_that_stay_away_are_one_line_within_the_stated_time(process):
  with socket.socket() as free:
    free.bind(('localhost', 0))
    address = f'localhost:{free.getsockname()[1]}'
  code = (f'from big_distill import hosts; hosts.START = 3\n'
          f'hosts._initialize({address!r}, 2, {process})\n')
  ran = subprocess.run([sys.executable, '-c', code], cwd=ROOT, text=True,
                       capture_output=True, timeout=120)
  assert ran.returncode == 1
  assert 'Error: The hosts did not come together' in ran.stderr
  assert 'Traceback' not in ran.stderr and '***' not in ran.stderr
