"""How the points of a sweep did: the best first, as a table and as a CSV.

A point is a points.Point: it has a name, overrides and a workdir.
"""

from collections.abc import Sequence
import csv
import io
import re
from typing import Any

from etils import epath

from big_distill import exams
from big_distill import metrics
from big_distill import registry
from big_distill import runs


def rank(every: Sequence[Any], by: str | None = None
         ) -> tuple[str, list[str], list[tuple[Any, dict[str, Any]]]]:
  """(metric ranked by, metrics shown, [(Point, {metric: value})], best first).

  Of finished points alone: a run that is half way has not done worse. Raises
  ValueError where none is finished, or none has the metric.
  """
  done = []
  for point in every:
    try:
      if point.finished:
        done.append((point, runs.read(point.workdir)))
    except ValueError as error:
      print(f'{point.name} is left out: {error}')
  if not done:
    raise ValueError(f'None of {len(every)} points has a result yet.')
  known = sorted(set().union(*(each.metrics for _, each in done)))
  by = by or next((each for each in metrics.RANKING if each in known), None)
  if by is None:
    raise ValueError('There is none of '
                     f'{", ".join(metrics.RANKING)} to rank by: say '
                     f'--by=METRIC; known: {", ".join(known)}.')
  registry.check('metric', by, known)
  shown = [by, *(metric for metric in metrics.SHOWN if metric in known
                 and metric != by)]
  sign = 1 if metrics.less_is_better(by) else -1
  ranked = [(point, {metric: each.last(metric) for metric in shown})
            for point, each in done]
  ranked.sort(key=lambda row: (row[1][by] is None, sign * (row[1][by] or 0)))
  return by, shown, ranked


def table(every: Sequence[Any], by: str, shown: Sequence[str],
          ranked: Sequence[tuple[Any, dict[str, Any]]]) -> str:
  """The ranking, for a terminal."""
  def text(metric, value):
    if value is None:
      return '-'
    share = re.search(r'/(acc@|top)\d+$', metric)
    return f'{value:.2%}' if share else f'{value:.4g}'

  width = max(len(point.name) for point, _ in ranked)
  lines = [f'{"":4} {"point":{width}}' + ''.join(
      f'{metric:>15}' for metric in shown)]
  for i, (point, values) in enumerate(ranked, 1):
    lines.append(f'{i:4} {point.name:{width}}' + ''.join(
        f'{text(metric, value):>15}' for metric, value in values.items()))
  lines.append(f'Ranked by {by}; {len(ranked)} of {len(every)} points are '
               'finished.')
  if any(_on_test(point.config, by) for point, _ in ranked):
    lines[-1] += (' It is measured on a test split, which the best of many '
                  'points flatters: choose by another split.')
  return '\n'.join(lines)


def _on_test(config, metric):
  """Whether the evaluation that gives a metric reads a test split."""
  section = config.get('evals', {}).get(metric.split('/')[0], {})
  data = {**config.get('data', {}), **section.get('data', {})}
  return exams.is_test(data.get('split', 'train'))


def save(path: str, shown: Sequence[str],
         ranked: Sequence[tuple[Any, dict[str, Any]]]) -> None:
  """Writes the ranking as CSV, a column per override and metric."""
  keys = dict.fromkeys(key for point, _ in ranked for key in point.overrides)
  text = io.StringIO()
  writer = csv.writer(text, lineterminator='\n')
  writer.writerow(['rank', 'point', *keys, *shown])
  for i, (point, values) in enumerate(ranked, 1):
    writer.writerow([i, point.name,
                     *(point.overrides.get(key, '') for key in keys),
                     *values.values()])
  epath.Path(path).write_text(text.getvalue())


def show(every: Sequence[Any], path: str, by: str | None = None) -> None:
  """Prints the ranking and writes it as CSV."""
  by, shown, ranked = rank(every, by)
  print(table(every, by, shown, ranked))
  save(path, shown, ranked)
