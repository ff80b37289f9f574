"""Writes the README's performance section, from the CSVs of this folder.

  python -m bench.report
"""

import csv
import os

HERE = os.path.dirname(__file__)
README = os.path.join(os.path.dirname(HERE), 'README.md')
BEGIN, END = '<!-- bench -->\n', '<!-- /bench -->\n'


def read(name):
  """Rows of a CSV of this folder."""
  with open(os.path.join(HERE, name), newline='') as file:
    return list(csv.DictReader(file))


def section():
  """What stands between BEGIN and END."""
  rows = read('models.csv')
  passes = list(dict.fromkeys(row['pass'] for row in rows))
  rates = {(row['code'], row['pass']): row for row in rows}
  first = rows[0]

  def cell(row):
    return f'{float(row["images_per_s"]):.1f} ({float(row["times_plain"]):.2f})'

  lines = [f'| images/s (times plain Flax) | {" | ".join(passes)} |',
           '|---' * (1 + len(passes)) + '|']
  for code in dict.fromkeys(row['code'] for row in rows):
    cells = ' | '.join(cell(rates[code, part]) for part in passes)
    lines.append(f'| {code} | {cells} |')
  lines += ['', f'{first["model"]}, {first["size"]} px, batch {first["batch"]}, '
            f'float32, {first["cpus"]} CPU cores, jax {first["jax"]}, commit '
            f'{first["commit"]}, `bench/models.csv`.']
  lines += teachers()
  return '\n'.join(lines) + '\n'


def teachers():
  """Lines on what teachers lose and save by fewer bits, of teachers.csv."""
  rows = read('teachers.csv')
  first = rows[0]
  lines = ['', '| teacher | kernels kept as | computed in | MB | KL, nats '
           '| agreement | top-1 | error of logits | ms |', '|---' * 9 + '|']
  for row in rows:
    share = [f'{float(row[name]):.1%}' if row[name] else '-'
             for name in ('agreement', 'top1')]
    what = f'{row["teacher"]}, {row["size"]} px, batch {row["batch"]}'
    cells = [what, row['weights'], row['dtype'],
             f'{int(row["bytes"]) / 1e6:.1f}', row['kl'] or '-', *share,
             row['error'], row['ms']]
    lines.append(f'| {" | ".join(cells)} |')
  return lines + ['', f'Against the exact teacher, on photographs; forward of '
                  f'one batch, {first["cpus"]} CPU cores, jax {first["jax"]}, '
                  f'commit {first["commit"]}, `bench/teachers.csv`.']


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
