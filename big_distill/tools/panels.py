"""Which points a figure has, of runs that were read: its panels.

Runs of one label and length are seeds of one thing; their mean is a point.
"""

from typing import NamedTuple

from big_distill import metrics
from big_distill import runs as runs_lib
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


def accuracy(runs):
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
  """{x: value} of a metric against steps or epochs.

  Epochs to 12 digits: of two seeds, last logged at other steps, a step comes to
  others in the last digit, and is the same.
  """
  if x_of != EPOCHS:
    return dict(_need(run, metric))
  scale = _epochs_per_step(run)
  return {float(f'{step * scale:.12g}'): value
          for step, value in _need(run, metric)}


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


def axis(runs):
  """Epochs where every run knows them, or else steps."""
  known = all(metrics.EPOCH in each.run.metrics for each in runs)
  return EPOCHS if known else STEPS
