"""Fine-tunes all of EfficientNet-Lite0 into a teacher of configs/study.py.

  python -m bench.probe --pack=caltech101.npz --out=teacher.npz
  python -m big_distill.main --workdir=DIR/teacher \
      --config=configs/study_teacher.py:init=teacher.npz

First its head, by bench/probe.py, then all: so the head's first gradients do not
spoil what ImageNet taught the rest. The head was fitted to features that running
averages normalise, so training keeps these: by the moments of its batches the same
head has 32 % of photographs of CIFAR-10 of which it has 75. It sees 2,048
photographs of Caltech-101 (twin=caltech101), 20 of each class on average, or 10,240
of CIFAR-10 (twin=cifar10); students see the first thousand of either, without
labels. The rate is low because the start is good: on CIFAR-10, without a warmup, six
batches after six steps lost 1.33 nats at the start's parameters, 1.31 by a rate of
1e-5, 1.44 by 1e-4 and 1.95 by 3e-4. Not run to its end with either yet.
"""

import ml_collections

from configs import common
from configs import study


def get_config(arg=None):
  arg = common.parse(arg, twin='caltech101', init='teacher.npz', epochs=20,
                     lr=1e-5, seed=0, data_dir='', tiny=False)
  twin = common.choose('twin', arg.twin, study.TWINS)
  c = ml_collections.ConfigDict(type_safe=False)
  c.seed = arg.seed
  c.total_epochs = arg.epochs
  c.batch_size = 32
  c.log_percent = 1
  c.layout = 'big_vision'

  c.data = dict(name=twin['name'], split=twin['taught'], data_dir=arg.data_dir,
                cache='encoded', corrupt='stop')
  c.mode = 'same/ic'
  c.student = dict(family='efficientnet_lite', variant='lite0',
                   size=twin['teacher_size'],
                   init=arg.init, head='keep', averages='keep')
  c.teachers = dict(labels=dict(labels=True))
  c.loss = dict(name='xent')
  c.optim = dict(name='adam', lr=arg.lr, wd=1e-4, clip=1., warmup_percent=10)

  c.evals = dict(
      val=dict(type='classification', data=dict(split=twin['val']),
               every_percent=25),
      student=dict(type='classification', data=dict(split=twin['test'])))
  c.checkpoints = dict(every_percent=10, keep=2, keep_every=0)
  if arg.tiny:
    c.student = dict(family='bit', size=128, init=common.BUNDLED)
    common.tiny(c)
  return c
