"""Do second-order optimizers pay for themselves? A small distillation, timed.

  python -m big_distill.tools.sweep --run --workdir=DIR/lr \
      --config=configs/optimizers.py:data_dir=TFDS,teacher=DIR/teacher/student.npz

A BiT of 0.13 M parameters learns CIFAR-10's function from one of 0.5 M
(configs/optimizers_teacher.py), 32 px, by function matching. Every optimizer
has the same grid of learning rates, its defaults otherwise, and a cosine that
ends with its run: a run of half the length is another run, not half of one.
Measured (docs/optimizers.md): KL after 600 steps, mean of three seeds, is 0.673
with Adam, 0.564 with Shampoo, 0.543 with SOAP, 0.566 with Muon.
"""

import ml_collections

from configs import common

OPTIMIZERS = ('adam', 'shampoo', 'soap', 'muon')
RATES = (0.005, 0.01, 0.02, 0.05, 0.1)


def get_config(arg=None):
  arg = common.parse(arg, optim='adam', steps=600, seed=0, lr=0.01,
                     teacher='teacher/student.npz', data_dir='', tiny=False)
  c = ml_collections.ConfigDict(type_safe=False)
  c.seed = arg.seed
  c.total_steps = arg.steps
  c.batch_size = 128
  c.log_percent = 1
  c.layout = 'big_vision'

  c.data = dict(name='cifar10_jpeg', split='train', data_dir=arg.data_dir,
                cache='decoded', corrupt='stop')
  c.mode = 'funmatch'
  c.mixup = dict(group=8)
  c.student = dict(family='bit', depth=(1, 1, 1), width=0.25, size=32,
                   dtype='float32')
  c.teachers = dict(
      teacher=dict(init=arg.teacher, size=32, dtype='float32',
                   weights='float32'))
  c.loss = dict(name='kl', t=1.0, t2=True)
  c.optim = dict(name=arg.optim, lr=arg.lr, wd=1e-4, clip=1.0,
                 warmup_percent=5)

  # The rate is chosen by val, and agree is measured often enough to read at
  # which step a KL was reached.
  c.evals = dict(
      val=dict(type='distance', data=dict(split='test[2000:4000]')),
      agree=dict(type='distance', data=dict(split='test[:2000]'),
                 every_percent=10),
      student=dict(type='classification', data=dict(split='test[:2000]')))
  c.checkpoints = dict(every_percent=50, keep=2, keep_every=0)
  return common.tiny(c) if arg.tiny else c


def get_sweep(arg=None):
  del arg
  return common.grid({'optim.name': [*OPTIMIZERS], 'optim.lr': [*RATES]})
