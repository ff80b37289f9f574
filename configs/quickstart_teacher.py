"""The quickstart's teacher, from labels."""

import ml_collections

from configs import common


def get_config(arg=None):
  arg = common.parse(arg, epochs=160, lr=0.003, wd=0.0003, mode='funmatch', tiny=False, width=0.75, size=48)
  c = ml_collections.ConfigDict()
  c.seed = 0
  c.total_epochs = arg.epochs
  c.batch_size = 64
  c.mode = arg.mode
  c.data = dict(name='caltech12', split='train', data_dir='', cache='decoded')
  c.student = dict(family='bit', depth=(2, 2, 2), width=arg.width, size=arg.size)
  c.teachers = dict(labels=dict(labels=True))
  c.optim = dict(name='adam', lr=arg.lr, wd=arg.wd, warmup_percent=5)
  c.evals = dict(student=dict(type='classification', data=dict(split='test'), every_percent=5),
  )
  c.checkpoints = dict(every_percent=10)
  c.log_percent = 1
  if arg.tiny:
    c = common.tiny(c)
  return c
