"""What student and teachers answered to a split, counted in numpy.

Without labels the teachers' choice takes the place of the label; without
teachers, the label that of their choice.
"""

import functools
from typing import NamedTuple

from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Int
import numpy as np

from big_distill import labels
from big_distill.evaluators import calibration

Z = 1.96  # Standard deviations of a normal distribution that hold 95 %.


class Confusion(NamedTuple):
  """Photographs of class `truth` for which the student said `said`."""
  truth: int
  said: int
  places: list[int]


class Bin(NamedTuple):
  """Answers of like confidence: how many, how sure, how often right."""
  size: int
  confidence: float
  accuracy: float


class Answers:
  """Answers to n photographs of c classes.

  student: float [n, c] logits. teacher: the same of the consensus, or None.
  label: int [n], -1 where there is none, or multi-hot [n, c].
  """

  def __init__(self, student: Float[np.ndarray, 'n c'],
               teacher: Float[np.ndarray, 'n c'] | None,
               label: labels.Label, classes: tuple[str, ...] = ()) -> None:
    self.logits = {'student': student, 'teacher': teacher}
    if teacher is None:
      del self.logits['teacher']
    self.label, self.classes = label, classes
    self.known: Bool[np.ndarray, ' n'] = np.asarray(labels.is_known(label))

  def __len__(self) -> int:
    return len(self.label)

  @property
  def labelled(self) -> bool:
    return bool(self.known.any())

  @property
  def taught(self) -> bool:
    return 'teacher' in self.logits

  def name(self, c: int) -> str:
    """What a class is called; its number where nobody knows."""
    return self.classes[c] if c < len(self.classes) else f'class {c}'

  def of(self, i: int) -> str:
    """The label of a photograph, in words."""
    if not self.known[i]:
      return 'no label'
    if self.label.ndim == 1:
      return self.name(int(self.label[i]))
    return ', '.join(self.name(int(c)) for c in np.flatnonzero(self.label[i]))

  @functools.cached_property
  def log_probs(self) -> dict[str, Float[np.ndarray, 'n c']]:
    return {who: x - np.logaddexp.reduce(x, axis=-1, keepdims=True)
            for who, x in self.logits.items()}

  @functools.cached_property
  def choice(self) -> dict[str, Int[np.ndarray, ' n']]:
    return {who: x.argmax(axis=-1) for who, x in self.logits.items()}

  @functools.cached_property
  def right(self) -> dict[str, Bool[np.ndarray, ' n']]:
    """Whether an answer is the label, or any of several; False without one."""
    share = np.asarray(labels.shares(self.label,
                                     self.logits['student'].shape[-1]))
    return {who: share[np.arange(len(self)), c] > 0
            for who, c in self.choice.items()}

  def confidence(self, who: str, i: int) -> float:
    return float(np.exp(self.log_probs[who][i].max()))

  def sureness(self, who: str) -> float:
    """Mean confidence, of photographs with a label."""
    return float(np.exp(self.log_probs[who].max(axis=-1))[self.known].mean())

  def accuracy(self, who: str) -> float:
    return float(self.right[who][self.known].mean())

  @property
  def agree(self) -> Bool[np.ndarray, ' n']:
    return self.choice['student'] == self.choice['teacher']

  @functools.cached_property
  def kl(self) -> Float[np.ndarray, ' n']:
    """KL(teacher || student) of each photograph, in nats."""
    teacher, student = self.log_probs['teacher'], self.log_probs['student']
    return np.sum(np.exp(teacher) * (teacher - student), axis=-1)


def outcomes(answers: Answers) -> dict[str, int]:
  """Of labelled photographs, how many which of the two has right."""
  student, teacher = (answers.right[who][answers.known]
                      for who in ('student', 'teacher'))
  return {'both': int(np.sum(student & teacher)),
          'teacher': int(np.sum(teacher & ~student)),
          'student': int(np.sum(student & ~teacher)),
          'neither': int(np.sum(~student & ~teacher))}


def interval(share: float, n: int) -> tuple[float, float]:
  """Wilson's interval of 95 % for a share of n."""
  middle = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
  half = Z / (1 + Z**2 / n) * np.sqrt(share * (1 - share) / n
                                      + Z**2 / (4 * n**2))
  return float(middle - half), float(middle + half)


def by_class(answers: Answers) -> dict[int, dict[str, float]]:
  """{class: {'chosen', 'agree', 'images', 'student', 'teacher'}}, what is known.

  'chosen' counts what the teachers chose, 'agree' is the student's share of it;
  'images' counts labels, 'student' and 'teacher' are accuracies of these.
  """
  rows = {}
  if answers.taught:
    teacher = answers.choice['teacher']
    for c in np.unique(teacher):
      rows[int(c)] = {'chosen': int(np.sum(teacher == c)),
                      'agree': float(answers.agree[teacher == c].mean())}
  if answers.labelled:
    share = np.asarray(labels.shares(answers.label,
                                     answers.logits['student'].shape[-1]))
    for c in np.flatnonzero(share.any(axis=0)):
      own = share[:, c] > 0
      rows.setdefault(int(c), {}).update(
          images=int(own.sum()),
          **{who: float(x[own].mean()) for who, x in answers.right.items()})
  return rows


def confusions(answers: Answers) -> list[Confusion]:
  """The student's own mistakes, the commonest first.

  With labels: where it is wrong and its teachers, if any, are right. Without:
  where it departs from them.
  """
  said = answers.choice['student']
  if answers.labelled:
    wrong = answers.known & ~answers.right['student']
    if answers.taught:
      wrong &= answers.right['teacher']
  else:
    wrong = ~answers.agree
  truth = (answers.choice['teacher'] if answers.taught else
           answers.label if answers.label.ndim == 1
           else answers.label.argmax(axis=-1))
  found = {}
  for i in np.flatnonzero(wrong):
    found.setdefault((int(truth[i]), int(said[i])), []).append(int(i))
  return sorted((Confusion(truth, said, places)
                 for (truth, said), places in found.items()),
                key=lambda each: (-len(each.places), each.truth, each.said))


def reliability(answers: Answers, who: str) -> tuple[float, list[Bin]]:
  """(ECE, the bins that hold an answer), as evaluators/calibration has them."""
  evaluator = calibration.Evaluator(who)
  ece = evaluator.measure(answers.logits, answers.label, ())['ece']
  sure = np.exp(answers.log_probs[who].max(axis=-1))[answers.known]
  right = answers.right[who][answers.known]
  which = calibration.place(sure, evaluator.bins)
  return float(ece), [
      Bin(int(held.sum()), float(sure[held].mean()), float(right[held].mean()))
      for i in range(evaluator.bins) if (held := which == i).any()]


def disagreements(answers: Answers, most: int) -> list[int]:
  """Places of the photographs of the greatest KL."""
  return [int(i) for i in np.argsort(-answers.kl, kind='stable')[:most]]
