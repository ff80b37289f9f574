"""Points as they are drawn on axes: lines, dots, bars, by their style."""

import re
from typing import Any, NamedTuple

from big_distill import metrics


class Point(NamedTuple):
  """A row of the CSV. `style` is a key of STYLES; y is the mean of n runs."""
  x_of: str
  y_of: str
  style: str
  label: str
  run: str
  x: Any
  y: float
  low: float
  high: float
  n: int


def is_share(metric):
  return bool(re.search(r'/(acc@|top)\d+$', metric))


def _value(p):
  return f'{100 * p.y:.1f}' if is_share(p.y_of) else f'{p.y:.3g}'


def _draw_lines(axes, points, looks, width=1.4, alpha=1.):
  """Lines between the points of one run, or of one mean."""
  for (label, _), line in _split(points, 'label', 'run'):
    x, y = [p.x for p in line], [p.y for p in line]
    colour, dash = looks[label]
    axes.plot(x, y, color=colour, linestyle=dash, linewidth=width, alpha=alpha,
              label=label)
    if line[0].n > 1:
      axes.fill_between(x, [p.low for p in line], [p.high for p in line],
                        color=colour, alpha=.2, linewidth=0)


def _draw_faint(axes, points, looks):
  _draw_lines(axes, points, {
      label: (colour, '-') for label, (colour, _) in looks.items()}, .7, .35)


def _draw_dots(axes, points, looks):
  for (label,), line in _split(points, 'label'):
    colour, dash = looks[label]
    x, y = [p.x for p in line], [p.y for p in line]
    axes.plot(x, y, color=colour, linestyle=dash, linewidth=1.2, marker='o',
              markersize=3.5, label=label)
    axes.errorbar(x, y, _range(line), color=colour, fmt='none', elinewidth=.8,
                  capsize=2)


def _draw_bars(axes, points, looks):
  del looks  # Lengths have an order, and so have these colours.
  from matplotlib import colormaps
  from matplotlib import patheffects
  sources = list(dict.fromkeys(p.x for p in points))
  groups = _split(points, 'label')
  width = .8 / len(groups)
  for i, ((label,), group) in enumerate(groups):
    x = [sources.index(p.x) + (i - (len(groups) - 1) / 2) * width
         for p in group]
    axes.bar(x, [p.y for p in group], .92 * width, label=label,
             color=colormaps['cividis'](.15 + .75 * i / len(groups)))
    axes.errorbar(x, [p.y for p in group], _range(group), color='black',
                  fmt='none', elinewidth=.8, capsize=2)
    for at, p in zip(x, group):
      axes.annotate(
          _value(p), (at, p.high), (0, 2), ha='center', fontsize=6,
          textcoords='offset points', path_effects=[
              patheffects.withStroke(linewidth=2, foreground='white')])
  crowded = sum(map(len, sources)) > 36
  axes.set_xticks(range(len(sources)), sources, rotation=20 * crowded,
                  ha='right' if crowded else 'center')
  axes.grid(False, axis='x')


def _draw_ranked(axes, points, looks):
  """Bars from left to right, the best above; labels beside them."""
  points = sorted(points, key=lambda p: p.y,
                  reverse=metrics.less_is_better(points[0].y_of))
  bars = axes.barh(
      [p.label for p in points], [p.y for p in points], .7,
      xerr=_range(points), color=[looks[p.label][0] for p in points],
      error_kw=dict(elinewidth=.8, capsize=2))
  axes.bar_label(bars, [*map(_value, points)], padding=3, fontsize=7)
  axes.grid(False, axis='y')


def _range(points):
  """Error bars, where there are several runs to a point."""
  if all(p.n == 1 for p in points):
    return None
  return [[p.y - p.low for p in points], [p.high - p.y for p in points]]


def _draw_teacher(axes, points, looks):
  del looks
  for p in points:
    axes.axhline(p.y, color='#555555', linestyle=(0, (6, 2)), linewidth=1.,
                 label=p.label, zorder=1)


STYLES = {'faint': _draw_faint, 'line': _draw_lines, 'dots': _draw_dots,
          'bars': _draw_bars, 'ranked': _draw_ranked,
          'teacher': _draw_teacher}  # Bold after faint.


def _split(points, *fields):
  """[(values of the fields, points that have them)], in order of appearance."""
  groups = {}
  for point in points:
    values = tuple(getattr(point, field) for field in fields)
    groups.setdefault(values, []).append(point)
  return list(groups.items())
