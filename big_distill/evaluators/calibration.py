"""Whether confidence is deserved: expected calibration error and NLL."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Evaluator:
  """ECE over equal bins of confidence (Guo et al., arXiv 1706.04599), and NLL.

  Of the student or, with who='teacher', of the teachers' consensus.
  """
  who: str = 'student'
  bins: int = 15

  labelled = True

  @property
  def needs(self):
    return (self.who,)

  def measure(self, answers, label, classes):
    """{who: logits [n, c]}, labels [n] -> {'ece', 'nll' in nats}."""
    del classes
    known = label >= 0
    logits, label = answers[self.who][known], label[known]
    log_probs = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    confidence = np.exp(log_probs.max(axis=-1))
    hit = log_probs.argmax(axis=-1) == label
    # Bin i holds (i / bins, (i + 1) / bins].
    which = np.ceil(confidence * self.bins).astype(int) - 1
    which = np.clip(which, 0, self.bins - 1)
    gap = np.bincount(which, weights=hit - confidence, minlength=self.bins)
    return {'ece': np.abs(gap).sum() / len(label),
            'nll': -log_probs[np.arange(len(label)), label].mean()}
