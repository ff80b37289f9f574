"""What was measured, with the machine and the versions it was measured on."""

import csv

from big_distill.tools import bench


def show(rows):
  """Rows, which are dicts of the same keys, for a terminal."""
  lines = [list(rows[0]), *([str(value) for value in row.values()]
                            for row in rows)]
  widths = [max(map(len, column)) for column in zip(*lines)]
  for line in lines:
    print('  '.join(cell.ljust(width) for cell, width in zip(line, widths)))


def save(path, rows):
  """A CSV of rows and of what bench.machine says, in every row."""
  machine = bench.machine()
  with open(path, 'w', newline='') as file:
    writer = csv.DictWriter(file, [*rows[0], *machine])
    writer.writeheader()
    writer.writerows({**row, **machine} for row in rows)
