"""Numbers that a user can set are checked where they are first used."""

import math
from typing import Any

import jax
import numpy as np


def check(name: str, value: Any, *, least: float | None = None,
          above: float | None = None, most: float | None = None,
          whole: bool = False) -> None:
  """Raises ValueError unless a number is finite and within its bounds.

  It should be `least` or more, more than `above`, at most `most`, and an integer
  if `whole`. A jax.Array, which may be a tracer without a value, is not looked at.
  """
  if isinstance(value, jax.Array):
    return
  fits = (isinstance(value, (int, float, np.number)) and math.isfinite(value)
          and (least is None or value >= least)
          and (above is None or value > above)
          and (most is None or value <= most)
          and (not whole or float(value).is_integer()))
  if not fits:
    kind = 'whole' if whole else 'finite'
    bound = (f', {least:g} or more' if least is not None
             else f' above {above:g}' if above is not None else '')
    bound += f', at most {most:g}' if most is not None else ''
    raise ValueError(f'{name}={value!r} should be a {kind} number{bound}.')
