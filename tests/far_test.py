"""Locks and whole files on storage as gs:// is: objects, and no renaming.

There a rename is a copy and then a removal, which others see one after another;
a file is there when it is closed, and nothing is created exclusively.
"""

import io
import threading
import types

from etils.epath import gpath
import pytest

from big_distill import lock
from big_distill import runs


class Bucket:
  """What epath asks of storage, in memory.

  `before` is called before renames, `between` between their copy and removal.
  """

  def __init__(self):
    self.objects, self.before, self.between = {}, lambda: None, lambda: None

  def exists(self, path):
    return path in self.objects or self.isdir(path)

  def isdir(self, path):
    return any(name.startswith(f'{path}/') for name in self.objects)

  def mkdir(self, path, exist_ok=True, mode=None):
    """Objects need no folders."""

  makedirs = mkdir

  def remove(self, path):
    try:
      del self.objects[path]
    except KeyError as error:
      raise FileNotFoundError(path) from error

  def open(self, path, mode):
    if 'w' not in mode:
      if path not in self.objects:
        raise FileNotFoundError(path)
      return io.BytesIO(self.objects[path]) if 'b' in mode else io.StringIO(
          self.objects[path].decode())
    file = io.BytesIO() if 'b' in mode else io.StringIO()
    close = file.close

    def upload():
      value = file.getvalue()
      self.objects[path] = value if 'b' in mode else value.encode()
      close()

    file.close = upload
    return file

  def replace(self, path, target):
    self.before()
    self.objects[target] = self.objects[path]
    self.between()
    self.remove(path)

  rename = replace

  def stat(self, path):
    return types.SimpleNamespace(length=len(self.objects[path]))


@pytest.fixture
def bucket(monkeypatch):
  bucket = Bucket()
  monkeypatch.setattr(gpath._GPath, '_backend', property(lambda self: bucket))
  monkeypatch.setattr(lock, 'SETTLE_FAR', .2)
  return bucket


def locked(host):
  """A Lock as of a program on another host."""
  made = lock.Lock('gs://bucket/w')
  made._me['host'] = host
  return made


def test_a_second_writer_is_refused_until_the_first_has_left(bucket):
  with locked('a'):
    assert [*bucket.objects] == ['gs://bucket/w/lock.json']
    with pytest.raises(ValueError, match='gs://bucket/w is being written by '
                                         'process .* on a, since'):
      locked('b').__enter__()
  assert not bucket.objects
  with locked('b'):
    assert runs.load('gs://bucket/w/lock.json')['host'] == 'b'


@pytest.mark.parametrize('rounds', range(5))
def test_of_two_that_start_at_once_one_goes_on(bucket, rounds):
  """Both find no lock, and both write one: the later write counts."""
  both, entered = threading.Barrier(2), []
  bucket.before = lambda: both.wait(60)

  def enter(host):
    try:
      entered.append(locked(host).__enter__())
    except ValueError as error:
      assert 'is being written by process' in str(error)

  threads = [threading.Thread(target=enter, args=[host]) for host in 'ab']
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  holder, = entered
  assert runs.load('gs://bucket/w/lock.json')['token'] == holder._me['token']
  holder.release()
  assert not bucket.objects


def test_what_no_program_can_have_written_is_replaced(bucket):
  bucket.objects['gs://bucket/w/lock.json'] = b'{"host": "a"'
  with locked('b'):
    assert runs.load('gs://bucket/w/lock.json')['host'] == 'b'


def test_readers_find_the_old_file_or_the_new_one_at_every_moment(bucket):
  path, seen = 'gs://bucket/w/result.json', []
  bucket.between = lambda: seen.append(runs.load(path))
  runs.save(path, {'steps': 1})
  runs.save(path, {'steps': 2})
  assert seen == [{'steps': 1}, {'steps': 2}]
  assert [*bucket.objects] == [path]


def test_a_program_that_ends_inside_a_write_leaves_a_whole_file(bucket):
  path = 'gs://bucket/w/result.json'
  runs.save(path, {'steps': 1})

  def end():
    raise KeyboardInterrupt

  bucket.between = end
  with pytest.raises(KeyboardInterrupt):
    runs.save(path, {'steps': 2})
  assert runs.load(path) == {'steps': 2} and [*bucket.objects] == [path]


def test_storage_that_refuses_a_write_is_one_line(bucket):
  def refuse(path, mode):
    raise PermissionError(f'403 Forbidden\n{path}\nmore')

  bucket.open = refuse
  with pytest.raises(ValueError) as error:
    runs.save('gs://bucket/w/result.json', {})
  assert str(error.value).startswith(
      'Cannot write gs://bucket/w/result.json: 403 Forbidden. Make it writable')
  assert '\n' not in str(error.value)
