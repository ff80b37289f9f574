"""One program writes to a workdir; what a killed one left hinders nobody."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time
import types

import pytest

from big_distill import lock
from big_distill import runs
from tests import run_tpu_test

ROOT = pathlib.Path(__file__).parent.parent
HOLD = ('import sys, time; from big_distill import lock\n'
        'with lock.Lock(sys.argv[1]):\n'
        '  print("held", flush=True); time.sleep(60)')


@pytest.fixture
def other(tmp_path):
  """Another process that holds the lock of tmp_path."""
  process = subprocess.Popen([sys.executable, '-c', HOLD, str(tmp_path)],
                             cwd=ROOT, stdout=subprocess.PIPE, text=True)
  assert process.stdout.readline() == 'held\n'
  yield process
  process.kill()
  process.communicate()


def left(folder, **changes):
  """Leaves a lock as of another program, renewed just now."""
  content = {'host': 'elsewhere', 'pid': 1, 'start': lock._text(time.time()),
             'token': 'x', 'heartbeat': lock._text(time.time())} | changes
  runs.save(folder / 'lock.json', content)
  return content


def test_a_second_writer_is_refused_until_the_first_is_killed(tmp_path, other):
  with pytest.raises(ValueError) as error:
    lock.Lock(str(tmp_path)).__enter__()
  message = str(error.value)
  since = runs.load(tmp_path / 'lock.json')['start']
  assert (f'{tmp_path} is being written by process {other.pid} on '
          f'{socket.gethostname()}, since {since}') in message
  assert '\n' not in message
  other.send_signal(signal.SIGKILL)
  other.wait()
  assert (tmp_path / 'lock.json').exists()
  with lock.Lock(str(tmp_path)):
    assert runs.load(tmp_path / 'lock.json')['pid'] == os.getpid()
  assert os.listdir(tmp_path) == []


def test_a_lock_of_another_host_counts_until_it_is_old(tmp_path):
  now = time.time()
  fresh = left(tmp_path)
  with pytest.raises(ValueError, match='process 1 on elsewhere'):
    lock.Lock(str(tmp_path)).__enter__()
  assert runs.load(tmp_path / 'lock.json') == fresh
  left(tmp_path, heartbeat=lock._text(now - lock.STALE - 10))
  with lock.Lock(str(tmp_path)):
    pass


def test_a_lock_of_the_future_says_which_file_to_remove(tmp_path):
  left(tmp_path, heartbeat='2999-01-01T00:00:00+00:00')
  with pytest.raises(ValueError) as error:
    lock.Lock(str(tmp_path)).__enter__()
  assert str(error.value).endswith(
      f'after 2999-01-01T00:00:00+00:00, or when {tmp_path}/lock.json is removed.')


def test_a_second_writer_by_a_link_to_the_folder_is_refused(tmp_path, other):
  link = tmp_path.with_name(f'{tmp_path.name}_link')
  link.symlink_to(tmp_path)
  with pytest.raises(ValueError, match=f'process {other.pid}'):
    lock.Lock(str(link)).__enter__()


def test_a_lock_of_this_host_is_stale_when_its_process_is_gone():
  gone = subprocess.Popen([sys.executable, '-c', ''])
  gone.wait()
  now = time.time()
  held = {'host': 'here', 'heartbeat': lock._text(now)}
  assert lock.is_stale(held | {'pid': gone.pid}, 'here', now)
  assert not lock.is_stale(held | {'pid': gone.pid}, 'there', now)
  assert not lock.is_stale(held | {'pid': os.getppid()}, 'here', now)
  # A container starts anew with the process id of before.
  assert lock.is_stale(held | {'pid': os.getpid()}, 'here', now)


@pytest.mark.parametrize('junk', ['', '{"host": ', '[]', '{"host": "x"}',
                                  '{"heartbeat": "soon", "pid": 1}',
                                  *(json.dumps({
                                      'host': socket.gethostname(), 'pid': pid,
                                      'token': 'x', 'start': '',
                                      'heartbeat': '2999-01-01T00:00:00+00:00'})
                                    for pid in ('x', -1, 2**40, None))])
def test_a_file_that_is_no_lock_hinders_nobody(tmp_path, junk):
  (tmp_path / 'lock.json').write_text(junk)
  with lock.Lock(str(tmp_path)):
    assert json.loads((tmp_path / 'lock.json').read_text())['token']


def test_a_lock_is_renewed_and_never_after_it_was_released(
    tmp_path, monkeypatch):
  monkeypatch.setattr(lock, 'BEAT', .005)
  beats = []
  monkeypatch.setattr(lock, '_text', lambda seconds: beats.append(seconds) or (
      f'{len(beats):04}'))
  monkeypatch.setattr(lock, 'is_stale', lambda *args: False)
  held = lock.Lock(str(tmp_path))
  with held:
    first = runs.load(tmp_path / 'lock.json')['heartbeat']
    run_tpu_test.wait_for(
        lambda: runs.load(tmp_path / 'lock.json')['heartbeat'] > first)
  time.sleep(.05)
  assert os.listdir(tmp_path) == []


@pytest.fixture
def settled(monkeypatch):
  """Lets a function run in place of the wait for those that start with us."""
  # To each other they are other processes of this host, which run.
  monkeypatch.setattr(lock, 'is_stale', lambda *args: False)
  clock = types.SimpleNamespace(time=time.time)
  monkeypatch.setattr(lock, 'time', clock)
  return lambda function: setattr(clock, 'sleep', lambda seconds: function())


def test_of_many_that_start_together_one_writes(tmp_path, settled, monkeypatch):
  outcomes, all_looked, all_wrote, all_know = [], *(
      threading.Barrier(6) for _ in range(3))
  beat = lock.Lock._beat
  monkeypatch.setattr(lock, 'BEAT', 600.)  # No other beat than the first.
  monkeypatch.setattr(lock.Lock, '_beat',
                      lambda self: (all_looked.wait(600), beat(self)))
  settled(lambda: all_wrote.wait(600))

  def enter():
    held = lock.Lock(str(tmp_path))
    try:
      held.__enter__()
      outcomes.append('writes')
    except ValueError:
      outcomes.append('refused')
    all_know.wait(600)
    held.release()

  threads = [threading.Thread(target=enter) for _ in range(6)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert sorted(outcomes) == ['refused'] * 5 + ['writes']


def test_a_lock_is_taken_anew_when_one_that_took_it_has_ended(
    tmp_path, settled):
  waits = []

  def wait():
    waits.append((tmp_path / 'lock.json').exists())
    if len(waits) == 1:
      (tmp_path / 'lock.json').unlink()  # The other wrote it, and released it.

  settled(wait)
  with lock.Lock(str(tmp_path)) as held:
    assert runs.load(tmp_path / 'lock.json')['token'] == held._me['token']
  assert waits == [True, True]
