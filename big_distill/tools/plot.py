"""The paper's kinds of figures, from what runs left in their workdirs.

  python -m big_distill.tools.plot WORKDIR... --kind=patience --out=FILE

  consistency  training loss and accuracy of teaching modes (Figs 3, 9-12)
  sweep        the same of many runs: all faint, the best by validation bold
  patience     final accuracy against training length, teacher's line (Fig 4)
  optimizers   accuracy against steps, and final against length (Fig 5 left)
  init         from scratch or from a checkpoint, against length (Fig 5 right)
  ood          bars per source of images and training length (Fig 6)

Writes FILE.png, FILE.pdf, and FILE.csv, which holds the points that are drawn,
with the values of metrics.jsonl. What a run was is read from its config.json;
WORKDIR=LABEL calls it otherwise. Runs of one label and length are seeds of one
thing: their mean is drawn, and the range from the least to the greatest.
--metric=agree/kl draws that in the place of accuracy.

A figure is a list of panels, a panel is points, and nothing else is drawn.
"""

import os

from absl import flags
from absl import logging

from big_distill import command
from big_distill import metrics
from big_distill import registry
from big_distill import runs as runs_lib
from big_distill import views
from big_distill.tools import figures
from big_distill.tools import panels


def _consistency(runs, metric):
  x_of = panels.axis(runs)
  return [panels.curves(runs, metrics.LOSS, x_of),
          panels.curves(runs, metric, x_of)]


def _sweep(runs, metric):
  x_of = panels.axis(runs)
  return [panels.cloud(runs, metrics.LOSS, x_of),
          panels.cloud(runs, metric, x_of)]


def _optimizers(runs, metric):
  return [panels.curves(runs, metric, figures.STEPS), panels.ends(runs, metric)]


def _ends(runs, metric):
  return [panels.ends(runs, metric)]


def _bars(runs, metric):
  return [panels.bars(runs, metric)]


def _mode(config):
  mode = config['mode']
  return mode if isinstance(mode, str) else str(views.mode(mode))


def _teaching(config):
  """Who teaches: labels, or models in a mode; and where the student starts."""
  labels = all('labels' in each for each in config['teachers'].values())
  start = ', initialised' if config['student'].get('init') else ''
  return ('labels' if labels else _mode(config)) + start


def _optimizer(config):
  return config['optim'].get('name', 'adam')


def _init(config):
  init = config['student'].get('init')
  return f'from {os.path.basename(init)}' if init else 'from scratch'


def _images(config):
  parts = config['data'].get('parts') or {'': config['data']}
  return ' + '.join(os.path.basename(part['name'].rstrip('/'))
                    for part in parts.values())


KINDS = {  # What runs are called, and the panels of the figure.
    'consistency': (_mode, _consistency),
    'sweep': (_mode, _sweep),
    'patience': (_teaching, _ends),
    'optimizers': (_optimizer, _optimizers),
    'init': (_init, _ends),
    'ood': (_images, _bars),
}


def read(words, kind):
  """'WORKDIR' or 'WORKDIR=LABEL' -> Runs; a folder may have = in its name."""
  given = []
  for word in words:
    path, label = word, ''
    if not os.path.isdir(path) and '=' in word:
      path, _, label = word.rpartition('=')
    if not os.path.isdir(path):
      raise ValueError(f'There is no folder {path}.')
    given.append((label, runs_lib.read(path)))
  root = os.path.commonpath([os.path.dirname(run.path) for _, run in given])
  runs = []
  for label, run in given:
    if not run.rows:
      raise ValueError(f'{run.path} has no metrics.jsonl, or nothing in it: it '
                       'is not the workdir of a run.')
    name = os.path.relpath(run.path, root)
    found = KINDS[kind][0](run.config) if run.config else name
    runs.append(panels.Run(label or found, bool(label), name, run))
  return runs


def plot(words, kind, out, metric=None):
  """Draws WORKDIR[=LABEL] words; returns the three files it wrote.

  The metric is the accuracy that all runs have, unless it is given.
  """
  registry.check('kind of figure', kind, KINDS)
  runs = read(words, kind)
  drawn = KINDS[kind][1](runs, metric or panels.accuracy(runs))
  stem, suffix = os.path.splitext(out)
  stem = stem if suffix in ('.png', '.pdf', '.csv') else out
  os.makedirs(os.path.dirname(os.path.abspath(stem)), exist_ok=True)
  figures.save(f'{stem}.csv', drawn)
  figures.draw(drawn, stem)
  return [f'{stem}.{suffix}' for suffix in ('png', 'pdf', 'csv')]


def main(flag, workdirs):
  logging.set_verbosity(logging.WARNING)  # Fonts are talkative.
  if not workdirs:
    raise ValueError('No WORKDIR is given. See --help.')
  try:
    print('\n'.join(plot(workdirs, flag.kind, flag.out, flag.metric)))
  except OSError as error:
    raise ValueError(str(error)) from error
  except ImportError as error:
    raise ValueError(f"{error}. pip install 'big_distill[plot]'") from error


def _define_flags():
  flags.DEFINE_string('kind', None, ', '.join(KINDS))
  flags.DEFINE_string('out', None, 'FILE: writes FILE.png, FILE.pdf, FILE.csv.')
  flags.DEFINE_string('metric', None, 'Drawn in the place of accuracy.')
  flags.mark_flags_as_required(['kind', 'out'])


if __name__ == '__main__':
  command.program(main, _define_flags, words=True)
