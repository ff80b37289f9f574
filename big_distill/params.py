"""Parameter trees by name: npz files, merging, and what does not match."""

import io
import zipfile

from clu import parameter_overview
from etils import epath
import flax.traverse_util
import jax
import ml_dtypes
import numpy as np

from big_distill.ops import int8

AVERAGES = ('mean', 'var')  # Leaves that follow the data, moved by no gradient.


def flatten(tree):
  """Nested dict -> {'block1/unit01/conv1/kernel': leaf}."""
  return flax.traverse_util.flatten_dict(tree, sep='/')


def unflatten(flat):
  """The inverse of flatten."""
  return flax.traverse_util.unflatten_dict(flat, sep='/')


def replace(tree, leaves):
  """The tree, those of its leaves replaced that the other tree has."""
  if not leaves:
    return tree
  return unflatten({**flatten(tree), **flatten(leaves)})


def load_npz(path):
  """{name: array} of an npz file; bfloat16, which npz forgets, is restored."""
  content = _read(path)
  # What is no zip, np.load takes for a pickle and advises to trust.
  if not zipfile.is_zipfile(io.BytesIO(content)):
    raise ValueError(f'{path} is not an npz file, or not a whole one.')
  try:
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
      flat = {name: np.asarray(file[name]) for name in file.files}
  except Exception as error:  # A bad zip raises BadZipFile, zlib.error, ...
    raise ValueError(f'{path} is a damaged npz file: {_line(error)}') from error
  return {name: value.view(ml_dtypes.bfloat16) if value.dtype.str == '|V2'
          else value for name, value in flat.items()}


def unwrap(flat):
  """The parameters among what big_vision saves: all, or those below a prefix."""
  for prefix in ('opt/target/', 'params/'):
    if any(name.startswith(prefix) for name in flat):
      return {name.removeprefix(prefix): leaf for name, leaf in flat.items()
              if name.startswith(prefix)}
  return flat


def _read(path):
  try:
    path = epath.Path(path)
    if path.exists():
      return path.read_bytes()
  except Exception as error:  # Each kind of storage has errors of its own.
    raise ValueError(f'{path} cannot be read: {_line(error)}') from error
  raise ValueError(f'There is no checkpoint {path}.')


def _line(error):
  return f'{type(error).__name__}: {error}'.splitlines()[0]


def save_npz(path, flat):
  """Writes {name: array}, first to another name so that no half file stays."""
  path = epath.Path(path)
  buffer = io.BytesIO()
  np.savez(buffer, **{name: np.asarray(leaf) for name, leaf in flat.items()})
  partial = path.with_name(path.name + '.partial')
  partial.write_bytes(buffer.getvalue())
  partial.replace(path)


def mismatches(given, wanted):
  """Lines '- name shape' (unexpected), '+' (missing), '!' (of other shape).

  Both are flat; what has a `shape` is a leaf.
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


def check_match(given, wanted, what):
  """Raises ValueError listing every mismatch of two flat trees by name."""
  if lines := mismatches(given, wanted):
    raise ValueError(f'{what} does not fit the model:\n  ' + '\n  '.join(lines))


def is_average(name):
  """Whether 'stem/norm/mean' names a running average, as BatchNorm keeps."""
  return name.split('/')[-1] in AVERAGES


def count(tree):
  """Number of trainable parameters: neither averages nor steps of int8."""
  def counts(path):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    return not is_average(name) and not name.endswith(f'kernel/{int8.STEP}')

  return sum(np.size(leaf)
             for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
             if counts(path))


def nbytes(tree):
  """What the parameters take on each device."""
  return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def overview(tree):
  """A table of names, shapes, sizes and moments."""
  return parameter_overview.get_parameter_overview(tree)
