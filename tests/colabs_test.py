"""The notebooks run from their first cells to their last, and draw figures."""

import os
import pathlib
import re

import jax
import nbclient
import nbformat
import pytest

FOLDER = pathlib.Path(__file__).parent.parent / 'colabs'
NOTEBOOKS = sorted(path.stem for path in FOLDER.glob('*.ipynb'))


def read(name):
  return nbformat.read(FOLDER / f'{name}.ipynb', as_version=4)


def code(notebook):
  return [cell for cell in notebook.cells if cell.cell_type == 'code']


def pictures(notebook):
  return [output for cell in code(notebook) for output in cell.outputs
          if {'image/jpeg', 'image/png'} & {*output.get('data', {})}]


def text(notebook):
  return ''.join(
      output.get('text') or output.get('data', {}).get('text/markdown', '')
      for cell in code(notebook) for output in cell.outputs)


@pytest.fixture
def run(monkeypatch, tmp_path):
  """run(name) -> the notebook with what its cells showed, in a minute's try."""
  monkeypatch.setenv('QUICKSTART', 'tiny=True')
  monkeypatch.setenv('XLA_FLAGS', '')  # One device; compiled to run fast.
  monkeypatch.setenv('PYTHONPATH', os.pathsep.join(
      [str(FOLDER.parent), os.environ.get('PYTHONPATH', '')]))
  for name in ('WORKDIR', 'FOLDER', 'MODEL'):
    monkeypatch.delenv(name, raising=False)

  def execute(name):
    notebook = read(name)
    nbclient.NotebookClient(notebook, timeout=900, resources={
        'metadata': {'path': str(tmp_path)}}).execute()
    return notebook

  return execute


def test_the_quickstart_notebook_runs(run):
  notebook = run('quickstart')
  assert len(pictures(notebook)) == 8  # Seven modes and the curves.
  said = text(notebook)
  assert 'top-1 before' in said and 'agreement' in said


def test_the_notebook_shows_a_mixture_that_can_be_seen():
  key, = re.findall(r'jax\.random\.key\((\d+)\)', str(read('quickstart')))
  share = float(jax.random.uniform(jax.random.key(int(key))))
  assert .3 < share < .7
  assert f'keeps {share:.0%}'.replace('%', ' %') in str(read('quickstart'))


def test_the_notebook_that_compares_runs_runs(run):
  notebook = run('runs')
  assert len(pictures(notebook)) == 2  # Curves, and photographs.
  said = text(notebook)
  assert "differs: ['mode']" in said and 'ECE' in said
  assert re.search(r'report\.html: \d+ kB', said)


def test_the_notebook_that_exports_runs(run):
  notebook = run('use')
  assert len(pictures(notebook)) == 1
  said = text(notebook)
  assert len(re.findall('as in JAX on 100% of these', said)) == 4
  assert 'largest difference of logits' in said


@pytest.mark.parametrize('name', NOTEBOOKS)
def test_a_notebook_is_kept_with_what_it_showed_and_no_folder_of_anyone(name):
  notebook = read(name)
  assert all(cell.execution_count for cell in code(notebook))
  assert pictures(notebook) and text(notebook)
  assert not any(output.output_type == 'error' for cell in code(notebook)
                 for output in cell.outputs)
  said = str(notebook).replace('/tmp/quickstart', '')
  assert not re.search(r"[\s\"'(=]/(home|root|tmp|work|usr)/", said)
  badge = f'/blob/main/colabs/{name}.ipynb'
  assert notebook.cells[0].source.startswith('[![Open in Colab]')
  assert badge in notebook.cells[0].source
