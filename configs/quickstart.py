"""Distils a bundled teacher into a student of a fifteenth of its size.

  python -m big_distill.main --config=configs/quickstart.py --workdir=DIR
"""

import ml_collections

from configs import common

TEACHER = 'caltech12 teacher'


def get_config(arg=None):
  arg = common.parse(arg, epochs=55, mode='funmatch', lr=0.01, wd=1e-4, t=1.0, width=0.375, tiny=False)
  c = ml_collections.ConfigDict()
  c.seed = 0
  c.total_epochs = arg.epochs
  c.batch_size = 64
  c.mode = arg.mode
  c.data = dict(name='caltech12', split='train', data_dir='', cache='decoded')
  c.student = dict(family='bit', depth=(1, 1, 1), width=arg.width, size=48)
  c.teachers = dict(teacher=dict(init=TEACHER, size=48))
  c.loss = dict(name='kl', t=arg.t)
  c.optim = dict(name='adam', lr=arg.lr, wd=arg.wd, warmup_percent=5)
  test = dict(split='test')
  c.evals = dict(
      student=dict(type='classification', data=test, every_percent=20),
      teacher=dict(type='classification', who='teacher', data=test),
      agree=dict(type='distance', data=test, every_percent=20))
  c.checkpoints = dict(every_percent=20)
  c.log_percent = 1

  if arg.tiny:
    c = common.tiny(c)
  return c
