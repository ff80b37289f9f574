"""Checkpoints of {step, params, optimizer} by orbax, and leaving in time.

What is saved is the first replica, as numpy arrays; it is written while
training goes on, to a temporary name, so that a run killed at any moment finds
its newest whole checkpoint again.
"""

import signal

import jax
from jax.experimental import multihost_utils
import numpy as np
import orbax.checkpoint as ocp

from big_distill import parallel
from big_distill import params as params_lib


class Checkpoints:
  """Step-numbered checkpoints in a folder.

  The `keep` newest stay, and of the older ones each at a multiple of
  `keep_every` steps (0: none).
  """

  def __init__(self, folder, keep=1, keep_every=0):
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep, keep_period=keep_every or None, create=True,
        enable_async_checkpointing=True)
    self._manager = ocp.CheckpointManager(
        folder, options=options, item_handlers=ocp.StandardCheckpointHandler())
    self.folder = folder

  def restore_or(self, state):
    """(newest checkpoint as host arrays like `state`, True) or (state, False)."""
    step = self._manager.latest_step()
    if step is None:
      return state, False
    like = jax.tree.map(np.asarray, state)
    self._check(step, like)
    return self._manager.restore(
        step, args=ocp.args.StandardRestore(like)), True

  def _check(self, step, like):
    """Names what differs between a checkpoint and what the config builds."""
    saved = self._manager.item_metadata(step)
    params_lib.check_match(_flat(saved), _flat(like),
                           f'The checkpoint {self.path(step)}')

  def save(self, replicated, step):
    """Saves a replicated state, in the background; once per step."""
    if self._manager.latest_step() != step:
      state = parallel.first(replicated)
      self._manager.save(step, args=ocp.args.StandardSave(state), force=True)

  def path(self, step):
    return f'{self.folder}/{step}'

  @property
  def last(self):
    """Path of the newest checkpoint, or None."""
    self._manager.wait_until_finished()
    step = self._manager.latest_step()
    return None if step is None else self.path(step)

  def close(self):
    """Waits for what is being written."""
    self._manager.close()


def _flat(tree):
  """{'params/head/kernel': leaf} of any tree whose leaves have a shape."""
  leaves = jax.tree_util.tree_leaves_with_path(
      tree, is_leaf=lambda x: hasattr(x, 'shape'))
  return {jax.tree_util.keystr(path, simple=True, separator='/'): leaf
          for path, leaf in leaves}


class Preemption:
  """Learns of SIGTERM; all hosts of a pod agree on the step to leave at."""

  def __init__(self):
    self._asked = False
    self._calls = 0
    if jax.process_count() == 1:
      # A pod's runtime has its own handler, read at the sync point below.
      signal.signal(signal.SIGTERM, self._ask)

  def _ask(self, signum, frame):
    del signum, frame
    self._asked = True

  def reached(self):
    """Whether to leave now; asked equally often on all hosts."""
    if jax.process_count() == 1:
      return self._asked
    # Consecutive numbers, where steps may be several at a time.
    self._calls += 1
    return multihost_utils.reached_preemption_sync_point(self._calls)
