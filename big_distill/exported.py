"""Files of formats/: written, read back, compared, and only then left behind.

A file is written beside its place, loaded by the runtime that will use it, and
shown photographs. It takes its place if its logits are those of the model.
"""

from collections.abc import Sequence
import contextlib
import importlib.util
import os
import pkgutil
import shutil
import time
from typing import Any, NamedTuple
import uuid

import numpy as np

from big_distill import cards
from big_distill import formats
from big_distill import registry
from big_distill import served as served_lib

# The largest difference of logits, as a share of their standard deviation over
# photographs and classes. Runtimes add in other orders: 3e-6 to 2e-5 were seen,
# and a wrong padding is 1e-1. A format may allow more, for some weights.
TOLERANCE = 1e-3
# In fewer bits, as many answers at least must be those of float32.
AGREEMENT = .9
BATCH = 16
CALLS = 20  # Of which the median is the time per image.


class Row(NamedTuple):
  """What was seen of a file.

  difference: the largest, of logits, from the model with the same weights in JAX;
    deviation: the standard deviation of its logits. agreement: the share of
    images whose class is that of the model in float32.
  """
  file: str
  format: str
  weights: str
  megabytes: float
  milliseconds: float
  difference: float
  deviation: float
  agreement: float
  images: int


def load(name: str) -> Any:
  """The module of a format. Raises ValueError for an unknown one."""
  return registry.load('formats', name)


def names() -> list[str]:
  """Of all formats."""
  return [module.name for module in pkgutil.iter_modules(formats.__path__)]


def read(file: str) -> tuple[cards.Card | None, served_lib.Answer]:
  """The card of an exported file, if there is one, and its answer.

  The answer maps uint8 [b, size, size, 3] to logits [b, c]. Raises ValueError
  where the file cannot be read, or what reads it is not installed.
  """
  module = format_of(file)
  needs(module, file)
  if not os.path.exists(file):
    raise ValueError(f'There is no file {file}.')
  try:
    return module.read(file)
  except Exception as error:  # Each runtime has errors of its own.
    if isinstance(error, ValueError) and file in str(error):
      raise
    line = (str(error).splitlines() or [type(error).__name__])[0][:300]
    raise ValueError(f'{file} is not {module.__name__.split(".")[-1]}, or is '
                     f'damaged: {line}') from error


def format_of(file: str) -> Any:
  """The module of the format whose suffix a file has, or None."""
  return next((module for module in map(load, names())
               if os.fspath(file).rstrip('/').endswith(module.SUFFIX)), None)


def needs(module: Any, what: str) -> None:
  """Raises ValueError where packages are missing that a format needs."""
  missing = [name for name in module.PACKAGES
             if importlib.util.find_spec(name) is None]
  if missing:
    raise ValueError(f'{what} needs {" and ".join(missing)}: pip install '
                     f'{" ".join(name.replace("_", "-") for name in missing)}')


def write(served: served_lib.Served, name: str, folder: str, stem: str,
          images: np.ndarray, float32: np.ndarray) -> Row:
  """Writes STEM.SUFFIX of a format, or STEM_WEIGHTS.SUFFIX, into a folder.

  images: uint8 [n, size, size, 3]; float32: the model's logits of them, with all
  its weights in float32. Raises ValueError, and leaves nothing, where the file
  does not agree.
  """
  module = load(name)
  registry.check(f'kind of weights of {name}', served.weights, module.WEIGHTS)
  needs(module, name)
  bits = '' if served.weights == 'float32' else f'_{served.weights}'
  path = os.path.join(folder, f'{stem}{bits}{module.SUFFIX}')
  partial = f'{path}.{uuid.uuid4().hex}.partial'
  try:
    module.write(served, partial)
    row = _compare(module, served, partial, path, images, float32)
    _replace(partial, path)
  finally:
    _remove(partial)
  return row


def _compare(module, served, partial, path, images, float32):
  _, answer = module.read(partial)
  got, want = in_batches(answer, images), in_batches(served.answer, images)
  row = Row(
      path, module.__name__.split('.')[-1], served.weights,
      round(_bytes(partial) / 1e6, 2), _milliseconds(answer, images[:1]),
      float(np.abs(got - want).max()), float(want.std()),
      float((got.argmax(-1) == float32.argmax(-1)).mean()), len(images))
  allowed = getattr(module, 'TOLERANCE', {}).get(served.weights, TOLERANCE)
  if not row.difference <= allowed * row.deviation:  # NaN is not, either.
    raise ValueError(
        f'{path} is not written: its logits differ by up to {row.difference:.3g} '
        f'from the model, and may by {allowed * row.deviation:.3g}.')
  if row.agreement < AGREEMENT:
    raise ValueError(
        f'{path} is not written: with {served.weights} weights {row.agreement:.0%} '
        f'of {len(images)} images keep their class, and {AGREEMENT:.0%} must. '
        'Export more bits.')
  return row


def in_batches(answer: served_lib.Answer, images: np.ndarray) -> np.ndarray:
  """The answer to all images, asked in batches, the last of them smaller."""
  return np.concatenate([answer(images[i:i + BATCH])
                         for i in range(0, len(images), BATCH)])


def _milliseconds(answer, image):
  times = []
  for _ in range(CALLS + 1):  # The first one compiles.
    began = time.perf_counter()
    answer(image)
    times.append(time.perf_counter() - began)
  return round(1e3 * float(np.median(times[1:])), 2)


def _bytes(path):
  if os.path.isfile(path):
    return os.path.getsize(path)
  return sum(os.path.getsize(os.path.join(place, name))
             for place, _, names in os.walk(path) for name in names)


def _replace(partial, path):
  """Renames; a folder in the way is moved first."""
  old = f'{partial}.old'
  if os.path.isdir(path):
    os.rename(path, old)
  try:
    os.replace(partial, path)
  except BaseException:
    with contextlib.suppress(OSError):
      os.rename(old, path)
    raise
  _remove(old)


def _remove(path):
  if os.path.isdir(path):
    shutil.rmtree(path, ignore_errors=True)
  else:
    with contextlib.suppress(FileNotFoundError):
      os.remove(path)


def table(rows: Sequence[Row]) -> str:
  """Rows in Markdown."""
  lines = ['| file | weights | MB | ms per image | largest difference of logits '
           '| same class as float32 |', '|---|---|---|---|---|---|']
  for row in rows:
    lines.append(
        f'| {os.path.basename(row.file)} | {row.weights} | {row.megabytes:.2f} | '
        f'{row.milliseconds:.2f} | {row.difference:.1e} of {row.deviation:.2f} | '
        f'{row.agreement:.1%} of {row.images} |')
  return '\n'.join(lines)
