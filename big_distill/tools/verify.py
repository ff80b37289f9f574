"""Holds a run's log against its config: was any image lost, repeated, swapped?

  python -m big_distill.tools.verify WORKDIR

Draws the order of examples anew, from config.json and the dataset, and compares
it with the checksums in metrics.jsonl. A run on several hosts logs the share of
the first one: say --hosts=N. Steps of which no row tells are named. Exits with 1
if anything differs.
"""

import sys
from typing import Any

from absl import flags

from big_distill import command
from big_distill import identity
from big_distill import ledger
from big_distill import lessons as lessons_lib
from big_distill import metrics
from big_distill import plan as plan_lib
from big_distill import runs


def verify(run: runs.Run, data: Any, hosts: int = 1) -> tuple[str, bool]:
  """(what was found, in a sentence or two; whether all is as it should be)."""
  rows = [row for row in run.rows if metrics.SEEN in row]
  if run.config is None or not rows:
    raise ValueError(f'{run.path} has no config.json, or no row that says what '
                     'was seen: name the workdir of a run of this version.')
  load, orders = lessons_lib.loader(data), []
  for since, config in identity.configs(run.path, run.config):
    source = load(config['data'])
    orders.append((since, source, plan_lib.make(
        config, source.num_examples, devices=1, hosts=1)))
  known, seen, gaps, at = 0, 0, [], 0
  for row in rows:
    first, last = int(row[metrics.SEEN_FROM]), int(row['step'])
    # Whoever went on drew the part of a row before it anew, in its own order.
    source, plan = next(rest for since, *rest in orders if last > since)
    want = 0
    for index in data.indices(source, plan.batch_size, plan.seed, first, last,
                              period=plan.period, host=(0, hosts)):
      want = ledger.crc(want, index)
    if want != int(row[metrics.SEEN]):
      return (f'Steps {first + 1} to {last}: the log has seen other examples '
              f'than {source.title} gives in the order of seed {plan.seed}.',
              False)
    if first > at:
      gaps.append(f'{at + 1} to {first}')
    fresh = last - max(first, at)  # A run that was made longer ended in a row.
    known, seen, at = known + fresh, seen + fresh * plan.batch_size, last
  text = (f'{known} of {at} steps saw the examples they should, '
          f'{seen:,} in all, none lost or repeated.')
  if gaps:
    text += f' Not covered by any row: {", ".join(gaps)}.'
  return text, True


def main(flag, workdirs):
  if not workdirs:
    raise ValueError('No WORKDIR is given. See --help.')
  fine = True
  for workdir in workdirs:
    text, right = verify(runs.read(workdir), command.pipeline(), flag.hosts)
    print(f'{workdir}: {text}')
    fine &= right
  sys.exit(not fine)


def _define_flags():
  flags.DEFINE_integer('hosts', 1, 'Hosts that the run had.', 1)


if __name__ == '__main__':
  command.program(main, _define_flags, words=True)
