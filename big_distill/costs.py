"""What things cost: arithmetic, bytes held, bytes exchanged, parameters.

Amounts are read off programs before they run: operations and exchange from a
jaxpr, memory from what XLA compiled.
"""

from collections.abc import Callable
import math
import os
from typing import Any

import jax
import jax.extend.core
from jax.interpreters import partial_eval
import jax.numpy as jnp
import numpy as np

from big_distill import params as params_lib
from big_distill.ops import int8

CLOSE = 32  # The search for the largest batch stops within 1/32 of it.

COLLECTIVES = ('psum', 'pmax', 'pmin', 'all_gather', 'all_to_all', 'ppermute',
               'reduce_scatter')


def total(jaxpr: Any, amount: Callable[[Any], int | None]) -> int:
  """Sum of amount(equation) over a jaxpr and all jaxprs inside it.

  Loops count as often as they run, where that is known, and branches as the
  largest one, but where platforms differ in how they compute the same, as the
  one for all others. Where `amount` is None, what the equation contains is
  counted.
  """
  result = 0
  for eqn in jaxpr.eqns:
    own = amount(eqn)
    if own is None:
      inner = [total(jaxpr, amount) for jaxpr
               in jax.extend.core.jaxprs_in_params(eqn.params)]
      among = max if eqn.primitive.name == 'cond' else sum
      platforms = eqn.params.get('branches_platforms') or ()
      if None in platforms:
        inner = [inner[platforms.index(None)]]
      own = eqn.params.get('length', 1) * among(inner) if inner else 0
    result += own
  return result


def operations(function: Callable, *arguments: Any) -> int:
  """Operations of products and convolutions of function(*arguments).

  Arguments may be shapes. What no result needs does not count: of a gradient's
  program, products that are computed only to be differentiated.
  """
  jaxpr = jax.make_jaxpr(function)(*arguments).jaxpr
  needed, _ = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
  return total(needed, flops_of)


def flops_of(eqn: Any) -> int | None:
  """Operations of a product or convolution, 2 per multiply-add, else None.

  The zeros between pixels, of which gradients of strided convolutions are
  convolutions, do not count.
  """
  if eqn.primitive.name == 'dot_general':
    (contracted, _), _ = eqn.params['dimension_numbers']
    shape = eqn.invars[0].aval.shape
    return 2 * eqn.outvars[0].aval.size * math.prod(
        shape[i] for i in contracted)
  if eqn.primitive.name == 'conv_general_dilated':
    kernel = eqn.invars[1].aval
    out = kernel.shape[eqn.params['dimension_numbers'].rhs_spec[0]]
    spread = math.prod(eqn.params['lhs_dilation'])
    return 2 * eqn.outvars[0].aval.size * kernel.size // (out * spread)
  return None


def exchange_of(eqn: Any) -> int | None:
  """Bytes that a device gives to a collective, else None."""
  if eqn.primitive.name.startswith(COLLECTIVES):
    return sum(x.aval.size * x.aval.dtype.itemsize for x in eqn.invars)
  return None


def flops(model: Any, params: Any, size: int) -> int:
  """Floating-point operations of one image's forward pass, 2 per multiply-add.

  Those of products and convolutions; padding counts, the rest does not. The
  image has `size` pixels a side; params may be shapes.
  """
  params = jax.eval_shape(int8.restore, params)
  image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
  return operations(lambda params, image: model.apply(
      {'params': params}, image)[0], params, image)


def training(room: Any) -> tuple[int, int]:
  """(all teachers', the student's) operations of training on one image.

  room: a classroom.Classroom. Backward counts as two forwards; a teacher whose
  model is not known as nothing.
  """
  return (sum(flops(teacher.model, teacher.params, teacher.size)
              for teacher in room.models if teacher.model),
          3 * flops(room.student, room.params, room.size))


def parameters(tree: Any) -> int:
  """Number of trainable parameters: neither averages nor steps of int8."""
  def counts(path):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    return (not params_lib.is_average(name)
            and not name.endswith(f'kernel/{int8.STEP}'))

  return sum(math.prod(np.shape(leaf))
             for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
             if counts(path))


def nbytes(tree: Any) -> int:
  """Bytes of all leaves of a tree of arrays or shapes."""
  return sum(math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize
             for leaf in jax.tree.leaves(tree))


def step_arguments(state: Any, teacher_params: Any, batch: Any) -> tuple:
  """Shapes and dtypes of what a pmapped step takes, from host arrays."""
  d = jax.local_device_count()

  def replicated(x):
    return jax.ShapeDtypeStruct((d, *jnp.shape(x)), jnp.result_type(x))

  def split(x):
    return jax.ShapeDtypeStruct((d, len(x) // d, *x.shape[1:]), x.dtype)

  return (*jax.tree.map(replicated, (state, teacher_params)),
          jax.tree.map(split, batch))


def memory(program: Any) -> int:
  """Bytes that a compiled program holds on each device while it runs."""
  # Donated arguments are outputs, too.
  used = program.memory_analysis()
  return (used.argument_size_in_bytes + used.output_size_in_bytes
          - used.alias_size_in_bytes + used.temp_size_in_bytes)


def exchanged(step: Callable, *arguments: Any) -> int:
  """Bytes that each device gives to the others in a step."""
  return total(jax.make_jaxpr(step)(*arguments).jaxpr, exchange_of)


def available() -> int:
  """Bytes that a device has for a program; of a CPU, those that are free."""
  stats = jax.local_devices()[0].memory_stats() or {}
  if 'bytes_limit' in stats:
    return stats['bytes_limit']
  free = os.sysconf('SC_AVPHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
  return free // jax.local_device_count()


def largest(cost: Callable[[int], int], limit: int) -> int:
  """The most n with cost(n) <= limit, to within 1 / CLOSE; 0 if there is none.

  cost(n) grows with n, nearly along a line; it is asked for few values.
  """
  costs = {n: cost(n) for n in (1, 8)}
  while True:
    fits = max((n for n in costs if costs[n] <= limit), default=0)
    over = min((n for n in costs if costs[n] > limit), default=None)
    if over == 1 or over and over - fits <= max(1, fits // CLOSE):
      return fits
    # Along the line through the two that are nearest, never far beyond them.
    low, high = (fits, over) if over else sorted(costs)[-2:]
    slope = max((costs[high] - costs[low]) / (high - low), 1)
    guess = fits + int((limit - costs[fits]) / slope)
    if over:
      guess = min(max(guess, fits + 1), over - 1)
    elif guess - fits <= fits // CLOSE:
      return fits
    n = min(guess, 16 * fits)
    costs[n] = cost(n)
