"""What a stream that repeats costs, drawn: stages stream_run_* of bench/further.py.

  python -m bench.stream --study=docs/logs/further --csv=bench/stream.csv \
      --figure=docs/figures/stream

A row for each student, or for the mean of several where that is all that was
kept (`seeds` of them). Lines are means, bars the range over seeds.
"""

import csv

from absl import flags
from absl import logging
import numpy as np

from bench import journal
from big_distill import command
from big_distill.tools import figures

FRESH = 'fresh'
COLUMNS = ('epochs', 'period', 'seed', 'seeds', 'loss', 'val_top1', 'test_top1',
           'test_agree', 'test_kl')
PANELS = {'test_top1': 'Test accuracy (%)', 'test_kl': 'KL to the teacher (nats)',
          'loss': 'Training loss (nats)'}


def collect(folder: str) -> list[dict]:
  """Rows of COLUMNS; `period` is in epochs, or FRESH."""
  rows = [row for row in journal.read(folder)
          if row['stage'].startswith('stream_run') and row['at'] == row['epochs']]
  return [{**{key: row.get(key, '') for key in COLUMNS},
           'seeds': row.get('seeds', 1),
           'period': row['arm'].removesuffix(' epochs')} for row in rows]


def draw(rows: list[dict], stem: str) -> None:
  """Writes stem.png and stem.pdf."""
  import matplotlib  # pylint: disable=g-import-not-at-top
  matplotlib.use('Agg')
  from matplotlib import pyplot as plt  # pylint: disable=g-import-not-at-top
  plt.rcParams.update({
      'font.size': 8, 'axes.spines.top': False, 'axes.spines.right': False,
      'axes.grid': True, 'grid.color': '#e6e6e6', 'axes.axisbelow': True,
      'legend.frameon': False, 'pdf.fonttype': 42})
  figure, every = plt.subplots(1, len(PANELS), layout='constrained',
                               figsize=(2.6 * len(PANELS), 2.7))
  periods = sorted({row['period'] for row in rows},
                   key=lambda x: (x == FRESH, x == FRESH or int(x)))
  for axes, (key, title) in zip(every, PANELS.items()):
    scale = 100 if key == 'test_top1' else 1
    for colour, marker, epochs in zip(figures.COLOURS, 'os^', sorted(
        {row['epochs'] for row in rows})):
      values = [[scale * row[key] for row in rows if row['epochs'] == epochs
                 and row['period'] == period] for period in periods]
      means = np.asarray([np.mean(each) for each in values])
      axes.errorbar(
          range(len(periods)), means,
          [means - [min(each) for each in values],
           [max(each) for each in values] - means],
          color=colour, marker=marker, markersize=3.5, linewidth=1.2,
          elinewidth=.8, capsize=2, label=f'{epochs:,} epochs')
    axes.set_xticks(range(len(periods)), periods)
    axes.set_xlabel('Epochs of views before they repeat')
    axes.set_ylabel(title)
    if key == 'loss':
      axes.set_yscale('log')
    else:
      axes.set_ylim(bottom=0)
  every[0].legend(loc='upper left')
  for suffix, metadata in (('png', {}), ('pdf', {'CreationDate': None})):
    figure.savefig(f'{stem}.{suffix}', dpi=200, metadata=metadata)


def main(flag: flags.FlagValues) -> None:
  logging.set_verbosity(logging.WARNING)
  rows = collect(flag.study)
  with open(flag.csv, 'w', newline='') as file:
    writer = csv.DictWriter(file, COLUMNS, lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
  draw(rows, flag.figure)


def _define_flags() -> None:
  flags.DEFINE_string('study', None, "The folder of bench/further.py's --out.",
                      required=True)
  flags.DEFINE_string('csv', None, 'File to write the rows to.', required=True)
  flags.DEFINE_string('figure', None, 'Where to draw: STEM.png and .pdf.',
                      required=True)


if __name__ == '__main__':
  command.program(main, _define_flags)
