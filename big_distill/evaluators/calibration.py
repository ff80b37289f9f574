"""How far confidence is from accuracy: expected calibration error and NLL."""

import dataclasses

from jaxtyping import Float
import numpy as np

from big_distill import labels


@dataclasses.dataclass(frozen=True)
class Evaluator:
  """ECE over equal bins of confidence (Guo et al., arXiv 1706.04599), and NLL.

  Of the student or, with who='teacher', of the teachers' consensus. Where an
  example has several labels any of them is correct, and the NLL is their mean.
  """
  who: str = 'student'
  bins: int = 15

  labelled = True

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
    # Bin i holds (i / bins, (i + 1) / bins].
    which = np.ceil(confidence * self.bins).astype(int) - 1
    which = np.clip(which, 0, self.bins - 1)
    gap = np.bincount(which, weights=hit - confidence, minlength=self.bins)
    return {'ece': np.abs(gap).sum() / len(label),
            'nll': -(share * log_probs).sum(axis=-1).mean()}
