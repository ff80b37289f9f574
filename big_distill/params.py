"""Trees of parameters by name: npz files, merging, mismatches, checksums.

A tree is nested dicts of arrays, as Flax has it; flat parameters are a dict
{'block1/unit01/conv1/kernel': array}.
"""

import hashlib
import io
import math
from typing import Any
import uuid
import zipfile

from clu import parameter_overview
from etils import epath
import flax.traverse_util
import jax
import ml_dtypes
import numpy as np

from big_distill import cards

Flat = dict[str, Any]

END = 22  # Bytes that end a zip archive, before its comment.
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0,
           (2, 0): np.lib.format.read_array_header_2_0}
# Weights hardly compress. An archive that would become more than MANY times its
# size, and more than SMALL bytes, was made to fill the memory.
MANY, SMALL = 100, 1 << 26
DTYPES = (np.float32, ml_dtypes.bfloat16, np.float16)
AVERAGES = ('mean', 'var')  # Leaves that BatchNorm moves, and no gradient.


def flatten(tree: Any) -> Flat:
  """A tree, flat."""
  return flax.traverse_util.flatten_dict(tree, sep='/')


def unflatten(flat: Flat) -> Any:
  """Flat parameters, as a tree."""
  return flax.traverse_util.unflatten_dict(flat, sep='/')


def replace(tree: Any, leaves: Any) -> Any:
  """The tree, with leaves replaced by those that the other tree has."""
  if not leaves:
    return tree
  return unflatten({**flatten(tree), **flatten(leaves)})


def load_npz(path: Any) -> dict[str, np.ndarray]:
  """{name: array} of an npz file.

  npz files keep bfloat16 as raw bytes, which become bfloat16 again. Raises
  ValueError where the file is missing or damaged, or would become much larger
  than it is.
  """
  content = _read(path)
  _comment(path, content)
  try:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
      _check_members(archive, len(content))
      _check_count(archive, content)
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
      flat = {name: np.asarray(file[name]) for name in file.files}
  except Exception as error:  # A bad zip raises BadZipFile, zlib.error, ...
    raise ValueError(f'{path} is a damaged npz file: {_line(error)}') from error
  return {name: value.view(ml_dtypes.bfloat16) if value.dtype.str == '|V2'
          else value for name, value in flat.items()}


def _check_members(archive, size):
  """Raises ValueError where an archive of this size should not be inflated."""
  members = archive.infolist()
  if len({member.filename for member in members}) < len(members):
    raise ValueError('two of its arrays have one name')
  inflated = sum(member.file_size for member in members)
  if inflated > MANY * size + SMALL:
    raise ValueError(f'{size:,} bytes would become {inflated:,}, as no weights '
                     'do')
  for member in members:
    name = member.filename
    if (not name.endswith('.npy')
        or member.compress_type not in (zipfile.ZIP_STORED,
                                        zipfile.ZIP_DEFLATED)):
      raise ValueError(f'{name} is not an array as np.savez writes it')
    with archive.open(member) as file:
      version = np.lib.format.read_magic(file)
      if version not in HEADERS:
        raise ValueError(f'{name} is of an unknown version, {version}')
      shape, _, dtype = HEADERS[version](file)
      wants = file.tell() + math.prod(shape) * dtype.itemsize
      if wants != member.file_size and not dtype.hasobject:  # np.load says it.
        raise ValueError(f'{name} has {member.file_size} bytes, its shape '
                         f'{shape} of {dtype} {wants}')


def _check_count(archive, content):
  """Raises ValueError where the archive has more members than it lists.

  One wrong length in its list hides the members after it.
  """
  end = content.rfind(b'PK\x05\x06')
  count = int.from_bytes(content[end + 10:end + 12], 'little')
  if not archive.infolist():
    raise ValueError('there is no array in it')
  if count not in (len(archive.infolist()), 0xffff):  # The latter is "many".
    raise ValueError(f'{count} arrays were written, and '
                     f'{len(archive.infolist())} are listed')


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


def load_card(path: Any) -> cards.Card | None:
  """The card in an npz file, None if it has none; reads the file's end alone.

  Raises ValueError where the file is missing or its card damaged.
  """
  comment = _comment(path, _read(path, END + cards.LIMIT))
  try:
    return cards.from_comment(comment)
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from error


def unwrap(flat: Flat) -> Flat:
  """The parameters in what big_vision saves: all, or those below a prefix."""
  for prefix in ('opt/target/', 'params/'):
    if any(name.startswith(prefix) for name in flat):
      return {name.removeprefix(prefix): leaf for name, leaf in flat.items()
              if name.startswith(prefix)}
  return flat


def _read(path, last=None):
  """The bytes of a file, or the last so many of them."""
  try:
    path = epath.Path(path)
    if path.exists():
      with path.open('rb') as file:
        if last:
          file.seek(max(path.stat().length - last, 0))
        return file.read()
  except Exception as error:  # Each kind of storage has errors of its own.
    raise ValueError(f'{path} cannot be read: {_line(error)}') from error
  raise ValueError(f'There is no checkpoint {path}.')


def _comment(path, content):
  """The comment that ends a zip archive, given at least its end."""
  # np.load takes a file that is not a zip for a pickle and suggests
  # allow_pickle=True, which is unsafe; zipfile shortens a comment silently.
  start = content.rfind(b'PK\5\6')
  size = int.from_bytes(content[start + END - 2:start + END], 'little')
  if start < 0 or start + END + size != len(content):
    raise ValueError(f'{path} is not an npz file, or not a whole one.')
  return content[start + END:]


def _line(error):
  return f'{type(error).__name__}: {error}'.splitlines()[0]


def save_npz(path: Any, flat: Flat, card: cards.Card | None = None) -> None:
  """Writes {name: array} and a card into an npz file, on the first host.

  A file of another name is written and then renamed, so that the file is whole
  at any time.
  """
  if jax.process_index():
    return
  path = epath.Path(path)
  buffer = io.BytesIO()
  arrays: dict[str, Any] = {name: np.asarray(leaf)
                            for name, leaf in flat.items()}
  np.savez(buffer, **arrays)
  if card:
    with zipfile.ZipFile(buffer, 'a') as archive:
      archive.comment = cards.to_comment(card)
  partial = path.with_name(f'{path.name}.{uuid.uuid4().hex}.partial')
  try:
    partial.write_bytes(buffer.getbuffer())
    partial.replace(path)
  except BaseException:
    partial.unlink(missing_ok=True)
    raise


def checksum(flat: Flat) -> str:
  """16 hexadecimal digits of names, dtypes, shapes and values, in any order."""
  digest = hashlib.sha256()
  for name, leaf in sorted(flat.items()):
    leaf = np.asarray(jax.device_get(leaf))
    digest.update(f'{name} {leaf.dtype} {leaf.shape}'.encode())
    digest.update(leaf.tobytes())
  return digest.hexdigest()[:16]


def identity(path: Any) -> str:
  """16 hexadecimal digits of what an npz file holds, and of its card.

  They come from the names, sizes and CRC-32 that a zip archive lists at its
  end, so that a large file on gs:// is not read.
  """
  path = epath.Path(path)
  if not path.exists():
    raise ValueError(f'There is no checkpoint {path}.')
  try:
    with path.open('rb') as file, zipfile.ZipFile(file) as archive:
      facts = sorted((member.filename, member.file_size, member.CRC)
                     for member in archive.infolist())
      comment = archive.comment
  except (OSError, zipfile.BadZipFile) as error:
    raise ValueError(f'{path} is not an npz file, or not a whole one: '
                     f'{_line(error)}.') from error
  digest = hashlib.sha256(repr(facts).encode())
  digest.update(comment)
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
