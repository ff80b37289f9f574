"""Amounts counted over all equations of a jaxpr, whatever it will run on."""

import math

import jax.extend.core


def total(jaxpr, amount):
  """Sum of amount(equation), over those inside others too.

  Loops count as often as they run, where that is known, and branches as the
  larger one. What an equation contains is looked at where `amount` is None.
  """
  result = 0
  for eqn in jaxpr.eqns:
    own = amount(eqn)
    if own is None:
      inner = [total(jaxpr, amount) for jaxpr
               in jax.extend.core.jaxprs_in_params(eqn.params)]
      among = max if eqn.primitive.name == 'cond' else sum
      own = eqn.params.get('length', 1) * among(inner) if inner else 0
    result += own
  return result


def flops(eqn):
  """Operations of a product or convolution, 2 per multiply-add, else None."""
  if eqn.primitive.name == 'dot_general':
    (contracted, _), _ = eqn.params['dimension_numbers']
    shape = eqn.invars[0].aval.shape
    return 2 * eqn.outvars[0].aval.size * math.prod(
        shape[i] for i in contracted)
  if eqn.primitive.name == 'conv_general_dilated':
    kernel = eqn.invars[1].aval
    out = kernel.shape[eqn.params['dimension_numbers'].rhs_spec[0]]
    return 2 * eqn.outvars[0].aval.size * kernel.size // out
  return None


COLLECTIVES = ('psum', 'pmax', 'pmin', 'all_gather', 'all_to_all', 'ppermute',
               'reduce_scatter')


def exchanged(eqn):
  """Bytes that a device gives to a collective, else None."""
  if eqn.primitive.name.startswith(COLLECTIVES):
    return sum(x.aval.size * x.aval.dtype.itemsize for x in eqn.invars)
  return None
