"""Lists of images with labels: CSV files as people and other tools write them.

A row is an image: a column has its path, relative to the list, others may have
its label and its split. Columns are found by their titles and what is in them,
or asked for.
"""

import codecs
from collections.abc import Sequence
import csv
import os

import tensorflow as tf

from big_distill import contracts
from big_distill import registry
from big_distill.contracts import Source
from big_distill.input import files
from big_distill.input import folders
from big_distill.input import listings

LABELS = ('label', 'labels', 'class', 'class_name', 'category', 'target')
SPLITS = ('split', 'set', 'subset', 'partition')


def source(path: str, split: str, image: str | None = None,
           label: str | None = 'label',
           classes: str | Sequence[str] | None = None,
           skip: bool = False) -> Source:
  """A split of a CSV or TSV file of paths of images.

  image, label: titles of columns; None finds paths, and leaves labels out.
  classes: see listings.number. skip: images of formats that cannot be read are
  left out. Raises ValueError for columns and files that are not there.
  """
  title, path = f'folder:{path}', os.path.expanduser(path)
  titles, rows = _table(title, path)
  paths = _paths(title, titles, rows, image)
  labels = _labels(title, titles, paths, label)
  root = os.path.dirname(path)
  for row in rows:  # As Windows writes them.
    if '\\' in row[paths] and not os.path.exists(os.path.join(root, row[paths])):
      row[paths] = row[paths].replace('\\', '/')
  splits = next((i for i, each in enumerate(titles)
                 if each.casefold() in SPLITS), None)
  refused = files.refuse(title, root, [row[paths] for row in rows], skip)
  found = {}
  for row in rows:
    if row[paths] not in refused:
      found.setdefault('train' if splits is None else row[splits], []).append(
          listings.Example(row[paths],
                           None if labels is None else
                           files.printable(row[labels]) or None))
  chosen = listings.choose(
      title, split, found, lambda name: listings.scatter(found[name]),
      bool(label), classes)
  missing = [name for name in chosen.names if '://' not in root
             and not os.path.exists(os.path.join(root, name))]
  if missing:
    raise ValueError(
        f'{title} lists {len(missing)} of {len(chosen.names)} files that do '
        f'not exist, such as {files.printable(missing[0])}: write paths '
        'relative to the list.')
  return folders.of_files(f'{title} {split}', root, chosen)._replace(
      fingerprint=contracts.fingerprint(chosen.names, chosen.labels))


def _table(title, path):
  """Titles of columns, made up where the file has none, and rows."""
  with tf.io.gfile.GFile(path, 'rb') as file:
    content = file.read()
  wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
  text = (content.decode('utf-16', 'replace') if wide else
          content.decode('utf-8-sig', 'surrogateescape'))
  lines = [line for line in text.splitlines() if line.strip()]
  if not lines:
    raise ValueError(f'{title} is empty: write a line for each image, with its '
                     'path.')
  delimiter = max(',;\t', key=lines[0].count)
  rows = [[cell.strip() for cell in row]
          for row in csv.reader(lines, delimiter=delimiter) if any(row)]
  uneven = next((i for i, row in enumerate(rows, 1)
                 if len(row) != len(rows[0])), None)
  if uneven:
    raise ValueError(f'{title} has {len(rows[0])} columns, but '
                     f'{len(rows[uneven - 1])} in row {uneven}.')
  if any(files.is_image(cell) for cell in rows[0]):
    return [str(i) for i in range(len(rows[0]))], rows
  return rows[0], rows[1:]


def _paths(title, titles, rows, image):
  """The column of paths: as asked for, or the only one that looks like it."""
  if image:
    registry.check(f'column of {title}', image, titles)
    return titles.index(image)
  if not rows:
    raise ValueError(f'{title} has titles ({", ".join(titles)}) and no images: '
                     'write a line for each.')
  found = [i for i in range(len(titles)) if files.is_image(rows[0][i])]
  if len(found) != 1:
    raise ValueError(
        f'{title} has {len(found)} columns of paths of images, such as '
        f'cat/1.jpg; choose one by data.image=COLUMN, of distill.py by '
        f'image=COLUMN: {", ".join(titles)}.')
  return found[0]


def _labels(title, titles, paths, label):
  """The column of labels: as asked for, of a usual title, or the only other."""
  if not label:
    return None
  if label != 'label':
    registry.check(f'column of {title}', label, titles)
    return titles.index(label)
  others = [i for i, each in enumerate(titles)
            if i != paths and each.casefold() not in SPLITS]
  usual = [i for i in others if titles[i].casefold() in LABELS]
  found = usual or others
  if len(found) > 1:
    raise ValueError(
        f'{title} has several columns that may be labels; choose one by '
        f'data.label=COLUMN, or None: {", ".join(titles[i] for i in found)}.')
  return found[0] if found else None
