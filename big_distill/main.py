"""python -m big_distill.main --config=configs/quickstart.py --workdir=DIR

Flags, hosts, and the two things that need TensorFlow: images and TensorBoard.
The rest is train.train.
"""

import logging as std_logging
import os
import runpy
import sys

from absl import app
from absl import flags
from absl import logging
from etils import epath
import jax
import ml_collections
from ml_collections import config_flags

from big_distill import registry
from big_distill import report
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
  """Runs the command, and prints and saves its result on the first host."""
  if _DISTRIBUTED.value:
    jax.distributed.initialize()
  workdir = _WORKDIR.value
  if '://' not in workdir:
    workdir = os.path.abspath(os.path.expanduser(workdir))
  _check_writable(epath.Path(workdir))

  import tensorflow as tf
  tf.config.set_visible_devices([], 'GPU')
  from big_distill import writers
  from big_distill.input import pipeline

  first = jax.process_index() == 0
  writer = writers.Writer(workdir) if first else _NoWriter()
  try:
    result = train.train(_CONFIG.value, workdir, pipeline, writer)
  finally:
    writer.close()
  if first and result:
    report.save(f'{workdir}/result.json', result)
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


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f'Unknown argument {argv[1]!r}.')
  logging.set_verbosity(logging.INFO)
  # Libraries narrate at INFO too; what matters of them is a warning.
  logging.get_absl_handler().addFilter(
      lambda record: record.levelno > std_logging.INFO
      or 'big_distill' in record.pathname)
  try:
    _distil()
  except ValueError as error:
    # What a user can cause is said in words; a traceback would bury it.
    logging.debug('Traceback', exc_info=True)
    sys.exit(f'Error: {error}')


def _parse(argv):
  """Flags, or one line on what is wrong with them."""
  try:
    _check_config(argv)
    return flags.FLAGS(argv)
  except (flags.Error, ValueError) as error:
    # ml_collections wraps what a config raises into its whole traceback.
    line = str(error).strip().splitlines()[-1]
    sys.exit(f'Error: {line.removeprefix("ValueError: ")}')


def _check_config(argv):
  """Raises ValueError if there is no such config file, or no such key in it."""
  values = [word.removeprefix('--config=') for word in argv
            if word.startswith('--config=')]
  if not values:
    return
  path, _, arg = values[-1].partition(':')
  folder = os.path.dirname(path)
  files = sorted(os.path.join(folder, file) for file in os.listdir(folder or '.')
                 if file.endswith('.py')) if os.path.isdir(folder or '.') else []
  registry.check('config file', path, files)

  config = runpy.run_path(path)['get_config'](*([arg] if arg else []))
  for word in argv:
    if word.startswith('--config.'):
      at = config
      path = word.removeprefix('--config.').partition('=')[0]
      for key in path.split('.'):
        if not isinstance(at, ml_collections.ConfigDict):
          raise ValueError(f'config.{path}: there is nothing inside {at!r}.')
        registry.check('config key', key, at.keys())
        at = at[key]


if __name__ == '__main__':
  app.run(main, flags_parser=_parse)
