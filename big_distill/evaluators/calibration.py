"""How far confidence is from accuracy: expected calibration error and NLL."""

import dataclasses

from jaxtyping import Float
import numpy as np

from big_distill import bounds
from big_distill import labels
from big_distill import metrics

BINS = 15


def place(confidence: Float[np.ndarray, ' n'], bins: int = BINS) -> np.ndarray:
  """The bin of each confidence, [n]; bin i holds (i / bins, (i + 1) / bins]."""
  return np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)


def error(confidence: Float[np.ndarray, ' n'], hit: np.ndarray,
          bins: int = BINS) -> float:
  """The expected calibration error, of confidences and whether each hit."""
  gap = np.bincount(place(confidence, bins), weights=hit - confidence,
                    minlength=bins)
  return np.abs(gap).sum() / len(confidence)


@dataclasses.dataclass(frozen=True)
class Evaluator:
  """ECE over equal bins of confidence (Guo et al., arXiv 1706.04599), and NLL.

  Of the student or, with who='teacher', of the teachers' consensus. Where an
  example has several labels any of them is correct, and the NLL is their mean.
  """
  who: str = 'student'
  bins: int = BINS

  labelled = True

  def __post_init__(self):
    bounds.check('bins', self.bins, least=1, whole=True)

  @property
  def needs(self) -> tuple[str, ...]:
    return (self.who,)

  def measure(self, answers: dict[str, Float[np.ndarray, 'n c']],
              label: labels.Label,
              classes: tuple[str, ...]) -> dict[str, float]:
    """{'ece', 'nll' in nats}, from logits and labels.

    Examples without a label do not count. Where none has one, the result is {}.
    """
    del classes
    known = labels.is_known(label)
    if not known.any():
      return {}
    logits, label = answers[self.who][known], label[known]
    share = np.asarray(labels.shares(label, logits.shape[-1]))
    log_probs = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    confidence = np.exp(log_probs.max(axis=-1))
    hit = share[np.arange(len(share)), log_probs.argmax(axis=-1)] > 0
    return {metrics.ECE: error(confidence, hit, self.bins),
            metrics.NLL: -(share * log_probs).sum(axis=-1).mean()}
