"""Distils a bundled teacher into a student of a seventh of its size.

  python -m big_distill.main --config=configs/quickstart.py --workdir=DIR

1,016 photographs of twelve classes (Caltech-101, short side 96 px), the paper's
recipe in small: same inception crop and mixup for teacher and student, KL at
temperature 1, Adam, cosine, nothing learned from labels.

Measured (docs/logs/quickstart.jsonl, commit 10e31c6): the student has 84.7 % on
the 288 photographs of the test split, the teacher 86.1 %; they agree on 89.6 %, in
4 min 34 s on two idle CPU cores. `:epochs=300` gives 85.1 % and agreement on 92.7 %
in 15 minutes (docs/logs/quickstart_patient.jsonl, commit f457983).
"""

import ml_collections

from configs import common


def get_config(arg=None):
  arg = common.parse(arg, epochs=80, mode='funmatch', tiny=False)
  c = ml_collections.ConfigDict(type_safe=False)
  c.seed = 0
  c.total_epochs = arg.epochs
  c.batch_size = 64
  c.log_percent = 1
  c.steps_per_call = 1  # More with data.resident, for models that step fast.
  c.accumulate = 1  # More, to compute a large batch in parts.
  c.layout = 'big_vision'  # Of student.npz; or 'big_transfer'.

  c.data = dict(name='caltech12', split='train', data_dir='', cache='decoded',
                corrupt='stop', resident=False)
  c.mode = common.mode(arg)
  c.mixup = dict(group=8)
  c.student = dict(family='bit', depth=(1, 1, 1), width=0.375, size=48,
                   dtype='float32')
  c.teachers = dict(
      teacher=dict(init='caltech12 teacher', size=48, dtype='float32',
                   weights='float32'))
  c.answers = common.answers()
  c.loss = dict(name='kl', t=1.0, t2=True)
  c.optim = dict(name='adam', lr=0.01, wd=1e-4, clip=1.0, warmup_percent=5)

  # Named, so that other images may teach while the measure stays.
  test = dict(name='caltech12', split='test', data_dir='')
  c.evals = dict(
      student=dict(type='classification', data=test, every_percent=20),
      teacher=dict(type='classification', who='teacher', data=test),
      agree=dict(type='distance', data=test, every_percent=20),
      calibration=dict(type='calibration', data=test, every_percent=20))
  c.checkpoints = dict(every_percent=10, keep=2, keep_every=0)
  return common.tiny(c) if arg.tiny else c
