"""Runs a step that was not finite again, part by part.

  python -m big_distill.tools.replay DIR/nan

DIR/nan is what a run left there that stopped at a loss which is not finite: its
config, its batch, and the State from before the step. Prints a row per part of
the step, in the order of computation, and says which part was the first.
"""

from collections.abc import Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from big_distill import command
from big_distill import course as course_lib
from big_distill import nonfinite
from big_distill import runs


def table(parts: Sequence[nonfinite.Part]) -> str:
  """A line per part; parts that are not finite are marked."""
  width = max(len(part.name) for part in parts)
  lines = [f'  {"part":{width}}{"numbers":>12}{"not finite":>12}{"rms":>12}']
  lines += [f'{"!" if part.bad else " "} {part.name:{width}}'
            f'{part.bad + part.good:>12,}{part.bad:>12,}{part.rms:>12.4g}'
            for part in parts]
  return '\n'.join(lines)


def _tuples(value: Any) -> Any:
  """A config as JSON keeps it, with tuples in place of lists again."""
  if isinstance(value, dict):
    return {key: _tuples(each) for key, each in value.items()}
  return tuple(map(_tuples, value)) if isinstance(value, list) else value


def main(flag, words: Sequence[str]) -> None:
  del flag
  if len(words) != 1:
    raise ValueError('Give one folder: python -m big_distill.tools.replay '
                     'DIR/nan')
  command.narrate()
  folder = runs.folder(words[0])
  config = runs.load(f'{folder}/config.json')
  if config is None:
    raise ValueError(f'There is no {folder}/config.json: give DIR/nan of a run '
                     'that stopped at a loss which was not finite.')
  course = course_lib.make(ml_collections.ConfigDict(_tuples(config)),
                           command.pipeline())
  state, batch = nonfinite.restore(folder, course)
  now = nonfinite.batch_of(course, int(state.step))
  if not all(np.array_equal(a, b, equal_nan=a.dtype.kind == 'f') for a, b in zip(
      jax.tree.leaves(batch), jax.tree.leaves(now))):
    print('The data give another batch today; the one that was kept is used.')
  parts = nonfinite.inspect(course, state, batch)
  print(table(parts))
  print(f'Step {int(state.step) + 1}: {nonfinite.verdict(parts)}')


if __name__ == '__main__':
  command.program(main, words=True)
