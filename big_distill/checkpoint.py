"""Checkpoints of {step, params, optimizer} by orbax, known to be whole.

What is saved is the first replica, as numpy arrays, with a checksum per array;
it is written while training goes on, to a temporary name, so that a run killed
at any moment finds its newest whole checkpoint again. A checkpoint that cannot
be read, or whose numbers are not those that were saved, is moved to the folder
`damaged`, and the next older one is taken.
"""

import json
from typing import Any
import zlib

from absl import logging
from etils import epath
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from big_distill import parallel
from big_distill import params as params_lib
from big_distill import runs

ARRAYS, CHECKSUMS = 'default', 'checksums'  # Folders inside a checkpoint.
LATER = ('skipped',)  # Leaves that older checkpoints lack; they start as 0.


class Damaged(Exception):
  """Why a checkpoint is not whole, in one line."""


class Checkpoints:
  """Step-numbered checkpoints in a folder.

  The `keep` newest stay, and of the older ones each at a multiple of
  `keep_every` steps (0: none).
  """

  def __init__(self, folder: str, keep: int = 2, keep_every: int = 0) -> None:
    if keep < 1 or keep_every < 0:
      raise ValueError(
          f'checkpoints.keep={keep}, checkpoints.keep_every={keep_every}: at '
          'least one checkpoint must stay. Set keep=2 (or 1, which leaves '
          'none to fall back on) and keep_every=0 or more.')
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep, keep_period=keep_every or None, create=True,
        enable_async_checkpointing=True)
    self._manager = ocp.CheckpointManager(folder, options=options, item_handlers={
        ARRAYS: ocp.StandardCheckpointHandler(),
        CHECKSUMS: ocp.JsonCheckpointHandler()})
    self.folder = folder

  def restore_or(self, state: Any) -> tuple[Any, bool]:
    """(newest whole checkpoint as host arrays, True) or (state, False).

    Raises ValueError if there are checkpoints and none is whole, or if the
    newest whole one is of another model than `state`.
    """
    like, damaged = jax.tree.map(np.asarray, state), {}
    for step in sorted(self._manager.all_steps(), reverse=True):
      restored, reason = None, 'another host could not read it.'
      try:
        restored = self._restore(step, like)
      except Damaged as error:
        reason = error
      # Hosts take the same one, whoever met the damage.
      if parallel.everywhere(np.array([restored is not None])).all():
        self._set_aside(damaged)
        return restored, True
      logging.error('Checkpoint %s is damaged: %s', self.path(step), reason)
      damaged[step] = reason
    if damaged:
      reasons = '; '.join(f'{step}: {error}' for step, error in damaged.items())
      raise ValueError(
          f'No checkpoint in {self.folder} is whole ({reasons}). To start again '
          'from the first step, remove that folder.')
    return state, False

  def _restore(self, step, like):
    """The checkpoint, like `like`; raises Damaged, or ValueError if unlike."""
    saved, sums = self._read(step, lambda: self._recorded(step))
    leaves = {name: leaf for name, leaf in _flat(like).items()
              if name in saved or name not in LATER}
    params_lib.check_match(saved, leaves, f'The checkpoint {self.path(step)}')
    got = self._read(step, lambda: self._arrays(step))
    if sums is None:
      logging.warning('Checkpoint %s was written without checksums: whether it '
                      'is whole is not known.', self.path(step))
    elif changed := [name for name, leaf in checksums(got).items()
                     if leaf != sums.get(name)]:
      raise Damaged(f'{len(changed)} of {len(sums)} arrays are not as they '
                    f'were saved, the first is {changed[0]}.')
    return jax.tree.unflatten(jax.tree.structure(like), [
        got.get(name, leaf).astype(leaf.dtype, copy=False)
        for name, leaf in _flat(like).items()])

  def _read(self, step, read):
    """read(), what goes wrong with it being a damage of the checkpoint."""
    try:
      return read()
    except (Damaged, MemoryError):
      raise
    except Exception as error:  # Libraries raise errors of every kind.
      lines = str(error).strip().splitlines() or ['no more is known']
      raise Damaged('it cannot be read '
                    f'({type(error).__name__}: {lines[0][:200]})') from error

  def _recorded(self, step):
    """({name: leaf with shape}, {name: checksum} or None) of a checkpoint."""
    folders = {entry.name for entry in epath.Path(self.path(step)).iterdir()}
    if ARRAYS not in folders:
      raise Damaged(f'there is no folder {ARRAYS} in it.')
    if CHECKSUMS not in folders:
      return _flat(self._listed(step)), None
    saved = self._manager.restore(step, args=ocp.args.Composite(**{
        CHECKSUMS: ocp.args.JsonRestore()}))[CHECKSUMS]
    sums = saved['leaves']
    if saved['of'] != _of(sums):
      raise Damaged('its checksums are not as they were saved.')
    return {name: jax.ShapeDtypeStruct(leaf['shape'], jnp.dtype(leaf['dtype']))
            for name, leaf in sums.items()}, sums

  def _listed(self, step):
    """The tree of a checkpoint, with shapes in place of arrays."""
    found = self._manager.item_metadata(step)[ARRAYS]
    if found is None:
      raise Damaged('there is no list of its arrays.')
    return found.tree

  def _arrays(self, step):
    """{name: array} of a checkpoint, as they were saved."""
    # A cast to another dtype would have another checksum.
    empty = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype),
                         self._listed(step))
    return _flat(jax.tree.map(np.asarray, self._manager.restore(
        step, args=ocp.args.Composite(**{
            ARRAYS: ocp.args.StandardRestore(empty)}))[ARRAYS]))

  def _set_aside(self, steps):
    """Moves damaged checkpoints away, since their steps will be saved again."""
    if not steps:
      return
    parallel.meet('before damaged checkpoints are moved')
    if jax.process_index() == 0:
      for step in steps:
        aside = epath.Path(self.folder, 'damaged')
        aside.mkdir(exist_ok=True)
        names = {entry.name for entry in aside.iterdir()}
        name = next(name for n in range(len(names) + 1)
                    if (name := f'{step}_{n}') not in names)
        epath.Path(self.path(step)).rename(aside / name)
        logging.error('It was moved to %s; an older checkpoint is taken.',
                      aside / name)
    parallel.meet('after damaged checkpoints are moved')
    self._manager.reload()

  def save(self, replicated: Any, step: int) -> None:
    """Saves a replicated state, in the background; once per step."""
    if self._manager.latest_step() != step:
      state = parallel.first(replicated)
      sums = checksums(state)
      with runs.writing(self.path(step)):
        self._manager.save(step, force=True, args=ocp.args.Composite(**{
            ARRAYS: ocp.args.StandardSave(state),
            CHECKSUMS: ocp.args.JsonSave({'leaves': sums, 'of': _of(sums)})}))

  def path(self, step: int) -> str:
    return f'{self.folder}/{step}'

  @property
  def last(self) -> str | None:
    """Path of the newest checkpoint, or None."""
    with runs.writing(self.folder):
      self._manager.wait_until_finished()
    step = self._manager.latest_step()
    return None if step is None else self.path(step)

  def close(self) -> None:
    """Waits for what is being written."""
    with runs.writing(self.folder):
      self._manager.close()


def steps(folder: Any) -> list[int]:
  """Steps of which a folder has checkpoints, whole or not, by their names."""
  folder = epath.Path(folder)
  return sorted(int(each.name) for each in (
      folder.iterdir() if folder.exists() else ()) if each.name.isdigit())


def checksums(tree: Any) -> dict[str, dict[str, Any]]:
  """{'params/head/kernel': {dtype, shape, crc32 of the bytes}} of numpy arrays."""
  def checksum(x):
    return {'dtype': str(x.dtype), 'shape': list(x.shape),
            'crc32': zlib.crc32(np.ravel(x).view(np.uint8))}

  return {name: checksum(leaf) for name, leaf in _flat(tree).items()}


def _of(sums):
  """The checksum of checksums."""
  return zlib.crc32(json.dumps(sums, sort_keys=True).encode())


def _flat(tree):
  """{'params/head/kernel': leaf} of any tree whose leaves have a shape."""
  leaves = jax.tree_util.tree_leaves_with_path(
      tree, is_leaf=lambda x: hasattr(x, 'shape'))
  return {jax.tree_util.keystr(path, simple=True, separator='/'): leaf
          for path, leaf in leaves}
