"""npz files return what was put in, or say in one line why they do not."""

import io
import os
import zipfile

import jax
import ml_dtypes
import numpy as np
import pytest

from big_distill import costs
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


def test_names_are_paths_and_paths_are_names():
  flat = params.flatten(TREE)
  assert list(flat) == ['block1/unit01/kernel', 'block1/unit01/bias',
                        'norm-pre-head/scale', 'step', 'mask', 'none']
  assert jax.tree.all(jax.tree.map(same, params.unflatten(flat), TREE))


@pytest.mark.parametrize('name', ['some.npz', 'some'])
def test_a_file_returns_every_bit_and_dtype(tmp_path, name):
  flat = params.flatten(TREE)
  params.save_npz(tmp_path / name, flat)
  assert os.listdir(tmp_path) == [name]
  loaded = params.load_npz(str(tmp_path / name))
  assert list(loaded) == list(flat)
  for key, leaf in flat.items():
    assert same(loaded[key], leaf), key


def test_arrays_of_a_device_are_saved_as_their_values(tmp_path):
  flat = {'a': jax.numpy.arange(3.), 'b': jax.numpy.ones(2, 'bfloat16')}
  params.save_npz(tmp_path / 'some.npz', flat)
  loaded = params.load_npz(tmp_path / 'some.npz')
  assert all(same(loaded[key], np.asarray(leaf)) for key, leaf in flat.items())


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
  path = tmp_path / 'some.npz'
  old, new = {'a': np.zeros(3)}, {'a': np.ones(4)}
  params.save_npz(path, old)

  with monkeypatch.context() as broken:
    def fail(*_, **__):
      raise OSError('The disk is full.')
    broken.setattr(np, 'savez', fail)
    with pytest.raises(OSError, match='disk is full'):
      params.save_npz(path, new)
  assert same(params.load_npz(path)['a'], old['a'])

  params.save_npz(path, new)
  assert same(params.load_npz(path)['a'], new['a'])


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
      loaded = params.load_npz(path)
    except ValueError as error:
      assert len(str(error).splitlines()) == 1 and str(path) in str(error)
      refused += 1
    else:  # A name may suffer, which check_match reports; no value may.
      for name in loaded.keys() & flat.keys():
        assert same(loaded[name].view(flat[name].dtype), flat[name]), (i, name)
  assert refused > len(whole) / 6


def test_a_truncated_file_is_refused(tmp_path):
  path = tmp_path / 'some.npz'
  params.save_npz(path, params.flatten(TREE))
  whole = path.read_bytes()
  for size in range(0, len(whole), 50):
    path.write_bytes(whole[:size])
    assert one_line(lambda: params.load_npz(path)) == (
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
    text = one_line(lambda: params.load_npz(path))
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
  assert same(params.load_npz(path)['a'], np.zeros(3, np.float32))
  bomb(path, **kwargs)
  monkeypatch.setattr(np, 'load', lambda *_, **__: pytest.fail('inflated'))
  with pytest.raises(ValueError, match=message) as error:
    params.load_npz(path)
  assert len(str(error.value).splitlines()) == 1 and str(path) in str(error)


def test_numbers_are_finite_floats_or_their_leaf_is_named():
  good = {'a': np.zeros(3, np.float16), 'b/c': np.ones(2, ml_dtypes.bfloat16)}
  params.check_numbers(good, 'F')
  for value, message in [
      (np.zeros(2), 'F: b/c is of float64, but parameters are of float32, '
       'bfloat16, float16.'),
      (np.zeros(2, np.int8), 'b/c is of int8'), (np.zeros(2, '<U3'), 'of <U3'),
      (np.float32([0, np.nan, -np.inf]),
       'F: 2 of the 3 numbers in b/c are NaN or infinite.'),
      (np.asarray([np.inf], ml_dtypes.bfloat16), '1 of the 1 numbers')]:
    text = one_line(lambda: params.check_numbers(
        good | {'b/c': value}, 'F'))
    assert message in text


def test_a_storage_that_fails_is_named_in_one_line(monkeypatch):
  class NoNetwork(Exception):
    """As TensorFlow's errors of gs:// paths, no OSError."""

  def exists(path):
    raise NoNetwork(f'No such host.\n when reading {path}')

  monkeypatch.setattr(type(params.epath.Path('/')), 'exists', exists)
  assert one_line(lambda: params.load_npz('/bucket/some.npz')) == (
      '/bucket/some.npz cannot be read: NoNetwork: No such host.')


def test_every_mismatch_is_listed_by_name_and_shape():
  given = {'a': np.zeros(3), 'b': np.zeros((1, 2)), 'd': np.zeros(())}
  wanted = {'a': np.zeros(3), 'b': np.zeros((2, 1)), 'c': np.zeros((4,))}
  lines = ['! b (1, 2): should be (2, 1)', '+ c (4,): missing',
           '- d (): unexpected']
  assert params.mismatches(given, wanted) == lines
  shapes = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
            for name, leaf in wanted.items()}
  assert params.mismatches(given, shapes) == lines
  with pytest.raises(ValueError) as error:
    params.check_match(given, wanted, 'This')
  assert str(error.value).splitlines() == [
      'This does not fit the model:', *(f'  {line}' for line in lines)]


def test_what_matches_passes_whatever_its_order_and_dtype():
  given = {'b': np.zeros((2, 1)), 'a': np.zeros(3, np.int8)}
  wanted = {'a': np.zeros(3), 'b': np.zeros((2, 1))}
  assert params.mismatches(given, wanted) == []
  params.check_match(given, wanted, 'This')


def test_count_is_the_sum_of_sizes():
  assert costs.parameters(TREE) == 6 + 3 + 8 + 1 + 2 + 0
  assert costs.parameters(jax.ShapeDtypeStruct((3, 5), np.float32)) == 15


def test_running_averages_are_not_counted():
  norm = {name: np.zeros(4) for name in ('scale', 'bias', 'mean', 'var')}
  assert costs.parameters({'stem': {'norm': norm, 'kernel': np.zeros(5)}}) == 13
  flat = params.flatten({'stem': {'norm': norm}, 'mean': {'kernel': 0.}})
  assert list(filter(params.is_average, flat)) == [
      'stem/norm/mean', 'stem/norm/var']


def test_overview_tells_names_shapes_sizes_and_the_total():
  text = params.overview({'a': {'kernel': np.ones((2, 3), np.float32)},
                          'b': np.zeros(1000, np.float32)})
  for cell in ('a/kernel', '(2, 3)', '1,000', 'Total: 1,006'):
    assert cell in text, text
