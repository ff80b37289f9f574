"""npz files return what was put in, or say in one line why they do not."""

import io
import os
import zipfile

import jax
import ml_dtypes
import numpy as np
import pytest

from big_distill import npz_files
from big_distill import params

TREE = {
    'block1': {'unit01': {'kernel': np.arange(6, dtype=np.float32).reshape(2, 3),
                          'bias': np.array([np.nan, -0., np.inf], np.float32)}},
    'norm-pre-head': {'scale': np.arange(-4, 4).astype(ml_dtypes.bfloat16)},
    'step': np.array(7, np.int32),
    'mask': np.array([[True], [False]]),
    'none': np.zeros((0, 3), np.float16),
}


def same(a, b):
  """Bit for bit, NaN and the sign of zero included."""
  return (a.dtype == b.dtype and a.shape == b.shape
          and a.tobytes() == b.tobytes())


@pytest.mark.parametrize('name', ['some.npz', 'some'])
def test_a_file_returns_every_bit_and_dtype(tmp_path, name):
  flat = params.flatten(TREE)
  npz_files.save(tmp_path / name, flat)
  assert os.listdir(tmp_path) == [name]
  loaded = npz_files.load(str(tmp_path / name))
  assert list(loaded) == list(flat)
  for key, leaf in flat.items():
    assert same(loaded[key], leaf), key


def test_arrays_of_a_device_are_saved_as_their_values(tmp_path):
  flat = {'a': jax.numpy.arange(3.), 'b': jax.numpy.ones(2, 'bfloat16')}
  npz_files.save(tmp_path / 'some.npz', flat)
  loaded = npz_files.load(tmp_path / 'some.npz')
  assert all(same(loaded[key], np.asarray(leaf)) for key, leaf in flat.items())


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
  path = tmp_path / 'some.npz'
  old, new = {'a': np.zeros(3)}, {'a': np.ones(4)}
  npz_files.save(path, old)

  with monkeypatch.context() as broken:
    def fail(*_, **__):
      raise OSError('The disk is full.')
    broken.setattr(np, 'savez', fail)
    with pytest.raises(OSError, match='disk is full'):
      npz_files.save(path, new)
  assert same(npz_files.load(path)['a'], old['a'])

  npz_files.save(path, new)
  assert same(npz_files.load(path)['a'], new['a'])


def one_line(load):
  """The message of the ValueError that `load` raises: one line."""
  with pytest.raises(ValueError) as error:
    load()
  message = str(error.value)
  assert len(message.splitlines()) == 1
  return message


@pytest.mark.parametrize('compress', [False, True])
def test_a_damaged_file_is_refused_or_intact(tmp_path, compress):
  flat = params.flatten(TREE)
  path = tmp_path / 'some.npz'
  (np.savez_compressed if compress else np.savez)(path, **flat)
  whole = path.read_bytes()
  refused = 0
  for i in range(0, len(whole), 3):
    path.write_bytes(whole[:i] + bytes([whole[i] ^ 5]) + whole[i + 1:])
    try:
      loaded = npz_files.load(path)
    except ValueError as error:
      assert len(str(error).splitlines()) == 1 and str(path) in str(error)
      refused += 1
    else:  # A name may suffer, which check_match reports; no value may.
      for name in loaded.keys() & flat.keys():
        assert same(loaded[name].view(flat[name].dtype), flat[name]), (i, name)
  assert refused > len(whole) / 6


def test_a_truncated_file_is_refused(tmp_path):
  path = tmp_path / 'some.npz'
  npz_files.save(path, params.flatten(TREE))
  whole = path.read_bytes()
  for size in range(0, len(whole), 50):
    path.write_bytes(whole[:size])
    assert one_line(lambda: npz_files.load(path)) == (
        f'{path} is not an npz file, or not a whole one.')


def test_what_is_no_npz_file_is_named(tmp_path):
  (tmp_path / 'text.npz').write_text('hello')
  np.save(tmp_path / 'array.npy', np.zeros(3))
  np.savez(tmp_path / 'object.npz', a=np.array([{}], object))
  (tmp_path / 'folder.npz').mkdir()
  for name, message in [
      ('text.npz', 'is not an npz file'),
      ('array.npy', 'is not an npz file'),
      ('object.npz', 'is a damaged npz file: ValueError: Object arrays'),
      ('folder.npz', 'cannot be read: IsADirectoryError'),
      ('missing.npz', 'There is no checkpoint')]:
    path = tmp_path / name
    text = one_line(lambda: npz_files.load(path))
    assert str(path) in text and message in text


def bomb(path, header=None, data=b'', method=zipfile.ZIP_DEFLATED,
         names=('a.npy',)):
  """An archive of members with any header and any data."""
  head = io.BytesIO()
  np.lib.format.write_array_header_1_0(head, dict(
      descr='<f4', fortran_order=False, shape=(3,)) | (header or {}))
  with zipfile.ZipFile(path, 'w', method) as archive:
    for name in names:
      archive.writestr(name, head.getvalue() + data)


@pytest.mark.filterwarnings('ignore:Duplicate name')
@pytest.mark.parametrize('kwargs, message', [
    (dict(header=dict(shape=(1 << 40,)), data=bytes(12)), 'a.npy has 140 bytes'),
    (dict(header=dict(shape=(-3,)), data=bytes(12)), 'a.npy has 140 bytes'),
    (dict(data=bytes(13)), 'a.npy has 141 bytes, its shape'),
    (dict(header=dict(shape=(1 << 25,)), data=bytes(1 << 27)),
     r'would become 134,217,8\d\d'),
    (dict(data=bytes(12), names=['a.npy', 'a.npy']), 'have one name'),
    (dict(data=bytes(12), names=['a.txt']), 'a.txt is not an array'),
    (dict(data=bytes(12), method=zipfile.ZIP_LZMA), 'a.npy is not an array')])
def test_an_archive_is_inflated_only_to_what_it_declares(
    tmp_path, kwargs, message, monkeypatch):
  path = tmp_path / 'some.npz'
  bomb(path, data=bytes(12))
  assert same(npz_files.load(path)['a'], np.zeros(3, np.float32))
  bomb(path, **kwargs)
  monkeypatch.setattr(np, 'load', lambda *_, **__: pytest.fail('inflated'))
  with pytest.raises(ValueError, match=message) as error:
    npz_files.load(path)
  assert len(str(error.value).splitlines()) == 1 and str(path) in str(error)


def test_a_storage_that_fails_is_named_in_one_line(monkeypatch):
  class NoNetwork(Exception):
    """As TensorFlow's errors of gs:// paths, no OSError."""

  def exists(path):
    raise NoNetwork(f'No such host.\n when reading {path}')

  monkeypatch.setattr(type(npz_files.epath.Path('/')), 'exists', exists)
  assert one_line(lambda: npz_files.load('/bucket/some.npz')) == (
      '/bucket/some.npz cannot be read: NoNetwork: No such host.')
