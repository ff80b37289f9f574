"""run_tpu.sh against a gcloud that writes down what it is told."""

import json
import os
import pathlib
import stat
import subprocess

import pytest

SCRIPT = pathlib.Path(__file__).parent.parent / 'run_tpu.sh'
FLAGS = ['--name=a', '--zone=z', '--type=v3-32', '--workdir=gs://b/r',
         '--config=configs/x.py:a=1,b=2']

# Verbs are logged. A launch fails as often as `codes` has numbers, with those;
# `states` are what the slice is found in then. Its shell has a python of ours.
GCLOUD = r'''#!/usr/bin/env python3
import json, os, pathlib, subprocess, sys
here = pathlib.Path(os.environ['FAKE'])
args = sys.argv[4:]
with open(here / 'log', 'a') as log:
  log.write(json.dumps(args) + '\n')
def pop(name):
  path = here / name
  items = path.read_text().split() if path.exists() else []
  path.write_text(' '.join(items[1:]))
  return items[0] if items else None
if args[0] == 'describe':
  print(pop('states') or 'READY')
command = next((a[10:] for a in args if a.startswith('--command=')), '')
if 'big_distill.main' in command:
  (here / 'home/big_distill').mkdir(parents=True, exist_ok=True)
  subprocess.run(['bash', '-c', command], cwd=here / 'home', check=True)
  sys.exit(int(pop('codes') or 0))
'''
PYTHON = r'''#!/usr/bin/env python3
import json, os, pathlib, sys
with open(pathlib.Path(os.environ['FAKE']) / 'python', 'a') as log:
  log.write(json.dumps([sys.argv[1:], os.environ.get('TFDS_DATA_DIR')]) + '\n')
'''


def write(path, text):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(text)
  path.chmod(path.stat().st_mode | stat.S_IXUSR)


def run(tmp_path, *flags, codes='', states=''):
  """(exit code, output, gcloud's calls, the program's calls)."""
  write(tmp_path / 'bin/gcloud', GCLOUD)
  write(tmp_path / 'home/venv/bin/python', PYTHON)
  (tmp_path / 'codes').write_text(codes)
  (tmp_path / 'states').write_text(states)
  env = os.environ | {'FAKE': str(tmp_path), 'RETRY_SECONDS': '0',
                      'PATH': f'{tmp_path / "bin"}:{os.environ["PATH"]}'}
  done = subprocess.run([SCRIPT, *flags], env=env, text=True, check=False,
                        capture_output=True)

  def read(name):
    path = tmp_path / name
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]

  return (done.returncode, done.stdout + done.stderr, read('log'),
          read('python'))


def verbs(calls):
  return [call[0] for call in calls]


def test_an_undisturbed_run_creates_installs_trains_and_deletes(tmp_path):
  code, _, calls, program = run(tmp_path, *FLAGS)
  assert code == 0
  assert verbs(calls) == ['create', 'scp', 'ssh', 'ssh', 'delete']
  assert '--worker=all' in calls[3] and '--zone=z' in calls[3]
  assert program == [[['-m', 'big_distill.main', FLAGS[4], FLAGS[3],
                       '--distributed'], None]]


def test_dry_run_prints_the_commands_and_runs_none(tmp_path):
  code, out, calls, program = run(tmp_path, *FLAGS, '--dry_run')
  assert code == 0 and not calls and not program
  shown = [line.split()[4] for line in out.splitlines()
           if line.startswith('gcloud')]
  assert shown == ['create', 'scp', 'ssh', 'ssh', 'delete']


def test_arguments_reach_the_program_word_for_word(tmp_path):
  flag = '--config.note=two words, "quoted" $HOME'
  _, _, _, program = run(tmp_path, *FLAGS, '--data_dir=gs://b/t f', '--', flag)
  assert program[0][0][-1] == flag
  assert program[0][1] == 'gs://b/t f'


@pytest.mark.parametrize('state', ['PREEMPTED', 'TERMINATED', 'MISSING'])
def test_after_a_preemption_the_same_command_runs_on_a_new_slice(
    tmp_path, state):
  code, _, calls, program = run(tmp_path, *FLAGS, codes='255', states=state)
  assert code == 0
  assert verbs(calls) == ['create', 'scp', 'ssh', 'ssh', 'describe', 'delete',
                          'create', 'scp', 'ssh', 'ssh', 'delete']
  assert program[0] == program[1]


def test_a_failing_program_is_given_up_and_its_slice_deleted(tmp_path):
  code, out, calls, program = run(tmp_path, *FLAGS, '--max_failures=2',
                                  codes='7 7 7 7 7')
  assert code == 7 and 'failed 3 times' in out
  assert len(program) == 3 and verbs(calls)[-1] == 'delete'
  assert verbs(calls).count('create') == 1


def test_keep_keeps_the_slice(tmp_path):
  _, _, calls, _ = run(tmp_path, *FLAGS, '--keep')
  assert 'delete' not in verbs(calls)


def test_spot_and_project_reach_gcloud(tmp_path):
  _, _, calls, _ = run(tmp_path, *FLAGS, '--spot', '--project=p')
  assert '--spot' in calls[0]
  assert all('--project=p' in call for call in calls)


@pytest.mark.parametrize('flags, message', [
    (['--foo'], 'unknown option --foo'), (FLAGS[1:], '--name is missing'),
    ([*FLAGS, '--workdir=/tmp/x'], 'must be a gs:// address'),
    ([*FLAGS, '--max_failures=x'], 'is not a number')])
def test_bad_input_gets_one_line(tmp_path, flags, message):
  code, out, calls, _ = run(tmp_path, *flags)
  assert code == 2 and message in out and not calls
  assert len(out.splitlines()) == 1
