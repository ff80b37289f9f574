"""Teachers' answers, and what they agree on.

A teacher is frozen: a function of its parameters and of what it sees. Labels
are a teacher too: they see the one-hot labels, mixed like the images, and
answer with them. However many there are, the student learns from one consensus.

A foreign teacher is a function of the user's, in whatever framework, that runs
on the host. It teaches through answers that are kept (answers.py).
"""

from collections.abc import Callable, Mapping, Sequence
import hashlib
import os
import runpy
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from big_distill import bounds
from big_distill import pretrained
from big_distill import registry
from big_distill.ops import int8

LABELS = 'labels'  # What label teachers see, beside the views of a batch.
DTYPES = pretrained.DTYPES
WEIGHTS = {  # What its kernels are kept as.
    'float32': lambda params: params,
    'int8': int8.quantize,
}


class Teacher(NamedTuple):
  """answer(params, what it sees) -> logits [b, c], whatever their offset.

  `sees` is a View, or LABELS; `size` is the image size of a model, None for
  labels. `identity` tells it from every other teacher, without reading its
  weights; `classes` are names, where its card has them. `read` reads weights:
  () -> params, where `params` are shapes alone. A `foreign` teacher has no
  model; its answer is of numpy arrays.
  """
  name: str
  answer: Callable
  params: Any
  num_classes: int | None
  size: int | None
  model: Any = None
  sees: Any = LABELS
  identity: str = ''
  classes: tuple[str, ...] = ()
  read: Callable[[], Any] | None = None
  foreign: bool = False


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


def load(name: str, *, init: str | None = None, labels: bool = False,
         size: int | None = None, dtype: str = 'float32',
         weights: str = 'float32', random: Mapping[str, Any] | None = None,
         python: str | None = None, mean: Sequence[float] = (.5, .5, .5),
         std: Sequence[float] = (.5, .5, .5), num_classes: int | None = None,
         read: bool = True) -> Teacher:
  """A teacher, from a section of config.teachers.

  Exactly one of: `init`, a checkpoint (a path, gs:// or a published name);
  `labels`; `python`, 'FILE.py:make', whose make() returns a function from
  images, float32 [b, size, size, 3], to logits [b, c]; or `random`, the
  description of a model with random weights, head included, which teaches
  nonsense and serves to try a config without its teacher. A model computes in
  `dtype`; `weights` is what its kernels are kept as. `mean` and `std` are those
  of the images that a function of the user's wants, of pixels in [0, 1].
  Without `read`, parameters are shapes, and no weights are read.
  """
  given = [init, labels, random, python]
  if sum(map(bool, given)) != 1:
    raise ValueError(f'Teacher {name!r} needs exactly one of init=CHECKPOINT, '
                     'labels=True, python=FILE.py:make and random=MODEL.')
  if name == 'student':
    raise ValueError("A teacher cannot be called 'student': metrics could not "
                     'tell them apart. Choose another name.')
  registry.check('dtype of a teacher', dtype, DTYPES)
  registry.check('kind of weights', weights, WEIGHTS)
  if labels or python:
    if (dtype, weights) != ('float32', 'float32'):
      raise ValueError(f'Teacher {name!r} is {"labels" if labels else python}, '
                       'which has neither dtype nor weights: leave both out.')
  if labels:
    return Teacher(name, _log_probs_of_labels, {}, num_classes, None,
                   identity=LABELS)
  if size is None:
    raise ValueError(f'Teacher {name!r} does not say the size of its images: '
                     f'set config.teachers.{name}.size.')
  bounds.check(f'teachers.{name}.size', size, least=1, whole=True)
  if python:
    return _foreign(name, python, size, mean, std, num_classes, read)

  def create():
    model, params = pretrained.create(size=size, num_classes=num_classes,
                                      **random)
    params['head']['kernel'] = np.random.default_rng(0).normal(
        size=params['head']['kernel'].shape).astype(np.float32)
    return model, params

  def read_model():
    model, params = pretrained.load(init, size) if init else create()
    model, params = pretrained.freeze(model, params, jnp.dtype(dtype))
    return model, WEIGHTS[weights](params)

  if read:
    model, params = read_model()
  else:
    model, params = (pretrained.shapes(init, size) if init
                     else pretrained.shapes_of(size=size,
                                               num_classes=num_classes,
                                               **random))
    model = model.clone(folded=True, dtype=jnp.dtype(dtype))

  def answer(params, images):
    return forward(model, params, images)[0]

  return Teacher(name, answer, params, model.num_classes, size, model,
                 identity=pretrained.identity(init) if init else repr(
                     sorted({**random}.items())),
                 classes=pretrained.classes(init) if init else (),
                 read=lambda: read_model()[1])


def _foreign(name, python, size, mean, std, num_classes, read):
  """A teacher that is a function of the user's, on the host."""
  path, _, maker = python.rpartition(':')
  if not os.path.exists(path):
    raise ValueError(f'teachers.{name}.python={python}: there is no file '
                     f'{path!r}. Write FILE.py:make, make being a function in '
                     'that file that returns answer(images) -> logits.')
  with open(path, 'rb') as file:
    identity = f'{maker} of {hashlib.sha256(file.read()).hexdigest()[:16]}'
  mean, std = np.float32(mean), np.float32(std)
  if (mean != .5).any() or (std != .5).any():
    identity += f', images less {mean.tolist()} over {std.tolist()}'
  made = []

  def make():
    if not made:
      names = runpy.run_path(path)
      registry.check(f'function in {path}', maker, names)
      made.append(names[maker]())
    return made[0]

  def answer(params, images):
    """images [b, h, w, 3] in [-1, 1] -> float32 [b, c]."""
    del params
    images = ((np.asarray(images, np.float32) + 1) / 2 - mean) / std
    logits = np.asarray(make()(images), np.float32)
    if logits.ndim != 2 or len(logits) != len(images):
      raise ValueError(f'teachers.{name}.python={python} answered '
                       f'{len(images)} images with an array {logits.shape}: '
                       'it must be [images, classes].')
    return logits

  if read:
    num_classes = answer({}, np.zeros([1, size, size, 3])).shape[-1]
  return Teacher(name, answer, {}, num_classes, size, identity=identity,
                 read=lambda: {}, foreign=True)


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
