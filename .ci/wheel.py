"""Checks an installed wheel, as it is or with an argument, with [train].

Run from an empty folder, so that nothing but the installation is imported. The
bundled teacher answers, about files too, commands explain themselves, and the
quickstart trains with the extra and names it without.
"""

from importlib import metadata
import json
import pathlib
import subprocess
import sys
import tempfile

import jax
import numpy as np

import big_distill
from big_distill import photographs

training = len(sys.argv) > 1
package = pathlib.Path(big_distill.__file__).parent
assert 'site-packages' in package.parts, f'{package} is not an installation.'
bin_ = pathlib.Path(sys.executable).parent


def run(command, *words):
  return subprocess.run([bin_ / command, *words], text=True, check=False,
                        capture_output=True)


model, params = big_distill.load('caltech12 teacher')
logits = jax.jit(lambda *args: model.apply(*args)[0])(
    {'params': params}, np.zeros([2, 48, 48, 3], np.float32))
assert logits.shape == (2, 12) and np.isfinite(logits).all()

commands = {entry.name for entry in metadata.distribution(
    'big_distill').entry_points if entry.group == 'console_scripts'}
assert {'big-distill', 'big-distill-sweep'} <= commands, commands
for command in commands:
  ran = run(command, '--help')
  assert ran.returncode == 0 and 'python -m big_distill.' in ran.stdout, (
      f'{command} --help: {ran.stdout}{ran.stderr}')
  assert not ran.stderr, f'{command} --help says {ran.stderr}'

with tempfile.TemporaryDirectory() as folder:
  for i, encoded in enumerate(photographs.packaged()[:3]):
    pathlib.Path(folder, f'{i}.jpg').write_bytes(encoded)
  ran = run('big-distill-predict', 'caltech12 teacher', f'--images={folder}')
  assert ran.returncode == 0 and len(ran.stdout.splitlines()) == 4, ran.stderr

with tempfile.TemporaryDirectory() as folder:
  ran = run('big-distill', '--config=quickstart.py:tiny=True',
            f'--workdir={folder}/run')
  if training:
    assert ran.returncode == 0, ran.stderr
    result = json.loads(pathlib.Path(folder, 'run/result.json').read_text())
    assert 0 < result['teacher_top1'] <= 1, result
    ran = run('big-distill-report', f'{folder}/run')
    assert ran.returncode == 0, ran.stderr
    assert '<svg' in pathlib.Path(folder, 'run/report.html').read_text()
  else:
    assert ran.returncode == 1, ran.stdout
    assert ran.stderr.endswith("pip install 'big_distill[train]'.\n"), ran.stderr
print(f'Python {sys.version.split()[0]}: {len(commands)} commands explain '
      'themselves; the quickstart '
      f'{"trains" if training else "says what to install"}.')
