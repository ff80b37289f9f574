"""Which examples a run has seen: a checksum in every logged row.

A row that is logged at step s has a CRC-32 of the indices of all examples since
the row before it, in order. So a log tells, by itself, whether any image was
lost, repeated or swapped; tools/verify.py draws the order anew and compares. Of
the steps between a row and the checkpoint that a run resumed from, the order is
drawn anew here as well: nobody logged what was seen in them.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any
import zlib

import numpy as np

from big_distill import metrics
from big_distill.durations import due


def crc(before: int, index: np.ndarray) -> int:
  """The checksum after the examples [b] of one more step; it begins with 0."""
  return zlib.crc32(np.ascontiguousarray(index, np.int64).tobytes(), before)


class Ledger:
  """Watches the batches of a run that starts at a step.

  indices: (first, last) -> the examples of steps first ... last - 1.
  """

  def __init__(self, start: int, log_every: int, total: int,
               indices: Callable[[int, int], Iterable[np.ndarray]]) -> None:
    self._log_every, self._total = log_every, total
    self._from, self._crc = start - (start % log_every if log_every else 0), 0
    if self._from < start:
      for index in indices(self._from, start):
        self._crc = crc(self._crc, index)
    self._rows: dict[int, dict[str, float]] = {}

  def watch(self, batches: Iterable[dict[str, Any]],
            ends: Iterable[int]) -> Iterator[dict[str, Any]]:
    """Passes host batches of calls on, of which the last steps are `ends`."""
    for batch, end in zip(batches, ends):
      index = np.asarray(batch['index'])
      steps = ([index] if index.ndim == 1 else
               index.T[:int(batch['count'][0])])  # The rest is padding.
      for step in steps:
        self._crc = crc(self._crc, step)
      if due(end, self._log_every, self._total):
        self._rows[end] = {metrics.SEEN: self._crc,
                           metrics.SEEN_FROM: self._from}
        self._from, self._crc = end, 0
      yield batch

  def row(self, step: int) -> dict[str, float]:
    """What the row of a step says of the examples before it."""
    return self._rows[step]
