"""Inverse roots against eigendecompositions in float64, for every power.

Tolerances: float32 moves eigenvalues by up to 6e-8 of the largest, which is
6e-8 k of the least, k being the condition number, ridge included. Roots turn
that into 6e-8 k / p, and are as large as what becomes of the least.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from big_distill.ops import roots

EPS = 1e-6


@functools.cache
def newton(p):
  @jax.jit
  def root(a):
    with jax.default_matmul_precision('highest'):
      return roots.newton(a, p, EPS)
  return root


def spectrum(w, seed=0):
  """A matrix of eigenvalues w and random eigenvectors."""
  q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(w), len(w))))
  return (q * w) @ q.T


def exact(a, p, eps=EPS):
  w, v = np.linalg.eigh(np.float64(a))
  return (v * (np.maximum(w, 0) + eps * w[-1]) ** (-1 / p)) @ v.T


def close(got, want, rtol):
  assert np.linalg.norm(got - want) < rtol * np.linalg.norm(want)


@pytest.mark.parametrize('p', range(1, 9))
def test_root_of_a_known_spectrum_at_every_power(p):
  # optax.matrix_inverse_pth_root is 6 % off at p=6, and says it is not.
  stack = np.stack([spectrum(np.logspace(0, -3, 12)), spectrum(np.ones(12)),
                    5 * spectrum(np.linspace(1, 2, 12), 1)])
  got, error = newton(p)(jnp.float32(stack))
  for h, a in zip(got, stack):
    close(h, exact(a, p), 1e-4)  # k is 1e3.
    np.testing.assert_allclose(h, h.T)
  assert (error < 1e-4).all()


def test_ill_conditioned_roots_hold_three_digits():
  a = spectrum(np.logspace(0, -6, 12))
  got, _ = newton(4)(jnp.float32(a)[None])
  # k is 5e5, half of what it would be without the ridge.
  close(got[0], exact(a, 4), 1e-2)


def test_scale_does_not_matter():
  a = spectrum(np.logspace(0, -2, 12))
  scales = np.array([1e-30, 1e-12, 1, 1e12, 1e30])
  got, error = newton(4)(jnp.float32(a * scales[:, None, None]))
  for h, scale in zip(got, scales):
    close(h * scale ** .25, exact(a, 4), 1e-4)
  assert (error < 1e-4).all()


def test_degenerate_matrices_have_finite_roots():
  v = np.random.default_rng(0).normal(size=12)
  stack = np.stack([np.zeros([12, 12]), np.outer(v, v), np.eye(12) * 3e-38])
  got, error = newton(4)(jnp.float32(stack))
  assert np.isfinite(got).all() and (error < 1e-4).all()
  np.testing.assert_allclose(got[0], np.eye(12), atol=1e-5)
  close(got[1], exact(stack[1], 4), 2e-2)  # k is 1e6.
  one, _ = newton(4)(jnp.full([1, 1, 1], 16.))
  np.testing.assert_allclose(one, .5, rtol=1e-5)


def test_what_has_no_root_is_told_and_does_not_disturb_its_neighbours():
  good = spectrum(np.logspace(0, -3, 12))
  bad = np.stack([-np.eye(12), np.full([12, 12], np.nan), good * np.inf,
                  spectrum(np.linspace(-1, 1, 12))])
  got, error = newton(4)(jnp.float32(np.concatenate([bad, good[None]])))
  assert not (error[:-1] < roots.TOLERATED).any()
  alone, _ = newton(4)(jnp.float32(np.stack([good] * 5)))
  assert (got[-1] == alone[-1]).all()


def test_both_ways_agree():
  a = spectrum(np.logspace(0, -2, 6))
  got, error = jax.jit(lambda a: roots.ROOTS['eigh'](a, 6, EPS))(
      jnp.float32(a)[None])
  close(got[0], exact(a, 6), 1e-4)
  close(newton(6)(jnp.float32(a)[None])[0][0], got[0], 1e-4)
  assert error[0] == 0
