"""Files of each format that is read here, damaged at random and read again.

A damaged file may be refused with a ValueError of one line, or read as it was
before. Anything else is wrong: another error, or other values without a word.
JSON has no checksum, so that a digit may change there unseen.
"""

from collections.abc import Callable, Iterator
import dataclasses
import json
import pathlib
import random
import shutil
import types
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from big_distill import checkpoint
from big_distill import npz_files
from big_distill import optim
from big_distill import parallel
from big_distill import runs
from big_distill import store
from big_distill.state import State


def flip(content: bytes, dice: random.Random) -> bytes:
  """With another value of one bit."""
  changed = bytearray(content)
  changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
  return bytes(changed)


def _cut(content, dice):
  return content[:dice.randrange(len(content))]


def _zeros(content, dice):
  start = dice.randrange(len(content))
  return content[:start] + bytes(min(64, len(content) - start)) + (
      content[start + 64:])


def _twice(content, dice):
  start = dice.randrange(len(content))
  return content[:start] + content[start // 2:]


def _longer(content, dice):
  return content + dice.randbytes(dice.randrange(1, 64))


MUTATIONS = (flip, flip, flip, _cut, _zeros, _twice, _longer)


class Format(NamedTuple):
  """make(folder) writes files there; read(folder) -> what they hold.

  exact: whether a change of any value has to be noticed.
  """
  name: str
  make: Callable[[pathlib.Path], None]
  read: Callable[[pathlib.Path], Any]
  exact: bool = True


def _tree():
  rng = np.random.default_rng(0)
  return {'head/kernel': rng.normal(size=(8, 4)).astype(np.float32),
          'head/bias': rng.normal(size=4).astype(np.float32)}


def _store(folder):
  return store.Store(str(folder), {}, [np.zeros([4, 3], np.float16)], 2)


def _write_answers(folder):
  store = _store(folder)
  for block in range(2):
    store.write(block, [np.full([4, 3], block + .5, np.float16)])


def _write_records(folder):
  import tensorflow as tf
  with tf.io.TFRecordWriter(str(folder / 'x.tfrecord')) as writer:
    for i in range(4):
      writer.write(bytes([i]) * (20 + i))


def _read_records(folder):
  from big_distill.input import records
  part = types.SimpleNamespace(filename=str(folder / 'x.tfrecord'), skip=0,
                               take=4, examples_in_shard=4)
  return [*map(records.tfrecords([part]).read, range(4))]


def _write_lines(folder):
  (folder / 'metrics.jsonl').write_text(''.join(
      json.dumps({'step': i, 'train/loss': i / 7}) + '\n' for i in range(9)))


FORMATS = (
    Format('weights, npz',
           lambda folder: npz_files.save(folder / 'x.npz', _tree()),
           lambda folder: npz_files.load(folder / 'x.npz')),
    Format('kept answers', _write_answers,
           lambda folder: [_store(folder).read(block) for block in range(2)]),
    Format('TFRecords', _write_records, _read_records),
    Format('result, JSON',
           lambda folder: runs.save(folder / 'result.json', {'steps': 40}),
           lambda folder: runs.load(folder / 'result.json'), exact=False),
    Format('metrics, JSON lines', _write_lines,
           lambda folder: runs.rows(folder / 'metrics.jsonl'), exact=False),
)


def inputs(folder: pathlib.Path, count: int, dice: random.Random
           ) -> Iterator[tuple[bool, str]]:
  """(Whether it went well, what happened) of `count` damaged files."""
  for kind in FORMATS:
    whole, broken = folder / 'whole', folder / 'broken'
    shutil.rmtree(folder, ignore_errors=True)
    whole.mkdir(parents=True)
    kind.make(whole)
    want = kind.read(whole)
    files = sorted(path for path in whole.iterdir() if path.stat().st_size)
    for _ in range(-(-count // len(FORMATS))):
      shutil.rmtree(broken, ignore_errors=True)
      shutil.copytree(whole, broken)
      file, mutate = dice.choice(files), dice.choice(MUTATIONS)
      (broken / file.name).write_bytes(mutate(file.read_bytes(), dice))
      yield _try(kind, broken, want, f'{kind.name}, {file.name}, '
                                     f'{mutate.__name__.strip("_")}')


def _try(kind, folder, want, what):
  try:
    got = kind.read(folder)
  except ValueError as error:
    return '\n' not in str(error), f'{what}: {error}'
  except Exception as error:  # What is looked for.
    return False, f'{what}: {type(error).__name__}: {error}'
  same = not kind.exact or _equal(got, want)
  return same, f'{what}: other values, without a word'


def _equal(a, b):
  return jax.tree.structure(a) == jax.tree.structure(b) and all(
      np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a),
                                           jax.tree.leaves(b)))


def checkpoints(folder: pathlib.Path, count: int, dice: random.Random
                ) -> Iterator[tuple[bool, str]]:
  """As `inputs`, of flipped bits in the newer of two checkpoints."""
  tx, _ = optim.make(10, lr=.1)
  states = {step: dataclasses.replace(
      State.init({'kernel': jnp.full([7, 5], step + .1)}, tx),
      step=jnp.int32(step)) for step in (4, 5)}
  whole, broken = folder / 'whole', folder / 'broken'
  saving = checkpoint.Checkpoints(str(whole))
  for step, state in states.items():
    saving.save(parallel.replicate(state), step)
  saving.close()
  files = sorted(path.relative_to(whole) for path in (whole / '5').rglob('*')
                 if path.is_file() and path.stat().st_size)
  for _ in range(count):
    shutil.rmtree(broken, ignore_errors=True)
    shutil.copytree(whole, broken)
    name = dice.choice(files)
    (broken / name).write_bytes(flip((whole / name).read_bytes(), dice))
    restoring = checkpoint.Checkpoints(str(broken))
    got, resumed = restoring.restore_or(states[4])
    restoring.close()
    yield (resumed and _equal(got, jax.tree.map(
        np.asarray, states[int(got.step)]))), f'a flipped bit of {name}'
