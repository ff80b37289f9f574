"""Rows of a study, a line of JSON each in DIR/rows.jsonl, as stages end."""

from collections.abc import Iterable
import json
import os
import pathlib

import numpy as np

SHOWN = ('loss', 'val_top1', 'test_top1', 'test_agree', 'test_kl')


def _file(folder):
  return pathlib.Path(folder) / 'rows.jsonl'


def read(folder: str | os.PathLike) -> list[dict]:
  """All rows of a folder, which are there."""
  return [json.loads(line) for line in _file(folder).read_text().splitlines()]


def resume(folder: str | os.PathLike) -> list[dict]:
  """As read, of a folder that may be new, and is then made."""
  pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
  return read(folder) if _file(folder).exists() else []


def add(folder: str | os.PathLike, rows: Iterable[dict]) -> None:
  """Appends rows."""
  with _file(folder).open('a') as file:
    file.writelines(json.dumps(row) + '\n' for row in rows)


def show(rows: Iterable[dict], arms: Iterable[str], best: bool) -> None:
  """Prints a line per arm: its best row by val_top1, or the mean of its rows."""
  rows = list(rows)
  for arm in arms:
    mine = [row for row in rows if row['arm'] == arm]
    top = max(mine, key=lambda row: row['val_top1'])
    of = [top] if best else mine
    print(f'  {arm:17s} lr {top["lr"]:g}  ' + '  '.join(
        f'{key} {np.mean([row[key] for row in of]):.4f}' for key in SHOWN),
          flush=True)
