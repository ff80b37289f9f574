"""How well features serve another task: least squares on a few images a class.

As in big_vision: one-versus-rest targets of +-1, features standardised by the
few images, ridge regression. Each seed chooses other images; the result is the
mean over seeds.
"""

from collections.abc import Callable
import dataclasses

from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Int
import numpy as np

from big_distill import bounds
from big_distill import labels

Few = Int[np.ndarray, ' m'] | Int[np.ndarray, 'm c']  # As labels.Label.


@dataclasses.dataclass(frozen=True)
class Evaluator:
  """Needs a second split, `train`, from which the few images are drawn.

  Classes with fewer images than shots give all they have.
  """
  shots: tuple[int, ...] = (1, 5, 10, 25)
  l2: float = 2.**10
  seeds: int = 3
  layer: str = 'pre_logits'

  labelled = False  # Its classes are its dataset's, not the student's.
  needs = ('student',)
  trains = True

  def __post_init__(self):
    for name, value in (('seeds', self.seeds),
                        *(('shots', shots) for shots in self.shots)):
      bounds.check(name, value, least=1, whole=True)
    bounds.check('l2', self.l2, least=0)

  def measure(self, answers: dict[str, Float[np.ndarray, 'n f']],
              label: labels.Label, classes: tuple[str, ...],
              train: tuple[dict[str, Float[np.ndarray, 'm f']], Few],
              ) -> dict[str, float]:
    """{'acc@1_5shot': accuracy, ...}, from features and labels of two splits.

    Where an image has several labels, any is correct. Images without a label
    count in neither split; where a split has no others, the result is {}.
    """
    x, share = _labelled(answers['student'], label, len(classes))
    few, few_share = _labelled(train[0]['student'], train[1], len(classes))
    if not len(x) or not len(few):
      return {}
    results = {}
    for shots in self.shots:
      accuracies = []
      for seed in range(self.seeds):
        chosen = _choose(few_share, shots, np.random.default_rng(seed))
        predict = fit(few[chosen], few_share[chosen] > 0, self.l2)
        hit = share[np.arange(len(x)), predict(x)] > 0
        accuracies.append(np.mean(hit))
      results[f'acc@1_{shots}shot'] = np.mean(accuracies)
    return results


def _labelled(
    x: Float[np.ndarray, 'n f'], label: labels.Label, num_classes: int,
) -> tuple[Float[np.ndarray, 'm f'], Float[np.ndarray, 'm c']]:
  """Features and labels [n, c], of the examples that have a label."""
  known = labels.is_known(label)
  return x[known], np.asarray(labels.shares(label[known], num_classes))


def _choose(share: Float[np.ndarray, 'n c'], shots: int,
            rng: np.random.Generator) -> Int[np.ndarray, ' m']:
  """Indices of at most so many examples of each class."""
  order = rng.permutation(len(share))
  return np.unique(np.concatenate(
      [order[share[order, c] > 0][:shots] for c in range(share.shape[1])]))


def fit(x: Float[np.ndarray, 'n f'], label: Bool[np.ndarray, 'n c'],
        l2: float) -> Callable:
  """Ridge regression: a function from features [m, f] to classes [m].

  `label` says whether an example is of a class. The intercept is not penalised.
  """
  mean, std = x.mean(axis=0), x.std(axis=0) + 1e-5
  x, y = (x - mean) / std, 2. * label - 1
  bias = y.mean(axis=0)
  n, f = x.shape
  if n < f:  # (X'X + l2 I)^-1 X' = X' (XX' + l2 I)^-1
    weight = x.T @ np.linalg.solve(x @ x.T + l2 * np.eye(n), y - bias)
  else:
    weight = np.linalg.solve(x.T @ x + l2 * np.eye(f), x.T @ (y - bias))
  return lambda z: np.argmax((z - mean) / std @ weight + bias, axis=-1)
