"""Files of PyTorch are read without it, and cannot run anything."""

import base64
import os
import pickle
import zlib

import numpy as np
import pytest

from big_distill import torch_files

# What PyTorch 2.13.0 saves of these, in the format before 1.6 and since.
WANTED = {'a.weight': np.float32([[0, 3], [1, 4], [2, 5]]),  # A transpose.
          'b': np.int64([3, 4, 5, 6]), 'half': np.float32([1.5, -2]),
          'row': np.float32([4, 5, 6, 7])}  # Of a larger storage.
FILES = {
    'pickles': (
        'eNqFkc1u00AQx9drJykmLeGb8hlaPsIlSoNjklMpQr0sUGouviDLdZbYyPJm7HUrkCrl'
        'koryDBw48hh5FK48AhIHZuOkUBSJtWdHO7v7/83MjuhnM/71Zftn/f2316vNEX35Q8f5'
        'EEjDrRFChqmQIhCxt8/TLBIJaHjAXcadOJIy5h5P+pGfAP3kmhiUH4bcy6KPPAP9EIyG'
        'W8JgFopUQolRV8dVlEgoM8M1lIZIBlBhRp7PmUsY9ZsHPBqEErRAijQIm14uozgzvZTv'
        '5VHc9yRPMpF6+20TaKPhVhQDT/oDDnpxxdyOhS/fFEETDHcFz/SsltXrPOnYtt2yLShN'
        '0wmGOaZTfiWhsssI0xk9giWmMf0IzhwHWHnMA4mFZ+ZO2ucp7z+PAmmC+ciBsxKqDiy7'
        'GsrswUqIuYRz/gus7AR/7g/e6vbaXWuj3YVaiF1A7HmFNcZwgWljuHgcKuVLEi47cGXa'
        'o9CP38HVU+LPptVt2CeAa/8C8INVBFAEXFcAOoYbCnCzANyScNuBO9MOpOIA6oV+aJwS'
        'emxb7Y4Nd1GoikJru8xQma4roXuF0H0JDxx4qN7vrXq/BYVqi5Kji0D6omcyeFO1QQ19'
        '5ufr0syXZ57O/GSTTKrk7zHaxOkp/mgjtK9oE7TvaGSLkBpaHa21Vf7Pvd8HaL7M'),
    'zip': (
        'eNqlVklv00AUnjiJWww0XYCUAiUshSBBajuQtCxdLOSLkWiDQFEvkZu4iYWJ+5xpC0hI'
        'lVAR3EDcEX+AM9f+BRASIHpAVAg48QO4MGOnxp7ShNJRXibLfMvMvPeSKS0aQ6izE20a'
        '3agX6U65Zi4awxUd65n525aqdKGZ0FjmHgBKFylezywZZrWGIVLGNgFmSgvYtBpCyTFm'
        'F0yrUsJGvWE7pUVZAC6dLnYQTIOs1KsGRD2IoFq2jm94HwoQK0bIGhHixSiZy/MLwGs8'
        'ho5pDWlRjXsEnVpEiz6CXU/KZduyjDI27XpDuO5UDMeoXDXLWADhTAF2Y9hTgL0u2yx0'
        '1Yh6bUPxml2v+oIJd4kE3TVei2HooUKxFejVIivQ96RGufZh2F+AA0VyaqimW3OQDNEp'
        '7g6knE/Z71LKcJBQchgGKCW3Aoco5WGP8giGwQIcdTfp2EuQ8hhr3vazcIxA92A4Pq3F'
        'qJsTFHrSgw5hOFWA0wuZKa2jc+3jp+ePCYTG1Jb3mkRZ/14zc7ZzR8elRcNpkKNTlWHm'
        'etsOiQq//rn2kFqlsbXwAMr/EW5efEm3zGr9jlHHqpLdrjYdufPUwPgS/OCIBNfSQA8a'
        '9w3M3sOGTfNEVS79j+7GsEyMLYN6WLmyfpAnKnxLD11oLFRVw6KqXNyBAY91eZw8TZAH'
        'iWUSLyeoo+TTb8/6yRf9bRydDTuSVCX9z46iTZZYc443Z745u3mZHIqnyOtUGx8nwz5k'
        'VUm19bE6jlapRsf0zHqs6aOVxkRYI6sql3dy/VueP0KrJD6TQJOkl5JIkRAnqde7D+bG'
        'RNrYWnpNoD7fq1+fCdZsVqCMb15Ub7bP/0Ek/ylAd/sNwzFJBd7XaeMsmRVVyWzzNCQx'
        'nx/JyXl5ND86OnLhvJSTL4g58k6UciNyblQUc2JWlLLU5av3X7+kiY+06zJCzfo+g72r'
        'e5Nz9neIRQcbUDKE/BBBW3U7liTYRAZCJNMcatG5WJ5gI+gJ8bwN8PgNiIUHq7YrBL8V'
        'RUzv2HSKgUoLY7+zWInFBisojJ2PMViZxQYzOox9x2KzLDaYu4kQdjmO2ApgwcGUGgyf'
        'dQD892Sf0nj+7EZpRM/5SIGZH3LNTfIbLY2nf13Qr6YH71cvznsYwV3vrf0NEKT/eA=='),
}


def content(name):
  return zlib.decompress(base64.b64decode(FILES[name]))


@pytest.mark.parametrize('name', FILES)
def test_arrays_are_those_that_pytorch_saved(name, tmp_path):
  (tmp_path / 'm.pth').write_bytes(content(name))
  got = torch_files.load(tmp_path / 'm.pth')
  assert got.keys() == WANTED.keys()
  for key, value in WANTED.items():
    np.testing.assert_array_equal(got[key].astype(value.dtype), value)
  assert got['half'].dtype == 'bfloat16' and got['b'].dtype == np.int64


class Attack:

  def __reduce__(self):
    return os.mkdir, (self.path,)


@pytest.mark.parametrize('name', ['first', 'later'])
def test_a_pickle_that_would_run_something_is_refused(name, tmp_path):
  attack = Attack()
  attack.path = str(tmp_path / 'hacked')
  evil = pickle.dumps(attack, protocol=2)
  if name == 'later':  # In the place of the tensors.
    evil = b''.join(pickle.dumps(value, protocol=2) for value in (
        torch_files.MAGIC, 1001, {})) + evil
  (tmp_path / 'm.pth').write_bytes(evil)
  with pytest.raises(ValueError, match='it wants posix.mkdir') as caught:
    torch_files.load(tmp_path / 'm.pth')
  assert '\n' not in str(caught.value)
  assert not (tmp_path / 'hacked').exists()


@pytest.mark.parametrize('name', FILES)
def test_a_file_cut_short_is_one_line(name, tmp_path):
  whole = content(name)
  for share in (0, .1, .5, .9, .98):
    (tmp_path / 'm.pth').write_bytes(whole[:int(share * len(whole))])
    with pytest.raises(ValueError, match='m.pth is not a state_dict') as caught:
      torch_files.load(tmp_path / 'm.pth')
    assert '\n' not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
  with pytest.raises(ValueError, match='There is no checkpoint .*none.pth'):
    torch_files.load(tmp_path / 'none.pth')


def test_no_tensor_reaches_past_its_numbers():
  storage = ('0', np.dtype(np.float32))
  for offset, shape, strides in ((0, (3,), (1,)), (2, (1,), (1,)),
                                 (-1, (1,), (1,)), (0, (2, 2), (1, 1)),
                                 (1, (2,), (-1,))):
    tensor = torch_files._Tensor(storage, offset, shape, strides)
    with pytest.raises(ValueError, match='reaches past'):
      tensor({'0': np.zeros(2, np.float32).tobytes()})
