"""The command line of programs with a --config: checked before it is obeyed."""

import logging as std_logging
import os
import runpy
import sys

from absl import flags
from absl import logging
import ml_collections
from ml_collections import config_flags

from big_distill import registry


def parse(argv):
  """Flags, or one line on what is wrong with them."""
  try:
    check(argv)
    return flags.FLAGS(argv)
  except (flags.Error, ValueError) as error:
    # ml_collections wraps what a config raises into its whole traceback.
    line = str(error).strip().splitlines()[-1]
    sys.exit(f'Error: {line.removeprefix("ValueError: ")}')


def narrate():
  """Logs what this project says; of what libraries say, warnings."""
  logging.set_verbosity(logging.INFO)
  logging.get_absl_handler().addFilter(
      lambda record: record.levelno > std_logging.INFO
      or 'big_distill' in record.pathname)


def load(value):
  """'FILE.py:ARG' -> (what the file defines, [ARG] or [] for its get_*)."""
  path, _, arg = value.partition(':')
  folder = os.path.dirname(path)
  beside = os.listdir(folder or '.') if os.path.isdir(folder or '.') else []
  files = sorted(os.path.join(folder, file) for file in beside
                 if file.endswith('.py'))
  registry.check('config file', path, files)
  return runpy.run_path(path), [arg] if arg else []


def check(words):
  """Raises ValueError if there is no such config file, or no such key in it."""
  values = [word.removeprefix('--config=') for word in words
            if word.startswith('--config=')]
  if not values:
    return
  names, arg = load(values[-1])
  config = names['get_config'](*arg)
  for word in words:
    if word.startswith('--config.'):
      at = config
      path = word.removeprefix('--config.').partition('=')[0]
      for key in path.split('.'):
        if not isinstance(at, ml_collections.ConfigDict):
          raise ValueError(f'config.{path}: there is nothing inside {at!r}.')
        registry.check('config key', key, at.keys())
        at = at[key]


def resolve(words):
  """The config that a command of these words will run with, or ValueError."""
  check(words)
  known = flags.FlagValues()
  words = ['', *words]
  config_flags.DEFINE_config_file('config', flag_values=known, sys_argv=words)
  try:
    known(words, known_only=True)
  except (flags.Error, TypeError) as error:
    raise ValueError(str(error).strip().splitlines()[-1]) from error
  return known.config
