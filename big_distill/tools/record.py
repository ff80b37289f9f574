"""Records what a teacher answers, for modes whose answers are a mean of votes.

  python -m big_distill.tools.record --config=configs/flowers102.py:mode=fix/ic_ens \
      --teacher=prof --out=DIR

The config says the rest: data, teacher, the view that votes, how many draws of
it, the seed. Kept are mean probabilities per example, float16, in shards; what
a killed run had finished stays, and the same command goes on. With several
hosts (--distributed) each writes its share of the shards. A run then teaches
with --config.teachers.prof.recording=DIR, and refuses a recording that does not
match its config.

The cost is that many forward passes per example: 1,024 for the paper's
fix/ic_ens, about what 1,024 epochs of live teaching cost the teacher.
"""

from absl import flags
from absl import logging
import jax
from ml_collections import config_flags
import numpy as np

from big_distill import answers
from big_distill import command
from big_distill import parallel
from big_distill import registry
from big_distill import steps
from big_distill import teaching
from big_distill import views


def record(config, name, folder, data):
  """Writes the answers of the teacher `name` of a config; see train for data.

  Returns the number of shards that this host wrote.
  """
  mode, seed = views.mode(config['mode']), config.get('seed', 0)
  if not mode.votes:
    raise ValueError(f'{mode}: nobody votes in this mode, so there is nothing '
                     'to record. Choose mode=fix/ic_ens, or give a mode votes.')
  batch_size, crops = config['batch_size'], {**config.get('crops', {})}
  parallel.check_batch(batch_size, 1, 1, jax.device_count(),
                       jax.process_count())
  registry.check('teacher', name, config['teachers'])
  source = registry.bind(data.load, **config['data'])()
  teacher = registry.bind(teaching.load, **config['teachers'][name])(
      name, num_classes=len(source.classes) or None)
  if not teacher.size:
    raise ValueError(f'Teacher {name!r} is no model: there is nothing to '
                     'record.')
  wanted = answers.manifest(teacher, source, mode, seed, **crops)
  answers.begin(folder, wanted)

  view = mode.teacher.at(teacher.size)
  params = parallel.replicate(teacher.params)

  @parallel.pmap
  def answer(params, batch):
    images = steps.scale(batch['views'][str(view)])
    return jax.nn.softmax(teacher.answer(params, images).astype(np.float32))

  def votes_of(first, last):
    """Mean probabilities, float64 [last - first, c]."""
    sums = np.zeros([last - first, teacher.num_classes])
    for batch in data.vote_batches(source, view, batch_size, seed, first, last,
                                   mode.votes, **crops):
      probs = jax.device_get(answer(params, parallel.split(batch)))
      probs = probs.reshape(batch_size, -1) * batch['mask'][:, None]
      np.add.at(sums, batch['index'] - first, probs)
    return sums / mode.votes

  spans = answers.shards(source.num_examples)
  written = 0
  for shard in range(jax.process_index(), len(spans), jax.process_count()):
    if not answers.path_of(folder, shard).exists():
      answers.write(folder, shard, votes_of(*spans[shard]))
      written += 1
      logging.info('Shard %d of %d: %d votes on each of examples %d to %d.',
                   shard + 1, len(spans), mode.votes, spans[shard][0],
                   spans[shard][1] - 1)
  return written


def main(flag):
  command.narrate()
  if flag.distributed:
    jax.distributed.initialize()
  written = record(flag.config, flag.teacher, flag.out, command.pipeline())
  print(f'{written} shards written to {flag.out}.')


def _define_flags():
  config_flags.DEFINE_config_file('config', None, 'A file of configs/.')
  flags.DEFINE_string('teacher', 'teacher', 'A name in config.teachers.')
  flags.DEFINE_string('out', None, 'Folder of the recording.')
  flags.DEFINE_bool('distributed', False, 'Join the other hosts of a pod.')
  flags.mark_flags_as_required(['config', 'out'])


if __name__ == '__main__':
  command.program(main, _define_flags)
