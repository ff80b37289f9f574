"""Draws panels of points: knows what is where, not which runs it came from.

A figure is a list of panels, a panel is points, and nothing else is drawn: the
CSV beside a figure is all of it.
"""

import csv
import dataclasses
import itertools

from big_distill import metrics
from big_distill import views
from big_distill.tools import marks
from big_distill.tools.marks import Point

STEPS, EPOCHS, LENGTH, SOURCE = 'steps', 'epochs', 'total epochs', 'images'
RANK = 'rank'  # For style 'ranked', whose values lie on the axis across.
NAMES = {**metrics.TITLES, STEPS: 'Steps', EPOCHS: 'Epochs',
         LENGTH: 'Training length (epochs)', SOURCE: 'Training images',
         RANK: ''}

# Okabe and Ito's colours, which the colour-blind tell apart, but for yellow.
COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#56B4E9', '#E69F00',
           '#000000')
DASHES = ('-', (0, (4, 1.5)), (0, (1, 1.2)))


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
    for style, of_style in marks.STYLES.items():
      points = [p for p in panel.points if p.style == style]
      if points:
        of_style(axes, points, looks)
    axes.set_xlabel(NAMES[panel.x])
    values = axes.xaxis if panel.x == RANK else axes.yaxis
    values.set_label_text(NAMES.get(panel.y, panel.y))
    if marks.is_share(panel.y):
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
