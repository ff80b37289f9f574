"""What configs share: their arguments, their small version, grids of sweeps.

  --config=configs/quickstart.py:epochs=300,tiny=True
"""

import ast
import itertools

import ml_collections

from big_distill import registry


def parse(arg, **defaults):
  """'epochs=300,tiny' -> ConfigDict of `defaults` with those values.

  A value takes the type of its default; a bare name means True.
  """
  values = dict(defaults)
  for item in filter(None, (arg or '').split(',')):
    name, _, text = item.partition('=')
    registry.check('argument of this config', name, defaults)
    values[name] = _value(name, text or 'True', defaults[name])
  return ml_collections.ConfigDict(values)


def _value(name, text, default):
  if isinstance(default, str) or default is None:
    return text
  try:
    value = ast.literal_eval(text)
    if isinstance(default, bool) and value not in (True, False):
      raise ValueError
    return type(default)(value)
  except (ValueError, SyntaxError, TypeError) as error:
    raise ValueError(f'The argument {name}={text} is not of type '
                     f'{type(default).__name__}, as its default {name}='
                     f'{default} is.') from error


def tiny(c):
  """The same path through the program in well under a minute: 40 steps.

  Models shrink to two units at 16 px; a teacher that is a model keeps its
  weights where they are bundled. Every split shrinks to its first 64 images.
  """
  del c.total_epochs
  c.total_steps = 40
  c.batch_size = 32  # Divides over up to four devices, mixup groups included.
  c.student.update(depth=(1, 1), width=0.125, size=16)
  for teacher in c.teachers.values():
    if 'size' in teacher:
      teacher.size = 16
  for section in [c.data, *(each.data for each in c.evals.values())]:
    section.split = f'{section.split.split("[")[0]}[:64]'
  c.checkpoints = dict(every_steps=5)
  return c


def grid(choices):
  """{'optim.lr': [.01, .003], 'loss.t': [1., 2.]} -> its points, 4 dicts."""
  return [dict(zip(choices, values))
          for values in itertools.product(*choices.values())]
