"""Muon (Jordan et al., 2024): momentum, made orthogonal by Newton-Schulz.

Its authors advise it for hidden layers only. Kernels are matrices [all else,
outputs], those of queries, keys and values [f, heads x d]. The head, scales and
biases use Adam, and so do kernels of one input channel (depthwise convolutions),
which do not mix features.
"""

import math

import jax
import optax
import optax.contrib

from big_distill import params as params_lib


def scale_by(beta: float = 0.95, nesterov: bool = True,
             rms: float | None = 0.2, b1: float = 0.9, b2: float = 0.999,
             eps: float = 1e-8,
             mu_dtype: str | None = None) -> optax.GradientTransformation:
  """Muon, and Adam for the rest.

  beta is Muon's momentum; b1, b2 and eps are Adam's.

  rms: the root mean square of a Muon update. That of Adam's is about 0.2, so
    that one learning rate serves both (arXiv 2502.16982). None scales by
    max(1, sqrt(outputs / inputs)), as first published.
  """
  muon = optax.chain(
      optax.contrib.scale_by_muon(
          beta=beta, nesterov=nesterov, mu_dtype=mu_dtype,
          weight_dimension_numbers=_dimensions),
      optax.stateless(lambda updates, _: jax.tree_util.tree_map_with_path(
          lambda path, u: _factor(path, u, rms) * u, updates)))
  adam = optax.scale_by_adam(b1, b2, eps, mu_dtype=mu_dtype)
  return optax.partition({'muon': muon, 'adam': adam}, _labels)


def _labels(params):
  def label(path, x):
    hidden = path[-1].key == 'kernel' and path[0].key != 'head'
    mixes = x.ndim >= 2 and x.shape[-1 - params_lib.output_axes(path)] > 1
    return 'muon' if hidden and mixes else 'adam'

  return jax.tree_util.tree_map_with_path(label, params)


def _dimensions(params):
  """Which axes are inputs and which, the last ones, outputs."""
  def axes(path, x):
    inputs = x.ndim - params_lib.output_axes(path)
    return optax.contrib.MuonDimensionNumbers(
        tuple(range(inputs)), tuple(range(inputs, x.ndim)))

  return jax.tree_util.tree_map_with_path(axes, params)


def _factor(path, u, rms):
  """The scale of an orthogonal update, whose rms is 1 / sqrt(longer side)."""
  inner = u.ndim - params_lib.output_axes(path)
  inputs, outputs = math.prod(u.shape[:inner]), math.prod(u.shape[inner:])
  return (math.sqrt(max(1, outputs / inputs)) if rms is None
          else rms * math.sqrt(max(inputs, outputs)))
