"""The campaign of tools/torture in small, and that it would notice."""

import collections
import random

import numpy as np
import pytest

from big_distill import npz_files
from big_distill.tools import mutants
from big_distill.tools import torture


@pytest.mark.parametrize('seed', range(2))
def test_damaged_files_are_refused_in_a_line_or_read_as_they_were(
    tmp_path, seed):
  tally = torture.trials('inputs', '', mutants.inputs(
      tmp_path, 250, random.Random(seed)))
  assert tally.good == tally.all == 250


def test_flipped_bits_of_checkpoints_restore_no_other_numbers(tmp_path):
  tally = torture.trials('flips', '', mutants.checkpoints(
      tmp_path, 12, random.Random(0)))
  assert tally.good == tally.all == 12


def test_no_bit_of_an_npz_flips_unseen(tmp_path):
  """All of them: one in the list of members hid those after it."""
  kind, outcomes = mutants.FORMATS[0], collections.Counter()
  kind.make(tmp_path)
  want, path = kind.read(tmp_path), tmp_path / 'x.npz'
  content = path.read_bytes()
  for bit in range(8 * len(content)):
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    path.write_bytes(changed)
    good, what = mutants._try(kind, tmp_path, want, str(bit))
    assert good, what
    outcomes[': ' in what] += 1
  assert outcomes[True] > 4 * len(content)


def test_an_npz_of_nothing_is_refused(tmp_path):
  np.savez(tmp_path / 'x.npz')
  with pytest.raises(ValueError, match='there is no array in it'):
    npz_files.load(tmp_path / 'x.npz')


@pytest.mark.parametrize('wrong', [
    lambda folder: [1, 2, 4], lambda folder: {}['x'],
    lambda folder: (_ for _ in ()).throw(ValueError('two\nlines'))])
def test_silence_tracebacks_and_long_messages_count_as_wrong(
    tmp_path, wrong, capsys):
  kind = mutants.Format('x', lambda folder: None, wrong)
  tally = torture.trials('inputs', 'right', iter([
      mutants._try(kind, tmp_path, [1, 2, 3], 'x.bin, flip')]))
  assert (tally.good, tally.all) == (0, 1)
  assert 'WRONG, inputs: x.bin, flip: ' in capsys.readouterr().out
  assert str(tally) == 'inputs   0 of 1 right'
