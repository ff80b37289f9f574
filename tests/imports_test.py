"""TensorFlow stays in input/, writers.py and main.py."""

import os
import pathlib
import pkgutil
import subprocess
import sys

import pytest

import big_distill

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
