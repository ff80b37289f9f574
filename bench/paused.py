"""States of a run that goes on another time, in one file."""

import os
import pathlib
from typing import Any

import jax
import numpy as np


def save(file: pathlib.Path, states: Any) -> None:
  """Writes all leaves, in place of what was there."""
  part = file.with_suffix('.part')
  with part.open('wb') as opened:
    np.savez(opened, *jax.device_get(jax.tree.leaves(states)))
  os.replace(part, file)


def load(file: pathlib.Path, like: Any) -> Any:
  """What was saved, in the form of states of the same stage."""
  with np.load(file) as leaves:
    return jax.tree.unflatten(jax.tree.structure(like), [
        leaves[name] for name in leaves.files])
