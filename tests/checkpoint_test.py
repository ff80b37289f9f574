"""Checkpoints keep what was learned, and say what does not fit."""

import os
import pathlib
import random
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from big_distill import checkpoint
from big_distill import optim
from big_distill import parallel
from big_distill.state import State


def state_at(step, width=3):
  tx, _ = optim.make(10, lr=.1, wd=.1, mu_dtype='bfloat16')
  params = {'head': {'kernel': jnp.full([2, width], step + .1),
                     'bias': jnp.zeros([width])}}
  return State.init(params, tx).replace(step=jnp.int32(step))


def save(folder, at, **kwargs):
  checkpoints = checkpoint.Checkpoints(str(folder), **kwargs)
  for step in at:
    checkpoints.save(parallel.replicate(state_at(step)), step)
  checkpoints.close()


def equal(got, want):
  return all(a.dtype == b.dtype and (np.asarray(a) == np.asarray(b)).all()
             for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want)))


def restore(folder):
  """(what is restored from the folder, whether anything is)."""
  checkpoints = checkpoint.Checkpoints(str(folder))
  got, resumed = checkpoints.restore_or(state_at(0))
  checkpoints.close()
  return got, resumed


def test_what_is_restored_is_bitwise_what_was_saved(tmp_path):
  save(tmp_path, [4])
  got, resumed = checkpoint.Checkpoints(str(tmp_path)).restore_or(state_at(0))
  want = state_at(4)
  assert resumed and int(got.step) == 4
  assert jax.tree.structure(got) == jax.tree.structure(want)
  assert equal(got, want)


def test_without_a_checkpoint_the_state_is_as_given(tmp_path):
  state = state_at(0)
  got, resumed = checkpoint.Checkpoints(str(tmp_path)).restore_or(state)
  assert got is state and not resumed


def test_newest_and_every_kth_are_kept(tmp_path):
  save(tmp_path, range(1, 11), keep=2, keep_every=4)
  kept = sorted(int(name) for name in os.listdir(tmp_path) if name.isdigit())
  assert kept == [4, 8, 9, 10]


def test_saving_a_step_twice_is_harmless(tmp_path):
  save(tmp_path, [3, 3])
  assert checkpoint.Checkpoints(str(tmp_path)).last.endswith('/3')


def test_a_half_written_checkpoint_is_passed_over(tmp_path):
  save(tmp_path, [5])
  partial = tmp_path / '10.orbax-checkpoint-tmp'
  partial.mkdir()
  (partial / 'junk').write_text('x')
  got, _ = checkpoint.Checkpoints(str(tmp_path)).restore_or(state_at(0))
  assert int(got.step) == 5


def test_a_checkpoint_of_another_model_is_listed_by_name(tmp_path):
  save(tmp_path, [5])
  with pytest.raises(ValueError) as error:
    checkpoint.Checkpoints(str(tmp_path)).restore_or(state_at(0, width=7))
  assert 'params/head/kernel (2, 3): should be (2, 7)' in str(error.value)
  assert f'{tmp_path}/5' in str(error.value)


def test_a_changed_array_is_known_by_its_checksum():
  state = jax.tree.map(np.asarray, state_at(4))
  sums = checkpoint.checksums(state)
  for name, leaf in sums.items():
    assert leaf['crc32'] == checkpoint.checksums(state)[name]['crc32']
  other = state.replace(params=jax.tree.map(np.copy, state.params))
  other.params['head']['kernel'].view(np.uint32)[1, 2] ^= 1 << 7
  changed = [name for name, leaf in checkpoint.checksums(other).items()
             if leaf != sums[name]]
  assert changed == ['params/head/kernel']


def test_a_checksum_is_the_published_one():
  # The check value of CRC-32/ISO-HDLC.
  got = checkpoint.checksums({'x': np.frombuffer(b'123456789', np.uint8)})
  assert got == {'x': {'dtype': 'uint8', 'shape': [9], 'crc32': 0xcbf43926}}


@pytest.fixture(scope='module')
def two(tmp_path_factory):
  """A folder of the checkpoints 4 and 5."""
  folder = tmp_path_factory.mktemp('two')
  save(folder, [4, 5])
  return folder


def test_no_flipped_bit_restores_other_numbers(two, tmp_path):
  dice, fallen = random.Random(0), set()
  files = sorted(path.relative_to(two) for path in (two / '5').rglob('*')
                 if path.is_file() and path.stat().st_size)
  for i, name in enumerate(files * 4):
    folder = tmp_path / str(i)
    shutil.copytree(two, folder)
    content = bytearray((folder / name).read_bytes())
    content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    (folder / name).write_bytes(content)
    got, resumed = restore(folder)
    assert resumed and equal(got, state_at(int(got.step))), name
    if int(got.step) == 4:
      fallen.add(name.parent.as_posix())
  # orbax also writes files that no restore reads; these are what it reads.
  assert fallen >= {'5/checksums', '5/default', '5/default/d'}


def cut(folder):
  largest = max((folder / 'default').rglob('*'),
                key=lambda path: path.is_file() and path.stat().st_size)
  largest.write_bytes(largest.read_bytes()[:-20])


def empty(folder):
  shutil.rmtree(folder)
  folder.mkdir()


DAMAGES = {
    'a truncated file': cut,
    'an empty folder': empty,
    'no arrays': lambda folder: shutil.rmtree(folder / 'default'),
    'arrays without content': lambda folder: empty(folder / 'default'),
    'no list of arrays': lambda folder: (
        folder / 'default' / '_METADATA').unlink(),
    'no data': lambda folder: shutil.rmtree(folder / 'default' / 'd'),
    'checksums that are no JSON': lambda folder: (
        folder / 'checksums' / 'metadata').write_text('{"leaves": {'),
    'a file of no bytes': lambda folder: (
        folder / 'default' / '_METADATA').write_bytes(b''),
    'a folder instead of a file': lambda folder: (
        (folder / 'default' / '_METADATA').unlink(),
        (folder / 'default' / '_METADATA').mkdir()),
    'arrays of another checkpoint': lambda folder: (
        shutil.rmtree(folder / 'default'), shutil.copytree(
            folder.parent / '4' / 'default', folder / 'default')),
    'a file instead of a folder': lambda folder: (
        shutil.rmtree(folder), folder.write_text('')),
}


@pytest.mark.parametrize('damage', DAMAGES)
def test_an_older_whole_checkpoint_is_taken_loudly(
    two, tmp_path, caplog, damage):
  folder = tmp_path / 'w'
  shutil.copytree(two, folder)
  DAMAGES[damage](folder / '5')
  checkpoints = checkpoint.Checkpoints(str(folder))
  got, resumed = checkpoints.restore_or(state_at(0))
  assert resumed and int(got.step) == 4 and equal(got, state_at(4))
  if damage != 'a file instead of a folder':  # Which is no checkpoint to orbax.
    assert f'Checkpoint {folder}/5 is damaged: ' in caplog.text
    assert f'moved to {folder}/damaged/5_0' in caplog.text
  # The step that was damaged is saved again, and whole.
  checkpoints.save(parallel.replicate(state_at(5)), 5)
  checkpoints.close()
  assert equal(restore(folder)[0], state_at(5))


def test_if_no_checkpoint_is_whole_one_line_says_what_to_remove(two, tmp_path):
  folder = tmp_path / 'w'
  shutil.copytree(two, folder)
  for step in ('4', '5'):
    cut(folder / step)
  before = sorted(folder.rglob('*'))
  with pytest.raises(ValueError) as error:
    restore(folder)
  assert f'No checkpoint in {folder} is whole (5: ' in str(error.value)
  assert str(error.value).endswith('remove that folder.')
  assert '\n' not in str(error.value)
  assert sorted(folder.rglob('*')) == before


def test_a_checkpoint_of_before_checksums_is_taken_with_a_warning(
    two, tmp_path, caplog):
  folder = tmp_path / 'w'
  shutil.copytree(two, folder)
  shutil.rmtree(folder / '5' / 'checksums')
  got, _ = restore(folder)
  assert equal(got, state_at(5))
  assert 'was written without checksums' in caplog.text


def test_a_checkpoint_of_another_dtype_is_whole_and_cast(two):
  wide = jax.tree.map(lambda x: np.asarray(x, np.float64), state_at(0))
  got, _ = checkpoint.Checkpoints(str(two)).restore_or(wide)
  want = jax.tree.map(lambda x: np.asarray(x, np.float64), state_at(5))
  assert equal(got, want)


def test_another_model_is_an_error_even_if_an_older_one_would_fit(tmp_path):
  save(tmp_path, [4])
  checkpoints = checkpoint.Checkpoints(str(tmp_path))
  checkpoints.save(parallel.replicate(state_at(5, width=7)), 5)
  checkpoints.close()
  with pytest.raises(ValueError, match=r'kernel \(2, 7\): should be \(2, 3\)'):
    restore(tmp_path)


def test_two_checkpoints_are_kept_unless_told(tmp_path):
  save(tmp_path, [1, 2, 3])
  assert sorted(os.listdir(tmp_path)) == ['2', '3']


@pytest.mark.parametrize('wrong', [dict(keep=0), dict(keep=-1),
                                   dict(keep_every=-5)])
def test_a_run_that_would_keep_no_checkpoint_is_refused(tmp_path, wrong):
  with pytest.raises(ValueError, match='at least one checkpoint must stay'):
    checkpoint.Checkpoints(str(tmp_path / 'c'), **wrong)
  assert not pathlib.Path(tmp_path, 'c').exists()
