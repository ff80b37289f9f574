"""Where metrics go: TensorBoard, and one JSON object a line for everyone."""

import json
import os

from clu import metric_writers


class Writer:
  """write(step, {name: number}), to DIR/tensorboard and DIR/metrics.jsonl."""

  def __init__(self, workdir):
    os.makedirs(workdir, exist_ok=True)
    self._path = os.path.join(workdir, 'metrics.jsonl')
    self._tensorboard = metric_writers.AsyncWriter(
        metric_writers.SummaryWriter(os.path.join(workdir, 'tensorboard')))

  def rewind(self, step):
    """Forgets what was written after `step`, which is about to be redone."""
    rows = [row for row in self.read() if row['step'] <= step]
    with open(self._path + '.partial', 'w') as file:
      file.writelines(json.dumps(row) + '\n' for row in rows)
    os.replace(self._path + '.partial', self._path)

  def read(self):
    """All rows so far; a line cut short by a crash is left out."""
    rows = []
    if os.path.exists(self._path):
      with open(self._path) as file:
        for line in file:
          try:
            rows.append(json.loads(line))
          except json.JSONDecodeError:
            continue
    return rows

  def write(self, step, scalars):
    with open(self._path, 'a') as file:
      file.write(json.dumps({'step': step, **scalars}) + '\n')
    self._tensorboard.write_scalars(step, scalars)

  def close(self):
    self._tensorboard.close()
