"""How primitives of JAX are said by a targets.Target; see translate.py.

A handler gets the walk, the Values of arguments, the shape that is meant and the
parameters of the primitive, and returns the result's Value.
"""

import math

import numpy as np

from big_distill import targets


def _cast(walk, args, meant, params):
  x, = args
  dtype = np.dtype(params['new_dtype'])
  return targets.Value(walk.target.cast(walk.handle(x), dtype), x.shape, meant)


def _power(walk, args, meant, params):
  """x^n for a whole n above 0."""
  x = result = args[0]
  if params['y'] < 1:
    raise ValueError(f'x**{params["y"]} cannot be exported.')
  for _ in range(params['y'] - 1):
    result = walk.elementwise('mul', [result, x], meant)
  return result


def _broadcast(walk, args, meant, params):
  x = walk.whole(args[0])
  shape = [1] * len(meant)
  for axis, n in zip(params['broadcast_dimensions'], x.shape):
    shape[axis] = n
  return walk.reshape(x, shape)._replace(meant=meant)


def _reshape(walk, args, meant, params):
  x, = args
  if x.shape == meant:  # Pixels that were laid in one row.
    return targets.Value(x.value, meant, meant)
  in_a_row = (len(x.shape) == 4 and x.meant == x.shape and not x.constant
              and len(meant) == 2 and meant[-1] == x.shape[-1])
  return (targets.Value(x.value, x.shape, meant) if in_a_row
          else walk.reshape(walk.whole(x), meant))


def _slice(walk, args, meant, params):
  x = walk.whole(args[0])
  value, steps = x.value, params['strides'] or [1] * len(meant)
  for axis, (start, stop, step) in enumerate(zip(
      params['start_indices'], params['limit_indices'], steps)):
    if (start, stop, step) != (0, x.shape[axis], 1):
      value = walk.target.slice(value, axis, start, stop, step)
  return targets.made(value, meant)


def _pad(walk, args, meant, params):
  x, value = args
  if any(inside for _, _, inside in params['padding_config']):
    raise ValueError('A pad between numbers cannot be exported.')
  pads = [(before, after) for before, after, _ in params['padding_config']]
  return targets.made(walk.target.pad(walk.whole(x).value, pads, float(value.value)),
               meant)


def _concatenate(walk, args, meant, params):
  parts = [walk.handle(walk.whole(arg)) for arg in args]
  return targets.made(walk.target.concatenate(parts, params['dimension']), meant)


def _reduce(kind):
  def reduce(walk, args, meant, params):
    x = walk.whole(args[0])
    return targets.made(walk.target.reduce(kind, x.value, params['axes']), meant)
  return reduce


def _dot(walk, args, meant, params):
  (over_x, over_y), (batch_x, batch_y) = params['dimension_numbers']
  x, y = args
  if len(x.shape) == 4 and len(x.meant) == 2 and (over_x, over_y) == (
      (1,), (0,)):
    kernel = walk.reshape(walk.whole(y), (1, 1, *y.meant))
    value = walk.target.conv(x.value, walk.handle(kernel), (1, 1),
                             ((0, 0), (0, 0)), 1)
    return targets.Value(value, (*x.shape[:-1], meant[-1]), meant)
  x = _matrices(walk, walk.whole(x), batch_x, over_x, of_rows=True)
  y = _matrices(walk, walk.whole(y), batch_y, over_y, of_rows=False)
  value = walk.target.matmul(walk.handle(x), walk.handle(y))
  return walk.reshape(targets.made(value, (*x.shape[:-1], y.shape[-1])), meant)


def _matrices(walk, x, batch, over, of_rows):
  """[batch, n, k] of the left factor of a product, [batch, k, m] of the right.

  Where there is no batch, the left one keeps all its axes in place of n.
  """
  free = [axis for axis in range(len(x.shape)) if axis not in (*batch, *over)]
  order = [*batch, *free, *over] if of_rows else [*batch, *over, *free]
  x = _in_order(walk, x, order)
  sizes = [x.shape[len(batch):][:len(free)], x.shape[len(batch) + len(free):]]
  if not of_rows:
    sizes = [x.shape[len(batch):][:len(over)], x.shape[len(batch) + len(over):]]
  first, last = sizes
  first = ([math.prod(first)] if batch or not of_rows or not first
           else list(first))
  return walk.reshape(x, (*x.shape[:len(batch)], *first, math.prod(last)))


def _in_order(walk, x, order):
  if order == sorted(order):
    return x
  shape = tuple(x.shape[axis] for axis in order)
  return (targets.known(x.value.transpose(order)) if x.constant
          else targets.made(walk.target.transpose(x.value, order), shape))


def _conv(walk, args, meant, params):
  numbers = params['dimension_numbers']
  x, kernel = args
  if (numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec) != (
      (0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2)) or (
          {*params['lhs_dilation'], *params['rhs_dilation'],
           params['batch_group_count']} != {1}):
    raise ValueError('A convolution that is not of images [b, h, w, c] with a '
                     'kernel [h, w, c, d], or that is dilated, cannot be '
                     'exported.')
  return targets.made(walk.target.conv(
      walk.handle(walk.whole(x)), walk.handle(walk.whole(kernel)),
      params['window_strides'], params['padding'],
      params['feature_group_count']), meant)


HANDLERS = {
    'convert_element_type': _cast,
    'square': lambda walk, args, meant, params: walk.elementwise(
        'mul', args * 2, meant),
    'integer_pow': _power,
    'broadcast_in_dim': _broadcast,
    'reshape': _reshape,
    'squeeze': _reshape,
    'expand_dims': _reshape,
    'transpose': lambda walk, args, meant, params: _in_order(
        walk, walk.whole(args[0]), [*params['permutation']]),
    'slice': _slice,
    'pad': _pad,
    'concatenate': _concatenate,
    'reduce_sum': _reduce('sum'),
    'reduce_max': _reduce('max'),
    'dot_general': _dot,
    'conv_general_dilated': _conv,
}
