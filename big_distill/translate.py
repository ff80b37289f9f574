"""A JAX function in the operations of another framework.

The function is traced with a symbol for the size of the batch, and its jaxpr is
walked: calls are inlined, what depends on constants alone is computed at once,
and every other primitive becomes operations of a Target. Of code that differs
between platforms (jax.lax.platform_dependent), the default is taken.

Two things are put off until they are needed, so that the result is what one
would write by hand. A broadcast keeps its ones, since operations broadcast
anyway; and pixels that are laid in one row for a product of matrices stay where
they are, since the product is a 1x1 convolution.
"""

from collections.abc import Callable, Sequence
import math
from typing import Any

import jax
from jax import export
import jax.numpy as jnp
import numpy as np

from big_distill import primitives
from big_distill import targets

SAME = ('stop_gradient', 'copy', 'copy_p', 'optimization_barrier')


def translate(function: Callable, params: Any, image: Sequence[int],
              target: targets.Target, pixels: Any) -> Any:
  """The handle of function(params, uint8 images [b, *image]) in a target.

  params: a tree of arrays. Those of float32 are constants, which may be computed
    with here and now; others become constants of the target as they are, so that
    int8 and float16 stay small in a file.
  pixels: the target's handle of the images.
  Raises ValueError for a primitive that is not known here.
  """
  b, = export.symbolic_shape('b')
  images = jax.ShapeDtypeStruct((b, *image), jnp.uint8)
  jaxpr = jax.make_jaxpr(function)(params, images)
  leaves = []
  for leaf in jax.tree.leaves(params):
    leaf = np.asarray(leaf)
    leaves.append(targets.known(leaf) if leaf.dtype == np.float32 else
                  targets.made(target.constant(leaf), leaf.shape))
  walk = Walk(target)
  result, *_ = walk.run(jaxpr.jaxpr, jaxpr.consts,
                        [*leaves, targets.made(pixels, images.shape)])
  return walk.handle(walk.whole(result))


class Walk:
  """A walk over jaxprs, which makes operations of a target."""

  def __init__(self, target: targets.Target):
    self.target = target

  def run(self, jaxpr: Any, consts: Sequence[Any],
          args: Sequence[targets.Value]) -> list[targets.Value]:
    """The results of a jaxpr."""
    known = dict(zip(jaxpr.constvars, map(targets.known, consts)))
    known |= dict(zip(jaxpr.invars, args))

    def read(atom):
      return targets.known(atom.val) if hasattr(atom, 'val') else known[atom]

    for eqn in jaxpr.eqns:
      outs = self.step(eqn, [read(atom) for atom in eqn.invars])
      known |= dict(zip(eqn.outvars, outs))
    return [read(atom) for atom in jaxpr.outvars]

  def step(self, eqn: Any, args: list[targets.Value]) -> list[targets.Value]:
    """The results of one equation."""
    name = eqn.primitive.name
    if name == 'platform_index':
      return [targets.known(np.int32(eqn.params['platforms'].index(None)))]
    if name == 'cond' and args[0].constant:
      inner = eqn.params['branches'][int(args[0].value)]
      return self.run(inner.jaxpr, inner.consts, args[1:])
    for key in ('jaxpr', 'call_jaxpr', 'fun_jaxpr'):
      if key in eqn.params:
        inner = eqn.params[key]
        return self.run(getattr(inner, 'jaxpr', inner),
                        getattr(inner, 'consts', ()), args)
    if name in SAME:
      return args
    meant = tuple(eqn.outvars[0].aval.shape)
    if all(arg.constant for arg in args) and all(
        isinstance(n, int) for n in meant):
      out = eqn.primitive.bind(*(self.whole(arg).value for arg in args),
                               **eqn.params)
      return [targets.known(np.asarray(each)) for each in (
          out if eqn.primitive.multiple_results else [out])]
    if name in targets.ELEMENTWISE:
      return [self.elementwise(name, args, meant)]
    if name not in primitives.HANDLERS:
      raise ValueError(f'{name}, an operation of JAX, cannot be exported: write '
                       'the model without it, or add it to primitives.py.')
    return [primitives.HANDLERS[name](self, args, meant, eqn.params)]

  def handle(self, x: targets.Value) -> Any:
    """The handle of a value."""
    return self.target.constant(x.value) if x.constant else x.value

  def whole(self, x: targets.Value) -> targets.Value:
    """The value in the shape that is meant."""
    if x.shape == x.meant:
      return x
    if len(x.shape) != len(x.meant) or math.prod(x.shape) == math.prod(x.meant):
      return self.reshape(x, x.meant)
    if x.constant and all(isinstance(n, int) for n in x.meant):
      return targets.known(np.broadcast_to(x.value, x.meant))
    return targets.made(self.target.expand(self.handle(x), targets.dims(x.meant)), x.meant)

  def reshape(self, x: targets.Value, shape: Sequence) -> targets.Value:
    """Another shape, of as many numbers."""
    shape = tuple(shape)
    if x.shape == shape:
      return targets.Value(x.value, shape, shape)
    if x.constant:
      return targets.known(x.value.reshape(shape))
    return targets.made(self.target.reshape(x.value, targets.dims(shape)), shape)

  def elementwise(self, name: str, args: list[targets.Value], meant: tuple) -> targets.Value:
    """One of targets.ELEMENTWISE."""
    args = [arg if len(arg.shape) == len(arg.meant) else self.whole(arg)
            for arg in args]
    shape = args[0].shape
    for arg in args[1:]:
      if not arg.shape or not shape:  # Literals have no axes.
        shape = shape or arg.shape
      else:
        shape = tuple(n if m == 1 else m for n, m in zip(shape, arg.shape))
    return targets.Value(self.target.elementwise(name, *map(self.handle, args)), shape,
                 meant)
