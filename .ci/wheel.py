"""Checks an installed wheel: the bundled teacher answers, commands explain.

Run from an empty folder, so that nothing but the installation is imported.
"""

import importlib
import pathlib
import subprocess
import sys

import jax
import numpy as np

import big_distill
from big_distill import views
from big_distill.input import pipeline

package = pathlib.Path(big_distill.__file__).parent
assert 'site-packages' in package.parts, f'{package} is not an installation.'

model, params = big_distill.load('caltech12 teacher')
view = views.View.parse('central@48')
source = pipeline.load('caltech12', 'test[:64]')
batch = next(iter(pipeline.eval_batches(source, [view], 64, 0)))
images = np.float32(batch['views'][str(view)]) / 127.5 - 1
logits = jax.jit(lambda *args: model.apply(*args)[0])(
    {'params': params}, images)
right = (logits.argmax(-1) == batch['label']).mean()
# It has 86 % of the whole split; a guess has 8 %.
assert right > .7, f'The bundled teacher has {right:.0%} right.'

commands = ['.'.join(file.relative_to(package.parent).with_suffix('').parts)
            for file in package.rglob('*.py')
            if '\nif __name__' in file.read_text()]
assert {'big_distill.main', 'big_distill.tools.sweep'} <= {*commands}, commands
for command in commands:
  ran = subprocess.run([sys.executable, '-m', command, '--help'], text=True,
                       capture_output=True, check=False)
  purpose = importlib.import_module(command).__doc__.splitlines()[0]
  assert purpose in ran.stdout, f'{command} --help: {ran.stdout}{ran.stderr}'
print(f'{right:.0%} of 64 photographs are classified right, and {len(commands)} '
      'commands explain themselves.')
