"""Arrays and a card in npz files, read without trust and written whole.

An npz file is a zip archive of arrays, whose comment is the card (cards.py).
"""

import hashlib
import io
import math
from typing import Any
import uuid
import zipfile

from etils import epath
import jax
import ml_dtypes
import numpy as np

from big_distill import cards

END = 22  # Bytes that end a zip archive, before its comment.
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0,
           (2, 0): np.lib.format.read_array_header_2_0}
# Weights hardly compress. An archive that would become more than MANY times its
# size, and more than SMALL bytes, was made to fill the memory.
MANY, SMALL = 100, 1 << 26


def load(path: Any) -> dict[str, np.ndarray]:
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


def load_card(path: Any) -> cards.Card | None:
  """The card in an npz file, None if it has none; reads the file's end alone.

  Raises ValueError where the file is missing or its card damaged.
  """
  comment = _comment(path, _read(path, END + cards.LIMIT))
  try:
    return cards.from_comment(comment)
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from error


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


def save(path: Any, flat: dict[str, Any], card: cards.Card | None = None
         ) -> None:
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
