"""Writes a model for other runtimes, and refuses what does not agree with it.

  python -m big_distill.tools.export WORKDIR
  python -m big_distill.tools.export student.npz --to=onnx,tflite \
      --weights=float32,int8 --out=DEPLOY

WORKDIR is that of a run; its student.npz is exported. Formats are files of
big_distill/formats: onnx, tflite, stablehlo, savedmodel, npz, and for PyTorch timm
and torchvision. Each file is read back by its own runtime and shown photographs:
those of --images=FOLDER, else of the folder that the run was evaluated on, else
those that come with the package. Prints a table, and writes it into a model card,
README.md and card.json, beside the files.
"""

import os

from absl import flags
from absl import logging
import numpy as np

from big_distill import command
from big_distill import exported
from big_distill import modelcard
from big_distill import photographs
from big_distill import registry
from big_distill import runs
from big_distill import served as served_lib
from big_distill import views

MOST = 64  # Photographs that a file is shown.


def student_of(given: str) -> tuple[str, runs.Run | None]:
  """(a checkpoint, its run if there is one) of a workdir or a file."""
  if not os.path.isdir(given):
    return given, None
  run = runs.read(given)
  if not os.path.exists(f'{run.path}/student.npz'):
    raise ValueError(f'{given} has no student.npz: wait for its run to end, or '
                     'name a checkpoint.')
  return f'{run.path}/student.npz', run


def photographs_for(served: served_lib.Served, folder: str | None,
                    own: str | None = None) -> np.ndarray:
  """Up to MOST images, uint8 [n, s, s, 3], of a folder.

  Without one they are those of the run's `own` folder that can be read, or else
  the package's.
  """
  view = views.View.parse(served.card.view).at(served.card.size)
  if folder:
    images = [*map(photographs.read, _spread(photographs.listing(folder)))]
  else:
    images = _readable(own) if own else []
    images = images or [*map(photographs.decode, _spread(photographs.packaged()))]
  return np.stack([photographs.show(image, view, served.card.fraction)
                   for image in images])


def _readable(folder):
  """Images of a folder; what cannot be read is left out, and said."""
  found = []
  try:
    for path in _spread(photographs.listing(folder, skip=True)):
      try:
        found.append(photographs.read(path))
      except ValueError as error:
        logging.warning('Left out: %s', error)
  except ValueError as error:
    logging.info('%s Photographs of the package are shown.', error)
  return found


def folder_of(run: runs.Run | None) -> str | None:
  """The folder of images that a run was evaluated on, or trained on, if any."""
  config = (run.config if run else None) or {}
  datas = [each.get('data') or {} for each in (config.get('evals') or {}).values()]
  for data in [*datas, config.get('data') or {}]:
    path = os.path.expanduser(str(data.get('name')).removeprefix('folder:'))
    if str(data.get('name')).startswith('folder:') and os.path.isdir(path):
      return path
  return None


def _spread(every):
  """At most MOST of a list, from its beginning to its end."""
  return every[::-(-len(every) // MOST)]


def main(flag, words):
  command.narrate()
  if len(words) != 1:
    raise ValueError(f'{len(words)} models are given: name one WORKDIR or npz '
                     'file. See --help.')
  for name in flag.to:
    registry.check('format', name, exported.names())
  file, run = student_of(words[0])
  folder = flag.out or os.path.join(run.path if run else (
      os.path.dirname(file) or '.'), 'export')
  stem = os.path.splitext(os.path.basename(file))[0].replace(' ', '_')
  float32 = served_lib.load(file, size=flag.size)
  images = photographs_for(float32, flag.images, folder_of(run))
  want = exported.in_batches(float32.answer, images)
  os.makedirs(folder, exist_ok=True)
  rows, failed = [], []
  for weights in flag.weights:
    served = (float32 if weights == float32.weights
              else served_lib.load(file, weights, flag.size))
    for name in flag.to:
      try:
        rows.append(exported.write(served, name, folder, stem, images, want))
      except ValueError as error:
        failed.append(str(error))
  if rows:
    print(exported.table(rows))
    modelcard.write(folder, float32, run, rows)
    print(f'Written to {folder}, with a model card: README.md, card.json.')
  if failed:
    raise ValueError(' '.join(failed))


def _define_flags():
  flags.DEFINE_list('to', ['onnx', 'tflite', 'stablehlo', 'savedmodel', 'npz'],
                    'Formats, files of big_distill/formats.')
  flags.DEFINE_list('weights', ['float32'],
                    f'What kernels are kept as: {", ".join(served_lib.WEIGHTS)}.')
  flags.DEFINE_string('out', None, 'A folder; else export/ beside the model.')
  flags.DEFINE_string('images', None, 'A folder of photographs to agree on.')
  flags.DEFINE_integer('size', None, 'Pixels a side, where no card says.', 1)


if __name__ == '__main__':
  command.program(main, _define_flags, words=True)
