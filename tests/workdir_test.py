"""The program and a workdir that is not its own: refused before it writes."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from big_distill import lock
from big_distill import runs
from tests import train_test

ROOT = pathlib.Path(__file__).parent.parent


def start(workdir, *flags):
  return subprocess.Popen(
      [sys.executable, '-m', 'big_distill.main',
       '--config=configs/quickstart.py:tiny=True', f'--workdir={workdir}',
       *flags], cwd=ROOT, text=True, stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT)


def files(folder):
  return {path: path.read_bytes() for path in folder.rglob('*')
          if path.is_file()}


@pytest.fixture
def finished(tmp_path):
  """A workdir as a finished run leaves it, as far as the config matters."""
  from configs import quickstart
  workdir = tmp_path / 'w'
  (workdir / 'checkpoints' / '40').mkdir(parents=True)
  runs.save(workdir / 'config.json',
            runs.plain(quickstart.get_config('tiny=True')))
  runs.save(workdir / 'result.json', {'steps': 40})
  return workdir


def test_a_finished_run_with_another_config_is_refused_and_stays_as_it_is(
    finished):
  before = files(finished)
  code, out = train_test.finish(start(
      finished, '--config.optim.lr=0.5', '--config.log_percent=7'))
  assert code == 1 and 'Traceback' not in out
  assert (f'Error: {finished} holds a run with other values: optim.lr 0.01 '
          'there, 0.5 here. Choose another --workdir, or go on with '
          '--allow_changes=optim.lr.') in out
  assert files(finished) == before


def test_a_second_program_is_refused_while_the_first_one_writes(tmp_path):
  with lock.Lock(str(tmp_path)):
    code, out = train_test.finish(start(tmp_path))
  assert code == 1 and 'Traceback' not in out
  assert f'is being written by process {os.getpid()} on ' in out
  assert os.listdir(tmp_path) == []


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_the_first_step_ends_the_program_at_once(
    tmp_path, number):
  process = start(tmp_path)
  while not (tmp_path / 'lock.json').exists():
    assert process.poll() is None, process.communicate()[0]
    time.sleep(.01)
  process.send_signal(number)
  code, out = train_test.finish(process)
  assert code == 0
  assert 'before the first step: there is nothing to save' in out
  assert 'python -m big_distill.main --config=configs/quickstart.py' in out
  assert not (tmp_path / 'lock.json').exists()
