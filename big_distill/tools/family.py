"""A family of students beside each other: accuracy against size and speed.

  python -m big_distill.tools.family WORKDIR... --out=FILE

Reads what finished runs left, and measures how long their students take for one
image on this machine. Prints a table, and writes FILE.csv and, where matplotlib
is installed, FILE.png: accuracy and agreement against parameters, operations
and milliseconds.
"""

from collections.abc import Sequence
import csv
import os
import statistics
from typing import Any

from absl import flags
import jax
import jax.numpy as jnp

from big_distill import command
from big_distill import pretrained
from big_distill import runs
from big_distill.tools import stopwatch

REPEATS = 20  # Forward passes, of which the median counts.
COLUMNS = {  # Of result.json; how they are called and written.
    'student_top1': ('top-1', '{:.1%}'),
    'agreement_top1': ('agreement', '{:.1%}'),
    'kl': ('KL', '{:.4g}'),
    'student_params': ('parameters', '{:,}'),
    'student_flops': ('FLOPs', '{:,}'),
    'ms': ('ms per image', '{:.3g}'),
}
AGAINST = ('student_params', 'student_flops', 'ms')


def measure(workdirs: Sequence[str]) -> list[dict[str, Any]]:
  """A row for each finished workdir: its name, its result, and `ms`."""
  rows = []
  for workdir in workdirs:
    result = runs.load(f'{runs.folder(workdir)}/result.json')
    if result is None:
      continue
    rows.append({'student': os.path.basename(workdir.rstrip('/')), **{
        key: result[key] for key in COLUMNS if key != 'ms'},
        'ms': latency(f'{runs.folder(workdir)}/student.npz')})
  if not rows:
    raise ValueError(f'No result is in {", ".join(workdirs)}: name workdirs of '
                     'runs that are finished.')
  return rows


def latency(file: str) -> float:
  """Milliseconds of a student's forward pass of one image, the median."""
  size = pretrained.card(file).size
  model, params = pretrained.load(file, size)
  model, params = pretrained.freeze(model, params)
  params = jax.device_put(params)
  image = jnp.zeros([1, size, size, 3])
  answer = jax.jit(lambda params, image: model.apply(
      {'params': params}, image)[0])
  jax.block_until_ready(answer(params, image))
  return 1e3 * statistics.median(
      stopwatch.seconds(lambda: answer(params, image)) for _ in range(REPEATS))


def table(rows: Sequence[dict[str, Any]]) -> str:
  """The rows, for a terminal."""
  lines = [['student', *(title for title, _ in COLUMNS.values())]]
  lines += [[row['student'], *(
      '-' if row[key] is None else form.format(row[key])
      for key, (_, form) in COLUMNS.items())] for row in rows]
  widths = [max(map(len, column)) for column in zip(*lines)]
  return '\n'.join('  '.join(
      cell.ljust(width) if i == 0 else cell.rjust(width)
      for i, (cell, width) in enumerate(zip(line, widths))) for line in lines)


def draw(rows: Sequence[dict[str, Any]], path: str) -> None:
  """Writes a PNG: two rows of panels, against each of AGAINST."""
  import matplotlib
  matplotlib.use('agg')
  from matplotlib import pyplot
  figure, axes = pyplot.subplots(2, len(AGAINST), figsize=(10, 6), sharey='row',
                                 layout='constrained')
  for line, y in zip(axes, ('student_top1', 'agreement_top1')):
    for axis, x in zip(line, AGAINST):
      for row in rows:
        if row[y] is None:
          continue
        axis.plot(row[x], 100 * row[y], 'o', color='C0')
        axis.annotate(row['student'], (row[x], 100 * row[y]), xytext=(4, 4),
                      textcoords='offset points', fontsize=8)
      axis.set_xscale('log')
      axis.margins(.25)
      axis.set_xlabel(COLUMNS[x][0])
      axis.grid(alpha=.3)
    line[0].set_ylabel(f'{COLUMNS[y][0]}, %')
  figure.savefig(path, dpi=150)
  pyplot.close(figure)


def show(workdirs: Sequence[str], out: str) -> None:
  """Prints the table of a family, and writes out.csv and out.png."""
  rows = measure(workdirs)
  print(table(rows))
  with open(f'{out}.csv', 'w', newline='') as file:
    writer = csv.DictWriter(file, ['student', *COLUMNS])
    writer.writeheader()
    writer.writerows(rows)
  try:
    draw(rows, f'{out}.png')
  except ImportError:
    print(f"No {out}.png: pip install 'big_distill[plot]' draws it.")


def main(flag, workdirs):
  if not workdirs:
    raise ValueError('No WORKDIR is given. See --help.')
  show(workdirs, flag.out)


def _define_flags():
  flags.DEFINE_string('out', 'family', 'FILE: writes FILE.csv and FILE.png.')


if __name__ == '__main__':
  command.program(main, _define_flags, words=True)
