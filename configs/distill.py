"""Distils a teacher of yours into a small model, on images of yours.

  python -m big_distill.main --workdir=OUT --config=\
configs/distill.py:images=DIR,teacher=FILE,student=mobilenet_v3_small

images   a folder, a list, Parquet files or a TFDS dataset (docs/images.md);
         labels are not needed. A tenth is held out and measured, unless the
         dataset has a split for that.
teacher  an npz or pth file, the workdir of a run, a published name; several
         with a + between them. FILE@224 says a size that the file does not.
student  R50x1, R26x0.5, mobilenet_v3_small, vit_s16, efficientnet_lite0 ..., at
         the smallest size of the teachers, or at another: R50x1@160.
corrupt  skip leaves out images that cannot be read; stop, by default, stops there.
image, label  columns of a list or table, where they are not found.
variant  fast, medium or long. Epochs, batch and rate follow from the number of
         images, between the paper's settings (patience.py); the log says why.

OUT/student.npz knows its size and its classes (python -m
big_distill.tools.predict OUT/student.npz --images=DIR). The paper tuned a R50x1
under BiT teachers: for others these settings are a first guess, around which
get_sweep looks. Not run at length with this code.
"""

import ml_collections

from big_distill import recipe
from configs import common


def get_config(arg=None):
  arg = common.parse(arg, images='caltech12', teacher='caltech12 teacher',
                     student='R26x0.5', variant='fast', epochs=0,
                     corrupt='stop', image='', label='label', mode='funmatch',
                     init='', answers='', seed=0, data_dir='', tiny=False)
  own = recipe.choose(arg.images, arg.teacher, arg.student, arg.variant,
                      arg.epochs, arg.data_dir, arg.corrupt, arg.image, arg.label)
  c = ml_collections.ConfigDict(type_safe=False)
  c.seed = arg.seed
  c.total_epochs = own.epochs
  c.batch_size = own.batch_size
  c.log_percent = 1
  c.steps_per_call = 1
  c.accumulate = 1
  c.layout = 'big_vision'
  c.notes = own.notes

  c.data = own.data
  c.crops = dict(fraction=own.fraction)
  c.mode = common.mode(arg)
  c.mixup = dict(group=8)
  c.student = common.student(arg, **own.student)
  c.teachers = own.teachers
  c.answers = common.answers(arg.answers)
  c.loss = own.loss
  c.optim = own.optim

  c.evals = dict(agree=dict(type='distance', data=own.test, every_percent=5))
  if own.labelled:
    measured = dict(type='classification', every_percent=5)
    c.evals.student = dict(measured, data=own.test)
    c.evals.teacher = dict(type='classification', who='teacher', data=own.test)
    c.evals.calibration = dict(type='calibration', data=own.test,
                               every_percent=5)
    if own.val:
      c.evals.val = dict(measured, data=own.val)
  c.checkpoints = dict(every_percent=2, keep=2, keep_every=0)
  return common.tiny(c) if arg.tiny else c


get_sweep = common.sweep
