"""Draws the pictures of docs/concepts.md from the bundled photographs and logs.

  python -m bench.pictures --out=docs/figures
"""

import itertools
import json
import pathlib

from absl import flags
import jax
import matplotlib
import numpy as np

from big_distill import command
from big_distill import steps
from big_distill import views

SIZE, COUNT = 96, 6  # Pixels a side of a view; photographs beside each other.
CROPS = ('squash', 'central', 'random#a', 'window#a', 'inception#a',
         'inception#b')
MODES, BESIDE = ('fix/rs', 'ind/ic', 'same/ic', 'funmatch'), 3
LOGS = {'80 epochs': 'quickstart', '300 epochs': 'quickstart_patient'}
PERIOD, EPOCHS = 3, 9  # Of the drawing of a store.


def rendered(data, shown):
  """{view: uint8 [COUNT, SIZE, SIZE, 3]} of the same photographs."""
  source = data.load('caltech12', 'train', cache='decoded')
  batch = next(data.train_batches(
      source, {view.at(SIZE) for view in shown}, COUNT, seed=1, start=0, stop=1))
  return {view: batch['views'][str(view.at(SIZE))] for view in shown}


def blended(images):
  """As mixup blends them, by the first coefficient that shows both."""
  keys = (jax.random.key(i) for i in itertools.count())
  key = next(key for key in keys if .55 < jax.random.uniform(key) < .65)
  return np.asarray(steps.mixup(images / np.float32(255), key, group=COUNT))


def _show(pyplot, rows, file):
  """Rows of images [n, s, s, 3], each with its name at its left."""
  figure, axes = pyplot.subplots(
      len(rows), 1, figsize=(7.5, 1.18 * len(rows)), layout='constrained')
  for axis, (name, images) in zip(axes, rows):
    axis.imshow(np.concatenate([*images], axis=1))
    axis.set_ylabel(name, rotation=0, ha='right', va='center', fontsize=9)
    axis.set(xticks=[], yticks=[])
    for side in axis.spines.values():
      side.set_visible(False)
  _save(pyplot, figure, file)


def _save(pyplot, figure, file):
  figure.savefig(file, dpi=110, bbox_inches='tight')
  pyplot.close(figure)


def draw_crops(pyplot, data, file):
  shown = [views.View.parse(crop) for crop in CROPS]
  _show(pyplot, [(str(view), images) for view, images
                 in rendered(data, shown).items()], file)


def draw_modes(pyplot, data, file):
  """Student above teacher, modes side by side."""
  figure, axes = pyplot.subplots(2, len(MODES), figsize=(12, 2.3))
  for column, name in zip(axes.T, MODES):
    mode = views.MODES[name]
    seen = rendered(data, [mode.student, mode.teacher])
    for axis, view in zip(column, (mode.student, mode.teacher)):
      images = blended(seen[view]) if mode.mixup else seen[view]
      axis.imshow(np.concatenate([*images[:BESIDE]], axis=1))
      axis.set(xticks=[], yticks=[])
    column[0].set_title(name, fontsize=11)
  for axis, who in zip(axes[:, 0], ('student', 'teacher')):
    axis.set_ylabel(who, fontsize=11)
  figure.subplots_adjust(wspace=.04, hspace=.03)
  _save(pyplot, figure, file)


def draw_patience(pyplot, logs, file):
  """The student's accuracy along the quickstart, short and patient."""
  figure, axis = pyplot.subplots(figsize=(6, 3.2), layout='constrained')
  for label, name in LOGS.items():
    rows = [*map(json.loads, (logs / f'{name}.jsonl').open())]
    points = [(row['step'], 100 * row['student/acc@1']) for row in rows
              if 'student/acc@1' in row]
    # 1,016 photographs in batches of 64.
    axis.plot([step * 64 / 1016 for step, _ in points],
              [value for _, value in points], 'o-', label=label)
    teacher = 100 * rows[-1]['teacher/acc@1']
  axis.axhline(teacher, color='gray', ls='--', label='teacher')
  axis.set(xlabel='epochs', ylabel='top-1 on the test photographs (%)',
           ylim=(65, 90))
  axis.legend()
  _save(pyplot, figure, file)


def draw_store(pyplot, file):
  """When teachers are asked, and when the store is read."""
  figure, axis = pyplot.subplots(figsize=(7.5, 1.5), layout='constrained')
  for epoch in range(EPOCHS):
    asked = epoch < PERIOD
    axis.barh(0, .94, left=epoch, height=.8,
              color='#D55E00' if asked else '#56B4E9')
    axis.text(epoch + .47, 0, 'asked,\nwritten' if asked else
              f'read:\nviews of {epoch % PERIOD + 1}', ha='center', va='center',
              fontsize=8)
  axis.set(xticks=np.arange(EPOCHS) + .47, yticks=[], xlabel='epoch',
           title=f'answers.period_epochs={PERIOD}')
  axis.set_xticklabels(range(1, EPOCHS + 1))
  for side in axis.spines.values():
    side.set_visible(False)
  _save(pyplot, figure, file)


def main(flag):
  matplotlib.use('agg')
  from matplotlib import pyplot
  out, data = pathlib.Path(flag.out), command.pipeline()
  logs = pathlib.Path(__file__).parent.parent / 'docs/logs'
  draw_crops(pyplot, data, out / 'crops.jpg')
  draw_modes(pyplot, data, out / 'modes.jpg')
  draw_patience(pyplot, logs, out / 'patience.png')
  draw_store(pyplot, out / 'store.png')


if __name__ == '__main__':
  command.program(main, lambda: flags.DEFINE_string(
      'out', 'docs/figures', 'Folder of the four pictures.'))
