"""Cards: what a model is, kept inside the file of its parameters.

A card says which model the parameters belong to, how images must be prepared
for it, what its classes are called, and what trained it. It is the comment of
the zip archive that an npz file is, so readers of the arrays see parameters
alone. `unzip -z FILE` prints a short card.
"""

import base64
import binascii
from collections.abc import Mapping
import dataclasses
import json
import math
from typing import Any
import zlib

from absl import logging
import flax.linen as nn

from big_distill import registry
from big_distill import views
from big_distill.ops import layers

LIMIT = 65_535  # Bytes of a zip archive's comment, by the format.
MARK = b'big_distill card'

# Fields of models that say how to compute, not which function.
COMPUTING = ('dtype', 'folded', 'remat', 'parent', 'name')


@dataclasses.dataclass(frozen=True)
class Card:
  """What a model is.

  family, arguments: the model is models/FAMILY.py's Model(**arguments).
  size: pixels a side of the images it is made for; None: any.
  view, fraction: how images are cropped for its evaluation, see views.py.
  classes: names in the order of logits; empty if they are not known.
  mean, std: the weights want (pixels - mean) / std of pixels in [0, 1], for red,
    green and blue.
  trained_by: what made the weights, in values that JSON can hold.
  """
  family: str
  arguments: Mapping[str, Any]
  size: int | None = None
  view: str = 'central'
  fraction: float = views.FRACTION
  classes: tuple[str, ...] = ()
  mean: tuple[float, float, float] = layers.HALF
  std: tuple[float, float, float] = layers.HALF
  trained_by: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    for name in ('arguments', 'trained_by'):
      object.__setattr__(self, name, _plain(name, getattr(self, name)))
    # JSON has lists alone; models have tuples.
    object.__setattr__(self, 'arguments', {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in self.arguments.items()})
    object.__setattr__(self, 'classes', tuple(map(str, self.classes)))
    views.View.parse(self.view)
    for name in ('mean', 'std'):
      values = tuple(map(float, getattr(self, name)))
      if (len(values) != 3 or not all(map(math.isfinite, values))
          or (name == 'std' and min(values) <= 0)):
        raise ValueError(f'Card: {name}={values} must be 3 finite numbers'
                         f'{", above 0" if name == "std" else ""}.')
      object.__setattr__(self, name, values)
    classes = self.arguments.get('num_classes')
    if self.classes and classes != len(self.classes):
      raise ValueError(f'Card: {len(self.classes)} names of classes for a model '
                       f'of num_classes={classes}: they must be as many.')

  @property
  def options(self) -> dict[str, Any]:
    """All arguments of Model: those of the card, its mean and deviation."""
    return {**self.arguments, 'mean': self.mean, 'std': self.std}


def of(model: nn.Module, **rest: Any) -> Card:
  """The card of a model. `rest` are the fields that a model cannot tell."""
  fields = {field.name: getattr(model, field.name)
            for field in dataclasses.fields(model)
            if field.name not in COMPUTING}
  mean, std = fields.pop('mean'), fields.pop('std')
  return Card(family_of(model), fields, mean=mean, std=std, **rest)


def at_size(card: Card, size: int) -> Card:
  """The card, for images of `size` pixels a side."""
  return dataclasses.replace(card, size=size)


def family_of(model: nn.Module) -> str:
  """The name of the file in models/ that defines this model."""
  return type(model).__module__.rsplit('.', 1)[-1]


def to_comment(card: Card) -> bytes:
  """A zip archive's comment of at most LIMIT bytes.

  What does not fit is left out, with a warning: names of classes first, then
  what trained the model.
  """
  for field in ('classes', 'trained_by', None):
    text = json.dumps(dataclasses.asdict(card), separators=(',', ':')).encode()
    if len(text) > LIMIT - 64:
      text = base64.b64encode(zlib.compress(text, 9))
    if len(text) <= LIMIT - 64:
      # A comment has no checksum of its own, unlike members of the archive.
      return b'%s %08x %s' % (MARK, zlib.crc32(text), text)
    if field:
      logging.warning('The card of a model takes at most %d bytes: its %s are '
                      'left out.', LIMIT, field)
      card = dataclasses.replace(card, **{field: type(getattr(card, field))()})
  raise ValueError(f'The arguments of {card.family} take more than {LIMIT} '
                   'bytes: no card can hold them.')


def to_end(card: Card) -> bytes:
  """An empty zip archive with the card, to stand behind a file of any format.

  npz_files.load_card finds it there.
  """
  comment = to_comment(card)
  return b'PK\5\6' + bytes(16) + len(comment).to_bytes(2, 'little') + comment


def from_comment(comment: bytes) -> Card | None:
  """The inverse of to_comment; None where the comment is not a card.

  Raises ValueError where a card is damaged.
  """
  if not comment.startswith(MARK):
    return None
  try:
    checksum, text = comment[len(MARK):].split(maxsplit=1)
    if int(checksum, 16) != zlib.crc32(text):
      raise ValueError('its checksum differs')
    if not text.startswith(b'{'):
      text = zlib.decompress(base64.b64decode(text))
    fields = json.loads(text)
  except (ValueError, zlib.error, binascii.Error) as error:
    raise ValueError(f'The card is damaged: {error}.') from error
  known = [field.name for field in dataclasses.fields(Card)]
  for name in fields:
    registry.check('field of a card', name, known)
  return Card(**fields)


def _plain(name, value):
  """As JSON would return it."""
  try:
    return json.loads(json.dumps(value))
  except TypeError as error:
    raise ValueError(f'Card: {name} must be plain values, which JSON can hold: '
                     f'{error}.') from error
