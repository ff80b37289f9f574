"""python -m big_distill.main --config=configs/quickstart.py --workdir=DIR

Flags, hosts, and the two things that need TensorFlow: images and TensorBoard.
The rest is train.train.
"""

import os
import sys

from absl import app
from absl import flags
from absl import logging
from etils import epath
import jax
from ml_collections import config_flags

from big_distill import command
from big_distill import leaving
from big_distill import report
from big_distill import runs
from big_distill import train

_CONFIG = config_flags.DEFINE_config_file(
    'config', None, 'A file of configs/, with arguments: FILE.py:name=value,...')
_WORKDIR = flags.DEFINE_string(
    'workdir', None, 'Folder of checkpoints and results; resumes what is there.')
_DISTRIBUTED = flags.DEFINE_bool(
    'distributed', False, 'Join the other hosts of a pod or cluster.')
flags.mark_flags_as_required(['config', 'workdir'])


class _NoWriter:
  """Hosts other than the first keep no record."""
  rewind = write = lambda self, *args: None
  read = lambda self: []
  close = lambda self: None


def _distil():
  """Runs the command among its hosts, ready to leave when told to."""
  if _DISTRIBUTED.value:
    jax.distributed.initialize()
  with leaving.Preemption(alone=not _DISTRIBUTED.value) as preemption:
    _run(preemption)


def _run(preemption):
  """Trains, and prints and saves the result on the first host."""
  workdir = runs.folder(_WORKDIR.value)
  _check_writable(epath.Path(workdir))
  _keep_programs(f'{workdir}/compiled')

  import tensorflow as tf
  tf.config.set_visible_devices([], 'GPU')
  from big_distill import writers
  from big_distill.input import pipeline

  first = jax.process_index() == 0
  writer = writers.Writer(workdir) if first else _NoWriter()
  if first:  # What plots, and a sweep that is taken up again, know it by.
    runs.save(f'{workdir}/config.json', _CONFIG.value.to_dict())
  try:
    result = train.train(_CONFIG.value, workdir, pipeline, writer, preemption)
  finally:
    writer.close()
  if first and result:
    runs.save(f'{workdir}/result.json', result)
    print(report.table(result))


def _check_writable(workdir):
  """Makes the folder, and raises ValueError if nothing can be written there."""
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    probe = workdir / f'.writable-{os.getpid()}'
    probe.write_text('')
    probe.unlink()
  except OSError as error:
    raise ValueError(f'Cannot write to --workdir={workdir}: {error.strerror}. '
                     'Choose another folder.') from error


def _keep_programs(folder):
  """Has JAX keep compiled programs, for a resumed run, unless told where.

  JAX_COMPILATION_CACHE_DIR says where else, JAX_ENABLE_COMPILATION_CACHE=0 that
  nowhere. A gs:// folder will do.
  """
  if not jax.config.jax_compilation_cache_dir:
    jax.config.update('jax_compilation_cache_dir', folder)


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f'Unknown argument {argv[1]!r}.')
  command.narrate()
  try:
    _distil()
  except ValueError as error:
    # What a user can cause is said in words; a traceback would bury it.
    logging.debug('Traceback', exc_info=True)
    sys.exit(f'Error: {error}')


if __name__ == '__main__':
  app.run(main, flags_parser=command.parse)
