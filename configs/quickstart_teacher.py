"""Trains the quickstart's teacher from labels, on the train split alone.

  python -m big_distill.main --config=configs/quickstart_teacher.py --workdir=DIR

Labels are a teacher like any other: their answer is the one-hot, mixed like the
images, and the step is that of distillation.

big_distill/data/caltech12_teacher.npz is the student.npz of this command at
commit 5870625, 11 minutes on two CPU cores shared with other work: 86.1 % top-1
on the test split (288 photographs). Its evaluations are in
docs/logs/quickstart_teacher.jsonl.
"""

import ml_collections

from configs import common


def get_config(arg=None):
  arg = common.parse(arg, epochs=160, mode='funmatch', tiny=False)
  c = ml_collections.ConfigDict(type_safe=False)
  c.seed = 0
  c.total_epochs = arg.epochs
  c.batch_size = 64
  c.log_percent = 1
  c.steps_per_call = 1
  c.accumulate = 1
  c.layout = 'big_vision'

  c.data = dict(name='caltech12', split='train', data_dir='', cache='decoded',
                corrupt='stop', resident=False)
  c.mode = arg.mode
  c.mixup = dict(group=8)
  c.student = dict(family='bit', depth=(2, 2, 2), width=0.75, size=48,
                   dtype='float32')
  c.teachers = dict(labels=dict(labels=True))
  c.loss = dict(name='kl', t=1.0, t2=True)
  c.optim = dict(name='adam', lr=0.003, wd=3e-4, clip=1.0, warmup_percent=5)

  c.evals = dict(student=dict(type='classification', data=dict(split='test'),
                              every_percent=5))
  c.checkpoints = dict(every_percent=10, keep=2, keep_every=0)
  return common.tiny(c) if arg.tiny else c
