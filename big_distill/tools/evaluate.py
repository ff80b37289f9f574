"""Evaluates a checkpoint as a config says, without training.

  python -m big_distill.tools.evaluate --config=configs/imagenet.py:evals=all \
      --student=DIR/student.npz --out=DIR/evaluation.json

The student is whatever model the file holds: a path, gs:// or a published name.
Its images are of config.student.size; teachers and evaluations are the config's.
"""

import json
import sys

from absl import app
from absl import flags
from etils import epath
import jax
import ml_collections
from ml_collections import config_flags

from big_distill import command
from big_distill import parallel
from big_distill import stage as stage_lib


def evaluate(config, file, data):
  """{metric: number} of all evaluators of a config; see train for `data`."""
  config = ml_collections.ConfigDict(config, type_safe=False)
  config.student = dict(init=file, size=config.student.size)
  config.data.cache = 'none'  # Each image is asked for once.
  config.mode = 'same/ic'  # Nobody learns, so that no recording is needed.
  for teacher in config.teachers.values():
    if 'recording' in teacher:
      del teacher.recording
  stage = stage_lib.set_stage(config, data)
  return stage.evaluate(0, parallel.replicate(stage.state.params),
                        parallel.replicate(stage.cast.teacher_params))


def table(metrics):
  """For a terminal."""
  width = max(map(len, metrics))
  return '\n'.join(f'{name:<{width}}  {value:.6g}'
                   for name, value in metrics.items())


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f'Unknown argument {argv[1]!r}.')
  flag = flags.FLAGS
  command.narrate()
  import tensorflow as tf
  tf.config.set_visible_devices([], 'GPU')
  from big_distill.input import pipeline
  try:
    metrics = evaluate(flag.config, flag.student, pipeline)
  except ValueError as error:
    sys.exit(f'Error: {error}')
  if jax.process_index() == 0:
    print(table(metrics))
    if flag.out:
      epath.Path(flag.out).write_text(json.dumps(metrics, indent=2) + '\n')


if __name__ == '__main__':
  config_flags.DEFINE_config_file('config', None, 'A file of configs/.')
  flags.DEFINE_string('student', None, 'A checkpoint.')
  flags.DEFINE_string('out', None, 'A JSON file to write.')
  flags.mark_flags_as_required(['config', 'student'])
  app.run(main, flags_parser=command.parse)
