"""A step to be measured: any BiT under any other, of random weights.

  python -m big_distill.tools.bench --config=configs/bench.py:depth=50,size=128

Depths are a number, such as 50, or units of blocks, such as 1+1+1. What the
teacher's arguments do not say is as the student's. An optimizer's own options
are set as any value: --config.optim.root_every=1.
"""

import ml_collections

from configs import common


def get_config(arg=None):
  arg = common.parse(arg, depth='50', width=1., size=64, batch=32,
                     teacher_depth='', teacher_width=0., teacher_size=0,
                     dtype='float32', optim='adam', remat=False)
  c = ml_collections.ConfigDict(type_safe=False)
  c.total_steps = 10**6
  c.batch_size = arg.batch
  c.accumulate = 1

  c.data = dict()
  c.mode = 'funmatch'
  c.student = dict(family='bit', depth=_depth(arg.depth), width=arg.width,
                   size=arg.size, dtype=arg.dtype, remat=arg.remat)
  c.teachers = dict(teacher=dict(
      random=dict(family='bit', depth=_depth(arg.teacher_depth or arg.depth),
                  width=arg.teacher_width or arg.width),
      size=arg.teacher_size or arg.size, dtype=arg.dtype, weights='float32'))
  c.optim = dict(name=arg.optim, lr=1e-3, wd=1e-4)
  return c


def _depth(text):
  """'50' -> 50, '1+2' -> (1, 2)."""
  units = text.split('+')
  if not all(unit.isdecimal() for unit in units):
    raise ValueError(f'The depth {text!r} is neither a number, such as 50, nor '
                     'units of blocks, such as 1+1+1.')
  units = tuple(map(int, units))
  return units[0] if len(units) == 1 else units
