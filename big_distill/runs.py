"""What a run leaves in its workdir: config.json, metrics.jsonl, result.json."""

import json
import os
from typing import Any, NamedTuple

from etils import epath


class Run(NamedTuple):
  """A workdir, read. None is what is not there (yet)."""
  path: str
  config: dict[str, Any] | None
  rows: list[dict[str, float]]
  result: dict[str, Any] | None

  @property
  def metrics(self):
    """Names of all that was measured."""
    return {name for row in self.rows for name in row}

  def last(self, metric):
    """Its last value, or None."""
    return next((row[metric] for row in reversed(self.rows) if metric in row),
                None)


def folder(path):
  """A workdir as given -> absolute and without a slash at its end."""
  path = os.fspath(path)
  if '://' in path:
    return path.rstrip('/')
  return os.path.abspath(os.path.expanduser(path))


def read(path):
  """A Run, of whatever is in the workdir."""
  path = folder(path)
  return Run(path, load(f'{path}/config.json'), rows(f'{path}/metrics.jsonl'),
             load(f'{path}/result.json'))


def finished(path):
  return epath.Path(path, 'result.json').exists()


def load(path):
  """What is in a JSON file, or None where there is none."""
  path = epath.Path(path)
  return json.loads(path.read_text()) if path.exists() else None


def save(path, value):
  """Writes a config or a result as JSON."""
  epath.Path(path).write_text(json.dumps(value, indent=2) + '\n')


def rows(path):
  """Rows of a metrics.jsonl; a line cut short by a crash is left out."""
  path, read = epath.Path(path), []
  for line in path.read_text().splitlines() if path.exists() else []:
    try:
      read.append(json.loads(line))
    except json.JSONDecodeError:
      continue
  return read


def differences(a, b):
  """Dotted keys in which two configs differ, in the order of the first."""
  a, b = _flat(a), _flat(b)
  return [key for key in dict.fromkeys([*a, *b])
          if key not in a or key not in b or a[key] != b[key]]


def _flat(config, prefix=''):
  flat = {}
  for key, value in config.items():
    inner = isinstance(value, dict) and value
    flat |= (_flat(value, f'{prefix}{key}.') if inner
             else {f'{prefix}{key}': value})
  return flat
