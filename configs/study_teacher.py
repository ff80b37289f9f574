"""Fine-tunes all of EfficientNet-Lite0 into a teacher of configs/study.py.

  python -m bench.probe --pack=caltech101.npz --out=teacher.npz
  python -m big_distill.main --workdir=DIR/teacher \
      --config=configs/study_teacher.py:init=teacher.npz

First its head, by bench/probe.py, then all: so the head's first gradients do not
spoil what ImageNet taught the rest. It sees 2,048 photographs of Caltech-101, 20
of each class on average, of which students see the first half, without labels.
By the third thousand, `train[2048:]`, rates are chosen. Not run with this config
yet: the study of docs/reproduction.md learns from the probe itself.
"""

import ml_collections

from configs import common


def get_config(arg=None):
  arg = common.parse(arg, init='teacher.npz', epochs=20, lr=3e-4, seed=0,
                     data_dir='', tiny=False)
  c = ml_collections.ConfigDict(type_safe=False)
  c.seed = arg.seed
  c.total_epochs = arg.epochs
  c.batch_size = 32
  c.log_percent = 1
  c.layout = 'big_vision'

  c.data = dict(name='caltech101', split='train[:2048]', data_dir=arg.data_dir,
                cache='encoded', corrupt='stop')
  c.mode = 'same/ic'
  c.student = dict(family='efficientnet_lite', variant='lite0', size=128,
                   init=arg.init, head='keep')
  c.teachers = dict(labels=dict(labels=True))
  c.loss = dict(name='xent')
  c.optim = dict(name='adam', lr=arg.lr, wd=1e-4, clip=1., warmup_percent=10)

  c.evals = dict(
      val=dict(type='classification', data=dict(split='train[2048:]'),
               every_percent=25),
      student=dict(type='classification', data=dict(split='test[:3000]')))
  c.checkpoints = dict(every_percent=10, keep=2, keep_every=0)
  if arg.tiny:
    c.student = dict(family='bit', size=128, init=common.BUNDLED)
    common.tiny(c)
  return c
