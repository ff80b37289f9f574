"""Times what takes turns, and files numbers with all they depend on."""

import csv
import datetime
import os
import platform
import statistics
import subprocess
import time

import flax
import jax
import jaxlib

import big_distill


def in_turn(runs, calls=1, repeats=10):
  """{name: function} -> {name: (seconds of its first call, median of later)}.

  They take turns, so that what else the machine does falls on all alike.
  """
  first = {name: seconds(run) for name, run in runs.items()}
  times = {name: [] for name in runs}
  with jax.transfer_guard('disallow'):
    for _ in range(repeats):
      for name, run in runs.items():
        times[name].append(seconds(run, calls))
  return {name: (first[name], statistics.median(times[name])) for name in runs}


def seconds(run, calls=1):
  """Of one call, out of so many in a row."""
  began = time.perf_counter()
  for _ in range(calls):
    result = run()
  jax.block_until_ready(result)
  return (time.perf_counter() - began) / calls


def machine():
  """Devices, versions, commit and date."""
  return {'device': jax.devices()[0].device_kind,
          'devices': jax.device_count(), 'cpus': os.cpu_count(),
          'python': platform.python_version(), 'jax': jax.__version__,
          'jaxlib': jaxlib.__version__, 'flax': flax.__version__,
          'commit': _commit(), 'date': datetime.date.today().isoformat()}


def _commit():
  """Of the checkout this runs from; empty where it was installed."""
  root = os.path.dirname(os.path.dirname(big_distill.__file__))
  if not os.path.exists(os.path.join(root, '.git')):
    return ''
  try:
    return subprocess.run(
        ['git', 'describe', '--always', '--dirty', '--exclude=*'], cwd=root,
        check=False, capture_output=True, text=True).stdout.strip()
  except OSError:  # There is no git.
    return ''


def save(path, rows, known):
  """Writes rows, dicts of the same keys, as CSV, the facts repeated in each."""
  with open(path, 'w', newline='') as file:
    writer = csv.DictWriter(file, [*rows[0], *known])
    writer.writeheader()
    writer.writerows({**row, **known} for row in rows)
