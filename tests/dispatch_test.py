"""Calls of several steps are those steps, and end where something is due."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
import replay_test

from big_distill import feed
from big_distill import parallel
from big_distill import train
from big_distill.durations import due
from big_distill.input import pipeline
from configs import quickstart


@pytest.mark.parametrize('start', [0, 3, 16])
@pytest.mark.parametrize('most', [1, 4, 100])
def test_a_call_passes_no_due_step_and_is_no_shorter_than_it_must(start, most):
  total, periods = 23, [5, 0, 8]
  ends = [start, *feed.call_ends(start, total, most, periods)]
  assert ends[-1] == total
  for a, b in itertools.pairwise(ends):
    is_due = [any(due(step, every, total) for every in periods)
              for step in range(a + 1, b + 1)]
    assert not any(is_due[:-1]) and (is_due[-1] or b - a == most)


def test_a_call_takes_its_steps_in_order_and_no_others():
  """The state spells out what it saw."""
  def step(state, teachers, batch, ten):
    seen = parallel.total(batch['index'].sum())
    return state * ten + seen, {'seen': seen, 'before': state}

  step = parallel.pmap(feed.repeat(step))
  batches = ({'index': np.asarray([i, 0, 0, 0], np.int32)} for i in range(1, 8))
  state, ten = (parallel.replicate(x) for x in (jnp.float32(0), np.float32(10)))
  want = [(123, 3, 12), (1234, 4, 123), (1234567, 7, 123456)]
  for call, (after, seen, before) in zip(
      feed.group(batches, 0, [3, 4, 7], 3), want):
    assert call['index'].shape == (4, 3)
    state, scalars = step(state, (), parallel.split(call), ten)
    assert parallel.first(state) == after
    assert parallel.first(scalars) == {'seen': seen, 'before': before}


def run(folder, rows, **changes):
  """Nine steps: a log after every 4, a checkpoint after 3, an exam after 6."""
  config = quickstart.get_config('tiny=True')
  with config.unlocked():
    config.update(total_steps=9, log_steps=4, checkpoints=dict(every_steps=3))
    del config.log_percent
    # What compiles fastest.
    config.teachers, config.student.depth = dict(labels=dict(labels=True)), (1,)
    config.evals = dict(student=dict(type='classification', every_steps=6))
    config.update_from_flattened_dict(changes)
  train.train(config, str(folder), pipeline, rows)
  with np.load(folder / 'student.npz') as file:
    return {name: file[name] for name in file.files}


RESIDENT = {'data.resident': True, 'steps_per_call': 4}


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  rows = replay_test.Rows()
  return run(tmp_path_factory.mktemp('whole'), rows, **RESIDENT), rows


def test_everything_comes_at_its_step(whole):
  rows = whole[1]
  assert [row['step'] for row in rows if 'train/loss' in row] == [4, 8, 9]
  assert [row['step'] for row in rows if 'student/acc@1' in row] == [0, 6, 9]


def test_a_run_cut_off_and_resumed_is_bitwise_the_whole_run(whole, tmp_path):
  rows = replay_test.Rows()
  rows.until = 8
  with pytest.raises(KeyboardInterrupt):
    run(tmp_path, rows, **RESIDENT)
  rows.until = None
  weights = run(tmp_path, rows, **RESIDENT)
  assert rows == whole[1]
  for name, want in whole[0].items():
    assert (weights[name] == want).all(), name


@pytest.mark.parametrize('resident', [False, True])
def test_images_of_the_host_and_single_steps_teach_the_same(
    resident, whole, tmp_path):
  rows = replay_test.Rows()
  run(tmp_path, rows, **{'data.resident': resident})
  losses, want = ([(row['step'], row['train/loss']) for row in log
                   if 'train/loss' in row] for log in (rows, whole[1]))
  # Some values of pixels differ by one of 255, sums are in another order.
  np.testing.assert_allclose(losses, want, rtol=1e-5 if resident else .01)
