"""The device axis: the only module that knows of pmap, axis names and x[0].

State and teachers are stacked, one replica per local device, along a leading
axis; batches are split along it. A function given to `pmap` sees neither.
"""

import collections
import contextlib
import functools
import itertools

import jax
from jax.experimental import multihost_utils
import jax.flatten_util
import jax.numpy as jnp
import numpy as np

AXIS = 'devices'

_planned: list = []  # Devices that are not here, see `planned_for`.


@contextlib.contextmanager
def planned_for(devices):
  """A context in which programs are lowered for devices that are not here.

  What `pmap` returns can be lowered and compiled there, and not called. All
  hosts' devices count as local ones, and `replicate` gives shapes.
  """
  _planned[:] = devices
  try:
    yield
  finally:
    _planned.clear()


def platform():
  """What computes: 'cpu', 'gpu' or 'tpu'."""
  return _planned[0].platform if _planned else jax.default_backend()


def device_count():
  """Devices of all hosts."""
  return len(_planned) or jax.device_count()


def host_count():
  """How many hosts there are."""
  return len({each.process_index for each in _planned}) or jax.process_count()


def pmap(function, donate=(), in_axes=0):
  """`function` of stacked or split arguments, run once on every device.

  Where `in_axes` is a tuple, an argument that has None there is one of `share`.
  """
  return jax.pmap(function, axis_name=AXIS, donate_argnums=donate,
                  in_axes=in_axes, devices=_planned or None)


def _devices():
  """How many there are of all hosts, inside pmap; outside, None."""
  try:
    return jax.lax.axis_size(AXIS)
  except NameError:  # There is no device axis here.
    return None


def mean(tree):
  """Mean over all devices of all hosts, inside pmap; outside, the tree."""
  if _devices() is None:
    return tree
  if platform() == 'cpu':
    # XLA combines messages on accelerators, where they overlap with the rest;
    # between processes on CPU each one takes as long as a small layer.
    flat, restore = jax.flatten_util.ravel_pytree(tree)
    return restore(jax.lax.pmean(flat, AXIS))
  return jax.lax.pmean(tree, AXIS)


def total(tree):
  """Sum over all devices of all hosts, inside pmap; outside, the tree."""
  return tree if _devices() is None else jax.lax.psum(tree, AXIS)


def gather(tree):
  """All devices' [b/d, ...] -> [b, ...] on each of them, inside pmap."""
  return jax.lax.all_gather(tree, AXIS, tiled=True)


def spread(function, *stacks):
  """function(*stacks) of [n, ...], each device computing its share of the n.

  Shares are gathered, so that all devices get the whole result; a device works
  on n / devices entries, rounded up. Outside pmap it is the function itself.
  """
  d = _devices()
  if d is None:
    return function(*stacks)
  n = stacks[0].shape[0]
  share = -(-n // d)
  # Where n does not divide, the last devices repeat the last entry.
  mine = jax.lax.axis_index(AXIS) * share + jnp.arange(share)
  mine = jnp.minimum(mine, n - 1)
  parts = function(*(x[mine] for x in stacks))
  return jax.tree.map(lambda x: x[:n], gather(parts))


def on_host():
  """A context in which the CPU computes, for which XLA compiles fast."""
  try:
    return jax.default_device(jax.local_devices(backend='cpu')[0])
  except RuntimeError:  # JAX_PLATFORMS leaves it out.
    return contextlib.nullcontext()


@functools.cache
def _sharding():
  mesh = jax.sharding.Mesh(np.asarray(jax.local_devices()), (AXIS,))
  return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(AXIS))


def replicate(tree):
  """Host arrays -> one replica on each local device, [d, ...]."""
  d = len(_planned) or jax.local_device_count()

  def leaf(x):
    if _planned:
      return jax.ShapeDtypeStruct((d, *x.shape), x.dtype)
    x = np.asarray(x)
    return jax.make_array_from_callback(
        (d, *x.shape), _sharding(), lambda _: x[None])

  return jax.tree.map(leaf, tree)


def share(tree):
  """Host arrays -> the same on each local device, without a leading axis.

  Of what is large and has one axis: a TPU would pad [1, n] to four rows.
  """
  if _planned:
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype), tree)
  everywhere = jax.sharding.NamedSharding(
      _sharding().mesh, jax.sharding.PartitionSpec())

  def leaf(x):
    x = np.asarray(x)
    return jax.make_array_from_callback(x.shape, everywhere, lambda _: x)

  return jax.tree.map(leaf, tree)


def split(batch):
  """Host batch [b, ...] -> device batch [d, b/d, ...]."""
  d = jax.local_device_count()
  return jax.tree.map(
      lambda x: jax.device_put(x.reshape(d, -1, *x.shape[1:]), _sharding()),
      batch)


def join(tree):
  """The inverse of split: this host's share [d, b/d, ...] -> numpy [b, ...]."""
  def leaf(x):
    shards = sorted(x.addressable_shards, key=lambda each: each.index[0].start)
    return np.concatenate(jax.device_get([each.data[0] for each in shards]))

  return jax.tree.map(leaf, tree)


def first(tree):
  """The first replica, as numpy."""
  return jax.tree.map(lambda x: jax.device_get(x.addressable_data(0))[0], tree)


def prefetch(batches, size=2):
  """Splits batches over the devices, `size` of them ahead of their use."""
  ahead = collections.deque()
  batches = map(split, batches)
  for batch in itertools.chain(batches, [None] * size):
    ahead.append(batch)
    if len(ahead) > size and (batch := ahead.popleft()) is not None:
      yield batch


def everywhere(known):
  """What holds on every host: bool [n] of this host -> bool [n]."""
  if jax.process_count() == 1:
    return known
  return multihost_utils.process_allgather(known).all(axis=0)


def meet(where):
  """Returns when all hosts have come here."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(where)


def check_batch(batch_size, group, parts, devices, hosts):
  """Raises ValueError unless a global batch splits into whole groups.

  Each device's share must also split into `parts` micro-batches of whole mixup
  groups.
  """
  if parts < 1:
    raise ValueError(f'accumulate={parts}: a batch has at least one part.')
  step = devices * parts * group
  if batch_size % step or batch_size < 1:
    each = f', in accumulate={parts} parts' if parts > 1 else ''
    each += f', in mixup groups of {group}' if group > 1 else ''
    below, above = batch_size // step * step, -(-batch_size // step) * step
    near = ' or '.join(str(n) for n in sorted({below, above}) if n > 0)
    raise ValueError(
        f'batch_size={batch_size} does not divide over {devices} devices '
        f'({hosts} hosts x {devices // hosts}){each}: {batch_size} / {step} = '
        f'{batch_size / step:g}. Nearest that do: {near or step}.')
