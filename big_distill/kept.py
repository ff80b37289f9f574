"""Teachers' answers to the splits of evaluations, given once for every run."""

import os

from absl import logging
import numpy as np

from big_distill import runs


class Kept(dict):
  """Teachers' answers to splits of evaluation: {key: a list, one a batch}.

  With a folder they stay there, for every run that has the same teachers and
  as large batches. host: (number of this host, number of hosts).
  """

  def __init__(self, folder: str | None = None, batch_size: int = 0,
               host: tuple[int, int] = (0, 1)) -> None:
    super().__init__()
    self._folder = folder and f'{folder}/evals'
    self._end = f'{batch_size}-{host[0]:05d}-of-{host[1]:05d}.npz'

  def __missing__(self, key: str) -> list[dict]:
    self[key] = batches = []
    path = self._folder and f'{self._folder}/{key}-{self._end}'
    if path and os.path.exists(path):
      try:
        with np.load(path, allow_pickle=False) as file:
          flat = {name: file[name] for name in file.files}
      except Exception as error:  # A bad zip raises errors of many kinds.
        logging.warning('%s is damaged and is answered again: %s', path, error)
        return batches
      names = {name.split('/', 1)[1] for name in flat}
      batches += [{tuple(name.split('|')): flat[f'{i}/{name}'] for name in names}
                  for i in range(len(flat) // len(names))]
    return batches

  def save(self, key: str) -> None:
    """Writes the answers of a key to the folder, if there is one."""
    if not self._folder:
      return
    path = f'{self._folder}/{key}-{self._end}'
    partial = f'{path}.{os.getpid()}.partial.npz'
    with runs.writing(path):
      os.makedirs(self._folder, exist_ok=True)
      np.savez(partial, **{f'{i}/{"|".join(who)}': x
                           for i, batch in enumerate(self[key])
                           for who, x in batch.items()})
      os.replace(partial, path)
