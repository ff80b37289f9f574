"""Which pixels each model sees: teaching modes as an algebra of views.

A view is written `crop[#draw][@size]`. The crop says how a region of the image
is chosen, the draw names the die that chooses it, the size is what the model is
fed. Views of one crop and one draw frame the same region, flipped alike, at
whatever size; another draw is an independent region. The written form is config
syntax, batch key, log text and error text at once.

A mode says what the student sees and what its teachers see. MODES is the
paper's consistency experiment, whole; a new mode is a row, or a mapping with
the same fields in a config. Mixup is not a view: it blends whole batches, all
views alike, on the device. How boxes are drawn is in `input/crops.py`.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import re
from typing import Any
import zlib

from big_distill import bounds
from big_distill import registry

CROPS = {  # Whether it throws a die.
    'squash': False,  # The whole image, its aspect given up.
    'central': False,  # The central square.
    'random': True,  # A square of the central one's side, anywhere.
    'window': True,  # As much of either side, anywhere, its aspect given up.
    'inception': True,  # 5 to 100 % of the area, aspect 3/4 to 4/3, anywhere.
}

# big_vision resizes inception crops bilinearly without antialiasing, and whole
# images, whose pixels all count, by area.
METHODS = {'inception': 'bilinear', 'random': 'area', 'central': 'area',
           'window': 'bilinear', 'squash': 'area'}

# Share of a side that central, random and window keep. big_vision evaluates 224
# px after resizing to 256; the small datasets at 128 px after 160, that is 0.8.
# The paper does not define its mild random crop: this is our reading. `window`
# is BiT-HyperRule's crop: resize the whole image to a square, crop a square.
FRACTION = 224 / 256


@dataclasses.dataclass(frozen=True)
class View:
  """A region of an image and the size it is rendered at."""
  crop: str
  draw: str | None = None
  size: int | None = None

  def __post_init__(self):
    registry.check('crop', self.crop, CROPS)
    if CROPS[self.crop] and not self.draw:
      raise ValueError(f'View {self}: {self.crop} needs a draw, '
                       f'for example {self.crop}#both.')
    if self.draw and not CROPS[self.crop]:
      raise ValueError(f'View {self}: {self.crop} takes no draw.')
    if self.size is not None and (self.size < 1 or self.size != int(self.size)):
      raise ValueError(f'View {self}: a size is a whole number of pixels, at '
                       'least 1.')

  @classmethod
  def parse(cls, text: str) -> 'View':
    """The view that a text says: 'inception#both@224', crop and draw and size.

    Raises ValueError where it does not say one.
    """
    match = re.fullmatch(r'(\w+)(?:#(\w+))?(?:@(\d+))?', str(text))
    if not match:
      raise ValueError(f'View {text!r} is not of the form crop[#draw][@size], '
                       'for example inception#both@224.')
    crop, draw, size = match.groups()
    return cls(crop, draw, int(size) if size else None)

  def __str__(self) -> str:
    return (self.crop + (f'#{self.draw}' if self.draw else '')
            + (f'@{self.size}' if self.size is not None else ''))

  def at(self, size: int | None) -> 'View':
    """The same region, rendered at another size."""
    return dataclasses.replace(self, size=size)

  @property
  def region(self) -> 'View':
    """The view without its size: it decides pixels before they are resized."""
    return self.at(None)

  @property
  def die(self) -> int | None:
    """The number of the die, folded into the example's seed; None if fixed."""
    return zlib.crc32(self.draw.encode()) if self.draw else None


@dataclasses.dataclass(frozen=True)
class Mode:
  """What the student sees, what its teachers see, and whether it is mixed.

  With `votes`, the teachers' answer is a recorded mean over that many draws.
  """
  student: View
  teacher: View
  mixup: bool = False
  votes: int = 0

  def __post_init__(self):
    for role in ('student', 'teacher'):
      view = getattr(self, role)
      if not isinstance(view, View):
        object.__setattr__(self, role, View.parse(view))
    bounds.check('mode.votes', self.votes, least=0, whole=True)
    if self.student.size or self.teacher.size:
      raise ValueError(f'{self}: sizes belong to the models, not to the mode.')

  def __str__(self) -> str:
    return (f'student sees {self.student}, teachers see {self.teacher}'
            + (', mixed up' if self.mixup else ''))


MODES = {  # The student sees, its teachers see (paper, section 3.1 and Fig. 2).
    'fix/rs': Mode('squash', 'squash'),
    'fix/cc': Mode('random#student', 'central'),
    'fix/ic_ens': Mode('inception#student', 'inception#votes', votes=1024),
    'ind/rc': Mode('random#student', 'random#teacher'),
    'ind/ic': Mode('inception#student', 'inception#teacher'),
    'same/rc': Mode('random#both', 'random#both'),
    'same/ic': Mode('inception#both', 'inception#both'),
    'funmatch': Mode('inception#both', 'inception#both', mixup=True),
}


def mode(spec: str | Mapping[str, Any]) -> Mode:
  """A Mode, from its name in MODES or from a mapping of Mode's fields.

  Raises ValueError for another name or field, or a model that sees nothing.
  """
  if not isinstance(spec, str):
    if not hasattr(spec, 'items'):
      raise ValueError(f'mode={spec!r} should be one of {", ".join(MODES)}, or '
                       "dict(student='central', teacher='random#t').")
    spec = {**spec}
    fields = [field.name for field in dataclasses.fields(Mode)]
    for key in spec:
      registry.check('field of a mode', key, fields)
    for role in ('student', 'teacher'):
      if role not in spec:
        raise ValueError(f'The mode {spec} does not say what the {role} sees.')
    return Mode(**spec)
  registry.check('mode', spec, MODES)
  return MODES[spec]


def assign(mode: Mode, student_size: int, teacher_sizes: Sequence[int],
           ) -> tuple[View, tuple[View, ...]]:
  """One View for the student and one per teacher, each at its model's size."""
  return (mode.student.at(student_size),
          tuple(mode.teacher.at(size) for size in teacher_sizes))
