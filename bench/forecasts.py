"""Scores big_distill/tools/forecast.py on the lengths of the study.

  python -m bench.forecasts --csv=bench/forecasts.csv docs/logs/reproduction ...

Each arm's runs are forecast from those of the lengths before, accuracy on the
test photographs and KL to the teacher; the rows say what came, whether the
interval held it, and how far it would have been to expect no change.
"""

import itertools

from absl import flags
from absl import logging
import numpy as np

from bench import journal
from big_distill import command
from big_distill.tools import forecast
from big_distill.tools import stopwatch

METRICS = {'test_top1': False, 'test_kl': True}  # Whether less is better.
SCHOOLS = {'all': 'cosine', 'patient': 'cosine, tuned rates',
           'long': 'cosine, tuned rates',
           'cooled': 'constant, cooled'}


def curves(folders: list[str]) -> dict[tuple, dict[float, list[float]]]:
  """{(schedule, arm, metric): {epochs: the values of seeds}}."""
  found: dict[tuple, dict[float, list[float]]] = {}
  for folder in folders:
    for row in journal.read(folder):
      school = row['stage'].split('_')[0]
      if row['tuning'] or row['at'] != row['epochs'] or school not in SCHOOLS:
        continue
      for metric in METRICS:
        found.setdefault((SCHOOLS[school], row['arm'], metric), {}).setdefault(
            row['epochs'], []).append(row[metric])
  return found


def rows(found: dict[tuple, dict[float, list[float]]]) -> list[dict]:
  """A row for each length that at least two shorter ones can forecast."""
  made = []
  for (schedule, arm, metric), values in found.items():
    lengths = sorted(values)
    for known, at in itertools.product(range(2, len(lengths)), lengths):
      if at <= lengths[known - 1]:
        continue
      told = forecast.forecast({length: values[length]
                                for length in lengths[:known]}, at,
                               METRICS[metric])
      came, before = (float(np.mean(values[length]))
                      for length in (at, lengths[known - 1]))
      made.append(dict(
          schedule=schedule, arm=arm, metric=metric,
          known=' '.join(map(str, lengths[:known])), at=at,
          forecast=told.value, low=told.low, high=told.high, came=came,
          no_change=before, held=told.low <= came <= told.high,
          nearer=abs(told.value - came) < abs(before - came)))
  return made


def summary(made: list[dict]) -> list[list[str]]:
  """Cells of a line per schedule, metric and number of known lengths."""
  lines = []
  key = lambda row: (row['schedule'], row['metric'], len(row['known'].split()))
  for (schedule, metric, known), group in itertools.groupby(
      sorted(made, key=key), key):
    group = list(group)
    share = 1 if METRICS[metric] else 100
    mean = lambda of, group=group: float(np.mean([of(row) for row in group]))
    lines.append([
        schedule, metric, str(known), str(len(group)),
        f'{100 * mean(lambda row: row["held"]):.0f} %',
        f'{100 * mean(lambda row: row["nearer"]):.0f} %',
        f'{share * mean(lambda row: abs(row["forecast"] - row["came"])):.3g}',
        f'{share * mean(lambda row: abs(row["no_change"] - row["came"])):.3g}',
        f'{share * mean(lambda row: row["high"] - row["low"]):.3g}'])
  return lines


def main(flag: flags.FlagValues, folders: list[str]) -> None:
  logging.set_verbosity(logging.WARNING)
  made = rows(curves(folders))
  for cells in summary(made):
    print(f'| {" | ".join(cells)} |')
  if flag.csv:
    stopwatch.save(flag.csv, made, stopwatch.machine())


def _define_flags() -> None:
  flags.DEFINE_string('csv', None, 'File to write the rows to.')


if __name__ == '__main__':
  command.program(main, _define_flags, words=True)
