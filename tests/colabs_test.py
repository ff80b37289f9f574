"""The notebook runs from its first cell to its last, and draws its figures."""

import os
import pathlib

import nbclient
import nbformat

ROOT = pathlib.Path(__file__).parent.parent


def test_the_quickstart_notebook_runs(monkeypatch):
  monkeypatch.setenv('QUICKSTART', 'tiny=True')
  monkeypatch.setenv('XLA_FLAGS', '')  # One device; compiled to run fast.
  monkeypatch.setenv('PYTHONPATH', os.pathsep.join(
      [str(ROOT), os.environ.get('PYTHONPATH', '')]))
  notebook = nbformat.read(ROOT / 'colabs' / 'quickstart.ipynb', as_version=4)
  nbclient.NotebookClient(notebook, timeout=300).execute()
  pictures = [output for cell in notebook.cells if cell.cell_type == 'code'
              for output in cell.outputs if 'image/png' in output.get('data', {})]
  assert len(pictures) == 8  # Seven modes and the curves.
  text = ''.join(output.get('text', '') for cell in notebook.cells
                 if cell.cell_type == 'code' for output in cell.outputs)
  assert 'top-1 before' in text and 'agreement' in text
