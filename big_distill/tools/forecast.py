"""How much more training would bring, forecast from shorter runs.

  python -m big_distill.tools.forecast WORKDIR... [--metric=agree/kl]

The workdirs are finished runs of one setting at three lengths or more; runs of
one length are seeds. With optim.schedule=wsd runs share all but their last
fifth, so that several lengths cost little more than the longest (bench/lab.py).

The law is y(E) = a - b E^-c for what should be high, a + b E^-c for what should
be low, with b and c above 0. All a, c on a grid are weighed by how well they
fit, and the forecast is the median with 95 % of the weight around it, widened by
the noise of a run. Before it is believed it is scored: from the shorter lengths,
the longest is forecast. The tool says `useless` where that misses, or is no
nearer than to expect no change; docs/forecast.md says how often it is.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from absl import flags
from absl import logging
import numpy as np

from big_distill import command
from big_distill import metrics
from big_distill import runs as runs_lib

TIMES = (2, 4, 10)  # The longest length.
EXPONENTS = np.geomspace(.02, 3, 121)
LIMITS = 401  # Values of a.
NOISE = .005  # At least: of a share; of others relative to their size.
LEAST = 3  # Lengths.


class Forecast(NamedTuple):
  """A value at a length, and the interval of 95 % around it."""
  value: float
  low: float
  high: float


class Score(NamedTuple):
  """A Forecast of the longest length from the others, and what was seen."""
  forecast: Forecast
  seen: float
  no_change: float  # The value at the length before.

  @property
  def useful(self) -> bool:
    """Whether it holds what was seen, and is nearer to it than no change."""
    forecast, seen, before = self
    return (forecast.low <= seen <= forecast.high
            and abs(forecast.value - seen) < abs(before - seen))


def forecast(values: Mapping[float, Sequence[float]], at: float,
             lower: bool = False) -> Forecast:
  """What runs of length `at` would have, on average over as many seeds.

  values: {length: the value of each seed}, of a share in [0, 1] or, with
  `lower`, of what is at best 0. Raises ValueError for fewer than two lengths.
  """
  if len(values) < 2:
    raise ValueError(f'Runs of {len(values)} length(s) have no trend: give some '
                     'of two lengths or more.')
  lengths = np.asarray(sorted(values), float)
  groups = [np.asarray(values[length], float) for length in lengths]
  y = np.asarray([group.mean() for group in groups])
  error = _noise(groups, lower)
  sign = -1. if lower else 1.
  limits = np.linspace(0, y.max(), LIMITS) if lower else np.linspace(
      y.min(), 1, LIMITS)
  scale = lengths.max()
  # [a, c, length]: y = a - sign b x, of which b is the best that is not negative.
  x = (lengths / scale) ** -EXPONENTS[None, :, None]
  rest = sign * (limits[:, None, None] - y)
  weight = error ** -2.
  b = np.maximum((weight * rest * x).sum(-1) / (weight * x**2).sum(-1), 0)
  misfit = (weight * (rest - b[..., None] * x)**2).sum(-1)
  free = len(lengths) - 3  # Numbers that the law does not fit by itself.
  if free > 0:  # Where it does not hold, errors are larger than the noise.
    misfit = misfit / max(misfit.min() / free, 1.)
  likely = np.exp(-.5 * (misfit - misfit.min()))
  there = limits[:, None] - sign * b * (at / scale) ** -EXPONENTS
  order = np.argsort(there, axis=None)
  share = np.cumsum(likely.ravel()[order]) / likely.sum()
  low, middle, high = there.ravel()[order][
      np.searchsorted(share, [.025, .5, .975])]
  spread = 1.96 * error[-1]
  best = (0., np.inf) if lower else (0., 1.)
  return Forecast(*(float(np.clip(each, *best)) for each in (
      middle, middle - np.hypot(middle - low, spread),
      middle + np.hypot(high - middle, spread))))


def _noise(groups, lower):
  """The standard error of the mean of each length [n], from that of seeds."""
  several = [group for group in groups if len(group) > 1]
  free = sum(len(group) - 1 for group in several)
  least = NOISE * np.asarray([
      abs(group.mean()) if lower else 1. for group in groups])
  if not free:
    return least
  spread = np.sqrt(sum(((group - group.mean())**2).sum()
                       for group in several) / free)
  return np.maximum(least, spread / np.sqrt([len(group) for group in groups]))


def score(values: Mapping[float, Sequence[float]], lower: bool = False) -> Score:
  """The longest length, forecast from the others.

  Raises ValueError for fewer than three lengths.
  """
  if len(values) < LEAST:
    raise ValueError(f'A forecast from {len(values)} length(s) cannot be scored: '
                     f'give finished runs of {LEAST} lengths or more.')
  *shorter, before, longest = sorted(values)
  known = {length: values[length] for length in (*shorter, before)}
  return Score(forecast(known, longest, lower), float(np.mean(values[longest])),
               float(np.mean(values[before])))


def collect(paths: Sequence[str], metric: str) -> dict[float, list[float]]:
  """{epochs: the last value of the metric of each run of that length}.

  Raises ValueError for a run that is not finished, lacks the metric or its
  epochs, or differs from the first in more than length and seed.
  """
  values: dict[float, list[float]] = {}
  first = None
  for path in paths:
    run = runs_lib.read(path)
    if run.result is None:
      raise ValueError(f'{run.path} has no result.json: it is no workdir of a run, '
                       'or not finished, and lengths are compared by final '
                       'values.')
    length = (run.config or {}).get('total_epochs') or run.last(metrics.EPOCH)
    value = run.last(metric)
    if value is None or not length:
      raise ValueError(f'{run.path} has no {metric if length else "epochs"}; it '
                       f'has {", ".join(sorted(run.metrics - {"step"}))}.')
    first = first or run
    other = {key for key in runs_lib.differences(
        first.config or {}, run.config or {}) if key != 'seed'
             and not key.startswith('total_')}
    if other:
      raise ValueError(f'{first.path} and {run.path} differ in '
                       f'{", ".join(sorted(other))}: give runs that differ in '
                       'length and seed only.')
    values.setdefault(float(length), []).append(value)
  return values


def report(values: Mapping[float, Sequence[float]], metric: str) -> list[str]:
  """Lines of text: what was seen, the score, and what to expect."""
  lower = metrics.less_is_better(metric)
  scored = score(values, lower)
  say = (lambda x: f'{x:.4f}') if lower else (lambda x: f'{100 * x:.1f} %')
  tell = lambda told: f'{say(told.value)} ({say(told.low)} to {say(told.high)})'
  lines = [f'{length:,g} epochs: {metric} {say(np.mean(values[length]))}, '
           f'{len(values[length])} run(s)' for length in sorted(values)]
  lines.append(
      f'Score: the longest, forecast from the others, {tell(scored.forecast)}; '
      f'no change would be {say(scored.no_change)}.')
  lines.append('useful: it holds what was seen, and is nearer than no change.'
               if scored.useful else 'useless: it misses what was seen, or is no '
               'nearer than no change. Do not plan by what follows.')
  lines += [f'{times * max(values):,g} epochs: '
            f'{tell(forecast(values, times * max(values), lower))}'
            for times in TIMES]
  return lines


def main(flag: flags.FlagValues, paths: Sequence[str]) -> None:
  logging.set_verbosity(logging.WARNING)
  print('\n'.join(report(collect(paths, flag.metric), flag.metric)))


def _define_flags() -> None:
  flags.DEFINE_string('metric', metrics.STUDENT, 'EVALUATION/METRIC of '
                      'metrics.jsonl, e.g. agree/kl.')


if __name__ == '__main__':
  command.program(main, _define_flags, words=True)
