"""Types of what parts of the package hand to one another; no TensorFlow.

A Source is a split of a dataset, as input/ opens it. Data is what training and
the tools ask for images: input/pipeline.py has its functions, tools/noise.py
those that a measurement of speed needs. Family is what a file in models/ has,
and OfExamples or OfSplits what one in evaluators/ has.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import hashlib
import json
from typing import Any, NamedTuple, Protocol, runtime_checkable

import flax.linen as nn
import jax
import numpy as np

from big_distill import render
from big_distill import views as views_lib

Batch = dict[str, Any]  # Arrays [b, ...], or one level of dicts of them.


class Source(NamedTuple):
  """A split of a dataset.

  title: what logs and errors call it.
  fetch: int64 index -> (image, label), inside a tf.data graph, in any order;
    the image is an encoded string or uint8 [h, w, 3], the label int32 [], -1
    where there is none, or multi-hot [c].
  name: index -> what to call the example in a message.
  classes: names of the classes, empty where there are no labels.
  parts: (number of examples, weight) of the datasets that make up a mixture,
    in order of index; a single dataset is one part.
  fingerprint: 16 hexadecimal digits that change with the number and the names
    of the examples; those of TFDS sets also change with the length of any
    record. Equal on all machines, wherever the dataset lies.
  resident: whether devices are to hold its images (see `Data.hold`).
  scan: gives a tf.data dataset of all examples in order, as `fetch` has them, if
    that is faster than fetching one after the other.
  as_shown: whether encoded images are decoded as a viewer shows them, see
    input/images.py, in place of as TensorFlow does.
  splits: names of all splits of its dataset, empty for a mixture.
  """
  title: str
  num_examples: int
  classes: tuple[str, ...]
  fetch: Callable
  name: Callable[[int], str]
  parts: tuple[tuple[int, int], ...]
  fingerprint: str
  resident: bool = False
  as_shown: bool = False
  scan: Callable | None = None
  splits: tuple[str, ...] = ()


def fingerprint(*facts: Any) -> str:
  """16 hexadecimal digits of facts that JSON can hold, equal on all machines."""
  return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def pixels_of(source: Any) -> str:
  """The fingerprint of a source's examples and of how they are decoded.

  As its own where it is decoded by default: a path as viewers show it, what
  TFDS prepared not (see Data.load).
  """
  if source.as_shown == ('folder:' in source.title):
    return source.fingerprint
  return fingerprint(source.fingerprint, 'as_shown', source.as_shown)


class Data(Protocol):
  """Functions that open sources and make batches of them.

  A batch has 'label' int32 [b] or multi-hot [b, c], 'index' int64 [b] and
  'views' {view: uint8 [b, size, size, 3]}; b is this host's share of
  batch_size, where `host` is (number of this host, number of hosts). `fraction`
  and `reduced` are options of crops, see input/crops.py.
  """

  def load(self, name: str | None = None, split: str = 'train',
           data_dir: str | None = None, cache: str = 'encoded',
           corrupt: str = 'stop', image: str | None = None,
           label: str | None = 'label',
           classes: str | Sequence[str] | None = None,
           as_shown: bool | None = None,
           parts: Mapping[str, Mapping[str, Any]] | None = None,
           resident: bool = False) -> Source:
    """Opens a split of a dataset; input/sources.py says what options mean."""
    ...

  def hold(self, source: Source) -> tuple[render.Images, np.ndarray]:
    """All images of a source, decoded, and their labels, for devices."""
    ...

  def train_batches(
      self, source: Source, views: Sequence[views_lib.View], batch_size: int,
      seed: int, start: int, stop: int, *, period: int = ...,
      fraction: float = views_lib.FRACTION, reduced: bool = False,
      host: tuple[int, int] = ...) -> Iterator[Batch]:
    """Batches of steps start ... stop - 1, each modulo period unless that is 0.
    """
    ...

  def train_boxes(
      self, source: Source, views: Sequence[views_lib.View], batch_size: int,
      seed: int, start: int, stop: int, *,
      held: tuple[render.Images, np.ndarray], period: int = ...,
      fraction: float = views_lib.FRACTION, reduced: bool = False,
      host: tuple[int, int] = ...) -> Iterator[Batch]:
    """As train_batches, with 'boxes' {region: int32 [b, 5]} for 'views'."""
    ...

  def indices(
      self, source: Source, batch_size: int, seed: int, start: int, stop: int,
      *, period: int = ..., host: tuple[int, int] = ...) -> Iterator[np.ndarray]:
    """The 'index' of each of train_batches."""
    ...

  def eval_batches(
      self, source: Source, views: Sequence[views_lib.View], batch_size: int,
      seed: int, *, fraction: float = views_lib.FRACTION, reduced: bool = False,
      host: tuple[int, int] = ...) -> Iterator[Batch]:
    """A whole split in order, with 'mask' float32 [b], 0 for padding."""
    ...

  def vote_batches(
      self, source: Source, views: Sequence[views_lib.View], batch_size: int,
      seed: int,
      first: int, last: int, votes: int, *, fraction: float = views_lib.FRACTION,
      reduced: bool = False, host: tuple[int, int] = ...) -> Iterator[Batch]:
    """As many draws of views as `votes`, of examples first ... last - 1."""
    ...


@runtime_checkable
class Family(Protocol):
  """A family of models, which a file in models/ is.

  Flat parameters are {'block1/unit01/conv1/kernel': array}.

  Model: a Flax module whose fields include num_classes; mean and std, what its
    weights want of pixels (see layers.normalize); dtype, what it computes in;
    and folded, whether its parameters are those of `fold`. Called with float
    images [b, h, w, 3] in [-1, 1] and train=False, it returns float32 logits
    [b, c] and a dict of named intermediates, 'pre_logits' [b, f] and 'logits'
    among them. Its last layer is named head.
  PUBLISHED: {name: path, or function that returns it} of checkpoints.
  LAYOUTS: {name: our flat parameters -> theirs}; 'big_vision' is our own.
  NAMES: names of usual models of the family, which `named` takes.
  SIZES: {variant: pixels a side that it is for}, if variants have a size.
  """
  Model: type[nn.Module]
  PUBLISHED: dict[str, str | Callable[[], str]]
  LAYOUTS: dict[str, Callable[[dict], dict]]
  NAMES: tuple[str, ...]

  def named(self, name: str) -> dict[str, Any] | None:
    """Arguments of Model by the name of a model, such as R50x1, or None."""
    ...

  def fold(self, params: Any) -> Any:
    """Nested parameters -> those of Model(folded=True), constants folded."""
    ...

  def to_ours(self, flat: dict) -> dict:
    """Flat parameters of any layout -> ours; others pass unchanged."""
    ...

  def recognise(self, flat: dict) -> dict[str, Any] | None:
    """Arguments of Model that fit flat parameters of any layout, or None."""
    ...

  def at_size(self, flat: dict, size: int | None = None) -> tuple[dict, int]:
    """(our flat parameters for images of this size, None: any; the size)."""
    ...


class Evaluator(Protocol):
  """What both kinds of evaluators say about what they are shown.

  labelled: whether its labels are of the student's classes.
  needs: whose answers it takes, among 'student' and 'teacher'.

  An evaluator of features, not logits, has `layer`, a name in models' `out`; one
  that learns from a second split, `train`, has trains = True.
  """
  @property
  def labelled(self) -> bool: ...

  @property
  def needs(self) -> tuple[str, ...]: ...


@runtime_checkable
class OfExamples(Evaluator, Protocol):
  """An evaluator whose metrics are means over examples."""

  def __call__(self, answers: dict[str, jax.Array],
               label: jax.Array) -> dict[str, jax.Array]:
    """Each metric of each example, [b], from answers {who: [b, c]}."""
    ...

  def __hash__(self) -> int: ...


@runtime_checkable
class OfSplits(Evaluator, Protocol):
  """An evaluator of what only a whole split can tell; runs on the host."""

  def measure(self, answers: dict[str, np.ndarray], label: np.ndarray,
              classes: tuple[str, ...], *train: Any) -> dict[str, float]:
    """Metrics, from answers {who: float64 [n, c]}; {} where none follows."""
    ...
