"""What a person watching a run asks: how far, how fast, how long, is it sane."""

import datetime
import math
import sys
import time

from absl import logging
import jax

from big_distill import metrics

HIGH = 100  # Times the first loss that are worth a warning.


class Progress:
  """Counts steps and the time they took; pauses (evaluation) do not count."""

  def __init__(self, start, total, batch_size, clock=time.monotonic,
               out=sys.stderr):
    self.total, self.batch_size = total, batch_size
    self._clock, self._out = clock, out
    self._step, self._since = start, clock()
    self._seconds = self._steps = 0
    self._first, self._said = None, False

  def reset(self, step):
    """Starts the clock anew at `step`: what came before is not training."""
    self._step, self._since = step, self._clock()

  def measure(self, step):
    """Rates since the last call or reset, and the ETA from all of the run.

    Nothing where no step was taken since: the first one, which compiles.
    """
    now = self._clock()
    steps, seconds = step - self._step, max(now - self._since, 1e-9)
    self._step, self._since = step, now
    if not steps:
      return {}
    self._steps += steps
    self._seconds += seconds
    rate = steps * self.batch_size / seconds
    return {metrics.RATE: rate,
            metrics.RATE_CORE: rate / jax.device_count(),
            metrics.ETA: (self.total - step) * self._seconds / self._steps}

  def show(self, step, row):
    """One line, rewritten in place where a terminal is watching.

    Once, a loss past HIGH times the first one is said.
    """
    loss = row.get(metrics.LOSS, math.nan)  # Without one, the step was skipped.
    self._first = loss if self._first is None else self._first
    if loss > HIGH * self._first > 0 and not self._said:
      self._said = True
      logging.warning('Step %d: the loss is %.4g, after %.4g at first. Is lr too '
                      'high?', step, loss, self._first)
    line = (f'step {step:>{len(str(self.total))}}/{self.total} '
            f'({step / self.total:4.0%})  loss {loss:.4f}  '
            f'lr {row[metrics.LR]:.2e}')
    if metrics.ETA in row:
      eta = datetime.timedelta(seconds=round(row[metrics.ETA]))
      line += f'  {row[metrics.RATE]:,.0f} img/s  ETA {eta}'
    if self._out.isatty():
      self._out.write('\r\x1b[K' + line + ('\n' if step == self.total else ''))
    else:
      self._out.write(line + '\n')
    self._out.flush()
