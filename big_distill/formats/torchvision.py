"""safetensors under torchvision's names, for PyTorch; see timm.py.

torchvision has MobileNetV3 of every width and norm.
"""

from big_distill import cards
from big_distill import served as served_lib
from big_distill.formats import timm

SUFFIX = '_torchvision.safetensors'
WEIGHTS = ('float32', 'float16')
PACKAGES = ('safetensors', 'torch', 'torchvision')
TOLERANCE = timm.TOLERANCE
lines = timm.lines


def write(served: served_lib.Served, path: str) -> None:
  """Writes a file. Raises ValueError for a model that torchvision lacks."""
  timm.save(served, path, 'torchvision')


def read(path: str) -> tuple[cards.Card, served_lib.Answer]:
  """The card of a file and its answer, by PyTorch."""
  return timm.load(path, 'torchvision')
