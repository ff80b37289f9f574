"""Cuts tensors into blocks, and stacks all blocks of one shape.

Second-order optimizers keep a matrix for every axis of a block. A kernel
[3, 3, 128, 300] becomes [9, 128, 300] (small neighbours merge), then three
blocks [9, 128, 128], the last of them padded with zeros. Blocks of that shape
from all tensors lie on the pile '9x128x128', [n, 9, 128, 128], and their
matrices on stacks [n, 9, 9], [n, 128, 128], [n, 128, 128]: a step is a few
large batched products, however many tensors there are.
"""

from collections.abc import Callable, Iterable, Sequence
import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Bool
from jaxtyping import Float32
from jaxtyping import Int
from jaxtyping import Shaped
import numpy as np

AnyArray = Array | np.ndarray
Shape = tuple[int, ...]
Blocks = Shaped[AnyArray, 'n ...']
Stack = Sequence[Float32[Array, 'n _ _']]  # Matrices of each axis of blocks.


def merge(shape: Shape, limit: int) -> Shape:
  """Drops unit dims; multiplies neighbours while the product is in `limit`."""
  merged = []
  for size in shape:
    if merged and merged[-1] * size <= limit:
      merged[-1] *= size
    elif size > 1:
      merged.append(size)
  return tuple(merged)


@dataclasses.dataclass(frozen=True)
class Cut:
  """How one tensor of `shape` is cut into equal blocks of sides <= `limit`.

  The tensor has an axis longer than 1.
  """
  shape: tuple[int, ...]
  limit: int

  @property
  def merged(self) -> Shape:
    """The shape after small neighbours are merged."""
    return merge(self.shape, self.limit)

  @property
  def block(self) -> Shape:
    """The shape of a block."""
    return tuple(min(size, self.limit) for size in self.merged)

  @property
  def grid(self) -> Shape:
    """How many blocks there are along each axis."""
    return tuple(
        -(-size // side) for size, side in zip(self.merged, self.block))

  def split(self, x: Shaped[AnyArray, '...']) -> Blocks:
    """A tensor of `shape` in blocks [n, *block]; what is past its end is 0."""
    r, x = len(self.block), x.reshape(self.merged)
    x = jnp.pad(x, [(0, n * side - size) for size, n, side
                    in zip(self.merged, self.grid, self.block)])
    x = x.reshape([n for pair in zip(self.grid, self.block) for n in pair])
    return x.transpose(*range(0, 2 * r, 2), *range(1, 2 * r, 2)).reshape(
        -1, *self.block)

  def join(self, x: Blocks) -> Shaped[AnyArray, '...']:
    """The inverse of split."""
    r = len(self.block)
    x = x.reshape(self.grid + self.block)
    x = x.transpose([axis for i in range(r) for axis in (i, r + i)])
    x = x.reshape([n * side for n, side in zip(self.grid, self.block)])
    return x[tuple(map(slice, self.merged))].reshape(self.shape)


class Piles:
  """Which tensors are cut, and the pile that holds the blocks of each.

  Tensors with fewer than `min_rank` axes longer than 1 are not cut.
  """

  def __init__(self, shapes: Iterable[Shape], limit: int = 128,
               min_rank: int = 2):
    self._cuts, self._members = {}, {}
    for i, shape in enumerate(shapes):
      if sum(size > 1 for size in shape) >= max(min_rank, 1):
        cut = self._cuts[i] = Cut(tuple(shape), limit)
        self._members.setdefault('x'.join(map(str, cut.block)), []).append(i)

  @property
  def shapes(self) -> dict[str, Shape]:
    """{pile: its shape [n, *block]}."""
    return {pile: (sum(math.prod(self._cuts[i].grid) for i in members),
                   *self._cuts[members[0]].block)
            for pile, members in self._members.items()}

  def gather(self, tensors: Sequence[Array]) -> dict[str, Blocks]:
    """All tensors, in order, as {pile: blocks [n, *block]}."""
    return {pile: jnp.concatenate([self._cuts[i].split(tensors[i])
                                   for i in members])
            for pile, members in self._members.items()}

  def scatter(self, piles: dict[str, Blocks]) -> dict[int, AnyArray]:
    """Tensors that are cut, by their number in the list. Inverts `gather`."""
    tensors = {}
    for pile, members in self._members.items():
      start = 0
      for i in members:
        stop = start + math.prod(self._cuts[i].grid)
        tensors[i] = self._cuts[i].join(piles[pile][start:stop])
        start = stop
    return tensors

  def stacks(
      self, fill: Callable[[int, int], Array]) -> dict[str, tuple[Array, ...]]:
    """{pile: (fill(n, d), ...)}, one for each axis of a block, of length d."""
    return {pile: tuple(fill(n, d) for d in block)
            for pile, (n, *block) in self.shapes.items()}


def zeros(n: int, d: int) -> Float32[Array, 'n d d']:
  """n matrices of zeros."""
  return jnp.zeros([n, d, d], jnp.float32)


def eyes(n: int, d: int) -> Float32[Array, 'n d d']:
  """n identity matrices."""
  return jnp.tile(jnp.eye(d, dtype=jnp.float32), [n, 1, 1])


def covariances(x: Blocks) -> tuple[Shaped[Array, 'n _ _'], ...]:
  """X X' of blocks unfolded along each axis, [n, d, d] for each."""
  unfolded = (jnp.moveaxis(x, axis, 1).reshape(*x.shape[:1], x.shape[axis], -1)
              for axis in range(1, x.ndim))
  return tuple(rows @ rows.swapaxes(1, 2) for rows in unfolded)


def contract(x: Blocks,
             matrices: Sequence[Shaped[AnyArray, 'n _ _']]) -> Blocks:
  """y_j = sum_i M_ij x_i along each axis, M [n, d, d] one of `matrices`."""
  for matrix in matrices:  # Each round brings the next axis to the front.
    x = jnp.einsum('nij,ni...->n...j', matrix, x)
  return x


class Turn(NamedTuple):
  """The part of a pile to refresh: `size` blocks from `start`, if `due`."""
  size: int
  start: Int[Array, '']
  due: Bool[Array, '']

  def take(self, stack: Shaped[Array, 'n ...']) -> Shaped[Array, 'm ...']:
    """That part of a stack."""
    return jax.lax.dynamic_slice_in_dim(stack, self.start, self.size)

  def put(self, stack: Shaped[Array, 'n ...'],
          part: Shaped[Array, 'm ...']) -> Shaped[Array, 'n ...']:
    """The stack with that part replaced."""
    return jax.lax.dynamic_update_slice_in_dim(stack, part, self.start, 0)

  def work(self, function: Callable, idle: Any) -> Any:
    """function() if due, else `idle`, which has the same shapes."""
    return jax.lax.cond(self.due, function, lambda: idle)


def turns(shapes: dict[str, Shape], every: int,
          count: Int[Array, '']) -> dict[str, Turn]:
  """Whose turn it is at step `count`: each block's, once in `every` steps.

  The work is spread evenly, so that no step takes much longer than others: of a
  high pile each step refreshes a part, low piles follow one another.
  """
  result, first = {}, 0
  for pile, (n, *_) in shapes.items():
    size = -(-n // every)
    rounds = -(-n // size)
    turn = (count - first) % every
    # The last part overlaps the one before it where n does not divide.
    result[pile] = Turn(size, jnp.minimum(turn * size, n - size), turn < rounds)
    first = (first + rounds) % every
  return result
