"""run_tpu.sh against a gcloud that simulates one slice of one worker.

The simulated slice is a file with its state; its worker is a folder, in which
what run_tpu.sh sends over ssh really runs, with a python3 that records its
arguments. What the program does is told beforehand, launch by launch.
"""

import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest

SCRIPT = pathlib.Path(__file__).parent.parent / 'run_tpu.sh'
CONFIG = 'configs/a b.py:mode=same/rc,sizes=(1, 2)'
NEEDED = ['--name=tpu', '--zone=z', '--type=v4-8', '--version=v',
          f'--config={CONFIG}', '--workdir=gs://bucket/run 1']

# What both programs know of the simulation. They start often: few imports.
COMMON = f'#!{sys.executable} -IS' + r'''
import json, os, sys

HOME = os.environ['SIMULATION']
STATE, PLAN, WORKER = (HOME + '/state', HOME + '/plan.json', HOME + '/worker')


def read(path):
  with open(path) as file:
    return file.read()


def write(path, text, mode='w'):
  with open(path, mode) as file:
    file.write(text)


def planned(what):
  plan = json.loads(read(PLAN))
  outcome = plan[what].pop(0) if plan.get(what) else None
  write(PLAN, json.dumps(plan))
  return outcome
'''

GCLOUD = COMMON + r'''

kind, verb, args = sys.argv[3:5] + [sys.argv[5:]]
QUEUED = {'READY': 'ACTIVE', 'PREEMPTED': 'SUSPENDED', 'TERMINATED': 'FAILED'}
write(HOME + '/calls', json.dumps(['gcloud', *sys.argv[1:]]) + '\n', 'a')
if code := planned(verb):
  sys.exit(code)
state = read(STATE) if os.path.exists(STATE) else None
if verb == 'create':
  assert state is None
  os.system('rm -rf "$SIMULATION/worker"')
  os.mkdir(WORKER)
  write(STATE, 'READY')
elif state is None:
  sys.exit("ERROR: NOT_FOUND: Resource 'tpu' was not found")
elif verb == 'delete':
  if kind == 'queued-resources' and '--force' not in args:
    sys.exit('ERROR: it has a slice')
  print(file=sys.stderr)  # Fails if nobody reads it.
  os.remove(STATE)
elif verb == 'describe':
  print(planned('state') or (
      QUEUED[state] if kind == 'queued-resources' else state))
elif state != 'READY':
  sys.exit(f'ERROR: This TPU has terminal state {state}')
elif verb == 'scp':
  source, destination = [arg for arg in args if not arg.startswith('--')]
  destination = destination.partition(':')[2]
  os.execvp('cp', ['cp', source, f'{WORKER}/{destination}'])
elif verb == 'ssh':
  os.chdir(WORKER)
  os.execvp('bash', ['bash', '-c', args[-1].removeprefix('--command=')])
'''

PYTHON = COMMON + r'''

argv = sys.argv[1:]
if argv[:3] == ['-m', 'uv', 'venv']:
  os.makedirs(argv[-1] + '/bin', exist_ok=True)
  if not os.path.exists(argv[-1] + '/bin/python'):
    os.symlink(os.path.abspath(__file__), argv[-1] + '/bin/python')
elif argv[0] == '-c':
  sys.exit(planned('import') or 0)
elif argv[1] == 'big_distill.tools.compile':
  write(HOME + '/compiled', json.dumps(argv) + '\n', 'a')
  sys.exit(planned('compile') or 0)
elif argv[1] == 'big_distill.main':
  outcome = planned('program') or 0
  files = [os.path.join(folder, name)
           for folder, _, names in os.walk('.') for name in names]
  row = dict(argv=argv, data_dir=os.environ.get('TFDS_DATA_DIR'),
             files=sorted(files))
  write(HOME + '/programs', json.dumps(row) + '\n', 'a')
  if outcome == 'hang':
    import time
    time.sleep(60)
  elif isinstance(outcome, list):  # [the slice's new state, exit code]
    state, outcome = outcome
    write(STATE, state) if state else os.remove(STATE)
  sys.exit(outcome)
'''


class Simulation:
  """A checkout with run_tpu.sh, and a cloud with at most one slice."""

  def __init__(self, folder):
    self.folder, self.checkout = folder, folder / 'check out'
    self.bin = folder / 'bin'
    for path in (self.bin, self.checkout / 'configs', folder / 'tmp'):
      path.mkdir(parents=True)
    for name, text in (('gcloud', GCLOUD), ('python3', PYTHON)):
      (self.bin / name).write_text(text)
      (self.bin / name).chmod(0o755)
    shutil.copy(SCRIPT, self.checkout)
    (self.checkout / 'configs/a b.py').write_text('committed')
    for command in ('init -q', 'add .'):
      subprocess.run(['git', *command.split()], cwd=self.checkout, check=True)

  def start(self, *args, plan=None, needed=NEEDED, path=None):
    """Starts run_tpu.sh; `plan` is {verb or 'program' or 'state': outcomes}."""
    (self.folder / 'plan.json').write_text(json.dumps(plan or {}))
    env = dict(os.environ, SIMULATION=str(self.folder),
               TMPDIR=str(self.folder / 'tmp'),
               PATH=path or f'{self.bin}:{os.environ["PATH"]}')
    env.pop('TFDS_DATA_DIR', None)
    return subprocess.Popen(
        [self.checkout / 'run_tpu.sh', *needed, '--pause=0', *args], env=env,
        text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=_heed_signals)

  def run(self, *args, **kwargs):
    """(exit code, stdout, stderr) of run_tpu.sh, run to its end."""
    process = self.start(*args, **kwargs)
    try:
      out, err = process.communicate(timeout=120)
    finally:
      if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, out, err

  def _rows(self, name):
    path = self.folder / name
    return [*map(json.loads, path.read_text().splitlines())] if (
        path.exists()) else []

  @property
  def calls(self):
    """The argv of each call of gcloud."""
    return self._rows('calls')

  @property
  def verbs(self):
    """What was done to the slice; looking at its state left out."""
    return ' '.join(call[4] for call in self.calls if call[4] != 'describe')

  @property
  def programs(self):
    """{'argv', 'data_dir', 'files'} of each launch of big_distill.main."""
    return self._rows('programs')

  @property
  def compiled(self):
    """The argv of each call of tools.compile."""
    return self._rows('compiled')

  @property
  def slice(self):
    path = self.folder / 'state'
    return path.read_text() if path.exists() else None


@pytest.fixture
def cloud(tmp_path):
  return Simulation(tmp_path)


def commands(text):
  """The argv of each line, with the name of the temporary folder left out."""
  return [[re.sub(r'tmp\.\w+', 'TMP', word) for word in shlex.split(line)]
          for line in text.splitlines()
          if line and not line.startswith('run_tpu.sh: ')]


def test_creates_copies_installs_launches_and_deletes_in_this_order(cloud):
  code, _, err = cloud.run('--project=p', '--spot')
  assert code == 0, err
  assert cloud.verbs == 'create scp ssh ssh delete'
  assert cloud.slice is None
  create, copy, install, launch = (
      call for call in cloud.calls if call[4] in ('create', 'scp', 'ssh'))
  assert {'tpu', '--accelerator-type=v4-8', '--version=v', '--spot'} <= {
      *create}
  for call in (copy, install, launch):
    assert '--worker=all' in call
  for call in cloud.calls:
    assert call[:4] == 'gcloud compute tpus tpu-vm'.split()
    assert {'--zone=z', '--project=p', '--quiet'} <= {*call}


def test_dry_run_prints_what_a_run_executes_and_executes_nothing(cloud):
  args = ['--data_dir=gs://b/my data', '--', "--config.title=it's $HOME; #1"]
  code, out, err = cloud.run('--dry_run', *args)
  assert (code, err, cloud.calls) == (0, '', [])
  assert not any((cloud.folder / 'tmp').iterdir())

  code, _, err = cloud.run(*args)
  assert code == 0
  assert commands(out) == commands(err)
  assert [c for c in commands(out) if c[0] == 'gcloud'] == [
      [re.sub(r'tmp\.\w+', 'TMP', word) for word in c] for c in cloud.calls]


def test_pasting_a_dry_run_into_a_shell_is_a_run(cloud):
  args = ['--data_dir=gs://b/my data', '--', "--config.title=it's $HOME; #1"]
  _, out, _ = cloud.run('--dry_run', *args)
  env = dict(os.environ, SIMULATION=str(cloud.folder),
             PATH=f'{cloud.bin}:{os.environ["PATH"]}')
  subprocess.run(['bash', '-c', out], env=env, check=True, capture_output=True)
  cloud.run(*args)
  pasted, ran = cloud.programs
  assert pasted == ran


def test_dry_run_needs_no_gcloud(cloud):
  tools = cloud.folder / 'tools'
  tools.mkdir()
  for tool in ('bash', 'env', 'dirname', 'git', 'mktemp'):
    (tools / tool).symlink_to(shutil.which(tool))
  code, out, err = cloud.run('--dry_run', path=str(tools))
  assert (code, err) == (0, '')
  assert 'gcloud compute tpus tpu-vm create' in out
  code, _, err = cloud.run(path=str(tools))
  assert code == 2 and 'No gcloud on PATH' in err


def test_arguments_reach_the_program_as_they_were_given(cloud):
  flags = ['--config.title=two  spaces', "--config.note=it's", '--config.x=',
           '--config.loss.name="kl"', '--config.glob=*', '--config.home=~$HOME',
           '--config.pair=(1, 2)', '--config.lines=a\nb', '--', '--keep']
  code, _, err = cloud.run('--data_dir=gs://b/my data', '--', *flags)
  assert code == 0, err
  program, = cloud.programs
  assert program['argv'] == [
      '-m', 'big_distill.main', f'--config={CONFIG}',
      '--workdir=gs://bucket/run 1', '--distributed', *flags]
  assert program['data_dir'] == 'gs://b/my data'


def test_without_data_dir_tfds_finds_its_own(cloud):
  assert 'TFDS_DATA_DIR' in cloud.run('--dry_run', '--data_dir=gs://b')[1]
  assert 'TFDS_DATA_DIR' not in cloud.run('--dry_run')[1]


def test_a_slice_that_does_not_hold_the_run_is_not_created(cloud):
  code, _, err = cloud.run(plan={'compile': ['Error: v4-8 does not hold it.']})
  assert code == 2 and cloud.calls == []
  assert 'v4-8 does not hold it' in err and '--unchecked' in err
  assert not any((cloud.folder / 'tmp').iterdir())


def test_the_run_is_compiled_for_the_slice_with_its_own_values(cloud):
  given = ['--config.batch_size', '64', '--config.student.remat',
           '--config.data={"name": "a b"}']
  code, _, _ = cloud.run('--', '--allow_changes=seed', *given, '--stack', 'map')
  assert code == 0
  assert cloud.compiled == [[
      '-m', 'big_distill.tools.compile', f'--config={CONFIG}', '--slice=v4-8',
      '--noevals', *given]]


def test_where_it_cannot_be_compiled_or_need_not_be_the_slice_is_created(cloud):
  code, _, err = cloud.run(plan={'import': [1]})
  assert code == 0 and 'libtpu' in err
  code, _, _ = cloud.run('--unchecked', plan={'compile': [1]})
  assert code == 0
  assert cloud.compiled == [] and len(cloud.programs) == 2


def test_a_queued_slice_is_waited_for_used_and_deleted_with_its_request(cloud):
  waits = ['ACCEPTED', 'WAITING_FOR_RESOURCES', 'PROVISIONING']
  # The first state is asked for before the request is made: there is none.
  code, _, err = cloud.run('--queued', '--spot', plan={'state': waits})
  assert code == 0, err
  assert cloud.verbs == 'create scp ssh ssh delete'
  assert cloud.slice is None
  create, *_, delete = [call for call in cloud.calls if call[4] != 'describe']
  for call in (create, delete):
    assert call[3] == 'queued-resources'
  assert {'tpu', '--node-id=tpu', '--accelerator-type=v4-8',
          '--runtime-version=v', '--spot'} <= {*create}
  assert [call[3] for call in cloud.calls if call[4] in ('scp', 'ssh')] == (
      ['tpu-vm'] * 3)
  assert all(wait in err for wait in waits)


def test_a_queued_slice_that_is_preempted_goes_through_the_queue_again(cloud):
  plan = {'program': [['PREEMPTED', 255], ['TERMINATED', 1]]}
  code, _, err = cloud.run('--queued', plan=plan)
  assert code == 0, err
  assert cloud.verbs == ' '.join(['create scp ssh ssh delete'] * 3)
  assert len(cloud.programs) == 3 and cloud.slice is None


def test_a_request_that_gets_no_slice_is_an_error_and_is_deleted(cloud):
  code, _, _ = cloud.run('--queued', plan={'state': ['ACCEPTED', 'FAILED']})
  assert code != 0 and cloud.verbs == 'create delete'
  assert cloud.programs == [] and cloud.slice is None


def test_an_option_and_its_value_may_be_two_words(cloud):
  words = [word for arg in NEEDED for word in arg.split('=', 1)]
  one, two = (commands(cloud.run('--dry_run', needed=needed)[1])
              for needed in (NEEDED, words))
  assert len(one) > 5 and one == two


def test_workers_run_what_git_tracks_as_it_is_in_the_folder(cloud):
  (cloud.checkout / 'configs/a b.py').write_text('edited since')
  (cloud.checkout / 'secret').write_text('not tracked')
  code, _, _ = cloud.run('--keep')
  assert code == 0
  assert cloud.programs[0]['files'] == [
      './configs/a b.py', './run_tpu.sh']
  copied = cloud.folder / 'worker/big_distill/configs/a b.py'
  assert copied.read_text() == 'edited since'


def test_preemption_recreates_and_relaunches_the_same_command(cloud):
  # Exit code 0: the program was told in time, saved, and left.
  plan = {'program': [['PREEMPTED', 255], ['PREEMPTED', 0], ['TERMINATED', 1],
                      [None, 255]]}
  code, _, err = cloud.run('--max_failures=1', '--', '--config.a=b c',
                           plan=plan)
  assert code == 0, err
  assert cloud.verbs == ' '.join(['create scp ssh ssh delete'] * 5)
  launches = [call for call in cloud.calls if 'main' in call[-1]]
  assert len(launches) == len(cloud.programs) == 5
  assert all(launch == launches[0] for launch in launches)
  assert all(program == cloud.programs[0] for program in cloud.programs)
  assert cloud.slice is None


def test_a_preempted_slice_is_recreated_as_soon_as_there_is_capacity(cloud):
  plan = {'program': [['PREEMPTED', 255]], 'create': [0, 1, 1]}
  code, _, err = cloud.run(plan=plan)
  assert code == 0, err
  assert cloud.verbs == ('create scp ssh ssh delete create delete create '
                         'delete create scp ssh ssh delete')


def test_a_first_creation_that_fails_stops_with_its_exit_code(cloud):
  code, _, _ = cloud.run(plan={'create': [4]})
  assert code == 4
  assert cloud.programs == []


def test_failures_stop_at_max_failures_with_the_programs_exit_code(cloud):
  code, _, err = cloud.run(plan={'program': [5, 6, 7, 8]})
  assert code == 7
  assert len(cloud.programs) == 3
  assert cloud.verbs.count('create') == 1
  assert cloud.verbs.endswith('delete') and cloud.slice is None
  assert 'failure 3 of 3' in err


def test_a_failure_is_tried_again_and_may_then_succeed(cloud):
  code, _, err = cloud.run('--max_failures=2', plan={'program': [7, 0]})
  assert code == 0, err
  assert len(cloud.programs) == 2 and cloud.slice is None


def test_failures_are_counted_anew_on_a_new_slice(cloud):
  plan = {'program': [7, ['PREEMPTED', 255], 7, 0]}
  code, _, err = cloud.run('--max_failures=2', plan=plan)
  assert code == 0, err
  assert len(cloud.programs) == 4


def test_a_copy_or_installation_that_fails_launches_nothing(cloud):
  code, _, _ = cloud.run('--max_failures=2', plan={'scp': [3, 3]})
  assert code == 3
  assert cloud.verbs == 'create scp scp delete'
  code, _, _ = cloud.run('--max_failures=1', plan={'ssh': [9]})
  assert code == 9
  assert cloud.programs == []


def test_a_state_that_cannot_be_asked_for_is_asked_for_again(cloud):
  # Of describe's outcomes the first is the one before creation.
  plan = {'program': [7, 0], 'describe': [0, 1, 1]}
  code, _, err = cloud.run(plan=plan)
  assert code == 0, err
  assert cloud.verbs.count('create') == 1 and len(cloud.programs) == 2


def test_a_slice_under_repair_is_waited_for(cloud):
  plan = {'program': [7, 0], 'state': ['REPAIRING', 'STARTING']}
  code, _, err = cloud.run(plan=plan)
  assert code == 0, err
  assert cloud.verbs.count('create') == 1 and len(cloud.programs) == 2
  assert 'REPAIRING' in err


@pytest.mark.parametrize('program', [0, 7])
def test_keep_keeps_the_slice_and_a_later_run_uses_it(cloud, program):
  args = '--keep', '--max_failures=1'
  code, _, _ = cloud.run(*args, plan={'program': [program]})
  assert code == program
  assert cloud.verbs == 'create scp ssh ssh' and cloud.slice == 'READY'
  code, _, err = cloud.run(*args)
  assert code == 0, err
  assert cloud.verbs == 'create' + ' scp ssh ssh' * 2
  assert cloud.slice == 'READY'


def test_without_keep_a_slice_of_somebody_else_is_left_alone(cloud):
  (cloud.folder / 'state').write_text('READY')
  code, _, err = cloud.run()
  assert code == 2
  assert 'slice tpu exists' in err and '--keep' in err
  assert cloud.verbs == '' and cloud.slice == 'READY'


def _heed_signals():
  """A shell cannot trap what it inherits as ignored, by & or nohup."""
  for sign in (signal.SIGINT, signal.SIGHUP):
    signal.signal(sign, signal.SIG_DFL)


def wait_for(condition):
  deadline = time.monotonic() + 60
  while not condition():
    assert time.monotonic() < deadline
    time.sleep(0.02)


@pytest.mark.parametrize('sign, read', [
    (signal.SIGINT, True), (signal.SIGINT, False), (signal.SIGTERM, True),
    (signal.SIGHUP, False)])
def test_ctrl_c_deletes_the_slice(cloud, sign, read):
  process = cloud.start(plan={'program': ['hang']})
  wait_for(lambda: cloud.programs)
  if not read:  # As when a tee behind the script ends first.
    process.stdout.close()
    process.stderr.close()
  os.killpg(process.pid, sign)
  codes = [128 + sign] if read else [128 + sign, 128 + signal.SIGPIPE]
  assert process.wait(timeout=120) in codes
  assert cloud.slice is None
  assert cloud.verbs == 'create scp ssh ssh delete'
  assert not any((cloud.folder / 'tmp').iterdir())


def test_a_slice_that_cannot_be_deleted_is_no_success(cloud):
  code, _, err = cloud.run(plan={'delete': [1]})
  assert code == 1
  assert cloud.slice == 'READY'
  assert 'costs money' in err
  assert shlex.split(err.split('Delete it:\n')[1].splitlines()[0]) == (
      cloud.calls[-2])


def test_a_relaunch_ends_the_program_that_a_lost_connection_left(cloud):
  # What is left: a process of that name, and its number in a file.
  left = subprocess.Popen(
      [sys.executable, '-ISc', 'import time; time.sleep(60)',
       'big_distill.main'])
  other = subprocess.Popen([sys.executable, '-ISc',
                            'import time; time.sleep(60)'])
  try:
    for process, ended in ((left, True), (other, False)):
      (cloud.folder / 'state').write_text('READY')
      (cloud.folder / 'worker').mkdir(exist_ok=True)
      (cloud.folder / 'worker/big_distill.pid').write_text(str(process.pid))
      code, _, err = cloud.run('--keep')
      assert code == 0, err
      assert (process.poll() == -signal.SIGKILL) == ended
  finally:
    left.kill()
    other.kill()
    left.wait()
    other.wait()


def test_the_program_leaves_its_own_number_behind(cloud):
  process = cloud.start('--keep', plan={'program': ['hang']})
  wait_for(lambda: cloud.programs)
  number = (cloud.folder / 'worker/big_distill.pid').read_text().strip()
  argv = pathlib.Path(f'/proc/{number}/cmdline').read_text().split('\0')
  os.killpg(process.pid, signal.SIGINT)
  process.wait(timeout=120)
  assert '--distributed' in argv
  assert cloud.slice == 'READY'


def without(option):
  return [arg for arg in NEEDED if not arg.startswith(f'--{option}=')]


@pytest.mark.parametrize('given, words', [
    (without('zone'), ['--zone', '--help']),
    (without('config') + ['--config='], ['--config']),
    (NEEDED + ['--zome=z'], ['--zome=z', 'zone', ' -- ']),
    (NEEDED + ['--config.batch_size=8'], ['--config.batch_size=8', ' --.']),
    (NEEDED + ['stray'], ['stray']),
    (NEEDED + ['--zone type=z'], ['--zone type=z']),
    (NEEDED + ['-name=x'], ['-name=x']),
    (NEEDED + ['--spot=yes'], ['--spot=yes', 'no value']),
    (NEEDED + ['--project'], ['--project=VALUE']),
    (NEEDED + ['--project', '--spot'], ['--project=VALUE']),
    (NEEDED + ['--type=v4'], ['--type=v4', 'v4-32']),
    (NEEDED + ['--type=v5e-8'], ['--type=v5e-8', 'v5litepod-8']),
    (NEEDED + ['--max_failures=0'], ['--max_failures=0', '1 or more']),
    (NEEDED + ['--pause=soon'], ['--pause=soon', 'seconds']),
    (NEEDED + ['--type=v4-16', '--workdir=/d', '--keep'],
     ['--workdir=/d', 'v4-16', 'gs://']),
    (NEEDED + ['--workdir=/d'], ['--workdir=/d', 'gs://', '--keep']),
    (NEEDED + ['--config=configs/new.py:a=1'],
     ['configs/new.py', 'git add']),
])
def test_bad_input_gets_one_line_and_costs_nothing(cloud, given, words):
  (cloud.checkout / 'configs/new.py').write_text('not tracked')
  code, out, err = cloud.run(needed=['--pause=0', *given, '--'])
  assert code == 2
  assert out == '' and err.startswith('Error: ') and err.count('\n') == 1
  for word in words:
    assert word in err
  assert cloud.calls == []


def test_one_host_with_keep_may_work_on_its_own_disk(cloud):
  code, _, err = cloud.run('--workdir=/d', '--keep')
  assert code == 0, err
  assert '--workdir=/d' in cloud.programs[0]['argv']


def test_help_names_every_option(cloud):
  code, out, err = cloud.run('--help', needed=[])
  assert (code, err) == (0, '')
  text = SCRIPT.read_text()
  options = ' '.join(re.findall(
      r"^readonly (?:REQUIRED|OPTIONAL|SWITCHES)='(.*)'", text, re.M)).split()
  assert len(options) > 10
  for option in options:
    assert re.search(rf'^  --{option} ', out, re.M), option
  assert 'set -euo' not in out
