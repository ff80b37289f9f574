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
from typing import NamedTuple

from absl import flags
from absl import logging

from big_distill import command
from big_distill import metrics
from big_distill import registry
from big_distill import runs as runs_lib
from big_distill import views
from big_distill.tools import figures
from big_distill.tools.figures import EPOCHS, LENGTH, SOURCE, STEPS


class Run(NamedTuple):
  """A run and its name in this figure, `given` by the user or found."""
  label: str
  given: bool
  name: str  # Its folder's, from the folder on that all have in common.
  run: runs_lib.Run


def _need(run, metric):
  """[(step, value)] of a metric, or ValueError."""
  values = [(row['step'], row[metric]) for row in run.rows if metric in row]
  if not values:
    raise ValueError(f'{run.path} has no {metric}; it has '
                     f'{", ".join(sorted(run.metrics - {"step"}))}.')
  return values


def _epochs_per_step(run):
  step, epoch = _need(run, metrics.EPOCH)[-1]
  return epoch / step


def _length(run):
  """Epochs of a finished run, as given or, if in other units, as they came."""
  given = (run.config or {}).get('total_epochs')
  return given or _epochs_per_step(run) * run.rows[-1]['step']


def _final(run, metric):
  if run.result is None:
    raise ValueError(f'{run.path} has no result.json: it is not finished, and '
                     'this kind of figure shows final values.')
  return _need(run, metric)[-1][1]


def _accuracy(runs):
  """The metric of metrics.ACCURACY that every run has."""
  for metric in metrics.ACCURACY:
    if all(metric in each.run.metrics for each in runs):
      return metric
  raise ValueError('The runs have neither of '
                   f'{" and ".join(metrics.ACCURACY)} in '
                   'common.')


def _groups(runs, key, alike=True):
  """{(label, *key(run)): runs}; those found `alike` may differ in seed only."""
  groups = {}
  for each in runs:
    groups.setdefault((each.label, *key(each.run)), []).append(each)
  for (label, *_), group in groups.items():
    first = group[0]
    for each in group[1:] if alike else ():
      if first.given or each.given:
        continue
      other = set(runs_lib.differences(
          first.run.config or {}, each.run.config or {})) - {'seed'}
      if other:
        raise ValueError(
            f'{first.run.path} and {each.run.path} are both {label!r}, but '
            f'differ in {", ".join(sorted(other))}: name them, WORKDIR=LABEL, '
            'or draw --kind=sweep.')
  return groups


def _mean(runs, x_of, y_of, style, label, x, values):
  return figures.Point(x_of, y_of, style, label, ' '.join(
      each.name for each in runs), x, sum(values) / len(values),
      min(values), max(values), len(values))


def _scaled(run, metric, x_of):
  """{x: value} of a metric against steps or epochs."""
  scale = _epochs_per_step(run) if x_of == EPOCHS else 1
  return {step * scale: value for step, value in _need(run, metric)}


def _duration(run):
  """Tells runs of one label apart that were planned to be of other lengths."""
  return tuple((key, value) for key, value in (run.config or {}).items()
               if key.startswith('total_'))


def curves(runs, metric, x_of):
  """A line per label and length: the mean at the steps that its runs share."""
  points = []
  for (label, *_), group in _groups(runs, _duration).items():
    lines = [_scaled(each.run, metric, x_of) for each in group]
    shared = [x for x in lines[0] if all(x in line for line in lines)]
    if not shared:
      raise ValueError(f'The runs called {label!r} share no step at which '
                       f'{metric} was measured: name them, WORKDIR=LABEL.')
    points += [_mean(group, x_of, metric, 'line', label, x,
                     [line[x] for line in lines]) for x in shared]
  return figures.Panel(x_of, metric, points)


def cloud(runs, metric, x_of):
  """Every run, and which is the best of its label and length by validation."""
  points = []
  for (label, *_), group in _groups(runs, _duration, alike=False).items():
    by = next((by for by in metrics.RANKING
               if all(by in each.run.metrics for each in group)), None)
    if by is None:
      raise ValueError(f'The runs called {label!r} have none of '
                       f'{", ".join(metrics.RANKING)} in common, by which '
                       'the best is chosen.')
    done = [each for each in group if each.run.result] or group
    best = max(done, key=lambda each: each.run.last(by))
    for each in group:
      style = 'line' if each is best else 'faint'
      points += [_mean([each], x_of, metric, style, label, x, [y])
                 for x, y in _scaled(each.run, metric, x_of).items()]
  return figures.Panel(x_of, metric, points)


def _teachers(runs, x_of, metric):
  """A point without an x per accuracy of a teacher, which is a line across."""
  values = dict.fromkeys(each.run.last(metrics.TEACHER) for each in runs
                         if metric in metrics.ACCURACY)
  return [figures.Point(x_of, metric, 'teacher', 'teacher', '', '', value,
                        value, value, 1)
          for value in values if value is not None]


def ends(runs, metric):
  """The final value of a metric against the length of training."""
  points = []
  groups = _groups(runs, lambda run: (_length(run),))
  for label, length in sorted(groups, key=lambda key: key[1]):
    group = groups[label, length]
    points.append(_mean(group, LENGTH, metric, 'dots', label, length,
                        [_final(each.run, metric) for each in group]))
  order = list(dict.fromkeys(each.label for each in runs))
  points.sort(key=lambda point: order.index(point.label))
  return figures.Panel(LENGTH, metric, points + _teachers(runs, LENGTH, metric))


def bars(runs, metric):
  """The final value of a metric per label, a bar per length of training.

  In steps: an epoch is of other images in every run.
  """
  points = [
      _mean(group, SOURCE, metric, 'bars', figures.steps(length), label,
            [_final(each.run, metric) for each in group])
      for (label, length), group in sorted(
          _groups(runs, lambda run: (run.rows[-1]['step'],)).items(),
          key=lambda item: item[0][1])]
  order = list(dict.fromkeys(each.label for each in runs))
  points.sort(key=lambda point: order.index(point.x))  # Stable: by length then.
  return figures.Panel(SOURCE, metric, points + _teachers(runs, SOURCE, metric))


def _axis(runs):
  """Epochs where every run knows them, or else steps."""
  known = all(metrics.EPOCH in each.run.metrics for each in runs)
  return EPOCHS if known else STEPS


def _consistency(runs, metric):
  x_of = _axis(runs)
  return [curves(runs, metrics.LOSS, x_of), curves(runs, metric, x_of)]


def _sweep(runs, metric):
  x_of = _axis(runs)
  return [cloud(runs, metrics.LOSS, x_of), cloud(runs, metric, x_of)]


def _optimizers(runs, metric):
  return [curves(runs, metric, STEPS), ends(runs, metric)]


def _ends(runs, metric):
  return [ends(runs, metric)]


def _bars(runs, metric):
  return [bars(runs, metric)]


def _mode(config):
  mode = config['mode']
  return mode if isinstance(mode, str) else str(views.mode(mode))


def _teaching(config):
  """Who teaches: labels, or models in a mode; and where the student starts."""
  labels = all('labels' in each for each in config['teachers'].values())
  start = ', initialised' if config['student'].get('init') else ''
  return ('labels' if labels else _mode(config)) + start


def _optimizer(config):
  return config['optim']['name']


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
    runs.append(Run(label or found, bool(label), name, run))
  return runs


def plot(words, kind, out, metric=None):
  """Draws WORKDIR[=LABEL] words; returns the three files it wrote.

  The metric is the accuracy that all runs have, unless it is given.
  """
  registry.check('kind of figure', kind, KINDS)
  runs = read(words, kind)
  panels = KINDS[kind][1](runs, metric or _accuracy(runs))
  stem, suffix = os.path.splitext(out)
  stem = stem if suffix in ('.png', '.pdf', '.csv') else out
  os.makedirs(os.path.dirname(os.path.abspath(stem)), exist_ok=True)
  figures.save(f'{stem}.csv', panels)
  figures.draw(panels, stem)
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
