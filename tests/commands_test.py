"""Programs explain themselves, and say in one line what is wrong with a flag."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PROGRAMS = ['big_distill.main', *(
    f'big_distill.tools.{file.stem}'
    for file in sorted((ROOT / 'big_distill/tools').glob('*.py'))
    if "__name__ == '__main__'" in file.read_text())]
# Starts programs by the names of their console scripts, each in a fork of one
# process that has imported what takes time, and prints what came of each.
START = """
import contextlib, io, json, os, sys
from big_distill import command, main
from big_distill.tools import bench, predict, sweep

results = []
for argv in json.loads(sys.argv[1]):
  reading, writing = os.pipe()
  if not os.fork():
    with os.fdopen(writing, 'w') as pipe, contextlib.redirect_stdout(
        io.StringIO()) as out, contextlib.redirect_stderr(out):
      sys.argv, code = argv, 0
      try:
        command.script()
      except SystemExit as error:
        code = error.code or 0
        if isinstance(code, str):  # As Python ends a program.
          print(code)
          code = 1
      heavy = sorted({'tensorflow', 'matplotlib', 'clu.metric_writers'}
                     & sys.modules.keys())
      json.dump([code, out.getvalue(), heavy], pipe)
    os._exit(0)
  os.close(writing)
  with os.fdopen(reading) as pipe:
    results.append(json.loads(pipe.read()))
  os.wait()
print(json.dumps(results))
"""


def start(*argvs, cwd):
  """(exit code, output, heavy modules) of commands in a folder."""
  ran = subprocess.run(
      [sys.executable, '-W', 'ignore', '-c', START, json.dumps(argvs)], cwd=cwd,
      env={**os.environ, 'PYTHONPATH': str(ROOT)}, text=True, check=True,
      capture_output=True)
  return json.loads(ran.stdout)


def script(program):
  """As pip calls it: bin/big-distill-sweep of big_distill.tools.sweep."""
  name = program.removeprefix('big_distill.')
  return '/bin/big-distill' + (
      '' if name == 'main' else f'-{name.removeprefix("tools.")}')


@pytest.fixture(scope='module')
def answers(tmp_path_factory):
  """{program: what it says to --help, to an unknown flag, to nothing}."""
  words = [['--help'], ['--wrokdir=x'], []]
  found = start(*([script(program), *rest] for program in PROGRAMS
                  for rest in words), cwd=tmp_path_factory.mktemp('empty'))
  return dict(zip(PROGRAMS, zip(*[iter(found)] * len(words))))


@pytest.mark.parametrize('program', PROGRAMS)
def test_help_ends_well_with_an_example_to_paste(program, answers):
  code, out, heavy = answers[program][0]
  assert code == 0 and not heavy
  examples = [line for line in out.splitlines()
              if line.strip().startswith(f'python -m {program} ')]
  assert examples, out
  assert '\nFlags:' in out and 'absl' not in out


@pytest.mark.parametrize('program', PROGRAMS)
def test_a_wrong_command_is_one_line_with_a_remedy(program, answers):
  for code, out, heavy in answers[program][1:]:
    assert code == 1 and not heavy
    assert out.startswith('Error: ') and out.count('\n') == 1, out
    assert re.search(r'--help|\b([Gg]ive|name) ', out), out
  assert "'wrokdir'" in answers[program][1][1]


WRONG = {  # Words for main -> what its line says.
    ('--workdir=w',): '--config is missing. See --help.',
    ('--config=quickstrat.py', '--workdir=w'): 'did you mean quickstart.py',
    ('--config=quickstart:tinny', '--workdir=w'): 'did you mean tiny',
    ('--config=quickstart:tiny=3', '--workdir=w'): 'not of type bool',
    ('--config=quickstart', '--workdir=w', '--config.optm.lr=1'):
        'did you mean optim',
    ('--config=quickstart', '--workdir=w', '--config.optim.lr=fast'):
        '--config.optim.lr=fast: it should be a number',
    ('--config=quickstart', '--workdir=w', '--process=first'):
        '--process=first',
    ('--config=quickstart', '--workdir=w', 'more'): "'more'",
}


def test_a_wrong_flag_of_main_is_one_line(tmp_path):
  found = start(*([script('big_distill.main'), *words] for words in WRONG),
                cwd=tmp_path)
  for (code, out, _), (words, says) in zip(found, WRONG.items()):
    *notes, line = out.splitlines()
    assert code == 1 and line.startswith('Error: ') and says in line, out
    assert all(note.startswith('--config=quickstart') for note in notes), out
  assert os.listdir(tmp_path) == []


def test_a_reader_that_ends_first_is_one_line(tmp_path):
  """big-distill-sweep ... | head -1."""
  process = subprocess.Popen(
      [sys.executable, '-m', 'big_distill.tools.sweep',
       '--config=optimizers.py', f'--workdir={tmp_path}'], cwd=tmp_path,
      env={**os.environ, 'PYTHONPATH': str(ROOT)}, text=True,
      stdout=subprocess.PIPE, stderr=subprocess.PIPE)
  process.stdout.close()
  said = process.stderr.read().splitlines()
  assert process.wait() == 1
  assert said[-1] == 'Error: What reads the output has ended before it.'
  assert not any('Traceback' in line for line in said)


def test_ctrl_c_is_one_line(tmp_path):
  code = ('import signal\n'
          'from big_distill import command\n'
          'def main(flag):\n'
          '  signal.raise_signal(signal.SIGINT)\n'
          'signal.signal(signal.SIGINT, signal.default_int_handler)\n'
          'command.program(main)')
  ran = subprocess.run(
      [sys.executable, '-c', code], cwd=tmp_path, text=True, check=False,
      env={**os.environ, 'PYTHONPATH': str(ROOT)}, capture_output=True)
  assert ran.returncode == 130
  assert ran.stderr.splitlines()[-1] == 'Left by Ctrl-C.'
  assert 'Traceback' not in ran.stderr
