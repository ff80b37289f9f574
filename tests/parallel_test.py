"""Work spread over devices gives what one device gives."""

import jax.numpy as jnp
import numpy as np
import pytest

from big_distill import parallel


@pytest.mark.parametrize('n', [1, 3, 4, 6, 9])
def test_spread_work_is_the_whole_work_and_each_device_does_a_share(n):
  x = np.random.default_rng(0).normal(size=(n, 2)).astype(np.float32)
  shares = []

  def square(x, y):
    shares.append(len(x))
    return {'square': x * y, 'sum': x.sum(1)}

  alone = parallel.spread(square, jnp.asarray(x), jnp.asarray(x))
  assert shares.pop() == n
  got = parallel.pmap(lambda x: parallel.spread(square, x, x))(
      parallel.replicate(x))
  assert shares == [-(-n // 4)]
  for name, want in alone.items():
    assert (np.asarray(got[name]) == want).all()  # On every device.
