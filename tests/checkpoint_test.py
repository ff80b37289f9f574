"""Checkpoints keep what was learned, and say what does not fit."""

import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from big_distill import checkpoint
from big_distill import optim
from big_distill import parallel
from big_distill import steps


def state_at(step, width=3):
  tx, _ = optim.make(10, lr=.1, wd=.1, mu_dtype='bfloat16')
  params = {'head': {'kernel': jnp.full([2, width], step + .1),
                     'bias': jnp.zeros([width])}}
  return steps.init_state(params, tx).replace(step=jnp.int32(step))


def save(folder, at, **kwargs):
  checkpoints = checkpoint.Checkpoints(str(folder), **kwargs)
  for step in at:
    checkpoints.save(parallel.replicate(state_at(step)), step)
  checkpoints.close()


def test_what_is_restored_is_bitwise_what_was_saved(tmp_path):
  save(tmp_path, [4])
  got, resumed = checkpoint.Checkpoints(str(tmp_path)).restore_or(state_at(0))
  want = state_at(4)
  assert resumed and int(got.step) == 4
  assert jax.tree.structure(got) == jax.tree.structure(want)
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want)):
    assert a.dtype == b.dtype and (np.asarray(a) == np.asarray(b)).all()


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


def test_sigterm_is_noticed_and_not_fatal():
  before = signal.getsignal(signal.SIGTERM)
  try:
    preemption = checkpoint.Preemption()
    assert not preemption.reached()
    os.kill(os.getpid(), signal.SIGTERM)
    assert preemption.reached()
  finally:
    signal.signal(signal.SIGTERM, before)
