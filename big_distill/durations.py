"""Durations that carry their unit in their name become steps.

A duration `log` is written as one of log_steps, log_examples, log_epochs and
log_percent in a config section; two at once are an error.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

from big_distill import bounds

UNITS = ('steps', 'examples', 'epochs', 'percent')


@dataclasses.dataclass(frozen=True)
class Durations:
  """What a step of a run is worth.

  n_train: examples of an epoch. total: the steps that are 100 percent.
  """
  batch_size: int
  n_train: int
  total: int | None = None

  def of(self, section: Mapping[str, Any], name: str,
         default: int | None = None) -> int:
    """A duration of a section, in steps; at least 1, or 0 for never.

    Raises ValueError where it is given twice, not at all without a `default`,
    or is not a finite number from 0 on.
    """
    given = {unit: section[f'{name}_{unit}'] for unit in UNITS
             if f'{name}_{unit}' in section}
    if len(given) > 1:
      keys = ' and '.join(f'{name}_{unit}' for unit in given)
      raise ValueError(f'{keys} are both given: keep one.')
    if not given:
      if default is None:
        keys = ', '.join(f'{name}_{unit}' for unit in UNITS)
        raise ValueError(f'None of {keys} is given.')
      return default
    (unit, amount), = given.items()
    bounds.check(f'{name}_{unit}', amount, least=0)
    if unit == 'percent' and self.total is None:
      raise ValueError(f'{name}_percent={amount} would be a percentage of '
                       f'itself: give {name}_steps, _examples or _epochs.')
    per_unit = {'steps': 1, 'examples': 1 / self.batch_size,
                'epochs': self.n_train / self.batch_size,
                'percent': (self.total or 0) / 100}
    # Half a step rounds up, as in the paper's tables.
    return max(int(amount * per_unit[unit] + 0.5), 1) if amount else 0


def without(section: Mapping[str, Any], name: str) -> dict[str, Any]:
  """A section less a duration, whatever its unit: what else it says."""
  units = {f'{name}_{unit}' for unit in UNITS}
  return {key: value for key, value in section.items() if key not in units}


def due(step: int, every: int, total: int) -> bool:
  """Whether what is done each `every` steps and at the end is due after `step`.

  every=0 is at the end alone.
  """
  return step == total or bool(every) and step % every == 0
