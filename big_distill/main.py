"""python -m big_distill.main --config=configs/quickstart.py --workdir=DIR

Flags, hosts, and the two things that need TensorFlow: images and TensorBoard.
The rest is train.train.
"""

import os

from absl import flags
from etils import epath
import jax
from ml_collections import config_flags

from big_distill import command
from big_distill import leaving
from big_distill import report
from big_distill import runs
from big_distill import train


class _NoWriter:
  """Hosts other than the first keep no record."""
  rewind = write = lambda self, *args: None
  read = lambda self: []
  close = lambda self: None


def _distil(flag):
  """Runs the command among its hosts, ready to leave when told to."""
  if flag.distributed:
    jax.distributed.initialize()
  with leaving.Preemption(alone=not flag.distributed) as preemption:
    _run(flag, preemption)


def _run(flag, preemption):
  """Trains, and prints and saves the result on the first host."""
  workdir = runs.folder(flag.workdir)
  _check_writable(epath.Path(workdir))
  _keep_programs(f'{workdir}/compiled')

  pipeline = command.pipeline()
  from big_distill import writers

  first = jax.process_index() == 0
  writer = writers.Writer(workdir) if first else _NoWriter()
  if first:  # What plots, and a sweep that is taken up again, know it by.
    runs.save(f'{workdir}/config.json', flag.config.to_dict())
  try:
    result = train.train(flag.config, workdir, pipeline, writer, preemption)
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
  flags.DEFINE_bool('distributed', False,
                    'Join the other hosts of a pod or cluster.')
  flags.mark_flags_as_required(['config', 'workdir'])


if __name__ == '__main__':
  command.program(main, _define_flags)
