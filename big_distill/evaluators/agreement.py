"""Where student and teachers agree: the share of images, class by class."""

import dataclasses

from jaxtyping import Float
import numpy as np

from big_distill import labels


@dataclasses.dataclass(frozen=True)
class Evaluator:
  """Per class, how often the student chooses what its teachers chose.

  The class of an image is the teachers' choice, so labels are not needed;
  classes they never choose are left out. 'mean' is the mean over classes,
  'worst' the least of them.
  """
  labelled = False
  needs = ('student', 'teacher')

  def measure(self, answers: dict[str, Float[np.ndarray, 'n c']],
              label: labels.Label,
              classes: tuple[str, ...]) -> dict[str, float]:
    """{'mean', 'worst', and 'class/NAME' for each class}, from logits."""
    del label
    student, teacher = (answers[who].argmax(axis=-1) for who in self.needs)
    chosen = np.unique(teacher)
    share = {c: np.mean(student[teacher == c] == c) for c in chosen}
    named = {classes[c] if c < len(classes) else str(c): value
             for c, value in share.items()}
    return {'mean': np.mean([*share.values()]), 'worst': min(share.values()),
            **{f'class/{name}': value for name, value in named.items()}}
