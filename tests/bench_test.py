"""The bench runs where TensorFlow is not, and counts what a hand counts."""

import csv
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from big_distill import report


def test_bench_measures_every_part_without_tensorflow(tmp_path):
  path = tmp_path / 'rows.csv'
  flags = ['--depth=1,1', '--width=0.125', '--size=16', '--batch=32',
           '--classes=5', '--repeats=2', f'--csv={path}']
  code = ('import runpy, sys\n'
          "for name in ('tensorflow', 'tensorflow_datasets'):\n"
          '  sys.modules[name] = None\n'
          f"sys.argv = ['bench', *{flags}]\n"
          "runpy.run_module('big_distill.tools.bench', run_name='__main__')\n")
  shown = subprocess.run([sys.executable, '-c', code], check=True, text=True,
                         capture_output=True).stdout
  with open(path) as file:
    rows = {row['part']: row for row in csv.DictReader(file)}
  parts = ['teacher forward', 'student forward + backward', 'optimizer',
           'whole step', 'input']
  assert list(rows) == parts
  assert all(part in shown for part in parts)
  for part in parts[:-1]:
    assert float(rows[part]['ms']) > 0 and rows[part]['jax'] == jax.__version__
  assert float(rows['whole step']['share']) == 1.
  assert 'no tensorflow' in rows['input']['note']


def test_flops_are_two_per_multiply_add():
  class Model(nn.Module):
    @nn.compact
    def __call__(self, x):
      x = nn.Conv(5, (3, 3), padding='VALID', use_bias=False)(x)
      return nn.Dense(7, use_bias=False)(x.reshape(x.shape[0], -1)), {}

  model = Model()
  params = model.init(jax.random.key(0), jnp.zeros([1, 8, 8, 3]))['params']
  want = 2 * (6 * 6 * 5 * 27 + 6 * 6 * 5 * 7)
  np.testing.assert_allclose(report.flops(model, params, 8), want, rtol=1e-3)
