"""Four simulated devices; programs are compiled quickly, not to run fast.

Compiled programs are kept in one folder for the session: for tests that compile
the same program, and for programs that tests start.
Shapes and dtypes that annotations promise are checked in all calls of CHECKED.
"""

import functools
import gc
import logging
import os
import tempfile

import beartype
import jaxtyping
import pytest

_PROGRAMS = tempfile.TemporaryDirectory(prefix='programs-')

os.environ['XLA_FLAGS'] = (os.environ.get('XLA_FLAGS', '')
                           + ' --xla_force_host_platform_device_count=4'
                           ' --xla_backend_optimization_level=0')
os.environ['JAX_COMPILATION_CACHE_DIR'] = _PROGRAMS.name
os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0.1'
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')

CHECKED = ['losses', 'topk', 'labels', 'models', 'ops', 'optimizers',
           'evaluators']


def checked(function):
  """The function, which raises where an argument or result is not as annotated.

  An int will do for a float.
  """
  return beartype.beartype(
      conf=beartype.BeartypeConf(is_pep484_tower=True))(function)


jaxtyping.install_import_hook([f'big_distill.{name}' for name in CHECKED],
                              'conftest.checked')


@pytest.fixture(scope='module', autouse=True)
def _forget_programs():
  """Frees what a module compiled; together they fill 6 GB."""
  yield
  import jax
  jax.clear_caches()
  gc.collect()


@pytest.fixture(scope='session')
def random_pack(tmp_path_factory):
  """The file of a pack: 32 random photographs of 12 classes, split train."""
  import numpy as np

  from big_distill import render
  from big_distill.tools import pack

  rng = np.random.default_rng(0)
  images = [rng.integers(0, 256, (rng.integers(12, 20), 14, 3), np.uint8)
            for _ in range(32)]
  path = tmp_path_factory.mktemp('pack') / 'images.npz'
  np.savez(path, classes=[*map(str, range(12))], **pack.pack(
      (render.pack(images), np.arange(32) % 12), 'train', 12, 90))
  return str(path)


@pytest.fixture(autouse=True)
def _keep_what_is_logged():
  """Programs choose how much they log; tests after them log as before."""
  absl = logging.getLogger('absl')
  level = absl.level
  yield
  absl.setLevel(level)


def pytest_configure(config):
  config.addinivalue_line(
      'markers', 'float16: casts to float16, which XLA does by an instruction '
      '(F16C) that processors of before 2012 lack.')


def pytest_runtest_setup(item):
  if item.get_closest_marker('float16') and not _has_float16():
    pytest.skip('XLA has no float16 on this processor.')


@functools.cache
def _has_float16():
  import jax

  try:
    jax.jit(lambda x: x.astype('float16'))(jax.numpy.ones(8))
  except jax.errors.JaxRuntimeError as error:
    assert '__truncsfhf2' in str(error) or 'materialize symbols' in str(error)
    return False
  return True
