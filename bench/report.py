"""Writes the README's performance section, from the CSVs of this folder.

  python -m bench.report
"""

import csv
import os

HERE = os.path.dirname(__file__)
README = os.path.join(os.path.dirname(HERE), 'README.md')
TABLES = [  # CSV, what its cells are, its columns of rows and columns, caption.
    ('models.csv', 'images/s (times plain Flax)', 'code', 'pass',
     '{model}, {size} px, batch {batch}, float32, {cpus} CPU cores, jax {jax}, '
     'commit {commit}, `bench/{name}`.'),
    ('images.csv', 'images/s of a core (times plain)', 'views', 'code',
     'Inception crops of {data}, batch {batch}, CPU time of all threads, '
     'tensorflow {tensorflow}, commit {commit}, `bench/{name}`.'),
]
BEGIN, END = '<!-- bench -->\n', '<!-- /bench -->\n'


def read(name):
  """Rows of a CSV of this folder."""
  with open(os.path.join(HERE, name), newline='') as file:
    return list(csv.DictReader(file))


def table(name, corner, rows, columns, caption):
  """A table of rates, of one CSV, in Markdown."""
  found = read(name)
  rates = {(row[rows], row[columns]): row for row in found}
  names = list(dict.fromkeys(row[columns] for row in found))

  def cell(row):
    rate = float(row['images_per_s'])
    return f'{rate:,.{int(rate < 100)}f} ({float(row["times_plain"]):.2f})'

  lines = [f'| {corner} | {" | ".join(names)} |',
           '|---' * (1 + len(names)) + '|']
  for first in dict.fromkeys(row[rows] for row in found):
    cells = ' | '.join(cell(rates[first, name]) for name in names)
    lines.append(f'| {first} | {cells} |')
  return '\n'.join([*lines, '', caption.format(**found[0], name=name), ''])


def section():
  """What stands between BEGIN and END."""
  return '\n'.join(table(*args) for args in TABLES)


def replaced(text):
  """A README with this section."""
  head, rest = text.split(BEGIN)
  return head + BEGIN + section() + END + rest.split(END)[1]


def main():
  with open(README) as file:
    text = file.read()
  with open(README, 'w') as file:
    file.write(replaced(text))


if __name__ == '__main__':
  main()
