"""Where metrics go: TensorBoard, and one JSON object a line for everyone."""

import json

from clu import metric_writers
import tensorflow as tf

from big_distill import runs


class Writer:
  """write(step, {name: number}), to DIR/tensorboard and DIR/metrics.jsonl."""

  def __init__(self, workdir):
    self._path = f'{workdir}/metrics.jsonl'
    self._tensorboard = metric_writers.AsyncWriter(
        metric_writers.SummaryWriter(f'{workdir}/tensorboard'))

  def rewind(self, step):
    """Forgets what was written after `step`, which is about to be redone."""
    rows = [row for row in self.read() if row['step'] <= step]
    with tf.io.gfile.GFile(self._path + '.partial', 'w') as file:
      file.write(''.join(json.dumps(row) + '\n' for row in rows))
    tf.io.gfile.rename(self._path + '.partial', self._path, overwrite=True)

  def read(self):
    """All rows so far."""
    return runs.rows(self._path)

  def write(self, step, scalars):
    with tf.io.gfile.GFile(self._path, 'a') as file:
      file.write(json.dumps({'step': step, **scalars}) + '\n')
    self._tensorboard.write_scalars(step, scalars)

  def close(self):
    self._tensorboard.close()
