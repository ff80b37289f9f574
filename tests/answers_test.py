"""Kept answers are whole or missing, and are those that were given."""

import json
import os
import pathlib
import resource
import subprocess
import sys
import textwrap

import jax
import numpy as np
import pytest

from big_distill import answers
from big_distill import kept as kept_lib
from big_distill import losses
from big_distill import store as store_lib
from big_distill import topk

BLOCKS, ROWS, C = 5, 8, 12
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(BLOCKS, ROWS, C)).astype(np.float32) * 3
MANIFEST = {'seed': 0, 'teachers': [{'identity': 'x'}]}


def open_store(folder, host=(0, 1), like=None, manifest=MANIFEST, **options):
  share = ROWS // host[1]
  like = like or [jax.ShapeDtypeStruct((share, C), np.float32)]
  return store_lib.Store(str(folder), manifest, like, BLOCKS, host, **options)


def fill(folder, hosts=1, blocks=range(BLOCKS)):
  """Writes LOGITS by so many hosts."""
  share = ROWS // hosts
  for place in range(hosts):
    store = open_store(folder, (place, hosts))
    for block in blocks:
      store.write(block, [LOGITS[block, place * share:(place + 1) * share]])
  return store


@pytest.mark.parametrize('writers', [1, 2, 4])
@pytest.mark.parametrize('readers', [1, 2, 8])
def test_any_number_of_hosts_reads_what_any_number_wrote(
    writers, readers, tmp_path):
  fill(tmp_path, writers)
  share = ROWS // readers
  for place in range(readers):
    store = open_store(tmp_path, (place, readers))
    assert store.known.all()
    for block in (0, BLOCKS - 1):
      got, = store.read(block)
      want = LOGITS[block, place * share:(place + 1) * share]
      assert got.dtype == np.float32 and (got == want).all()


def test_rows_are_found_by_number_in_any_order(tmp_path):
  store = fill(tmp_path, 2)
  numbers = RNG.permutation(BLOCKS * ROWS)[:17]
  got, = store.read_rows(numbers)
  assert (got == LOGITS.reshape(-1, C)[numbers]).all()


def test_answers_of_several_arrays_keep_their_dtypes(tmp_path):
  kept = topk.compress(jax.numpy.asarray(LOGITS[0]), 3)
  store = open_store(tmp_path, like=[kept])
  store.write(2, [kept])
  got, = store.read(2)
  for a, b in zip(got, kept):
    assert a.dtype == b.dtype and (a == np.asarray(b)).all()
  assert store.record == topk.bytes_per_answer(C, 3)


def test_what_was_not_written_is_missing(tmp_path):
  store = fill(tmp_path, blocks=[0, 3])
  assert [*store.known] == [True, False, False, True, False]
  with pytest.raises(ValueError, match='block 1 of shard 0 is missing'):
    store.read(1)


def test_every_flipped_bit_is_found_and_heals(tmp_path):
  fill(tmp_path)
  path = tmp_path / 'answers-00000-of-00001.bin'
  whole = path.read_bytes()
  for at in RNG.integers(0, len(whole), 40):
    flipped = bytearray(whole)
    flipped[at] ^= 1 << RNG.integers(8)
    path.write_bytes(flipped)
    store, block = open_store(tmp_path), at // (4 * C * ROWS)
    with pytest.raises(ValueError, match=f'block {block} .* damaged'):
      store.read(block)
    assert not open_store(tmp_path).known[block]
    store.write(block, [LOGITS[block]])
    assert (open_store(tmp_path).read(block)[0] == LOGITS[block]).all()


@pytest.mark.parametrize('name', ['answers', 'checks'])
@pytest.mark.parametrize('keep', [0, 1, 100, -1])
def test_a_file_cut_at_any_byte_is_refused(name, keep, tmp_path):
  fill(tmp_path)
  path = tmp_path / f'{name}-00000-of-00001.bin'
  size = os.path.getsize(path)
  os.truncate(path, keep % size if keep < 0 else min(keep, size - 1))
  with pytest.raises(ValueError, match='it was cut or overwritten'):
    open_store(tmp_path).known  # noqa: B018, what reads the files.
    open_store(tmp_path).read(0)


def test_a_kill_between_answers_and_checksum_leaves_the_block_missing(
    tmp_path, monkeypatch):
  store = open_store(tmp_path)

  def killed(rows):
    raise KeyboardInterrupt

  monkeypatch.setattr(store_lib, '_check', killed)
  with pytest.raises(KeyboardInterrupt):
    store.write(1, [LOGITS[1]])
  monkeypatch.undo()
  assert not open_store(tmp_path).known.any()


@pytest.mark.parametrize('field, manifest', [
    ('seed', {**MANIFEST, 'seed': 1}),
    ('teachers', {**MANIFEST, 'teachers': [{'identity': 'y'}]})])
def test_other_answers_are_refused_field_by_field(field, manifest, tmp_path):
  fill(tmp_path)
  with pytest.raises(ValueError, match=f'has {field}='):
    open_store(tmp_path, manifest=manifest)


def test_only_as_many_hosts_as_began_a_store_complete_it(tmp_path):
  fill(tmp_path, 2, blocks=[0])
  open_store(tmp_path, (0, 2)).check_can_record()
  with pytest.raises(ValueError, match='begun by 2 hosts'):
    open_store(tmp_path).check_can_record()


RECORDER = textwrap.dedent('''
    import sys
    import jax
    import numpy as np
    from big_distill import store

    like = [jax.ShapeDtypeStruct((8, 12), np.float32)]
    mine = store.Store(sys.argv[1], {}, like, 5)
    mine.claim()
    print('mine', flush=True)
    input()
    ''')


@pytest.fixture
def other(tmp_path):
  """Another program, which records what is in tmp_path."""
  process = subprocess.Popen(
      [sys.executable, '-c', RECORDER, str(tmp_path)], stdin=subprocess.PIPE,
      stdout=subprocess.PIPE, text=True,
      cwd=pathlib.Path(__file__).parent.parent)
  assert process.stdout.readline() == 'mine\n'
  yield process
  process.kill()
  process.wait()


@pytest.mark.parametrize('end', ['kill', 'communicate'])
def test_a_second_program_waits_for_the_one_that_records(
    end, other, tmp_path, monkeypatch):
  """Until it is done, or was killed without a word."""
  store, waited = open_store(tmp_path, manifest={}), []

  def sleep(seconds):
    waited.append(seconds)
    if end == 'kill':
      other.kill()
    else:
      other.communicate('\n')
    other.wait()

  monkeypatch.setattr(store_lib.time, 'sleep', sleep)
  store.claim()
  assert waited == [store_lib.WAIT]
  again = open_store(tmp_path, manifest={})
  store.release()
  again.claim()
  assert len(waited) == 1
  again.release()


def test_of_several_hosts_the_second_program_is_refused(tmp_path):
  """Each host has a file of its own; two programs could wait for each other."""
  first, second = (open_store(tmp_path, (1, 2)) for _ in range(2))
  first.claim()
  open_store(tmp_path, (0, 2)).claim()
  with pytest.raises(ValueError, match='is being recorded by another program'):
    second.claim()
  first.release()
  second.claim()


def test_a_disk_without_room_is_said_before_anything_is_written(
    tmp_path, monkeypatch):
  usage = type('Usage', (), {'free': 100})
  monkeypatch.setattr(store_lib.shutil, 'disk_usage', lambda path: usage)
  with pytest.raises(ValueError, match='0.00 GB are free there'):
    open_store(tmp_path)
  assert not any(tmp_path.iterdir())
  with pytest.raises(ValueError, match='local disk'):
    store_lib.Store('gs://bucket/answers', {}, [], 1)


def test_packing_all_classes_in_float32_changes_no_bit():
  x = jax.numpy.asarray(LOGITS[0])
  assert (answers.Form().unpack(answers.Form().pack([x]))[0] == x).all()


@pytest.mark.parametrize('dtype, digits', [('float16', 11), ('bfloat16', 8)])
def test_packed_logits_teach_the_same_up_to_rounding(dtype, digits):
  x = jax.numpy.asarray(LOGITS[0] + 1000)  # The offset means nothing.
  form = answers.Form(dtype)
  got, = form.unpack(form.pack([x]))
  # Half a unit in the last of so many digits, of numbers up to the range of x;
  # float32 itself rounds x + 1000 to 2^-14.
  bound = np.ptp(LOGITS[0]) * 2.**-digits + 2.**-13
  np.testing.assert_allclose(losses.temper(got, 1.), losses.temper(x, 1.),
                             atol=2 * bound)


def test_drift_is_none_of_the_same_and_that_of_kl_otherwise():
  live, other = (jax.numpy.asarray(x) for x in LOGITS[:2])
  kl, most = answers.drift(live, live)
  assert np.abs(kl).max() < 1e-6 and most.max() < 1e-6
  kl, most = answers.drift(live, other)
  np.testing.assert_allclose(kl, losses.kl(live, other), rtol=1e-6)
  p, q = (np.exp(x) / np.exp(x).sum(-1, keepdims=True)
          for x in np.float64(LOGITS[:2]))
  np.testing.assert_allclose(most, np.abs(p - q).max(-1), rtol=1e-4)
  kept = topk.compress(other, C)
  np.testing.assert_allclose(answers.drift(live, kept)[0], kl, atol=.02)


def test_a_block_that_cannot_be_written_is_one_line_and_stays_missing(tmp_path):
  """As on a full disk, which would end a program that writes through a map."""
  store = fill(tmp_path, blocks=[0])
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
  try:
    with pytest.raises(ValueError, match=f'Cannot write {tmp_path}/ans') as error:
      store.write(1, [LOGITS[1]])
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  assert '\n' not in str(error.value) and not store.known[1]
  store.write(1, [LOGITS[1]])
  assert (store.read(1)[0] == LOGITS[1]).all()


def test_kept_evaluations_come_back_and_damage_is_answered_again(tmp_path):
  kept = kept_lib.Kept(str(tmp_path), 4)
  kept['k'] += [{('teacher', 'logits'): LOGITS[i]} for i in range(3)]
  kept.save('k')
  again = kept_lib.Kept(str(tmp_path), 4)['k']
  assert all((a['teacher', 'logits'] == LOGITS[i]).all()
             for i, a in enumerate(again)) and len(again) == 3
  path, = (tmp_path / 'evals').iterdir()
  path.write_bytes(path.read_bytes()[:-40])
  assert kept_lib.Kept(str(tmp_path), 4)['k'] == []


def test_kept_evaluations_are_of_batches_as_large(tmp_path):
  """A store of votes serves runs with batches of any size."""
  kept = kept_lib.Kept(str(tmp_path), 4)
  kept['k'] += [{('teacher', 'logits'): LOGITS[0]}]
  kept.save('k')
  assert len(kept_lib.Kept(str(tmp_path), 4)['k']) == 1
  assert kept_lib.Kept(str(tmp_path), 8)['k'] == []


def test_kept_evaluations_that_cannot_be_written_are_one_line(tmp_path):
  (tmp_path / 'evals').write_text('')
  kept = kept_lib.Kept(str(tmp_path), 4)
  kept['k'] += [{('teacher', 'logits'): LOGITS[0]}]
  with pytest.raises(ValueError, match=f'Cannot write {tmp_path}/evals/k-4') as error:
    kept.save('k')
  assert '\n' not in str(error.value)


def test_the_manifest_names_what_changed():
  before = {'made_by': {**answers.versions(), 'jax': '0.0.1'}}
  assert 'jax 0.0.1 is now' in answers.changed(before)
  assert 'changed under the same name' in answers.changed(
      {'made_by': answers.versions()})
  json.dumps(before)
