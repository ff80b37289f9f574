"""Stochastic gradient descent with heavy-ball or Nesterov momentum."""

import optax


def scale_by(momentum=0.9, nesterov=False):
  """m <- momentum m + g; the update is m, or g + momentum m with Nesterov."""
  return optax.trace(momentum, nesterov)
