"""Writes the tables of docs/, from the CSVs of this folder.

  python -m bench.report

A table stands between <!-- bench NAME --> and <!-- /bench -->, NAME in TABLES.
"""

import csv
import os
import re

HERE = os.path.dirname(__file__)
PAGES = [os.path.join(os.path.dirname(HERE), page)
         for page in ('docs/speed.md', 'docs/topk.md', 'docs/answers.md')]
PLACE = re.compile(r'(<!-- bench (\w+) -->\n).*?(<!-- /bench -->)', re.DOTALL)


def read(name):
  """Rows of a CSV of this folder."""
  with open(os.path.join(HERE, f'{name}.csv'), newline='') as file:
    return list(csv.DictReader(file))


def rates(row):
  rate = float(row['images_per_s'])
  text = f'{rate:,.{int(rate < 100)}f}'
  return f'{text} ({float(row["times_plain"]):.2f})'


def crossed(corner, down, across):
  """rows -> a table of rates, rows and columns by the names of two columns."""
  def make(rows):
    cells = {(row[down], row[across]): rates(row) for row in rows}
    names = list(dict.fromkeys(row[across] for row in rows))
    return [[corner, *names]] + [
        [name, *(cells[name, other] for other in names)]
        for name in dict.fromkeys(row[down] for row in rows)]
  return make


def listed(**columns):
  """rows -> a table of a line per row; columns are formatted: title='{ms}'."""
  def make(rows):
    return [[*columns]] + [
        [text.format(**{key: _number(value) for key, value in row.items()})
         for text in columns.values()] for row in rows]
  return make


def _number(text):
  for kind in (int, float):
    try:
      return kind(text)
    except ValueError:
      pass
  return text or _Missing()


class _Missing:
  """What was not measured, in any format."""

  def __format__(self, spec):
    return '-'


def losses_kept(rows):
  """rows -> errors of KL and of gradient, kept logits down, temperature across.

  Of the trained student and mixed images, which come nearest to the end of a
  distillation by the paper's recipe.
  """
  rows = [row for row in rows
          if row['student'] == 'trained' and row['mixed'] == '1']
  cells = {(row['kept'], row['t']):
           f'{float(row["kl_error"]):.2g} / {float(row["gradient_error"]):.2g}'
           for row in rows}
  size = {row['kept']: row['bytes'] for row in rows}
  heats = list(dict.fromkeys(row['t'] for row in rows))
  return [['logits kept', 'bytes', *(f't = {float(t):g}' for t in heats)]] + [
      [kept, size[kept], *(cells[kept, t] for t in heats)] for kept in size]


MADE = 'jax {jax}, commit {commit}, `bench/{csv}.csv`.'
ANSWERS = (
    listed(**{'taught': '{way}', 'students': '{students}', 'ms': '{ms}',
              'images/s, once a student': '{images_per_s:,.0f}',
              'times live': '{times_live:.2f}',
              'by arithmetic': '{by_arithmetic:.2f}'}),
    '{name}, {classes} classes, {size} px, batch {batch}, {device}; reading '
    '{answer_bytes} bytes for each image takes {read_ms} ms a step; ' + MADE)
TABLES = {  # Name of a CSV: its table, and what is said below.
    'models': (
        crossed('images/s (times plain Flax)', 'code', 'pass'),
        '{model}, {size} px, batch {batch}, {dtype}, {cpus} CPU cores, ' + MADE),
    'gpu': (
        listed(**{'': '{code}', 'images/s': '{images_per_s:,.0f}',
                  'of peak': '{share_of_peak:.0%}'}),
        '{model}, {size} px, batch {batch}, {dtype}, {pass}, {device}, whose '
        'peak is {peak_tflop_per_s} TFLOP/s in a product of matrices, ' + MADE),
    'images': (
        crossed('images/s of a core (times plain)', 'views', 'code'),
        'Inception crops of {data}, batch {batch}, CPU time of all threads, '
        'tensorflow {tensorflow}, commit {commit}, `bench/{csv}.csv`.'),
    'teachers': (
        listed(**{'teacher': '{teacher}, {size} px', 'kept as': '{weights}',
                  'computed in': '{dtype}', 'bytes': '{bytes:,.0f}',
                  'KL, nats': '{kl}', 'agreement': '{agreement:.1%}',
                  'top-1': '{top1:.1%}', 'error of logits': '{error}',
                  'ms': '{ms}'}),
        'Against the exact teacher, on photographs; forward of one batch, {cpus} '
        'CPU cores, ' + MADE),
    'answers': ANSWERS,
    'answers_gpu': ANSWERS,
    'topk': (
        losses_kept,
        'Error of the KL / of its gradient, relative to all logits in float64, of '
        '{teacher} and a trained student (EfficientNet-Lite0), on {photographs} '
        'mixed inception crops of Caltech-101; ' + MADE),
    'scaling': (
        listed(**{'processes x devices': '{processes} x {devices_each}',
                  'batch': '{batch}', 'images/s': '{images_per_s:,.0f}',
                  'of one device': '{of_one_device:.0%}',
                  'bytes exchanged': '{exchanged_bytes:,.0f}'}),
        '`configs/quickstart.py`, {per_device} images per device, which are '
        'simulated on {cpus} CPU cores, ' + MADE),
}


def table(name):
  """Markdown of a CSV."""
  make, caption = TABLES[name]
  rows = read(name)
  first, *rest = make(rows)
  lines = [first, ['---'] * len(first), *rest]
  return '\n'.join([*(f'| {" | ".join(line)} |' for line in lines), '',
                    caption.format(**rows[0], csv=name), ''])


def replaced(text):
  """A page with its tables as the CSVs have them."""
  return PLACE.sub(lambda place: place[1] + table(place[2]) + place[3], text)


def main():
  for page in PAGES:
    with open(page) as file:
      text = replaced(file.read())
    with open(page, 'w') as file:
      file.write(text)


if __name__ == '__main__':
  main()
