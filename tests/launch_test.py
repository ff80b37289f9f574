"""Scripts of launch/ against programs that record how they were called."""

import os
import pathlib
import re
import runpy
import signal
import subprocess
import sys
import time
import types

import pytest

ROOT = pathlib.Path(__file__).parent.parent
# Writes its name, its GPU and its words; the rest is each test's.
RECORD = """#!/usr/bin/env bash
echo "$(basename "$0") ${CUDA_VISIBLE_DEVICES:--} $*" >>"$CALLS"
"""


class Box:
  """A machine whose programs are short scripts that record their calls."""

  def __init__(self, folder, **programs):
    self.calls_file = folder / 'calls'
    self.bin = folder / 'bin'
    self.bin.mkdir()
    for name, text in programs.items():
      path = self.bin / name.replace('_', '-')
      path.write_text(RECORD + text)
      path.chmod(0o755)

  def start(self, script, *words, **env):
    return subprocess.Popen(
        [ROOT / 'launch' / script, *words], text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, 'PATH': f'{self.bin}:{os.environ["PATH"]}',
             'CALLS': str(self.calls_file), **env})

  def run(self, script, *words, **env):
    """(exit code, stdout, stderr)."""
    process = self.start(script, *words, **env)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err

  @property
  def calls(self):
    return (self.calls_file.read_text().splitlines()
            if self.calls_file.exists() else [])


SWEEP = """
case "$*" in
  *--index=*)
    until [ "$(grep -c -- --index= "$CALLS")" -ge 2 ]; do sleep .05; done
    exit "${FAILS:-0}" ;;
  *--rank*) echo the table ;;
  *) printf 'point %s\\n' 0 1 2 3 4 ;;
esac
"""


def test_gpus_runs_each_point_once_and_one_at_a_time_on_each_gpu(tmp_path):
  box = Box(tmp_path, big_distill_sweep=SWEEP)
  words = ['--config=a b.py:x=(1, 2)', '--workdir=w']
  code, out, err = box.run('gpus.sh', *words, GPUS='3,5')
  assert code == 0, err
  first, *points, last = box.calls
  said = ' '.join(words)
  assert first == f'big-distill-sweep - {said}'
  assert last == f'big-distill-sweep - {said} --rank'
  assert sorted(point.rpartition(' ')[2] for point in points) == [
      f'--index={i}' for i in range(5)]
  assert {point.split()[1] for point in points} == {'3', '5'}
  assert all(f' {said} --index=' in point for point in points)
  assert out.splitlines() == ['5 points on 2 GPUs: 3,5.', 'the table']


def test_gpus_asks_the_driver_which_there_are_and_says_what_failed(tmp_path):
  box = Box(tmp_path, big_distill_sweep=SWEEP, nvidia_smi='printf "0\\n1\\n"')
  code, out, _ = box.run('gpus.sh', '--config=c.py', '--workdir=w', FAILS='1')
  assert code == 123 and 'on 2 GPUs: 0,1.' in out and 'the table' in out
  assert len(box.calls) == 8  # One question, the list, five points, the table.


def test_gpus_stops_its_points_and_starts_no_other_when_told_to(tmp_path):
  box = Box(tmp_path, big_distill_sweep="""
case "$*" in
  *--index=*) trap 'echo saved >>"$CALLS"; exit 1' TERM
    echo trapped >>"$CALLS"; sleep 60 & wait ;;
  *) printf 'point %s\\n' 0 1 2 3 4 ;;
esac
""")
  process = box.start('gpus.sh', '--config=c.py', '--workdir=w', GPUS='0,1')
  try:
    while box.calls.count('trapped') < 2:
      assert process.poll() is None
      time.sleep(.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 143
    assert box.calls[5:] == ['saved', 'saved']
  finally:
    os.killpg(process.pid, signal.SIGKILL)


SRUN = 'while [[ $1 == --* ]]; do shift; done\n"$@"\n'


@pytest.mark.parametrize('program, code, requeued', [
    ('mkdir -p w; touch w/config.json w/result.json', 0, False),  # Finished,
    ('mkdir -p w/nan; touch w/{,nan/}config.json w/result.json', 0, False),
    ('mkdir -p w/{a,b}; touch w/{a,b}/{config,result}.json', 0, False),
    ('mkdir -p w', 0, True),  # Told to leave.
    ('mkdir -p w; touch w/config.json', 0, True),
    ('mkdir -p w/{a,b}; touch w/{a,b}/config.json w/a/result.json', 0, True),
    ('exit 3', 3, False)])  # Failed.
def test_slurm_requeues_what_left_before_its_end_alone(
    tmp_path, monkeypatch, program, code, requeued):
  monkeypatch.chdir(tmp_path)
  box = Box(tmp_path, srun=SRUN, scontrol='', big_distill=program)
  got, _, err = box.run('slurm.sh', '--config=a b.py', '--workdir=w',
                        SLURM_JOB_ID='17')
  assert got == code, err
  assert box.calls[1] == 'big-distill - --config=a b.py --workdir=w --distributed'
  assert box.calls[2:] == ['scontrol - requeue 17'] * requeued


def test_slurm_finds_a_workdir_at_home(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path / 'home'))
  box = Box(tmp_path, srun=SRUN, scontrol='', big_distill=(
      'mkdir -p ~/w; touch ~/w/config.json ~/w/result.json'))
  code, _, err = box.run('slurm.sh', '--workdir=~/w', SLURM_JOB_ID='17')
  assert code == 0 and not any('requeue' in call for call in box.calls), err


@pytest.mark.parametrize('words', [(), ('--workdir=gs://bucket/run',)])
def test_slurm_wants_a_workdir_before_it_starts_anything(tmp_path, words):
  box = Box(tmp_path, srun=SRUN)
  code, _, err = box.run('slurm.sh', '--config=a.py', *words)
  assert code == 2 and err.startswith('Error: --workdir') and not box.calls


def test_slurm_asks_for_a_signal_early_enough_to_save():
  text = (ROOT / 'launch/slurm.sh').read_text()
  asked = dict(re.findall(r'^#SBATCH --([a-z-]+)(?:=(.*))?$', text, re.M))
  assert {'requeue', 'signal', 'ntasks-per-node'} <= asked.keys()
  name, seconds = asked['signal'].split('@')
  assert signal.Signals[f'SIG{name}'] and int(seconds) >= 60


def test_docker_installs_what_is_there(monkeypatch):
  given = {}
  monkeypatch.setitem(sys.modules, 'setuptools', types.SimpleNamespace(
      setup=given.update, find_packages=lambda **_: []))
  runpy.run_path(str(ROOT / 'setup.py'))
  text = (ROOT / 'launch/Dockerfile').read_text()
  rows = [line.split() for line in text.splitlines() if line[:1].isupper()]
  copied = [path for word, *paths in rows if word == 'COPY'
            for path in paths[:-1]]
  assert all((ROOT / path).exists() for path in copied)
  assert {'setup.py', 'README.md', 'big_distill', 'configs'} <= {*copied}
  extras, = re.findall(r'^ARG EXTRAS=(.*)$', text, re.M)
  assert {*extras.split(',')} <= given['extras_require'].keys()
  scripts = {line.split()[0] for line in given['entry_points']['console_scripts']}
  assert {*re.findall(r'(?<=["=])big-distill[\w-]*', text)} <= scripts
