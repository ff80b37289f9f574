"""TensorFlow stays in input/, writers.py and main.py; imports are declared."""

import ast
from importlib import metadata
import os
import pathlib
import pkgutil
import re
import runpy
import subprocess
import sys
import types

import pytest

import big_distill

ROOT = pathlib.Path(__file__).parent.parent
WITH_TENSORFLOW = ('big_distill.input', 'big_distill.writers',
                   'big_distill.main')
# Each takes as long to import as all that a command needs to check its flags.
HEAVY = {'tensorflow', 'tensorflow_datasets', 'tensorboard', 'keras', 'scipy',
         'matplotlib', 'torch', 'IPython'}


def test_everything_else_imports_without_tensorflow():
  modules = [module.name for module in pkgutil.walk_packages(
      big_distill.__path__, 'big_distill.')
             if not module.name.startswith(WITH_TENSORFLOW)]
  assert {'big_distill.train', 'big_distill.models.bit'} <= set(modules)
  code = ('import sys, importlib\n'
          "for name in ('tensorflow', 'tensorflow_datasets'):\n"
          '  sys.modules[name] = None\n'
          f'for name in {modules}:\n'
          '  importlib.import_module(name)\n')
  subprocess.run([sys.executable, '-c', code], check=True)


@pytest.mark.parametrize('chosen, folder', [
    ('', 'DIR/compiled'), ('MINE', 'MINE')])
def test_a_command_starts_light_and_keeps_its_programs(chosen, folder):
  """In the workdir, or where the user has JAX keep them."""
  code = ('import sys, jax\n'
          'from big_distill import main\n'
          f'heavy = {HEAVY} & sys.modules.keys()\n'
          'assert not heavy, heavy\n'
          "main._keep_programs('DIR/compiled')\n"
          'print(jax.config.jax_compilation_cache_dir)')
  ran = subprocess.run(
      [sys.executable, '-c', code], check=True, text=True, capture_output=True,
      env={**os.environ, 'JAX_COMPILATION_CACHE_DIR': chosen})
  assert ran.stdout.split() == [folder]


def test_only_parallel_knows_the_device_axis():
  package = pathlib.Path(big_distill.__file__).parent
  for file in package.rglob('*.py'):
    if file.name != 'parallel.py':
      text = file.read_text()
      for word in ('jax.pmap', 'lax.ps', 'lax.pm', 'lax.pp', 'lax.all_',
                   'axis_name', 'axis_index'):
        assert word not in text, f'{file}: {word}'


def imported(folder):
  """The top-level modules that files in a folder import."""
  for file in (ROOT / folder).rglob('*.py'):
    for node in ast.walk(ast.parse(file.read_text())):
      if isinstance(node, ast.Import):
        yield from (alias.name.split('.')[0] for alias in node.names)
      elif isinstance(node, ast.ImportFrom):
        yield node.module.split('.')[0]


def declared(monkeypatch):
  """The arguments of setuptools.setup in setup.py."""
  given = {}
  monkeypatch.setitem(sys.modules, 'setuptools', types.SimpleNamespace(
      setup=given.update, find_packages=lambda **_: ['big_distill']))
  runpy.run_path(str(ROOT / 'setup.py'))
  return given


@pytest.mark.parametrize('folder, extras', [
    ('big_distill/input', ['train']), ('big_distill', ['train', 'plot', 'export', 'torch']),
    ('configs', []), ('tests', ['test'])])
def test_setup_declares_every_import(folder, extras, monkeypatch):
  given = declared(monkeypatch)
  lines = sum((given['extras_require'][extra] for extra in extras),
              given['install_requires'])
  known = {re.match(r'[\w-]*', line)[0].lower().replace('_', '-')
           for line in lines} | {'jaxlib'}  # Jax's own.
  ours = {'big_distill', 'configs', 'bench', 'tests', *(
      file.stem for file in (ROOT / 'tests').glob('*.py'))}
  owners = metadata.packages_distributions()
  for module in {*imported(folder)} - ours - sys.stdlib_module_names:
    names = {name.lower().replace('_', '-') for name in owners.get(module, [module])}
    assert names & known, f'{module} of {names}'


def test_each_program_of_the_tools_is_a_command(monkeypatch):
  commands = declared(monkeypatch)['entry_points']['console_scripts']
  tools = {file.stem for file in (ROOT / 'big_distill/tools').glob('*.py')
           if 'command.program(' in file.read_text()
           or 'command_lib.program(' in file.read_text()}
  assert {'sweep', 'plot', 'predict'} <= tools
  assert {line.split()[0] for line in commands} == {'big-distill', *(
      f'big-distill-{tool}' for tool in tools)}
