"""Four simulated devices; programs are compiled quickly, not to run fast.

Shapes and dtypes that annotations promise are checked in all calls of CHECKED.
"""

import os

import beartype
import jaxtyping

os.environ['XLA_FLAGS'] = (os.environ.get('XLA_FLAGS', '')
                           + ' --xla_force_host_platform_device_count=4'
                           ' --xla_backend_optimization_level=0')
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')

CHECKED = ['losses', 'topk', 'labels', 'optimizers', 'ops.blocks',
           'ops.roots', 'evaluators']


def checked(function):
  """The function, which raises where an argument or result is not as annotated.

  An int will do for a float.
  """
  return beartype.beartype(
      conf=beartype.BeartypeConf(is_pep484_tower=True))(function)


jaxtyping.install_import_hook([f'big_distill.{name}' for name in CHECKED],
                              'conftest.checked')
