"""A disk that is full or gone ends a run in one line, and loses nothing."""

import subprocess
import sys

import pytest

from big_distill import runs
from big_distill import writers
from tests import train_test


@pytest.fixture
def small_disk(tmp_path):
  """A disk of 300 kB, on which a second checkpoint finds no room."""
  disk = tmp_path / 'disk'
  disk.mkdir()
  mounted = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=300k', 'tmpfs',
                            str(disk)], capture_output=True)
  if mounted.returncode:
    pytest.skip('Disks are mounted by root alone.')
  yield disk
  subprocess.run(['umount', str(disk)], check=True)


def one_line(out):
  """The error that a program ended with; nothing else may be one."""
  assert 'Traceback' not in out, out
  error, = [line for line in out.splitlines() if line.startswith('Error: ')]
  return error


def test_a_full_disk_is_one_line_and_the_same_command_resumes(small_disk):
  workdir = small_disk / 'w'
  code, out = train_test.finish(train_test.start(workdir))
  assert code == 1
  error = one_line(out)
  assert error.startswith(f'Error: Cannot write {workdir}/')
  assert 'the disk is full' in error and 'Free some space' in error
  subprocess.run(['mount', '-o', 'remount,size=50m', str(small_disk)],
                 check=True)
  code, out = train_test.finish(train_test.start(workdir))
  assert code == 0, out
  assert runs.read(workdir).result['steps'] == 40
  assert [row['step'] for row in runs.read(workdir).rows
          if 'train/loss' in row] == [*range(1, 41)]


def test_writes_that_fail_beside_the_one_that_is_raised_say_nothing():
  code = ('import asyncio; from big_distill import command\n'
          'async def write(): raise ValueError("the disk is full")\n'
          'async def save():\n'
          '  first, *others = [asyncio.create_task(write()) for _ in "abc"]\n'
          '  await first\n'
          'def main(flag): asyncio.run(save())\n'
          'command.narrate(); command.program(main)')
  ran = subprocess.run([sys.executable, '-c', code], cwd=train_test.ROOT,
                       capture_output=True, text=True)
  assert ran.stderr == 'Error: the disk is full\n'


def test_rows_that_are_removed_under_a_run_are_missed(tmp_path):
  with pytest.raises(ValueError) as error:
    with writers.Writer(str(tmp_path)) as writer:
      writer.write(1, {'a': 1.})
      (tmp_path / 'metrics.jsonl').unlink()
      writer.write(2, {'a': 2.})
  assert str(error.value).startswith(f'Cannot write {tmp_path}/metrics.jsonl: ')
  assert '\n' not in str(error.value)
  assert not (tmp_path / 'metrics.jsonl').exists()


def test_a_workdir_that_is_removed_under_a_run_is_one_line(tmp_path):
  workdir = tmp_path / 'w'
  process = train_test.start(workdir)
  train_test.wait_for_rows(workdir, 5, process)
  workdir.rename(tmp_path / 'removed')  # At once, as no rmtree is.
  code, out = train_test.finish(process)
  assert code == 1
  assert one_line(out).startswith(f'Error: Cannot write {workdir}')
