"""What models say of images: names and probabilities, side by side.

  python -m big_distill.tools.predict DIR/student.npz --images=PHOTOS
  python -m big_distill.tools.predict teacher.npz student.npz \
      DIR/export/student_int8.onnx --images=PHOTOS --csv=answers.csv

A model is a checkpoint, the workdir of a run, or a file that tools/export.py
wrote: onnx, tflite, stablehlo, savedmodel, timm, torchvision. PHOTOS is an image
or a folder, which need no TensorFlow (Pillow then reads them, JPEGs to within a
few grey levels), or anything that data.name of a config takes; all splits are
shown. A card tells its size, its view and the names of its classes; --size serves
a checkpoint that has none. Prints a line per image, or writes a CSV with a column
for each model's class, its probability and, with several models, whether they
agree.
"""

from collections.abc import Iterator, Sequence
import csv
import os
import sys
from typing import Any, NamedTuple

from absl import flags
from absl import logging
import numpy as np

from big_distill import command
from big_distill import exported
from big_distill import photographs
from big_distill import served
from big_distill import views
from big_distill.formats import npz
from big_distill.input import files


class Model(NamedTuple):
  """answer(uint8 [b, h, w, 3]) -> probabilities [b, c], and what it looks at.

  classes: their names, or numbers where no card names them.
  """
  name: str
  answer: served.Answer
  view: views.View
  fraction: float
  classes: tuple[str, ...]


def load(file: str, size: int | None = None) -> Model:
  """A model as its card says, at `size` where the card says none.

  Of a workdir it is student.npz. Raises ValueError where it cannot be read, and
  for a file that is neither a checkpoint nor of tools/export.py.
  """
  module = exported.format_of(file)
  if module is None and os.path.isdir(file):  # The workdir of a run.
    file = os.path.join(file, 'student.npz')
  if module in (None, npz):  # A checkpoint's name may be a published one.
    model = served.load(file, size=size)
    card, logits = model.card, model.answer
  else:
    card, logits = exported.read(file)
    if card is None:
      raise ValueError(f'{file} has no card, so it is not of tools.export: '
                       'export it again from its npz.')
  count = card.arguments['num_classes']
  name = os.path.basename(file.rstrip('/'))
  return Model(os.path.splitext(name)[0] if module is npz else name,
               lambda pixels: _softmax(logits(pixels)),
               views.View.parse(card.view).at(card.size), card.fraction,
               card.classes or _numbers(count))


def _softmax(logits):
  powers = np.exp(np.float64(logits) - logits.max(-1, keepdims=True))
  return powers / powers.sum(-1, keepdims=True)


def rows(models: Sequence[Model], images: str, data: Any = None,
         batch_size: int = 32) -> Iterator[dict[str, Any]]:
  """A row for each image: its name, then each model's class and probability.

  `data` reads the images, see contracts.Data; without it Pillow does, those of
  a folder. Models whose classes have no names take those of another.
  """
  models = [_named(model, models) for model in models]
  shown = (_by_pillow(models, images, batch_size) if data is None
           else _by_pipeline(models, images, batch_size, data))
  for names, views_of in shown:
    answers = [model.answer(pixels)
               for model, pixels in zip(models, views_of)]
    for i, name in enumerate(names):
      row, best = {'image': name}, []
      for model, probs in zip(models, answers):
        best.append(model.classes[probs[i].argmax()])
        row[model.name] = best[-1]
        row[f'{model.name} p'] = round(float(probs[i].max()), 4)
      if len(models) > 1:
        row['agree'] = len({*best}) == 1
      yield row


def _named(model, models):
  """The model; where its classes are numbers, by the names of as many others."""
  other = next((each for each in models if each.classes != model.classes
                and len(each.classes) == len(model.classes)), None)
  if other is None or model.classes != _numbers(len(model.classes)):
    return model
  logging.warning('%s has no names of classes; they are taken to be in the order '
                  'of %s.', model.name, other.name)
  return model._replace(classes=other.classes)


def _numbers(count):
  return tuple(map(str, range(count)))


def _by_pipeline(models, images, batch_size, data):
  """Yields (names of images, what each model sees of them and of padding)."""
  is_folder = os.path.isdir(images)
  if is_folder and not any(name.endswith('.parquet')
                           for name in files.walk(images)):
    source = data.of_paths(images, photographs.listing(images))
  else:
    source = data.load(f'folder:{images}' if is_folder else images, 'all',
                       cache='none', label=None)
  streams = [data.eval_batches(source, [model.view], batch_size, 0,
                               fraction=model.fraction) for model in models]
  for batches in zip(*streams):
    index, mask = batches[0]['index'], batches[0]['mask']
    yield ([source.name(int(i)) for i, real in zip(index, mask) if real],
           [batch['views'][str(model.view)]
            for model, batch in zip(models, batches)])


def _by_pillow(models, images, batch_size):
  """As _by_pipeline, of a folder, the last batch padded by its last image."""
  paths = photographs.listing(images)
  for start in range(0, len(paths), batch_size):
    names = paths[start:start + batch_size]
    read = [photographs.read(path) for path in names]
    read += read[-1:] * (batch_size - len(read))
    yield names, [np.stack([photographs.show(image, model.view, model.fraction)
                            for image in read]) for model in models]


def _data(images):
  """The pipeline, or None for an image, or a folder without TensorFlow."""
  if photographs.is_image(images):
    return None
  try:
    return command.pipeline()
  except command.Missing:
    if os.path.isdir(images):
      return None
    raise


def main(flag, files):
  logging.set_verbosity(logging.WARNING)
  if not files:
    raise ValueError('No MODEL is given: name one or more files.')
  models = [load(file, flag.size) for file in files]
  names = [model.name for model in models]
  if len({*names}) < len(names):  # student.npz of several runs, say.
    models = [model._replace(name=file) for model, file in zip(models, files)]
  found = rows(models, flag.images, _data(flag.images))
  out = open(flag.csv, 'w', newline='') if flag.csv else sys.stdout
  writer = None
  for row in found:
    if writer is None:
      writer = csv.DictWriter(out, [*row], delimiter=',' if flag.csv else '\t')
      writer.writeheader()
    writer.writerow(row)
  if flag.csv:
    out.close()
    print(f'Written to {flag.csv}.')


def _define_flags():
  flags.DEFINE_string('images', None, 'An image, a folder of images, or a dataset.')
  flags.DEFINE_integer('size', None, 'Pixels a side, where no card says.', 1)
  flags.DEFINE_string('csv', None, 'File to write; else the terminal.')
  flags.mark_flags_as_required(['images'])


if __name__ == '__main__':
  command.program(main, _define_flags, words=True)
