"""Teachers' answers, and what they agree on.

A teacher is frozen: a function of its parameters and of what it sees. Labels
are a teacher too: they see the one-hot labels, mixed like the images, and
answer with them. So are answers that a model gave beforehand, which come with
the batch. However many there are, the student learns from one consensus.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from big_distill import params as params_lib
from big_distill import pretrained
from big_distill import registry
from big_distill.ops import int8

LABELS = 'labels'  # What label teachers see, beside the views of a batch.
DTYPES = ('float32', 'bfloat16')  # What a model computes in.
WEIGHTS = {  # What its kernels are kept as.
    'float32': lambda params: params,
    'int8': int8.quantize,
}


class Teacher(NamedTuple):
  """answer(params, what it sees) -> logits [b, c], whatever their offset.

  `sees` is a View, LABELS, or `recorded` of its name; `size` is the image size
  of a model, None for labels. `recording` is the folder of what the model
  answered beforehand (tools/record.py), which then teaches in its place.
  """
  name: str
  answer: Callable
  params: Any
  num_classes: int | None
  size: int | None
  model: Any = None
  sees: Any = LABELS
  recording: str | None = None
  checksum: str | None = None  # Of the parameters, as they were loaded.

  def in_lessons(self):
    """The teacher as students meet it: by its recording, if there is one."""
    if not self.recording:
      return self
    return self._replace(
        sees=recorded(self.name), answer=lambda params, log_probs: log_probs)


def recorded(name):
  """What a teacher of this name sees if its answers were recorded."""
  return f'recorded {name}'


def forward(model, params, images):
  """(logits, out) of a model, whatever its kernels are kept as."""
  return model.apply({'params': int8.restore(params)}, images)


def layers(model, names, params, images):
  """{name: a layer of a model's `out`} from one forward pass.

  'logits' are [b, c] as they are; features are float32 [b, f], those of maps
  [b, h, w, f] their mean over space.
  """
  logits, out = forward(model, params, images)
  answers = {}
  for name in names:
    registry.check('layer', name, out)
    x = out[name].astype(jnp.float32)
    answers[name] = (logits if name == 'logits' else
                     x.reshape(len(x), -1, x.shape[-1]).mean(axis=1))
  return answers


def _log_probs_of_labels(params, labels):
  del params
  return jnp.log(labels)


def load(name, *, init=None, labels=False, size=None, dtype='float32',
         weights='float32', random=None, recording=None, num_classes=None):
  """A teacher, from a section of config.teachers.

  Exactly one of: `init`, a checkpoint (a path, gs:// or a published name);
  `labels`; or `random`, the description of a model with random weights, head
  included, which teaches nonsense and serves to try a config without its teacher.
  A model computes in `dtype`; `weights` is what its kernels are kept as.
  """
  if bool(init) + bool(labels) + bool(random) != 1:
    raise ValueError(f'Teacher {name!r} needs exactly one of init=CHECKPOINT, '
                     'labels=True and random=MODEL.')
  registry.check('dtype of a teacher', dtype, DTYPES)
  registry.check('kind of weights', weights, WEIGHTS)
  if labels:
    if (dtype, weights) != ('float32', 'float32'):
      raise ValueError(f'Teacher {name!r} is labels, which have neither dtype '
                       'nor weights: leave both out.')
    return Teacher(name, _log_probs_of_labels, {}, num_classes, None)
  if size is None:
    raise ValueError(f'Teacher {name!r} does not say the size of its images.')
  if init:
    model, params = pretrained.load(init, size)
  else:
    model, params = pretrained.create(size=size, num_classes=num_classes,
                                      **random)
    params['head']['kernel'] = np.random.default_rng(0).normal(
        size=params['head']['kernel'].shape).astype(np.float32)
  checksum = params_lib.checksum(params_lib.flatten(params))
  model, params = pretrained.freeze(model, params, jnp.dtype(dtype))

  def answer(params, images):
    return forward(model, params, images)[0]

  return Teacher(name, answer, WEIGHTS[weights](params), model.num_classes,
                 size, model, recording=recording, checksum=checksum)


def consensus(answers, combine='logits', t=1.):
  """Teachers' logits, k of [b, c] -> the logits [b, c] they agree on.

  combine='logits' averages logits (the paper's ensemble). 'probs' averages
  probabilities at the loss's temperature t: the result, at t, is the mean of
  softmax(logits / t). So its KL has the gradient of one KL per teacher,
  averaged, which is what the authors' code sums.
  """
  return COMBINE[combine](jnp.stack(answers).astype(jnp.float32), t)


def _mean_of_logits(logits, t):
  del t  # The mean of logits / t is the mean of logits, / t.
  return jnp.mean(logits, axis=0)


def _mean_of_probs(logits, t):
  log_probs = jax.nn.log_softmax(logits / t, axis=-1)
  return t * (jax.nn.logsumexp(log_probs, axis=0) - jnp.log(len(logits)))


COMBINE = {'logits': _mean_of_logits, 'probs': _mean_of_probs}


def check(teachers, combine, num_classes, source):
  """Raises ValueError where these teachers cannot teach this student."""
  registry.check('way to combine teachers', combine, COMBINE)
  for teacher in teachers:
    if teacher.num_classes not in (None, num_classes):
      raise ValueError(
          f'Teacher {teacher.name!r} knows {teacher.num_classes} classes, the '
          f'student {num_classes}: they must be the same.')
  if not teachers:
    raise ValueError('There is no teacher: config.teachers is empty.')
  by_label = any(not teacher.size for teacher in teachers)
  if by_label and len(source.classes) != num_classes:
    raise ValueError(
        f'Labels cannot teach {num_classes} classes: {source.title} has labels '
        f'of {len(source.classes) or "no"} classes.')
  if combine == 'logits' and by_label and len(teachers) > 1:
    raise ValueError('Labels have no logits to average with: set '
                     "combine='probs' to teach with labels and models.")


def check_recordings(teachers, mode):
  """Raises ValueError unless answers are recorded where the mode needs it."""
  if mode.votes and mode.mixup:
    raise ValueError(f'{mode}: recorded answers are to images as they are, and '
                     'cannot be mixed up.')
  for teacher in teachers:
    if teacher.size and bool(teacher.recording) != bool(mode.votes):
      raise ValueError(f'Teacher {teacher.name!r}: ' + (
          f'this mode needs its recorded answers, a mean over {mode.votes} '
          'views. Make them with python -m big_distill.tools.record, and set '
          'recording=FOLDER.' if mode.votes else
          'this mode has no use for recorded answers; leave recording out.'))
