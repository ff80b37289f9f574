"""Arrays of files that torch.save wrote, without PyTorch and without trust.

A file of PyTorch is a pickle, and a pickle may run anything when it is read.
Here it may name what a dict of tensors is made of, and nothing else. Both
formats are read: one pickle after another with raw numbers behind them, as
PyTorch wrote until 1.5, and the zip file that it has written since.
"""

import collections
import io
import pickle
import zipfile

from etils import epath
import ml_dtypes
import numpy as np

MAGIC = 0x1950a86a20f9469cfc6c  # Of the older format.
DTYPES = {
    'DoubleStorage': np.float64, 'FloatStorage': np.float32,
    'HalfStorage': np.float16, 'BFloat16Storage': ml_dtypes.bfloat16,
    'LongStorage': np.int64, 'IntStorage': np.int32, 'ShortStorage': np.int16,
    'CharStorage': np.int8, 'ByteStorage': np.uint8, 'BoolStorage': np.bool_,
}


class _Tensor:
  """A place in a storage: what a pickle says of a tensor."""

  def __init__(self, storage, offset, shape, strides, *rest):
    del rest  # requires_grad and hooks.
    self.storage, self.offset = storage, offset
    self.shape, self.strides = shape, strides

  def __call__(self, storages):
    key, dtype = self.storage
    numbers = np.frombuffer(storages[key], dtype)
    size = numbers.itemsize
    last = self.offset + sum((n - 1) * stride for n, stride
                             in zip(self.shape, self.strides))
    if min(self.offset, *self.strides, 0) < 0 or last >= numbers.size:
      if np.prod(self.shape):
        raise ValueError('a tensor reaches past its numbers')
    view = np.lib.stride_tricks.as_strided(
        numbers[self.offset:], self.shape, [size * n for n in self.strides])
    return np.array(view)


class _Reader(pickle.Unpickler):
  """Reads dicts of tensors; any other name is an UnpicklingError."""

  def __init__(self, file):
    super().__init__(file)
    self.dtypes = {}  # Of the storages it has met, by key.

  def find_class(self, module, name):
    if (module, name) == ('collections', 'OrderedDict'):
      return collections.OrderedDict
    if (module, name) == ('torch._utils', '_rebuild_tensor_v2'):
      return _Tensor
    if module == 'torch' and name in DTYPES:
      return DTYPES[name]
    raise pickle.UnpicklingError(f'it wants {module}.{name}')

  def persistent_load(self, pid):
    kind, dtype, key = pid[:3]
    if kind != 'storage':
      raise pickle.UnpicklingError(f'it has a {kind!r}')
    self.dtypes[key] = np.dtype(dtype)
    return key, self.dtypes[key]


def load(path: str) -> dict[str, np.ndarray]:
  """{name: array} of a state_dict that torch.save wrote.

  Raises ValueError where there is no such file, where it is damaged, or holds
  anything but a dict of tensors.
  """
  path = epath.Path(path)
  if not path.exists():
    raise ValueError(f'There is no checkpoint {path}.')
  content = io.BytesIO(path.read_bytes())
  try:
    tensors, storages = (_read_zip(content) if zipfile.is_zipfile(content)
                         else _read_pickles(content))
    return {str(name): tensor(storages) for name, tensor in tensors.items()
            if isinstance(tensor, _Tensor)}
  except Exception as error:  # A damaged pickle raises whatever it likes.
    reason = f'{type(error).__name__}: {error}'.splitlines()[0]
    raise ValueError(f'{path} is not a state_dict of PyTorch, or is damaged: '
                     f'{reason}') from error


def _read_zip(content):
  with zipfile.ZipFile(content) as file:
    index = next(name for name in file.namelist() if name.endswith('/data.pkl'))
    folder = index.removesuffix('data.pkl') + 'data/'
    tensors = _Reader(io.BytesIO(file.read(index))).load()
    storages = {name.removeprefix(folder): file.read(name)
                for name in file.namelist() if name.startswith(folder)}
  return tensors, storages


def _read_pickles(content):
  content.seek(0)
  if _Reader(content).load() != MAGIC:
    raise ValueError('it does not begin as one')
  for _ in range(2):  # The version of the format, facts about the machine.
    _Reader(content).load()
  reader = _Reader(content)
  tensors = reader.load()
  storages = {}
  for key in _Reader(content).load():  # In the order of the numbers below.
    count = int.from_bytes(content.read(8), 'little')
    storages[key] = content.read(count * reader.dtypes[key].itemsize)
  return tensors, storages
