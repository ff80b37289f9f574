"""Where metrics go: TensorBoard, and one JSON object a line for everyone."""

from collections.abc import Mapping
import contextlib
import json
from typing import Any

from clu import metric_writers
import tensorflow as tf

from big_distill import runs


class Writer:
  """write(step, {name: number}), to DIR/tensorboard and DIR/metrics.jsonl.

  Used in a `with`. Nothing is written before the first call.
  """

  def __init__(self, workdir: str) -> None:
    self._path = f'{workdir}/metrics.jsonl'
    self._events = f'{workdir}/tensorboard'
    self._tensorboard: Any = None

  def __enter__(self) -> 'Writer':
    return self

  def __exit__(self, kind, *error) -> None:
    # What went wrong before is not to be hidden by what closing makes of it.
    with contextlib.suppress(*[Exception] if kind else []):
      self.close()

  def rewind(self, step: int) -> None:
    """Forgets what was written after `step`, which is about to be redone."""
    rows = [row for row in self.read() if row['step'] <= step]
    runs.write(self._path, ''.join(json.dumps(row) + '\n' for row in rows))

  def read(self) -> list[dict[str, float]]:
    """All rows so far."""
    return runs.rows(self._path)

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    """Adds a row; ValueError, in one line, if that is not possible."""
    # After the first row the file is there. Checkpoints make a removed workdir
    # anew, so that the run could go on without its rows.
    if self._tensorboard is not None and not tf.io.gfile.exists(self._path):
      raise ValueError(f'Cannot write {self._path}: it was removed under this '
                       'run. Bring it back, or start again in another --workdir.')
    with runs.writing(self._path), tf.io.gfile.GFile(self._path, 'a') as file:
      file.write(json.dumps({'step': step, **scalars}) + '\n')
    with runs.writing(self._events):
      if self._tensorboard is None:
        self._tensorboard = metric_writers.AsyncWriter(
            metric_writers.SummaryWriter(self._events))
      self._tensorboard.write_scalars(step, scalars)

  def close(self) -> None:
    """Waits for what is being written."""
    if self._tensorboard is not None:
      with runs.writing(self._events):
        self._tensorboard.close()
