"""Distillation of big vision models into small ones, as function matching."""

__version__ = '0.1.0'


def load(file, size=None):
  """(model, params) of a checkpoint; see pretrained.load."""
  from big_distill import pretrained
  return pretrained.load(file, size)


def save(file, params, layout='big_vision', card=None):
  """Writes params as an npz file; see pretrained.save."""
  from big_distill import pretrained
  return pretrained.save(file, params, layout, card)


def card(file):
  """What a checkpoint says it is: a cards.Card; see pretrained.card."""
  from big_distill import pretrained
  return pretrained.card(file)
