"""A log tells whether any image was lost, repeated or swapped."""

import functools

import numpy as np
import pytest
import replay_test

from big_distill import ledger
from big_distill import metrics
from big_distill import runs
from big_distill.input import pipeline
from big_distill.tools import verify


def checked(rows, folder='DIR', **changes):
  config = runs.plain(replay_test.config(**changes))
  return verify.verify(runs.Run(str(folder), config, [*rows], None), pipeline)


@pytest.fixture(scope='module')
def rows(tmp_path_factory):
  """Of a run that logs every second step, and was cut off and resumed."""
  folder, rows = tmp_path_factory.mktemp('run'), replay_test.Rows()
  changes = {'log_steps': 2}
  rows.until = 8  # Its last checkpoint is of step 6.
  with pytest.raises(KeyboardInterrupt):
    replay_test.run(folder, rows, **changes)
  rows.until = None
  replay_test.run(folder, rows, **changes)
  return rows


def test_an_honest_log_is_verified_over_a_resume(rows):
  text, right = checked(rows, log_steps=2)
  assert right and '13 of 13 steps' in text and '416 in all' in text


@pytest.mark.parametrize('changes', [{'seed': 1}, {'data.split': 'train[:63]'},
                                     {'answers.period_steps': 5}])
def test_another_order_is_found(rows, changes):
  text, right = checked(rows, **changes)
  assert not right and 'has seen other examples' in text


def logged(start, total, seed=0):
  """Rows of every second step, of a run that goes on at a step."""
  config = replay_test.config(seed=seed)
  source = pipeline.load(**config.data)
  indices = functools.partial(pipeline.indices, source, config.batch_size, seed,
                              period=config.answers.period_steps)
  book = ledger.Ledger(start, 2, total, indices)
  batches = ({'index': index} for index in indices(start, total))
  for step, _ in enumerate(book.watch(batches, range(start + 1, total + 1)),
                           start + 1):
    if step % 2 == 0 or step == total:
      yield {'step': step, **book.row(step)}


def test_a_run_that_was_made_longer_is_held_to_the_order_of_its_time(tmp_path):
  rows = [*logged(0, 3), *logged(3, 6), *logged(6, 8, seed=3)]
  assert [row['step'] for row in rows] == [2, 3, 4, 6, 8]
  text, right = checked(rows, tmp_path, seed=3)
  assert not right and 'Steps 1 to 2' in text
  runs.save(tmp_path / 'identity.json', {'changes': [
      {'step': 3, 'from_to': {'steps': [3, 6]}},
      {'step': 6, 'from_to': {'steps': [6, 8], 'seed': [0, 3]}}]})
  text, right = checked(rows, tmp_path, seed=3)
  assert right and '8 of 8 steps' in text and '256 in all' in text


def test_an_image_lost_or_repeated_or_swapped_is_found():
  order = [np.asarray([3, 1, 2]), np.asarray([0, 4, 5])]

  def seen(order):
    book = ledger.Ledger(0, 2, 2, None)
    assert len([*book.watch([{'index': x} for x in order], [1, 2])]) == 2
    return book.row(2)

  want = seen(order)
  assert want[metrics.SEEN_FROM] == 0
  for other in ([[3, 1, 1], [0, 4, 5]], [[3, 2, 1], [0, 4, 5]],
                [[3, 1, 2], [0, 4, 6]], [[0, 4, 5], [3, 1, 2]]):
    assert seen(np.asarray(other)) != want


def test_padding_of_a_call_is_not_counted():
  single, calls = (ledger.Ledger(0, 3, 3, None) for _ in range(2))
  steps = np.asarray([[3, 1], [0, 4], [2, 2]])
  assert [*single.watch([{'index': x} for x in steps], [1, 2, 3])]
  call = np.stack([*steps, steps[-1]], axis=1)
  assert [*calls.watch([{'index': call, 'count': np.full(2, 3)}], [3])]
  assert single.row(3) == calls.row(3)


def test_steps_between_a_row_and_a_checkpoint_are_said_not_to_be_covered(rows):
  later = [row for row in rows if row['step'] > 4]
  text, right = checked(later)
  assert right and 'Not covered' in text and '1 to 4' in text
  with pytest.raises(ValueError, match='no row that says what was seen'):
    checked([])


def test_a_resumed_run_logs_what_the_whole_run_logs():
  order = [np.asarray([step, step + 1]) for step in range(9)]

  def rows(start):
    book = ledger.Ledger(start, 4, 9, lambda first, last: order[first:last])
    batches = ({'index': index} for index in order[start:])
    for step, _ in enumerate(book.watch(batches, range(start + 1, 10)),
                             start + 1):
      if step in (4, 8, 9):
        yield step, book.row(step)

  whole = dict(rows(0))
  assert [*whole] == [4, 8, 9]
  for start in (3, 4, 6, 8):
    assert dict(rows(start)).items() <= whole.items()
