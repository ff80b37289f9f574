"""A sweep runs what it prints, takes up where it stopped, and ranks fairly."""

import csv
import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys

import pytest

from big_distill import command
from big_distill import runs
from big_distill.tools import points
from big_distill.tools import ranking
from big_distill.tools import sweep
from configs import common

ROOT = pathlib.Path(__file__).parent.parent
GRID = {'optim.lr': [.003, .01], 'optim.wd': [1e-4], 'loss.t': [1., 2.]}


@pytest.fixture
def config(tmp_path):
  """-> the path of a quickstart whose get_sweep returns the given points."""
  def write(sweep_points):
    path = tmp_path / 'config.py'
    path.write_text('from configs import quickstart\n'
                    'get_config = quickstart.get_config\n'
                    f'def get_sweep(arg=None):\n  return {sweep_points!r}\n')
    return f'{path}:tiny=True'
  return write


def finish(folder, rows=({'step': 1},), **result):
  """Leaves what a finished run leaves."""
  os.makedirs(folder, exist_ok=True)
  pathlib.Path(folder, 'metrics.jsonl').write_text(
      ''.join(json.dumps(row) + '\n' for row in rows))
  runs.save(f'{folder}/result.json', result)


class Machine:
  """Stands in for subprocesses: what happens to the n-th command it gets."""

  def __init__(self, *codes):
    self.codes, self.ran = list(codes), []

  def __call__(self, words):
    self.ran.append(words)
    code = self.codes.pop(0) if self.codes else 0
    if code == 0:
      finish(words[-1].removeprefix('--workdir='))
    return 0 if code == 'preempted' else code


def test_a_grid_is_the_product_of_its_choices():
  assert common.grid({'a': [1, 2], 'b.c': [3., 4.]}) == [
      {'a': 1, 'b.c': 3.}, {'a': 1, 'b.c': 4.}, {'a': 2, 'b.c': 3.},
      {'a': 2, 'b.c': 4.}]


def test_a_point_is_named_for_its_values(config, tmp_path):
  made = points.make(config(common.grid(GRID)), tmp_path / 'w')
  assert [point.name for point in made] == [
      '000_lr=0.003_wd=0.0001_t=1', '001_lr=0.003_wd=0.0001_t=2',
      '002_lr=0.01_wd=0.0001_t=1', '003_lr=0.01_wd=0.0001_t=2']
  made = points.make(config([{'student.size': 32, 'mode': 'same/ic',
                               'student.depth': (1, 2),
                               'teachers.teacher.size': 24}]), tmp_path / 'w')
  assert made[0].name == ('000_student.size=32_mode=same-ic_depth=1-2'
                          '_teacher.size=24')


def test_what_is_printed_gives_main_the_config_of_the_point(config, tmp_path):
  grid = [{'optim.lr': 1e-5, 'mode': 'same/ic', 'student.depth': (1, 2)},
          {'loss.t': 2, 'student.width': .25, 'loss.t2': False}]
  given = ['--config.seed=7']
  for point, overrides in zip(
      points.make(config(grid), tmp_path, given), grid):
    words = shlex.split(shlex.join(point.command))
    assert words[1:3] == ['-m', 'big_distill.main']
    got = command.resolve(words[3:-1])
    want = command.resolve([words[3]])
    with want.unlocked():
      want.update_from_flattened_dict({'seed': 7, **overrides})
    assert got.to_dict() == want.to_dict() == point.config
    assert words[-1] == f'--workdir={tmp_path}/{point.name}'


@pytest.mark.parametrize('point, message', [
    ({'optim.lrr': 1.}, "no config key 'lrr'; did you mean lr"),
    ({'optm.lr': 1.}, "no config key 'optm'; did you mean optim"),
    ({'optim.lr.x': 1.}, 'nothing inside 0.01'),
    ({'batch_size': .5}, 'batch_size'), ({'optim.lr': 'low'}, 'low')])
def test_overrides_are_checked_before_anything_runs(
    config, tmp_path, point, message):
  with pytest.raises(ValueError, match=message):
    points.make(config([{'optim.lr': 1.}, point]), tmp_path)


def test_a_family_of_students_is_no_point(config, tmp_path):
  given = ['--config.students.a.student.width=.25']
  with pytest.raises(ValueError, match='000_lr=1 has config.students, a: a point'):
    points.make(config([{'optim.lr': 1.}]), tmp_path, given)


def test_a_config_without_a_sweep_is_one_clear_line():
  with pytest.raises(ValueError, match='quickstart.py has no get_sweep'):
    points.make('configs/quickstart.py:tiny=True', '/nowhere')


def test_a_failed_point_is_reported_and_does_not_end_the_sweep(
    config, tmp_path, capsys):
  made = points.make(config(common.grid(GRID)), tmp_path / 'w')
  machine = Machine(0, 3, 0, 0)
  assert not sweep.run(made, machine)
  assert machine.ran == [point.command for point in made]
  out = capsys.readouterr().out
  assert f'{made[1].name}: failed with exit code 3' in out
  assert out.splitlines()[-1] == f'Failed: {made[1].name}'
  # The same command again runs what is missing, and no more.
  machine = Machine()
  assert sweep.run(made, machine)
  assert machine.ran == [made[1].command]


def test_a_preempted_point_ends_the_sweep_and_is_taken_up_again(
    config, tmp_path):
  made = points.make(config(common.grid(GRID)), tmp_path / 'w')
  machine = Machine(0, 'preempted')
  assert not sweep.run(made, machine) and len(machine.ran) == 2
  machine = Machine()
  assert sweep.run(made, machine)
  assert machine.ran == [point.command for point in made[1:]]


def test_a_point_is_not_mistaken_for_a_run_of_another_config(config, tmp_path):
  made = points.make(config(common.grid(GRID)), tmp_path / 'w')
  finish(made[2].workdir)
  runs.save(f'{made[2].workdir}/config.json', made[2].config)
  assert sweep.run(made, Machine())
  runs.save(f'{made[2].workdir}/config.json', made[2].config | {'seed': 5})
  machine = Machine()
  with pytest.raises(ValueError, match='another seed'):
    sweep.run(made, machine)
  assert not machine.ran
  assert sweep.run([made[2]._replace(allow=('seed',))], machine)


@pytest.mark.parametrize('name', ['config.json', 'result.json'])
def test_a_damaged_file_in_one_point_does_not_stop_the_sweep(
    config, tmp_path, capsys, name):
  made = points.make(config(common.grid(GRID)), tmp_path / 'w')
  for point in made[:3]:
    finish(point.workdir)
  pathlib.Path(made[1].workdir, name).write_text('{"steps": ')
  machine = Machine()
  assert sweep.run(made, machine)
  # A result that cannot be read is made again.
  again = [1, 3] if name == 'result.json' else [3]
  assert machine.ran == [made[i].command for i in again]
  assert f'{made[1].workdir}/{name} is not JSON' in capsys.readouterr().out


@pytest.mark.parametrize('number, passed_on', [(signal.SIGTERM, True),
                                               (signal.SIGINT, False)])
def test_who_is_told_to_leave_waits_for_the_point_that_runs(
    tmp_path, number, passed_on):
  """A terminal tells both of Ctrl-C; of SIGTERM a scheduler tells the sweep."""
  code = ('import os, pathlib, signal, sys, time\n'
          'def end(*_):\n'
          "  pathlib.Path(sys.argv[2]).write_text('saved')\n"
          '  sys.exit(7)\n'
          'signal.signal(signal.SIGTERM, end)\n'
          'os.kill(os.getppid(), int(sys.argv[1]))\n'
          'time.sleep(60 if int(sys.argv[1]) == signal.SIGTERM else .1)\n'
          "pathlib.Path(sys.argv[2]).write_text('not told')")
  file = tmp_path / 'said'
  assert sweep._execute([sys.executable, '-c', code, str(int(number)),
                         str(file)]) is None
  assert file.read_text() == ('saved' if passed_on else 'not told')
  assert sweep._execute([sys.executable, '-c', 'raise SystemExit(7)']) == 7


@pytest.fixture
def ranked(config, tmp_path):
  """Three finished points, and one that is half way and ahead."""
  made = points.make(config(common.grid(GRID)), tmp_path / 'w')
  for point, val, test, kl in zip(made, (.5, .7, .6), (.9, .4, .8),
                                  (.1, .3, .2)):
    rows = [{'step': 0, 'val/acc@1': .99, 'student/acc@1': .99},
            {'step': 9, 'val/acc@1': val, 'test/acc@1': test, 'agree/kl': kl}]
    finish(point.workdir, rows)
  os.makedirs(made[3].workdir)
  pathlib.Path(made[3].workdir, 'metrics.jsonl').write_text(
      '{"step": 5, "val/acc@1": 1.0}\n')
  return made


def test_validation_ranks_and_test_stands_beside(ranked):
  by, shown, rows = ranking.rank(ranked)
  assert by == 'val/acc@1'
  assert shown == ['val/acc@1', 'test/acc@1', 'student/acc@1', 'agree/kl']
  assert [point for point, _ in rows] == [ranked[1], ranked[2], ranked[0]]
  assert rows[0][1] == {'val/acc@1': .7, 'test/acc@1': .4, 'student/acc@1': .99,
                        'agree/kl': .3}
  text = ranking.table(ranked, by, shown, rows).splitlines()
  assert text[1].split() == ['1', ranked[1].name, '70.00%', '40.00%', '99.00%',
                             '0.3']
  assert text[-1] == 'Ranked by val/acc@1; 3 of 4 points are finished.'


def test_less_is_better_of_a_distance(ranked):
  order = [point for point, _ in ranking.rank(ranked, 'agree/kl')[2]]
  assert order == [ranked[0], ranked[2], ranked[1]]
  with pytest.raises(ValueError, match="no metric 'agree/kll'; did you mean"):
    ranking.rank(ranked, 'agree/kll')


def test_the_students_accuracy_ranks_where_nothing_is_validated(
    config, tmp_path):
  made = points.make(config(common.grid(GRID)), tmp_path / 'w')
  with pytest.raises(ValueError, match='None of 4 points has a result'):
    ranking.rank(made)
  for point, accuracy in zip(made, (.2, .4)):
    finish(point.workdir, [{'step': 1, 'student/acc@1': accuracy,
                            'agree/top1': 1 - accuracy}])
  by, shown, rows = ranking.rank(made)
  assert by == 'student/acc@1' and shown == [by, 'agree/top1']
  assert rows[0][0] == made[1]


def test_the_csv_holds_the_ranking(ranked, tmp_path):
  _, shown, rows = ranking.rank(ranked)
  ranking.save(tmp_path / 'sweep.csv', shown, rows)
  with open(tmp_path / 'sweep.csv') as file:
    first, *_ = table = list(csv.DictReader(file))
  assert first == {
      'rank': '1', 'point': ranked[1].name, 'optim.lr': '0.003',
      'optim.wd': '0.0001', 'loss.t': '2.0', 'val/acc@1': '0.7',
      'test/acc@1': '0.4', 'student/acc@1': '0.99', 'agree/kl': '0.3'}
  assert len(table) == 3


def test_the_command_prints_runs_and_ranks(config, tmp_path):
  """One real run, of two steps; the other point was finished before."""
  where = config([{'optim.lr': .01}, {'optim.lr': .003}])
  env = os.environ | {'PYTHONPATH': str(ROOT), 'JAX_COMPILATION_CACHE_DIR': ''}

  def call(*words):
    return subprocess.run(
        [sys.executable, '-m', 'big_distill.tools.sweep', f'--config={where}',
         f'--workdir={tmp_path}/w', '--config.total_steps=2',
         '--allow_changes', 'seed', *words], cwd=ROOT,
        env=env, text=True, check=False, capture_output=True)

  printed = call()
  assert printed.returncode == 0, printed.stderr
  first, second = printed.stdout.splitlines()
  folder = tmp_path / 'w' / '000_lr=0.01'
  assert first.endswith(f'--workdir={folder}')
  assert ' --allow_changes=seed ' in first  # Whoever trains heeds it.
  finish(tmp_path / 'w' / '001_lr=0.003', [{'step': 2, 'student/acc@1': -1.}])
  ran = call('--run')
  assert ran.returncode == 0, ran.stderr
  assert first in ran.stdout and second not in ran.stdout
  *_, best, worst, end = ran.stdout.splitlines()
  assert best.split()[:2] == ['1', '000_lr=0.01'] and '-100.00%' in worst
  assert end == (
      'Ranked by student/acc@1; 2 of 2 points are finished. It is measured on a '
      'test split, which the best of many points flatters: choose by another '
      'split.')
  got = runs.read(folder)
  assert got.config['total_steps'] == got.result['steps'] == 2
  assert got.config['optim']['lr'] == .01
  assert got.last('train/epoch') == 2 * 32 / 64
  # Compiled programs stay for the next start.
  assert list((folder / 'compiled').glob('jit*'))
  assert (tmp_path / 'w' / 'sweep.csv').read_text().splitlines()[1].startswith(
      '1,000_lr=0.01,0.01,')
  assert call('--index=0').stdout == '[1/1] 000_lr=0.01: finished before.\n'
  for text in ('2', ''):
    wrong = call(f'--index={text}')
    assert wrong.returncode == 1
    assert wrong.stderr == f'Error: --index={text}: points are numbered 0 to 1.\n'
