"""Evaluates a checkpoint as a config says, without training.

  python -m big_distill.tools.evaluate --config=configs/imagenet.py:evals=all \
      --student=DIR/student.npz --out=DIR/evaluation.json

The student is whatever model the file holds: a path, gs:// or a published name.
Its images are of config.student.size; teachers and evaluations are the config's.
"""

from collections.abc import Mapping
import functools
from typing import Any

from absl import flags
import jax

from big_distill import classroom
from big_distill import command
from big_distill import exams
from big_distill import faculty as faculty_lib
from big_distill import lessons as lessons_lib
from big_distill import parallel
from big_distill import registry
from big_distill import runs
from big_distill import signatures
from big_distill import views


def evaluate(config: Mapping[str, Any], file: str,
             data: Any) -> dict[str, float]:
  """{metric: number} of all evaluators of a config; see train for `data`."""
  student = {key: value for key, value in {**config['student']}.items()
             if key == 'size'}
  # Each image is asked for once.
  config = {**config, 'data': {**config['data'], 'cache': 'none'},
            'student': dict(student, init=file)}
  signatures.check_whole(config)
  if not config.get('evals'):
    raise ValueError('config.evals is empty, so there is nothing to measure: '
                     'give an evaluation.')
  parallel.check_batch(config['batch_size'], 1, 1, parallel.device_count(),
                       parallel.host_count())
  load = lessons_lib.loader(data)
  source, crops = load(config['data']), config.get('crops', {})
  room = classroom.load(config, views.mode('same/ic'), source)
  examined = [exams.make(name, section, config['data'], load)
              for name, section in config['evals'].items()]
  run = exams.make_evaluate(examined, room, 0, functools.partial(
      registry.bind(data.eval_batches, **crops),
      batch_size=config['batch_size'], seed=config.get('seed', 0),
      host=(jax.process_index(), jax.process_count())))
  return run(0, parallel.replicate(room.params),
             faculty_lib.Faculty(room))


def table(metrics: Mapping[str, float]) -> str:
  """For a terminal."""
  width = max(map(len, metrics))
  return '\n'.join(f'{name:<{width}}  {value:.6g}'
                   for name, value in metrics.items())


def main(flag):
  command.narrate()
  metrics = evaluate(flag.config.to_dict(), flag.student, command.pipeline())
  if jax.process_index() == 0:
    print(table(metrics))
    if flag.out:
      runs.save(flag.out, metrics)


def _define_flags():
  flags.DEFINE_string('config', None, 'A file of configs/.')
  flags.DEFINE_string('student', None, 'A checkpoint.')
  flags.DEFINE_string('out', None, 'A JSON file to write.')
  flags.mark_flags_as_required(['config', 'student'])


if __name__ == '__main__':
  command.program(main, _define_flags)
