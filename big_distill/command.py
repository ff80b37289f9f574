"""One way to be a program: flags checked before they are obeyed, errors in a line.

  def main(flag):   # of all flags' values
    ...
  if __name__ == '__main__':
    command.program(main, _define_flags)
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
import contextlib
import logging as std_logging
import os
import pathlib
import re
import runpy
import sys
import textwrap
import traceback
from typing import Any

from absl import app
from absl import flags
from absl import logging
import ml_collections

from big_distill import shipped

PREFIX = '--config.'  # Of what sets a value in a config.


def program(main: Callable[..., None],
            define: Callable[[], None] = lambda: None,
            words: bool = False) -> None:
  """Runs main(flags) as a program, and exits.

  `define` defines its flags, which other programs may have, too. With `words`,
  main gets the other words of the command as well: main(flags, words). What a
  user can cause is a ValueError, which becomes one line: a traceback would bury
  it.
  """
  def obey(argv):
    if len(argv) > 1 and not words:
      sys.exit(f'Error: Unknown argument {argv[1]!r}.')
    try:
      main(flags.FLAGS, *([argv[1:]] if words else []))
      sys.stdout.flush()
    except BrokenPipeError:  # head, say, has read enough.
      os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
      sys.exit('Error: What reads the output has ended before it.')
    except KeyboardInterrupt:
      print('Left by Ctrl-C.', file=sys.stderr)
      sys.exit(130)
    except ValueError as error:
      logging.debug('Traceback', exc_info=True)
      sys.exit(f'Error: {error}')
    except OSError as error:
      if error.filename is None:
        raise
      sys.exit(f'Error: {error.filename}: {error.strerror}. Mend it, or name '
               'another file or folder.')

  others = {*flags.FLAGS}
  define()
  if {'--help', '-help', '-h'} & {*sys.argv[1:]}:
    print(usage({*flags.FLAGS} - others))
    sys.exit()
  sys.argv[:] = normal(sys.argv)  # Some start others with their own words.
  app.run(obey, flags_parser=parse)


def usage(names: Iterable[str]) -> str:
  """What a program says of itself, and flags of these names."""
  lines = [sys.modules['__main__'].__doc__, 'Flags:']
  for name in sorted(names):
    flag = flags.FLAGS[name]
    default = ('' if flag.default in (None, False, '', [])
               else f' Default: {flag.default_as_str}.')
    lines += textwrap.wrap(f'--{name}  {flag.help}{default}', 78,
                           initial_indent='  ', subsequent_indent='      ')
  return '\n'.join(lines)


def script() -> None:
  """The program that a console script is named for.

  big-distill is big_distill.main, big-distill-NAME is big_distill.tools.NAME.
  """
  _, _, tool = pathlib.Path(sys.argv[0]).stem.partition('big-distill-')
  runpy.run_module(f'big_distill.tools.{tool}' if tool else 'big_distill.main',
                   run_name='__main__', alter_sys=True)


class Missing(ValueError, ImportError):
  """What an extra of the package brings is not installed."""


def pipeline() -> Any:
  """input.pipeline, with TensorFlow kept off the accelerators.

  Raises Missing where there is no TensorFlow.
  """
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')  # Errors alone.
  try:
    import tensorflow as tf
  except ImportError as error:
    raise Missing('TensorFlow reads the images, and is not installed: '
                  "pip install 'big_distill[train]'.") from error
  tf.config.set_visible_devices([], 'GPU')
  from big_distill.input import pipeline
  return pipeline


def parse(argv: Sequence[str]) -> list[str]:
  """Flags, or one line on what is wrong with them."""
  try:
    argv = found(normal(argv))
    rest = flags.FLAGS([word for word in argv if not word.startswith(PREFIX)])
    if 'config' in flags.FLAGS and flags.FLAGS.config:
      flags.FLAGS['config'].value = resolve(argv)
    return rest
  except flags.Error as error:
    missing = re.search(r'Flag (--\w+) must have a value', str(error))
    what = f'{missing[1]} is missing' if missing else _line(error)
    sys.exit(f'Error: {what.rstrip(" ?.")}. See --help.')
  except (ValueError, OSError) as error:
    sys.exit(f'Error: {_line(error)}')


def _line(error):
  return str(error).strip().splitlines()[-1]


def narrate() -> None:
  """Logs what this project says; of what libraries say, warnings."""
  def tells(record):
    if 'big_distill' in record.pathname:
      return True
    # What goes wrong in the background is raised by the next call, too; of many
    # writes (asyncio's tasks, of orbax) the first that fails is.
    raised = record.exc_info and any(
        f'/{name}/' in record.pathname for name in ('orbax', 'clu', 'asyncio'))
    return record.levelno > std_logging.INFO and not raised

  def fails(unraisable):
    # tensorstore, of writes that go on after one has failed, which is raised.
    if 'Event loop is closed' not in str(unraisable.exc_value):
      sys.__unraisablehook__(unraisable)

  logging.set_verbosity(logging.INFO)
  logging.get_absl_handler().addFilter(tells)
  sys.unraisablehook = fails


def normal(words: Sequence[str]) -> list[str]:
  """Words in which --config and --config.KEY are joined with their values.

  --config FILE is --config=FILE; --config.KEY alone says that it is True. A value
  that begins with ~/ is below the user's home: shells leave it inside of a word.
  """
  joined: list[str] = []
  rest = [*words]
  while rest:
    word = rest.pop(0)
    if word == '--config' or word.startswith(PREFIX) and '=' not in word:
      if rest and not rest[0].startswith('--'):
        word = f'{word}={rest.pop(0)}'
      elif word != '--config':
        word = f'{word}=True'
    joined.append(word)
  home = os.path.expanduser('~')
  return [re.sub('=~(?=/|$)', lambda _: f'={home}', word)
          if word.startswith('--') else word for word in joined]


def found(words: Sequence[str]) -> list[str]:
  """Words with --config=NAME become --config=FILE; says so where that differs."""
  def file(word):
    if not word.startswith('--config='):
      return word
    name, colon, arg = word.removeprefix('--config=').partition(':')
    path = shipped.find(name)
    if path != name:
      print(f'--config={name} is {path}.', file=sys.stderr)
    return f'--config={path}{colon}{arg}'
  return [*map(file, words)]


def load(value: str) -> tuple[Mapping[str, Any], list[str]]:
  """'FILE.py:ARG' -> (what the file defines, [ARG] or [] for its get_*).

  Raises ValueError where there is no such file, or it is no Python.
  """
  name, _, arg = value.partition(':')
  path = shipped.find(name)
  shipped.importable(path)
  with _reading(path):
    return runpy.run_path(path), [arg] if arg else []


def call(value: str, function: str = 'get_config') -> Any:
  """What a function of 'FILE.py:ARG' returns for that ARG."""
  names, arg = load(value)
  path = value.partition(':')[0]
  if function not in names:
    raise ValueError(f'{path} has no {function}: define one, as '
                     'configs/flowers102.py does.')
  with _reading(path):
    return names[function](*arg)


@contextlib.contextmanager
def _reading(path):
  """Turns what a config file raises into a ValueError that says in which line."""
  try:
    yield
  except ValueError:
    raise
  except Exception as error:  # The file is the user's own code.
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__)
             if os.path.basename(frame.filename) == os.path.basename(path)]
    where = getattr(error, 'lineno', None) or (lines or ['?'])[-1]
    said = str(error).strip().splitlines() or ['']
    raise ValueError(f'{path}, line {where}: {type(error).__name__}: '
                     f'{said[0]}. Mend that line.') from error


def resolve(words: Sequence[str]) -> ml_collections.ConfigDict:
  """The config that a command of these words will run with, or ValueError."""
  # Programs without a config start without all that a config is for.
  from big_distill import overrides

  words = found(normal(words))
  config = call(file_of(words))
  if not isinstance(config, ml_collections.ConfigDict):
    raise ValueError(f'get_config() in {file_of(words)} returned '
                     f'{type(config).__name__}: it should return an '
                     'ml_collections.ConfigDict.')
  with config.unlocked():
    overrides.apply(config, [word for word in words if word.startswith(PREFIX)])
  return config.lock()


def file_of(words: Sequence[str]) -> str:
  """FILE.py:ARG of the last --config among words."""
  return next(word.removeprefix('--config=') for word in reversed(words)
              if word.startswith('--config='))
