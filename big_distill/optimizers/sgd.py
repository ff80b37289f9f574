"""Stochastic gradient descent with heavy-ball or Nesterov momentum."""

import optax


def scale_by(momentum: float = 0.9,
             nesterov: bool = False) -> optax.GradientTransformation:
  """m <- momentum m + g; the update is m, or g + momentum m with Nesterov."""
  return optax.trace(momentum, nesterov)
