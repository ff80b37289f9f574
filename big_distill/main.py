"""python -m big_distill.main --config=configs/quickstart.py --workdir=DIR

Flags, hosts, and the two things that need TensorFlow: images and TensorBoard.
The rest is train.train.
"""

import contextlib

from absl import flags
import jax
from ml_collections import config_flags

from big_distill import command
from big_distill import hosts
from big_distill import leaving
from big_distill import lock
from big_distill import report
from big_distill import runs
from big_distill import train


class _NoWriter(contextlib.nullcontext):
  """Hosts other than the first keep no record."""
  rewind = write = lambda self, *args: None
  read = lambda self: []
  __enter__ = lambda self: self


def _distil(flag):
  """Runs the command among its hosts, ready to leave when told to."""
  workdir = runs.folder(flag.workdir)
  several = flag.distributed or flag.coordinator is not None
  with contextlib.ExitStack() as stack:
    if several:
      stack.enter_context(hosts.joined(flag.coordinator, flag.processes,
                                       flag.process))
    preemption = stack.enter_context(leaving.Preemption(alone=not several))
    if jax.process_index() == 0:
      held = stack.enter_context(lock.Lock(workdir))
      preemption.release.append(held.release)
    _run(flag, workdir, preemption)


def _run(flag, workdir, preemption):
  """Trains, and prints and saves the result on the first host."""
  _keep_programs(f'{workdir}/compiled')

  pipeline = command.pipeline()
  from big_distill import writers

  first = jax.process_index() == 0
  with writers.Writer(workdir) if first else _NoWriter() as writer:
    result = train.train(flag.config, workdir, pipeline, writer, preemption,
                         flag.allow_changes)
  if first and result:
    runs.save(f'{workdir}/result.json', result)
    print(report.table(result))


def _keep_programs(folder):
  """Has JAX keep compiled programs, for a resumed run, unless told where.

  JAX_COMPILATION_CACHE_DIR says where else, JAX_ENABLE_COMPILATION_CACHE=0 that
  nowhere. A gs:// folder will do.
  """
  if not jax.config.jax_compilation_cache_dir:
    jax.config.update('jax_compilation_cache_dir', folder)


def main(flag):
  command.narrate()
  _distil(flag)


def _define_flags():
  config_flags.DEFINE_config_file(
      'config', None,
      'A file of configs/, with arguments: FILE.py:name=value,...')
  flags.DEFINE_string(
      'workdir', None,
      'Folder of checkpoints and results; resumes what is there.')
  flags.DEFINE_list(
      'allow_changes', [],
      'Config keys that may differ from the run that the workdir holds.')
  flags.DEFINE_bool(
      'distributed', False, 'Join the other hosts of a pod or cluster: those '
      'that JAX detects, or those of the three flags below.')
  flags.DEFINE_string('coordinator', None, 'HOST:PORT of process 0.')
  flags.DEFINE_integer('processes', None, 'How many processes there are.')
  flags.DEFINE_integer('process', None, 'The number of this process, from 0.')
  flags.mark_flags_as_required(['config', 'workdir'])


if __name__ == '__main__':
  command.program(main, _define_flags)
