"""Trains the teacher of configs/optimizers.py from labels, on CIFAR-10.

  python -m big_distill.main --workdir=DIR/teacher \
      --config=configs/optimizers_teacher.py:data_dir=TFDS

Ten epochs of mild random crops without mixup: the aim is not a record but a
function that is worth matching.
"""

import ml_collections

from configs import common


def get_config(arg=None):
  arg = common.parse(arg, epochs=10, mode='same/rc', data_dir='', tiny=False)
  c = ml_collections.ConfigDict(type_safe=False)
  c.seed = 0
  c.total_epochs = arg.epochs
  c.batch_size = 128
  c.log_percent = 1
  c.layout = 'big_vision'

  c.data = dict(name='cifar10_jpeg', split='train', data_dir=arg.data_dir,
                cache='decoded', corrupt='stop')
  c.mode = arg.mode
  c.mixup = dict(group=8)
  c.student = dict(family='bit', depth=(1, 1, 1), width=0.5, size=32,
                   dtype='float32')
  c.teachers = dict(labels=dict(labels=True))
  c.loss = dict(name='kl', t=1.0, t2=True)
  c.optim = dict(name='adam', lr=0.003, wd=1e-4, clip=1.0, warmup_percent=5)

  c.evals = dict(student=dict(type='classification', data=dict(split='test'),
                              every_percent=10))
  c.checkpoints = dict(every_percent=10, keep=2, keep_every=0)
  return common.tiny(c) if arg.tiny else c
