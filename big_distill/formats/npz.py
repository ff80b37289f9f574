"""npz: parameters and card, for this project and for archives.

Names and shapes are our own, nothing is folded, so the model may be trained on,
or teach. Kernels in fewer bits become float32 when they are loaded.
"""

from big_distill import cards
from big_distill import pretrained
from big_distill import served as served_lib

SUFFIX = '.npz'
WEIGHTS = ('float32', 'float16', 'int8')
PACKAGES = ()
# Kernels are rounded before constants are folded into them, not after.
TOLERANCE = {'float16': .1, 'int8': 1.}


def write(served: served_lib.Served, path: str) -> None:
  """Writes a file."""
  _, params = pretrained.load(served.file, served.card.size)
  pretrained.save(path, served_lib.WEIGHTS[served.weights](params),
                  card=served.card)


def read(path: str) -> tuple[cards.Card | None, served_lib.Answer]:
  """The card of a file and its answer."""
  served = served_lib.load(path)
  return served.card, served.answer
