"""One writer per workdir: DIR/lock.json says which program writes there.

The program renews the file every BEAT seconds. A lock is left over, and taken,
if its program ran on this host and is gone, or if it was not renewed for STALE
seconds, by the clocks of the two hosts. Files alone are used, so that local
disks, network disks and gs:// serve alike.
"""

import contextlib
import datetime
import os
import socket
import threading
import time
from typing import Any
import uuid

from absl import logging
from etils import epath

from big_distill import bounds
from big_distill import runs

BEAT = 20.
STALE = 120.
# Of two programs that start at the same time, the later write counts: seconds
# to wait for it, on a disk and on other storage.
SETTLE, SETTLE_FAR = .2, 2.


class Lock:
  """Holds the lock of a workdir inside a `with`; ValueError if another does."""

  def __init__(self, workdir: str) -> None:
    self._path = epath.Path(workdir, 'lock.json')
    self._workdir = workdir
    self._me = {'host': socket.gethostname(), 'pid': os.getpid(),
                'start': _text(time.time()), 'token': uuid.uuid4().hex}
    self._done, self._turn = threading.Event(), threading.Lock()

  def __enter__(self) -> 'Lock':
    with runs.writing(self._path):
      self._path.parent.mkdir(parents=True, exist_ok=True)
    while not self._is_ours():  # Nor after the wait, if another came and ended.
      self._beat()
      time.sleep(SETTLE_FAR if '://' in self._workdir else SETTLE)
    threading.Thread(target=self._keep, daemon=True).start()
    return self

  def __exit__(self, *error) -> None:
    self.release()

  def release(self) -> None:
    """Removes the lock if it is still ours."""
    self._done.set()
    with self._turn, contextlib.suppress(Exception):
      if self._holder() == self._me['token']:
        self._path.unlink(missing_ok=True)

  def _holder(self):
    return (runs.load(self._path) or {}).get('token')

  def _is_ours(self):
    """Whether the lock is ours; ValueError if a running program has it."""
    found = _read(self._path)
    if found and found['token'] == self._me['token']:
      return True
    if found and not is_stale(found, self._me['host'], time.time()):
      raise ValueError(
          f'{self._workdir} is being written by process {found["pid"]} on '
          f'{found["host"]}, since {found["start"]}. Choose another --workdir, '
          f'or stop that process; if it is gone, this lock ends {STALE:.0f} s '
          f'after {found["heartbeat"]}, or when {self._path} is removed.')
    return False

  def _beat(self):
    runs.save(self._path, self._me | {'heartbeat': _text(time.time())})

  def _keep(self):
    while not self._done.wait(BEAT):
      try:
        with self._turn:
          holder = self._holder()
          if holder in (self._me['token'], None) and not self._done.is_set():
            self._beat()
      except ValueError as error:  # The loop will meet a full disk, too.
        logging.warning('%s', error)
        continue
      if holder not in (self._me['token'], None):
        # This program was paused for so long that its lock was taken.
        logging.error('Another program writes to %s now: this one leaves, '
                      'without saving.', self._workdir)
        os._exit(1)


def is_stale(lock: dict[str, Any], host: str, now: float) -> bool:
  """Whether a lock was left behind, seen from `host` at `now` (Unix seconds)."""
  age = now - datetime.datetime.fromisoformat(lock['heartbeat']).timestamp()
  if age > STALE:
    return True
  if lock['host'] != host:
    return False
  # A container that is started anew has the host and process id of before.
  return lock['pid'] == os.getpid() or not _runs(lock['pid'])


def _read(path):
  try:
    lock = runs.load(path)
    if lock:
      is_stale(lock, '', 0.)
      lock['token'], lock['start']
      bounds.check('pid', lock['pid'], least=1, most=2**31, whole=True)
    return lock
  except (ValueError, KeyError, TypeError) as error:
    logging.warning('%s is no lock, and is replaced: %s', path, error)
    return None


def _runs(pid):
  """Whether there is such a process on this host."""
  try:
    os.kill(pid, 0)
  except ProcessLookupError:
    return False
  except PermissionError:  # It belongs to somebody else.
    pass
  return True


def _text(seconds):
  """Unix seconds -> '2026-01-31T12:00:00+00:00'."""
  return datetime.datetime.fromtimestamp(
      round(seconds), datetime.timezone.utc).isoformat()
