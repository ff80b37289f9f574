"""Commands of README and docs are understood by the programs that they name.

A block of ```bash is taken apart into commands. Those of this project are given
to their programs, which check flags and config and stop there; pip's must name
extras that exist. What else a block has, or files that nobody has here, needs a
line `<!-- needs: WHAT -->` before it: then a config is not resolved, and any
program will do.
"""

import json
import os
import pathlib
import re
import runpy
import shlex
import subprocess
import sys
import types
from typing import NamedTuple

import pytest

from big_distill import shipped

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md',
         *sorted((ROOT / 'docs').rglob('*.md'))]
BLOCK = re.compile(r'^(<!-- needs: [^\n]+ -->\n)?```(?:bash|sh|shell|console)\n'
                   r'(.*?)^```$', re.S | re.M)
PLAIN = {'.', 'cd', 'cp', 'pip', 'python3.11'}  # Commands of everybody's.

# Has programs parse their flags, and end: each in a fork of one process that
# has imported what takes time. Prints what each said that was wrong.
PARSE = """
import contextlib, io, json, os, runpy, sys
from big_distill import command, main
from big_distill.tools import bench, plot, sweep

def parse(obey, flags_parser):
  rest = flags_parser(sys.argv)
  sys.exit()

results = []
for module, words in json.loads(sys.stdin.read()):
  reading, writing = os.pipe()
  if not os.fork():
    with os.fdopen(writing, 'w') as pipe, contextlib.redirect_stderr(
        io.StringIO()) as err, contextlib.redirect_stdout(err):
      sys.argv, wrong = [module, *words], ''
      command.app.run = parse
      try:
        runpy.run_module(module, run_name='__main__', alter_sys=True)
      except SystemExit as error:
        wrong = str(error.code or '')
      except BaseException as error:
        wrong = repr(error)
      json.dump(wrong, pipe)
    os._exit(0)
  os.close(writing)
  with os.fdopen(reading) as pipe:
    results.append(json.load(pipe))
  os.wait()
print(json.dumps(results))
"""


class Command(NamedTuple):
  """A command of a page: its words, and whether the page says what it needs."""
  page: str
  words: tuple[str, ...]
  marked: bool

  @property
  def program(self):
    """(module, its words) of a program of this project, or None."""
    first, *rest = self.words
    if first.split('/')[-1] in ('python', 'python3') and rest[:1] == ['-m']:
      module, *rest = rest[1:]
      return (module, rest) if module.startswith(
          ('big_distill.', 'bench.')) else None
    if first.split('/')[-1].startswith('big-distill'):
      _, _, tool = first.partition('big-distill-')
      return (f'big_distill.tools.{tool}' if tool else 'big_distill.main', rest)
    return None


def commands(page):
  """The Commands of the blocks of a page."""
  for mark, block in BLOCK.findall(page.read_text()):
    block = re.sub(r'(^|\s)#.*', '', block)
    for line in block.replace('\\\n', ' ').replace('&&\n', '&& ').splitlines():
      words = shlex.shlex(line, posix=True, punctuation_chars='&;|')
      words.whitespace_split, words.commenters = True, ''
      part = []
      for word in [*words, ';']:
        if word in ('&&', ';', '|', '||', '&'):
          while part and re.fullmatch(r'[A-Z_]+=.*', part[0], re.S):
            del part[0]  # A variable of the environment.
          if part:
            yield Command(str(page.relative_to(ROOT)), tuple(part), bool(mark))
          part = []
        else:
          part.append(word)


EVERY = [command for page in PAGES for command in commands(page)]


def test_pages_have_commands_of_all_kinds():
  assert len(EVERY) > 40
  assert {'big_distill.main', 'big_distill.tools.sweep'} <= {
      command.program[0] for command in EVERY if command.program}


def test_programs_understand_the_commands_that_pages_give_them():
  ours = [command for command in EVERY if command.program]
  asked = []
  for command in ours:
    module, words = command.program
    if command.marked:
      words = [re.sub('^--config=.*', '--config=quickstart.py', word)
               for word in words if not word.startswith('--config.')]
    asked.append((module, words))
  ran = subprocess.run(
      [sys.executable, '-W', 'ignore', '-c', PARSE], input=json.dumps(asked),
      cwd=ROOT, env={**os.environ, 'PYTHONPATH': str(ROOT)}, text=True,
      check=True, capture_output=True)
  wrong = [f'{command.page}: {shlex.join(command.words)}: {what}'
           for command, what in zip(ours, json.loads(ran.stdout)) if what]
  assert not wrong, '\n'.join(wrong)


def test_other_commands_are_everybody_s_or_say_what_they_need():
  unknown = [command for command in EVERY if not command.marked
             and not command.program and command.words[0] not in PLAIN
             and command.words[:2] != ('python', '-c')
             and '.venv/bin/' not in command.words[0]]
  assert not unknown, '\n'.join(map(str, unknown))


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_programs_and_configs_in_the_text_are_there(page):
  """In `...` as in blocks: names alone, since what follows is often cut short."""
  text = page.read_text()
  for module in re.findall(r'python -m ((?:big_distill|bench)[\w.]*)', text):
    module = module.rstrip('.')
    if module not in ('big_distill.tools', 'big_distill.tools.NAME'):
      assert (ROOT / f'{module.replace(".", "/")}.py').exists(), module
  for tool in re.findall(r'\bbig-distill-([a-z]+)', text):
    assert (ROOT / f'big_distill/tools/{tool}.py').exists(), tool
  for config in re.findall(r'--config=((?:configs/)?[a-z_0-9]+\.py)', text):
    mine = config == 'configs/mine.py'  # Of the reader's.
    assert mine or shipped.find(config), config


def test_the_page_on_the_code_has_every_module():
  text = (ROOT / 'docs/code.md').read_text()
  missing = [file.name for file in (ROOT / 'big_distill').glob('*.py')
             if not re.search(rf'\b{file.name}', text)]
  assert missing == ['__init__.py']


def test_extras_that_pages_install_are_extras(monkeypatch):
  given = {}
  monkeypatch.setitem(sys.modules, 'setuptools', types.SimpleNamespace(
      setup=given.update, find_packages=lambda **_: []))
  runpy.run_path(str(ROOT / 'setup.py'))
  text = '\n'.join(page.read_text() for page in PAGES)
  named = re.findall(r"'(?:\.|big_distill|[^'\s]*\.whl)\[([a-z,]+)\]'", text)
  assert {'train', 'cuda'} <= {*','.join(named).split(',')} <= (
      given['extras_require'].keys())


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_a_page_s_fences_close(page):
  assert page.read_text().count('\n```') % 2 == 0
