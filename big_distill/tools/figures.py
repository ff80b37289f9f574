"""Draws panels of points: knows what is where, not which runs it came from.

A figure is a list of panels, a panel is points, and nothing else is drawn: the
CSV beside a figure is all of it.
"""

import csv
import dataclasses
import itertools
import re
from typing import Any, NamedTuple

from big_distill import metrics
from big_distill import views

STEPS, EPOCHS, LENGTH, SOURCE = 'steps', 'epochs', 'total epochs', 'images'
RANK = 'rank'  # For style 'ranked', whose values lie on the axis across.
NAMES = {**metrics.TITLES, STEPS: 'Steps', EPOCHS: 'Epochs',
         LENGTH: 'Training length (epochs)', SOURCE: 'Training images',
         RANK: ''}

# Okabe and Ito's colours, which the colour-blind tell apart, but for yellow.
COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#56B4E9', '#E69F00',
           '#000000')
DASHES = ('-', (0, (4, 1.5)), (0, (1, 1.2)))


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


@dataclasses.dataclass(frozen=True)
class Panel:
  """Axes and what is on them."""
  x: str
  y: str
  points: list[Point]


def _count(x, _=None):
  """1200 -> '1.2k'."""
  for unit, sign in ((1e6, 'M'), (1e3, 'k')):
    if x >= unit:
      return f'{x / unit:.3g}{sign}'
  return f'{x:.3g}'


def _is_share(metric):
  return bool(re.search(r'/(acc@|top)\d+$', metric))


def _value(p):
  return f'{100 * p.y:.1f}' if _is_share(p.y_of) else f'{p.y:.3g}'


def steps(length):
  return f'{_count(length)} steps'


def _looks(labels):
  """{label: (colour, dash)}; a family of modes has one colour everywhere."""
  families = itertools.groupby(views.MODES,
                               lambda mode: mode.partition('/')[0])
  looks = {}
  for colour, (_, modes) in zip(itertools.cycle(COLOURS), families):
    looks |= {mode: (colour, dash) for mode, dash in zip(
        modes, itertools.cycle(DASHES)) if mode in labels}
  taken = {colour for colour, _ in looks.values()}
  free = [(colour, dash) for dash in DASHES for colour in COLOURS
          if colour not in taken]
  others = [label for label in labels if label not in looks]
  return looks | dict(zip(others, itertools.cycle(free)))


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


def _spans(panel, factor):
  """Are the values of lines and dots that wide? Bars stand on zero."""
  values = [p.y for p in panel.points]
  return (all(p.style != 'bars' for p in panel.points) and min(values) > 0
          and max(values) > factor * min(values))


def draw(panels, stem, width=3.4):
  """Writes stem.png and stem.pdf; a panel is `width` inches wide."""
  import matplotlib
  matplotlib.use('Agg')
  from matplotlib import pyplot as plt
  from matplotlib import ticker

  plt.rcParams.update({
      'font.size': 8, 'axes.spines.top': False, 'axes.spines.right': False,
      'axes.grid': True, 'grid.color': '#e6e6e6', 'grid.linewidth': .6,
      'axes.axisbelow': True, 'legend.frameon': False, 'pdf.fonttype': 42})
  labels = dict.fromkeys(p.label for panel in panels for p in panel.points
                         if p.style != 'teacher')
  looks = _looks(list(labels))
  order = {label: i for i, label in enumerate(looks)}
  figure, every = plt.subplots(
      1, len(panels), squeeze=False, layout='constrained',
      figsize=(width * len(panels), 2.9))
  for axes, panel in zip(every[0], panels):
    for style, of_style in STYLES.items():
      points = [p for p in panel.points if p.style == style]
      if points:
        of_style(axes, points, looks)
    axes.set_xlabel(NAMES[panel.x])
    values = axes.xaxis if panel.x == RANK else axes.yaxis
    values.set_label_text(NAMES.get(panel.y, panel.y))
    if _is_share(panel.y):
      values.set_major_formatter(lambda y, _: f'{100 * y:g}')
    elif panel.x != RANK and (panel.y == metrics.LOSS or _spans(panel, 4)):
      axes.set_yscale('log')
      axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
      axes.yaxis.set_major_formatter(lambda y, _: f'{y:g}')
      axes.yaxis.set_minor_locator(ticker.NullLocator())
    if panel.x == LENGTH:
      axes.set_xscale('log')
      lengths = sorted({p.x for p in panel.points if p.x != ''})
      axes.set_xlim(lengths[0] / 1.3, lengths[-1] * 1.3)
      axes.set_xticks(lengths, [_count(x) for x in lengths])
      axes.xaxis.set_minor_locator(ticker.NullLocator())
    elif panel.x in (STEPS, EPOCHS):
      axes.set_xlim(left=0)
      axes.xaxis.set_major_formatter(_count)
  _legend(figure, every[0], order)
  # Dates would make each drawing of the same points another file.
  for suffix, metadata in (('png', {}), ('pdf', {'CreationDate': None})):
    figure.savefig(f'{stem}.{suffix}', dpi=200, metadata=metadata)
  plt.close(figure)


def _legend(figure, every, order):
  """Below all axes, where it covers nothing; bold lines stand for a label."""
  handles = {}
  for axes in every:
    for handle, label in zip(*axes.get_legend_handles_labels()):
      handles[label] = handle
  labels = sorted(handles, key=lambda label: order.get(label, len(order)))
  inches = .065 * max(map(len, labels)) + .5  # Of a label and its line.
  figure.legend([handles[label] for label in labels], labels,
                loc='outside lower center',
                ncols=max(int(figure.get_figwidth() / inches), 1))


def save(path, panels):
  """Writes the points of the panels as CSV."""
  with open(path, 'w', newline='') as file:
    writer = csv.writer(file, lineterminator='\n')
    writer.writerow(Point._fields)
    writer.writerows(point for panel in panels for point in panel.points)
