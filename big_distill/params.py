"""Trees of parameters by name: merging, mismatches, checksums.

A tree is nested dicts of arrays, as Flax has it; flat parameters are a dict
{'block1/unit01/conv1/kernel': array}.
"""

from collections.abc import Sequence
import hashlib
from typing import Any

from clu import parameter_overview
import flax.traverse_util
import jax
import ml_dtypes
import numpy as np

Flat = dict[str, Any]

DTYPES = (np.float32, ml_dtypes.bfloat16, np.float16)
AVERAGES = ('mean', 'var')  # Leaves that BatchNorm moves, and no gradient.
# Their kernels are [f, heads, d], so that output channels have two axes.
PER_HEAD = ('query', 'key', 'value')


def flatten(tree: Any) -> Flat:
  """A tree, flat."""
  return flax.traverse_util.flatten_dict(tree, sep='/')


def unflatten(flat: Flat) -> Any:
  """Flat parameters, as a tree."""
  return flax.traverse_util.unflatten_dict(flat, sep='/')


def output_axes(path: Sequence[Any]) -> int:
  """How many of the last axes of the kernel at a path of JAX's are of outputs."""
  return 2 if any(key.key in PER_HEAD for key in path) else 1


def replace(tree: Any, leaves: Any) -> Any:
  """The tree, with leaves replaced by those that the other tree has."""
  if not leaves:
    return tree
  return unflatten({**flatten(tree), **flatten(leaves)})


def check_numbers(flat: Flat, what: Any) -> None:
  """Raises ValueError unless all numbers are finite and of a type in DTYPES."""
  for name, leaf in flat.items():
    if leaf.dtype not in DTYPES:
      raise ValueError(f'{what}: {name} is of {leaf.dtype}, but parameters are '
                       f'of {", ".join(np.dtype(each).name for each in DTYPES)}.')
    if not np.isfinite(leaf).all():
      count = leaf.size - np.isfinite(leaf).sum()
      raise ValueError(f'{what}: {count:,} of the {leaf.size:,} numbers in '
                       f'{name} are NaN or infinite.')


def unwrap(flat: Flat) -> Flat:
  """The parameters in what big_vision saves: all, or those below a prefix."""
  for prefix in ('opt/target/', 'params/'):
    if any(name.startswith(prefix) for name in flat):
      return {name.removeprefix(prefix): leaf for name, leaf in flat.items()
              if name.startswith(prefix)}
  return flat


def checksum(flat: Flat) -> str:
  """16 hexadecimal digits of names, dtypes, shapes and values, in any order."""
  digest = hashlib.sha256()
  for name, leaf in sorted(flat.items()):
    leaf = np.asarray(jax.device_get(leaf))
    digest.update(f'{name} {leaf.dtype} {leaf.shape}'.encode())
    digest.update(leaf.tobytes())
  return digest.hexdigest()[:16]


def mismatches(given: Flat, wanted: Flat) -> list[str]:
  """A line for each difference in names and shapes.

  '- name shape' is unexpected, '+ name shape' missing, '! name shape' of another
  shape. A leaf is anything that has a `shape`.
  """
  lines = []
  for name in sorted(given.keys() | wanted.keys()):
    has, wants = (tuple(flat[name].shape) if name in flat else None
                  for flat in (given, wanted))
    if wants is None:
      lines.append(f'- {name} {has}: unexpected')
    elif has is None:
      lines.append(f'+ {name} {wants}: missing')
    elif has != wants:
      lines.append(f'! {name} {has}: should be {wants}')
  return lines


def check_match(given: Flat, wanted: Flat, what: str) -> None:
  """Raises ValueError listing every mismatch of two flat trees by name."""
  if lines := mismatches(given, wanted):
    raise ValueError(f'{what} does not fit the model:\n  ' + '\n  '.join(lines))


def is_average(name: str) -> bool:
  """Whether a name, such as 'stem/norm/mean', is of BatchNorm's averages."""
  return name.split('/')[-1] in AVERAGES


def overview(tree: Any) -> str:
  """A table of names, shapes, sizes and moments."""
  return parameter_overview.get_parameter_overview(tree)
