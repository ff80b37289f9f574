"""One run of the study of docs/reproduction.md: the paper's claims in small.

  python -m big_distill.main --workdir=DIR \
      --config=configs/study.py:teacher=teacher.npz,mode=same/ic,epochs=300

The teacher knows far more than the photographs its students see could teach by
their labels: it is an EfficientNet-Lite0 from ImageNet, with a head fitted to
labels (bench/probe.py), on CIFAR-10 (twin=cifar10) tuned as a whole
(configs/study_teacher.py). teacher=labels is the baseline.

bench/reproduce.py and bench/further.py run the study itself, many students at once.
With this config, twin=cifar10, 300 epochs, seed 1: 55.6 %, agreement 56.7, KL 0.740
(docs/logs/cifar10/main.jsonl, commit 0316733); there 55.7, 55.8, 0.761.
"""

import ml_collections

from configs import common

STUDENT = dict(family='bit', depth=(1, 1, 1), width=.5)  # 30 MFLOP at 48 px.
THIN = dict(STUDENT, width=.25)  # 4 MFLOP at 32 px.
TWINS = {  # Teachers have learned from the labels of `taught`.
    'caltech101': dict(name='caltech101', train='train[:1024]', n=1024,
                       taught='train[:2048]', val='train[2048:]',
                       test='test[:3000]', size=48, teacher_size=128,
                       student=STUDENT),
    'cifar10': dict(name='cifar10_jpeg', train='train[:1024]', n=1024,
                    taught='train[:48000]', val='train[48000:49000]',
                    test='test[:3000]', size=32, teacher_size=64, student=THIN),
}
RATES, DECAY = [.003, .01, .03], 1e-4


def get_config(arg=None):
  arg = common.parse(arg, twin='caltech101', teacher='teacher.npz',
                     lr=.01, epochs=300, **common.ARGUMENTS)
  twin = common.choose('twin', arg.twin, TWINS)
  c = ml_collections.ConfigDict(type_safe=False)
  c.seed = arg.seed
  if arg.images:  # As many of others as so many epochs of its own would be.
    c.total_examples = arg.epochs * twin['n']
  else:
    c.total_epochs = arg.epochs
  c.batch_size = 128
  c.log_percent = 1
  c.steps_per_call = 1
  c.accumulate = 1
  c.layout = 'big_vision'

  c.data = common.images(arg, name=twin['name'], split=twin['train'])
  c.data.cache = 'decoded'
  c.mode = common.mode(arg)
  c.mixup = dict(group=8)
  c.student = common.student(arg, **twin['student'], size=twin['size'])
  if arg.teacher == 'labels':
    c.teachers = dict(labels=dict(labels=True))
  else:
    c.teachers = dict(teacher=dict(
        init=arg.teacher, size=twin['teacher_size'], dtype='float32',
        weights='float32'))
  c.answers = common.answers(arg.answers)
  c.loss = dict(name='kl', t=1., t2=True)
  c.optim = dict(name=arg.optim, lr=arg.lr, wd=DECAY, clip=1., warmup_percent=5)

  val, test = (dict(name=twin['name'], split=twin[split],
                    data_dir=arg.data_dir) for split in ('val', 'test'))
  c.evals = dict(
      val=dict(type='classification', data=val),
      student=dict(type='classification', data=test, every_percent=25))
  if arg.teacher != 'labels':
    c.evals.teacher = dict(type='classification', who='teacher', data=test)
    c.evals.agree = dict(type='distance', data=test, every_percent=25)
  c.checkpoints = dict(every_percent=10, keep=2, keep_every=0)
  return common.tiny(c) if arg.tiny else c


def get_sweep(arg=None):
  del arg
  return common.grid({'optim.lr': RATES})
