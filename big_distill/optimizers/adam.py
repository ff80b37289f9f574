"""Adam (arXiv 1412.6980), bias-corrected, as optax has it."""

import optax


def scale_by(b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8,
             mu_dtype: str | None = None) -> optax.GradientTransformation:
  """Adam. The defaults are the paper's; mu_dtype='bfloat16' is its code's."""
  return optax.scale_by_adam(b1, b2, eps, mu_dtype=mu_dtype)
