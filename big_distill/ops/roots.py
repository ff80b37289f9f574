"""Inverse p-th roots of stacks of symmetric positive semidefinite matrices.

Each function takes matrices A, an integer p and a ridge eps, relative to the
largest eigenvalue lmax of each matrix. It returns (A + eps lmax I)^(-1/p) and
the error of each. A is normalised first, so its scale does not matter; the root
of a zero matrix is I. Do not use a root whose error is above TOLERATED, or NaN.

Newton's iteration is the default: on ill-conditioned float32 matrices it is
several times as accurate as the eigendecomposition, it is all products, and
several batched eigh in one program have been seen to hang on CPU.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float32

TOLERATED = 0.1

Matrices = Float32[Array, 'n d d']
Roots = tuple[Matrices, Float32[Array, ' n']]


def newton(a: Matrices, p: int, eps: float, steps: int = 50,
           tolerance: float = 1e-6) -> Roots:
  """The root by coupled Newton: M -> I, H -> A^(-1/p), and always M = H^p A."""
  a, scale = _normalised(a)
  eye = jnp.eye(a.shape[-1], dtype=a.dtype)
  a += eps * _largest_eigenvalue(a)[:, None, None] * eye
  z = (1 + p) / (2 * jnp.linalg.norm(a, axis=(1, 2), keepdims=True))

  def live(state):
    step, _, _, _, going = state
    return (step < steps) & jnp.any(going)

  def body(state):
    step, m, h, error, going = state
    t = (1 + 1 / p) * eye - m / p
    m_new, h_new = _power(t, p) @ m, h @ t
    e_new = _distance(m_new, eye)
    # After convergence rounding adds up: do not take a step that diverges.
    accept = going & (e_new < 1.2 * error)
    keep = accept[:, None, None]
    return (step + 1, jnp.where(keep, m_new, m), jnp.where(keep, h_new, h),
            jnp.where(accept, e_new, error), accept & (e_new > tolerance))

  m, h = z * a, z ** (1 / p) * eye
  error = _distance(m, eye)
  _, _, h, error, _ = jax.lax.while_loop(
      live, body, (0, m, h, error, error > tolerance))
  h = scale ** (-1 / p) * (h + h.swapaxes(1, 2)) / 2
  return h, jnp.where(jnp.isfinite(h).all((1, 2)), error, jnp.nan)


def eigh(a: Matrices, p: int, eps: float) -> Roots:
  """The root by eigendecomposition; in float32 it needs eps >= 1e-5."""
  a, scale = _normalised(a)
  w, v = jnp.linalg.eigh(a)
  w = jnp.maximum(w, 0) + eps * w[:, -1:]
  h = scale ** (-1 / p) * ((v * w[:, None] ** (-1 / p)) @ v.swapaxes(1, 2))
  return h, jnp.where(jnp.isfinite(h).all((1, 2)), 0., jnp.nan)


ROOTS = {'newton': newton, 'eigh': eigh}


def _normalised(a: Matrices) -> tuple[Matrices, Float32[Array, 'n 1 1']]:
  """(A / scale, scale), where scale is |A|; (I, 1) for a zero matrix."""
  # Divide by the largest entry first: squares in a norm would overflow.
  largest = jnp.max(jnp.abs(a), (1, 2), keepdims=True)
  zero = largest == 0
  a = jnp.where(zero, jnp.eye(a.shape[-1]), a / jnp.where(zero, 1, largest))
  norm = jnp.where(zero, 1, jnp.linalg.norm(a, axis=(1, 2), keepdims=True))
  return a / norm, jnp.where(zero, 1, largest * norm)


def _largest_eigenvalue(a: Matrices, steps: int = 50) -> Float32[Array, ' n']:
  """The largest eigenvalue of each matrix, by power iterations."""
  # A random start is not orthogonal to the first eigenvector.
  start = jax.random.normal(jax.random.key(0), a.shape[1:2])
  v = jnp.tile(start / jnp.linalg.norm(start), [a.shape[0], 1])

  def step(_, state):
    v, _ = state
    v = jnp.einsum('nij,nj->ni', a, v)
    norm = jnp.linalg.norm(v, axis=1)
    return v / jnp.where(norm == 0, 1, norm)[:, None], norm

  return jax.lax.fori_loop(0, steps, step, (v, jnp.zeros(a.shape[:1])))[1]


def _power(x: Matrices, p: int) -> Matrices:
  """x^p of square matrices, by repeated squaring."""
  result = None
  while p:
    if p & 1:
      result = x if result is None else result @ x
    p >>= 1
    x = x @ x if p else x
  return result


def _distance(m: Matrices,
              eye: Float32[Array, 'd d']) -> Float32[Array, ' n']:
  """The largest entry of |m - eye|, of each matrix."""
  return jnp.max(jnp.abs(m - eye), (1, 2))
