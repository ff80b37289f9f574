"""Muon: orthogonal updates of hidden kernels, Adam's of all else."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from big_distill.optimizers import muon

SHAPES = {'stem': {'kernel': (3, 3, 4, 8)}, 'wide': {'kernel': (5, 16)},
          'depthwise': {'kernel': (3, 3, 1, 8)}, 'gn': {'scale': (1, 1, 1, 8)},
          'query': {'kernel': (8, 3, 4)}, 'value': {'kernel': (16, 1, 6)},
          'out': {'kernel': (3, 4, 8)}, 'head': {'kernel': (8, 6), 'bias': (6,)}}
HIDDEN = {'stem': (36, 8), 'wide': (5, 16),  # As matrices.
          'query': (8, 12), 'value': (16, 6), 'out': (12, 8)}


@pytest.fixture(scope='module')
def gradients():
  rng = np.random.default_rng(0)
  return jax.tree.map(lambda shape: jnp.float32(rng.normal(size=shape)), SHAPES,
                      is_leaf=lambda x: isinstance(x, tuple))


def update(tx, g):
  return jax.jit(tx.update)(g, tx.init(g))[0]


def test_hidden_kernels_are_orthogonal_matrices_of_their_outputs(gradients):
  got = update(muon.scale_by(), gradients)
  for layer, shape in HIDDEN.items():
    u, g = (np.reshape(x[layer]['kernel'], shape) for x in (got, gradients))
    # Newton-Schulz stops where singular values are between 0.7 and 1.2.
    s = np.linalg.svd(u / (.2 * np.sqrt(max(u.shape))), compute_uv=False)
    assert .6 < s.min() and s.max() < 1.3
    left, _, right = np.linalg.svd(g, full_matrices=False)
    polar = left @ right
    assert np.sum(u * polar) > .95 * np.linalg.norm(u) * np.linalg.norm(polar)
    assert .15 < np.sqrt(np.mean(u**2)) < .25  # As Adam's, about.


def test_the_rest_is_adams(gradients):
  got = update(muon.scale_by(), gradients)
  want = update(optax.scale_by_adam(), gradients)
  for layer, leaves in SHAPES.items():
    for name in leaves:
      same = np.allclose(got[layer][name], want[layer][name], rtol=1e-5)
      assert same == (layer not in HIDDEN), layer


def test_as_first_published_the_scale_is_of_outputs_to_inputs(gradients):
  new, old = (update(muon.scale_by(rms=rms), gradients) for rms in (.2, None))
  for layer, factor in (('stem', 1.), ('wide', np.sqrt(16 / 5)),
                        ('query', np.sqrt(12 / 8)), ('value', 1.)):
    want = new[layer]['kernel'] / (.2 * np.sqrt(max(HIDDEN[layer])))
    # Newton-Schulz multiplies what is small by 3.44 in each of five steps, so
    # rounding grows from 6e-8 to 3e-5 of the largest entry, several times over.
    np.testing.assert_allclose(old[layer]['kernel'] / factor, want, rtol=0,
                               atol=3e-4 * abs(want).max())
