"""What a run leaves in its workdir: config.json, metrics.jsonl, result.json.

Files are written whole or not at all, and an error in one names it.
"""

from collections.abc import Iterator, Mapping
import contextlib
import errno
import json
import math
import os
import shutil
from typing import Any, NamedTuple
import uuid

from absl import logging
from etils import epath


class Run(NamedTuple):
  """A workdir, read. None is what is not there (yet)."""
  path: str
  config: dict[str, Any] | None
  rows: list[dict[str, float]]
  result: dict[str, Any] | None

  @property
  def metrics(self) -> set[str]:
    """Names of all that was measured."""
    return {name for row in self.rows for name in row}

  def last(self, metric: str) -> float | None:
    """Its last value, or None."""
    return next((row[metric] for row in reversed(self.rows) if metric in row),
                None)


def folder(path: os.PathLike | str) -> str:
  """A workdir as given -> absolute and without a slash at its end.

  Raises ValueError for none, and for a kind of storage that is not known.
  """
  path = os.fspath(path)
  if not path:
    raise ValueError('The folder has no name: give --workdir=DIR or '
                     '--workdir=gs://BUCKET/DIR.')
  if '://' in path:
    try:
      epath.Path(path)
    except KeyError as error:
      raise ValueError(f'{path}: {error.args[0]} is no storage that is known '
                       'here. Give a folder, or gs://BUCKET/DIR.') from error
    return path.rstrip('/')
  return os.path.abspath(os.path.expanduser(path))


def read(path: os.PathLike | str) -> Run:
  """A Run, of whatever is in the workdir; ValueError names what is no JSON."""
  path = folder(path)
  return Run(path, load(f'{path}/config.json'), rows(f'{path}/metrics.jsonl'),
             load(f'{path}/result.json'))


def finished(path: os.PathLike | str) -> bool:
  """Whether a workdir has a result; one that is no JSON is said, and is none."""
  try:
    return load(f'{folder(path)}/result.json') is not None
  except ValueError as error:
    logging.warning('%s', error)
    return False


def load(path: os.PathLike | str) -> dict[str, Any] | None:
  """The object in a JSON file, or None where there is no file."""
  path = epath.Path(path)
  if not path.exists():
    return None
  try:
    value = json.loads(path.read_bytes())
  except OSError as error:
    raise ValueError(f'{path} cannot be read: {error.strerror or error}. Mend it, '
                     'or remove it.') from error
  except ValueError as error:
    raise ValueError(f'{path} is not JSON, or not a whole file: {error}. '
                     'Restore it, or remove it.') from error
  if not isinstance(value, dict):
    raise ValueError(f'{path} has a {type(value).__name__} where a JSON object '
                     'should be. Restore it, or remove it.')
  return value


def save(path: os.PathLike | str, value: Any) -> None:
  """Writes a config or a result as JSON."""
  write(path, json.dumps(value, indent=2) + '\n')


def plain(config: Mapping[str, Any]) -> dict[str, Any]:
  """A config as it is read from JSON: dicts, and lists in place of tuples."""
  return json.loads(json.dumps(config, default=dict))


def write(path: os.PathLike | str, text: str) -> None:
  """Writes a file: readers find the old one or the new one, whole."""
  path = epath.Path(path)
  partial = path.with_name(f'{path.name}.{uuid.uuid4().hex}.partial')
  with writing(path):
    try:
      partial.write_text(text)
      partial.replace(path)
    except BaseException:
      with contextlib.suppress(Exception):
        partial.unlink(missing_ok=True)
      raise


@contextlib.contextmanager
def writing(path: os.PathLike | str) -> Iterator[None]:
  """Turns what goes wrong inside into a ValueError of one line, with a remedy."""
  try:
    yield
  except Exception as error:  # Each kind of storage has errors of its own.
    path = os.fspath(path)
    raise ValueError(f'Cannot write {path}: {_reason(error, path)}') from error


def _reason(error, path):
  """What is wrong with the storage, and the remedy."""
  while error.__cause__:
    error = error.__cause__
  parent, said = os.path.dirname(path), str(error)
  free = math.inf
  with contextlib.suppress(OSError):
    free = shutil.disk_usage(parent).free
  if getattr(error, 'errno', None) in (errno.ENOSPC, errno.EDQUOT) or any(
      words in said for words in ('No space left', 'quota exceeded')):
    left = f' ({free / 1e6:,.1f} MB are left)' if free < math.inf else ''
    return f'the disk is full{left}. Free some space; the same command resumes.'
  if '://' not in path and not os.path.isdir(parent):
    while not os.path.exists(parent):
      parent = os.path.dirname(parent)
    if not os.path.isdir(parent):
      return (f'{parent} is a file, where a folder should be. Choose another '
              '--workdir.')
    parent = os.path.dirname(path)
    return (f'there is no folder {parent}. If it was removed, bring it back, or '
            'start again in another --workdir.')
  line = (said.strip().splitlines() or [type(error).__name__])[0][:300]
  return (f'{line}. Make it writable, and the same command resumes; or choose '
          'another --workdir.')


def rows(path: os.PathLike | str) -> list[dict[str, float]]:
  """Rows of a metrics.jsonl; lines cut short by a crash are left out."""
  path, found, lost = epath.Path(path), [], 0
  for line in path.read_bytes().splitlines() if path.exists() else []:
    try:
      row = json.loads(line)
      row['step'] + 0
      found.append(row)
    except (ValueError, TypeError, KeyError):
      lost += 1
  if lost:
    logging.warning('%s: %d lines are no rows, and are left out.', path, lost)
  return found


def differences(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
  """Dotted keys in which two configs differ, in the order of the first."""
  a, b = flat(a), flat(b)
  return [key for key in dict.fromkeys([*a, *b])
          if key not in a or key not in b or a[key] != b[key]]


def flat(config: dict[str, Any], prefix: str = '') -> dict[str, Any]:
  """{'optim.lr': 0.1} of a nested config."""
  found = {}
  for key, value in config.items():
    inner = isinstance(value, dict) and value
    found |= (flat(value, f'{prefix}{key}.') if inner
              else {f'{prefix}{key}': value})
  return found
