"""Answers that teachers gave, in files: given once, read ever after.

A batch is a function of the config and the step, and with a period P the batch
of step s is that of step s mod P. So what the teachers agree on about a mixed
view has a number, the step modulo P and the place in the batch, and P steps of
answers teach a run of any length, and any other run with the same stream. In
`fix/ic_ens` an answer is a mean over many views of one example, and its number
is the example's.

A store is a folder. manifest.json says whose answers to what these are, and is
compared field by field. answers-00000-of-00002.bin holds records of equal size,
one for each answer of that host's share of a batch, block after block, a block
being a batch; checks-00000-of-00002.bin holds for each block 0, or a checksum
of its records, which is written after them. So a block is whole or missing
wherever a run is killed, and any number of hosts read it.
"""

from collections.abc import Mapping
import fcntl
import json
import math
import os
import shutil
import time
from typing import Any
import zlib

from absl import logging
from etils import epath
import jax
import numpy as np

from big_distill import answers
from big_distill import runs

WAIT = 1.  # Seconds between looks whether another program is done.
WRITTEN = np.uint64(1 << 32)  # Set beside the 32 bits of a block's checksum.


class Store:
  """Blocks of answers in a folder; this host's share of each.

  like: the kept answers of one batch of this host, as arrays or shapes
    [b, ...]. blocks: how many there are. host: (number of this host, number of
    hosts). begin: whether to begin a folder that is not there or empty.
  """

  def __init__(self, folder: str, manifest: Mapping[str, Any], like: Any,
               blocks: int, host: tuple[int, int] = (0, 1),
               begin: bool = True) -> None:
    if '://' in str(folder):
      raise ValueError(f'answers.store={folder}: answers are mapped into memory '
                       'from a local disk: copy the folder there.')
    self.folder, self.blocks = runs.folder(folder), blocks
    leaves, self._tree = jax.tree.flatten(like)
    self._fields = [(leaf.shape[1:], np.dtype(leaf.dtype)) for leaf in leaves]
    self.record = sum(math.prod(shape) * dtype.itemsize
                      for shape, dtype in self._fields)
    self._place, self._hosts = host
    self._rows = leaves[0].shape[0] * self._hosts  # Of a whole block.
    self.manifest = _begin(self.folder, {
        'format': 1, **manifest, 'record_bytes': self.record,
        'blocks': blocks, 'block_rows': self._rows}, self._hosts,
        self.nbytes if begin else None)
    self._shards = self.manifest['shards']
    self._mapped: dict[Any, Any] = {}
    self._claim: Any = None
    self._whole = np.zeros([blocks, self._shards], bool)  # Verified already.

  @property
  def nbytes(self) -> int:
    """Of all answers of all hosts."""
    return self.record * self._rows * self.blocks

  def _mine(self):
    """The shards that hold rows of this host."""
    first = self._place * self._shards // self._hosts
    last = -(-(self._place + 1) * self._shards // self._hosts)
    return range(first, last)

  def _map(self, shard):
    """(records [blocks, rows, bytes], checks [blocks]) of a shard's files."""
    if shard not in self._mapped:
      rows = self._rows // self._shards
      self._mapped[shard] = (
          self._open('answers', shard, (self.blocks, rows, self.record),
                     np.uint8),
          self._open('checks', shard, (self.blocks,), np.uint64))
    return self._mapped[shard]

  def _path(self, name, shard):
    return f'{self.folder}/{name}-{shard:05d}-of-{self._shards:05d}.bin'

  def _open(self, name, shard, shape, dtype):
    path = self._path(name, shard)
    want = math.prod(shape) * np.dtype(dtype).itemsize
    if not os.path.exists(path):
      partial = f'{path}.{os.getpid()}.partial'
      with runs.writing(path):
        with open(partial, 'wb') as file:
          file.truncate(want)  # Zeros, which take no room yet.
        os.replace(partial, path)
    if os.path.getsize(path) != want:
      raise ValueError(f'{path} has {os.path.getsize(path):,} bytes in place of '
                       f'{want:,}: it was cut or overwritten. Remove '
                       f'{self.folder}, and its answers are given again.')
    mode = 'r+' if os.access(path, os.W_OK) else 'r'
    return np.memmap(path, dtype, mode, shape=shape)

  @property
  def known(self) -> np.ndarray:
    """Which blocks this host can read: bool [blocks]."""
    return np.all([self._map(shard)[1] != 0 for shard in self._mine()], axis=0)

  def check_can_record(self) -> None:
    """Raises ValueError where this program cannot add what is missing."""
    if self._shards != self._hosts:
      raise ValueError(
          f'{self.folder} is not complete and was begun by {self._shards} '
          f'hosts: as many must complete it, and these are {self._hosts}.')
    if self._map(self._place)[1].mode != 'r+':
      raise ValueError(f'{self.folder} lacks answers and cannot be written: '
                       'name another answers.store, or allow writing.')

  def claim(self) -> None:
    """Makes this program the one that records, until it ends or releases it.

    Waits for another program that records the same answers; of several hosts,
    which could wait for each other, raises ValueError.
    """
    self.check_can_record()
    said, self._claim = False, open(self._path('checks', self._place), 'rb')
    while True:
      try:  # The system gives it back when a program ends, killed or not.
        return fcntl.flock(self._claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except BlockingIOError:
        if self._hosts > 1:
          raise ValueError(
              f'{self.folder} is being recorded by another program. Start this '
              'one when that is done, or name another answers.store.') from None
      if not said:
        logging.info('Another program records %s: waiting until it is done.',
                     self.folder)
      said = True
      time.sleep(WAIT)

  def release(self) -> None:
    """Lets another program record."""
    if self._claim:
      self._claim.close()

  def write(self, block: int, kept: Any) -> None:
    """Keeps this host's share of a block: leaves [b, ...], as `like`.

    Raises ValueError where the disk is full.
    """
    rows = np.concatenate([
        np.ascontiguousarray(leaf).reshape(len(leaf), -1).view(np.uint8)
        for leaf in jax.tree.leaves(kept)], axis=1)
    self._map(self._place)  # Makes the files.
    # Through a map, a full disk would end the program by SIGBUS.
    for name, value in (('answers', rows), ('checks', _check(rows))):
      path = self._path(name, self._place)
      with runs.writing(path), open(path, 'r+b') as file:
        file.seek(block * value.nbytes)
        file.write(value.tobytes())

  def read(self, block: int) -> Any:
    """This host's share of a block, as it was written; ValueError if damaged."""
    share = self._rows // self._hosts
    return self.read_rows(block * self._rows + self._place * share
                          + np.arange(share))

  def read_rows(self, numbers: np.ndarray) -> Any:
    """Answers [b, ...] of any numbers [b], counted over all blocks."""
    blocks, rows = np.divmod(numbers, self._rows)
    shards, rows = np.divmod(rows, self._rows // self._shards)
    raw = np.empty([len(numbers), self.record], np.uint8)
    for shard in np.unique(shards):
      here = shards == shard
      for block in np.unique(blocks[here]):
        self._verify(block, shard)
      raw[here] = self._map(shard)[0][blocks[here], rows[here]]
    return self._unpacked(raw)

  def _verify(self, block, shard):
    """Raises ValueError unless a block is as it was written."""
    if self._whole[block, shard]:
      return
    records, checks = self._map(shard)
    if not checks[block]:
      raise ValueError(f'{self.folder}: block {block} of shard {shard} is '
                       'missing. Run the command that records it again.')
    if checks[block] != _check(records[block]):
      remedy = 'Remove the folder, and its answers are given again.'
      if checks.mode == 'r+':
        checks[block] = 0
        remedy = ('It counts as missing now: the same command has it answered '
                  'again.')
      raise ValueError(f'{self.folder}: block {block} of shard {shard} is '
                       f'damaged, its checksum differs. {remedy}')
    self._whole[block, shard] = True

  def _unpacked(self, rows):
    leaves, at = [], 0
    for shape, dtype in self._fields:
      size = math.prod(shape) * dtype.itemsize
      leaf = np.ascontiguousarray(rows[:, at:at + size])
      leaves.append(leaf.view(dtype).reshape(len(rows), *shape))
      at += size
    return jax.tree.unflatten(self._tree, leaves)


def _check(rows):
  return WRITTEN | np.uint64(zlib.crc32(np.ascontiguousarray(rows).data))


def _begin(folder, wanted, hosts, nbytes):
  """The manifest of a folder: checked, or written where there is none.

  nbytes: what all answers will take; None: there must be a manifest.
  """
  path = epath.Path(folder) / 'manifest.json'
  if not path.exists():
    if nbytes is None:
      raise ValueError(f'There are no answers in {folder}: record them with '
                       'python -m big_distill.tools.record and this config.')
    path.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if nbytes > free:
      raise ValueError(
          f'answers.store={folder}: the answers take {nbytes / 1e9:.2f} GB, and '
          f'{free / 1e9:.2f} GB are free there. Shorten answers.period_epochs, '
          'keep fewer logits (answers.top), or name another disk.')
    # Hosts may share the folder or not: each writes the same manifest.
    runs.save(path, {**wanted, 'shards': hosts, 'made_by': answers.versions()})
  written = runs.load(path) or {}
  for field, want in json.loads(json.dumps(wanted)).items():
    if written.get(field) != want:
      raise ValueError(
          f'answers.store={folder} has {field}={written.get(field)!r}, this run '
          f'{field}={want!r}: these are other answers. Name another folder, or '
          f'remove this one.')
  shards = written.get('shards')
  if not isinstance(shards, int) or shards < 1:
    raise ValueError(f'{path} is damaged: it has shards={shards!r}. Remove the '
                     'folder, and its answers are given again.')
  return written
