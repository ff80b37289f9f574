"""What is in a workdir is whole or absent, and errors name the file."""

import json
import logging
import os
import threading

import pytest

from big_distill import runs


@pytest.mark.parametrize('junk', [b'', b'{"a": 1', b'\xff\xfe{}', b'[1]', b'3'])
def test_an_error_in_a_json_names_the_file(tmp_path, junk):
  path = tmp_path / 'result.json'
  path.write_bytes(junk)
  with pytest.raises(ValueError, match=f'{path} .*remove it') as error:
    runs.load(path)
  assert '\n' not in str(error.value)
  assert not runs.finished(tmp_path)


def test_readers_never_see_half_a_file(tmp_path):
  path, seen, done = tmp_path / 'x.json', [], threading.Event()
  runs.save(path, {'n': 0})

  def look():
    while not done.is_set():
      seen.append(len(runs.load(path)))

  reader = threading.Thread(target=look)
  reader.start()
  for n in range(200):
    runs.save(path, {str(i): i for i in range(1000 + n % 2)} if n % 3 else {})
  done.set()
  reader.join()
  assert set(seen) <= {0, 1, 1000, 1001} and len(seen) > 10
  assert os.listdir(tmp_path) == ['x.json']


def test_a_write_that_fails_keeps_the_old_file_and_nothing_else(
    tmp_path, monkeypatch):
  path = tmp_path / 'result.json'
  runs.save(path, {'old': 1})
  monkeypatch.setattr('pathlib.Path.replace', fail)
  monkeypatch.setattr('os.replace', fail)
  with pytest.raises(ValueError, match=f'Cannot write {path}: the disk is full'):
    runs.save(path, {'new': 1})
  assert runs.load(path) == {'old': 1}
  assert os.listdir(tmp_path) == ['result.json']


def fail(*args, **kwargs):
  raise OSError(28, 'No space left on device')


def test_a_full_disk_says_to_free_space(tmp_path):
  with pytest.raises(ValueError) as error, runs.writing(tmp_path / 'x'):
    fail()
  assert 'full' in str(error.value) and 'Free some space' in str(error.value)
  assert 'MB are left' in str(error.value) and '\n' not in str(error.value)


def test_a_folder_that_is_gone_is_named(tmp_path):
  with pytest.raises(ValueError, match=f'there is no folder {tmp_path}/w. If'
                     ' it was removed'):
    runs.save(tmp_path / 'w' / 'x.json', {})


def test_what_is_not_writable_is_named_with_the_remedy(tmp_path):
  (tmp_path / 'x.json').mkdir()  # Even root cannot replace it by a file.
  with pytest.raises(ValueError, match='Make it writable, and the same'):
    runs.save(tmp_path / 'x.json', {})


def test_rows_that_are_none_are_left_out_and_counted(tmp_path, caplog):
  path = tmp_path / 'metrics.jsonl'
  rows = [{'step': 1, 'loss': .5}, {'step': 2, 'loss': .25}]
  path.write_bytes(b'\n'.join([
      json.dumps(rows[0]).encode(), b'{"step": 1, "lo', b'\xff\xfe', b'7', b'{}',
      b'{"step": "x"}', json.dumps(rows[1]).encode()]))
  with caplog.at_level(logging.WARNING):
    assert runs.rows(path) == rows
  assert f'{path}: 5 lines' in caplog.text
  assert runs.rows(tmp_path / 'none.jsonl') == []


@pytest.mark.parametrize('path, message', [
    ('', 'The folder has no name: give --workdir=DIR'),
    ('ftp://host/dir', 'ftp:// is no storage that is known here')])
def test_a_workdir_that_is_none_is_one_line(path, message):
  with pytest.raises(ValueError, match=message):
    runs.folder(path)


def test_a_folder_where_a_json_should_be_is_named(tmp_path):
  (tmp_path / 'result.json').mkdir()
  with pytest.raises(ValueError) as error:
    runs.read(tmp_path)
  assert str(error.value) == (f'{tmp_path}/result.json cannot be read: Is a '
                              'directory. Mend it, or remove it.')


def test_a_file_where_a_folder_should_be_is_named(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(ValueError) as error:
    runs.save(tmp_path / 'file' / 'w' / 'result.json', {})
  assert f'{tmp_path}/file is a file, where a folder should be' in str(
      error.value)
