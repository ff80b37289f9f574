"""Whether student and teachers have like features: linear CKA, per teacher."""

import dataclasses

from jaxtyping import Float
import numpy as np

from big_distill import labels


def linear_cka(x: Float[np.ndarray, 'n f'],
               y: Float[np.ndarray, 'n g']) -> float:
  """Linear CKA of two models' features of the same examples, in [0, 1].

  |Y'X|^2 / (|X'X| |Y'Y|), Frobenius norms, features centred (Kornblith et al.,
  arXiv 1905.00414, eq. 3 to 5, biased estimator).
  """
  x, y = (z - z.mean(axis=0) for z in (x, y))
  if len(x) < max(x.shape[1], y.shape[1]):  # Gram matrices give the same.
    k, l = x @ x.T, y @ y.T
    cross, own = np.sum(k * l), np.linalg.norm(k) * np.linalg.norm(l)
  else:
    cross = np.sum(np.square(y.T @ x))
    own = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
  return cross / own if own else np.nan


@dataclasses.dataclass(frozen=True)
class Evaluator:
  """Compares one layer of the student with that of each of its teachers."""
  layer: str = 'pre_logits'

  labelled = False
  needs = ('student', 'teacher')

  def measure(self, answers: dict[str, Float[np.ndarray, 'n _']],
              label: labels.Label,
              classes: tuple[str, ...]) -> dict[str, float]:
    """{name of a teacher: CKA}, from features of all."""
    del label, classes
    student = answers.pop('student')
    return {name: linear_cka(student, x) for name, x in answers.items()}
