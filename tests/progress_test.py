"""Rates, ETA, and stopping at nonsense."""

import io

import pytest

from big_distill import progress


class Clock:
  now = 0.

  def __call__(self):
    return self.now


def test_rate_and_eta_leave_pauses_out():
  clock = Clock()
  pace = progress.Progress(0, 100, batch_size=8, clock=clock)
  clock.now = 50.  # Compilation.
  pace.reset(1)
  assert pace.measure(1) == {}
  clock.now += 10.
  row = pace.measure(11)
  assert row['time/img_per_sec'] == pytest.approx(8.)
  assert row['time/eta_sec'] == pytest.approx(89.)
  clock.now += 1000.  # Evaluation.
  pace.reset(11)
  clock.now += 10.
  assert pace.measure(31)['time/eta_sec'] == pytest.approx(69 * 20 / 30)


def test_line_says_how_far_how_fast_how_long():
  out = io.StringIO()
  pace = progress.Progress(0, 200, 8, clock=Clock(), out=out)
  pace.show(50, {'train/loss': .5, 'train/lr': .01, 'time/img_per_sec': 1234.,
                 'time/eta_sec': 65.})
  assert out.getvalue() == ('step  50/200 ( 25%)  loss 0.5000  lr 1.00e-02  '
                            '1,234 img/s  ETA 0:01:05\n')


def test_a_terminal_sees_one_line_rewritten():
  out = io.StringIO()
  out.isatty = lambda: True
  pace = progress.Progress(0, 2, 8, clock=Clock(), out=out)
  for step in (1, 2):
    pace.show(step, {'train/loss': 0., 'train/lr': 0.})
  assert out.getvalue().count('\r') == 2 and out.getvalue().count('\n') == 1


def test_a_loss_a_hundred_times_its_first_value_is_said_once(caplog):
  pace = progress.Progress(0, 9, 8, clock=Clock(), out=io.StringIO())
  for step, loss in enumerate([.5, 49., 51., 5000., .1], 1):
    pace.show(step, {'train/loss': loss, 'train/lr': .01})
  said, = caplog.messages
  assert said.startswith('Step 3: the loss is 51, after 0.5 at first.')


def test_a_skipped_step_has_a_line_too():
  out = io.StringIO()
  progress.Progress(0, 200, 8, clock=Clock(), out=out).show(
      50, {'train/lr': .01})
  assert 'loss nan' in out.getvalue()
