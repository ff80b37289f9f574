"""What frameworks do, for translate.py to say JAX's functions in it.

A Target is a framework; a Value is a tensor on its way there.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

Dims = Sequence[int | None]  # None is the size of the batch.


class Target(Protocol):
  """What a framework does. A handle is whatever names a tensor there.

  Images are NHWC, kernels HWIO. Paddings are (before, after) of each axis.
  """

  def constant(self, value: np.ndarray | np.generic) -> Any:
    """A tensor of these numbers."""
    ...

  def elementwise(self, name: str, *args: Any) -> Any:
    """An operation of ELEMENTWISE, with numpy's rules of broadcasting."""
    ...

  def cast(self, x: Any, dtype: np.dtype) -> Any:
    """The same numbers in another dtype."""
    ...

  def reshape(self, x: Any, dims: Dims) -> Any:
    """The same numbers in another shape."""
    ...

  def expand(self, x: Any, dims: Dims) -> Any:
    """x, broadcast to a shape."""
    ...

  def transpose(self, x: Any, order: Sequence[int]) -> Any:
    """x with its axes in another order."""
    ...

  def slice(self, x: Any, axis: int, start: int, stop: int, step: int) -> Any:
    """Every step-th part of an axis, from start to before stop."""
    ...

  def pad(self, x: Any, pads: Sequence[tuple[int, int]], value: float) -> Any:
    """x with a number around it."""
    ...

  def concatenate(self, parts: Sequence[Any], axis: int) -> Any:
    """Tensors, one after another."""
    ...

  def reduce(self, kind: str, x: Any, axes: Sequence[int]) -> Any:
    """The sum or the max over axes, which vanish."""
    ...

  def matmul(self, x: Any, y: Any) -> Any:
    """Products of [..., n, k] and [..., k, m]; y may be [k, m] for all x."""
    ...

  def conv(self, x: Any, kernel: Any, strides: Sequence[int],
           pads: Sequence[tuple[int, int]], groups: int) -> Any:
    """A convolution of images [b, h, w, c], zeros around them."""
    ...


# Primitives that targets have by name; others follow, see primitives.py.
ELEMENTWISE = ('add', 'sub', 'mul', 'div', 'max', 'min', 'neg', 'exp', 'log',
               'tanh', 'sqrt', 'rsqrt', 'logistic', 'erf', 'abs')


class Value(NamedTuple):
  """A tensor on the way.

  value: a numpy array if it is constant, or else a handle.
  shape: what the value has; a symbol is the batch, or a multiple of it.
  meant: what the jaxpr says it has. `whole` makes the one the other.
  """
  value: Any
  shape: tuple
  meant: tuple

  @property
  def constant(self) -> bool:
    return isinstance(self.value, np.ndarray)


def known(value: np.ndarray | np.generic) -> Value:
  """A constant."""
  value = np.asarray(value)
  return Value(value, value.shape, value.shape)


def made(handle: Any, shape: Sequence) -> Value:
  """What a target has made, in the shape that is meant."""
  return Value(handle, tuple(shape), tuple(shape))


def dims(shape: Sequence) -> Dims:
  """A shape for a target, which finds out the one size that is not known."""
  return [n if isinstance(n, int) else None for n in shape]
