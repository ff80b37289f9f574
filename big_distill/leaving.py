"""Leaving when told to: by SIGTERM of a scheduler, by Ctrl-C of a person.

Before the first step there is nothing to save, so the program ends at once,
even in the middle of a compilation. After it, the loop asks `reached`, saves a
checkpoint and returns. A second Ctrl-C ends the program at once.
"""

import os
import shlex
import signal
import sys
import threading

from absl import logging
from jax.experimental import multihost_utils

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stay:
  """Never leaves: for callers that handle signals themselves, as notebooks."""

  def begin(self) -> None:
    pass

  def reached(self) -> bool:
    return False


class Preemption:
  """Learns of signals inside a `with`; all hosts leave at one step.

  `alone` says that no other host takes part. `release`, a list of functions
  without arguments, is called before the program ends at once.
  """

  def __init__(self, alone: bool = True) -> None:
    self.release = []
    self._alone, self._begun, self._asked, self._calls = alone, False, 0, 0

  def __enter__(self):
    # Among hosts JAX itself handles SIGTERM: it tells them all.
    handled = SIGNALS if self._alone else [signal.SIGINT]
    self._before = {number: signal.signal(number, lambda *_: None)
                    for number in handled}
    # Python runs its handlers when the main thread comes back from XLA, which
    # may compile for minutes; this pipe is written to at once.
    reading, self._writing = os.pipe()
    os.set_blocking(self._writing, False)
    signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
    threading.Thread(target=self._listen, args=[reading], daemon=True).start()
    return self

  def __exit__(self, *error):
    signal.set_wakeup_fd(-1)
    for number, handler in self._before.items():
      signal.signal(number, handler)
    os.close(self._writing)

  def begin(self) -> None:
    """Says that the first step is taken: from now on there is work to save."""
    self._begun = True

  def reached(self) -> bool:
    """Whether to leave now; asked equally often on all hosts."""
    if self._alone:
      return self._asked > 0
    # The sync point needs 1, 2, 3, ...; steps jump where a call takes several.
    self._calls += 1
    return multihost_utils.reached_preemption_sync_point(self._calls)

  def _listen(self, reading):
    while byte := os.read(reading, 1):
      number = signal.Signals(byte[0])
      if number in self._before:
        self._hear(number)
    os.close(reading)

  def _hear(self, number):
    self._asked += 1
    if self._alone and not self._begun:
      self._end(0, f'{number.name} before the first step: there is nothing to '
                   'save.')
    elif number == signal.SIGINT and self._asked > 1:
      self._end(130, 'Left at once, without saving.')
    elif number == signal.SIGINT:
      logging.info('Ctrl-C: leaves after this step, with a checkpoint. Once '
                   'more leaves at once.')
      if not self._alone:
        os.kill(os.getpid(), signal.SIGTERM)

  def _end(self, code, why):
    for function in self.release:
      function()
    logging.info('%s %s', why, go_on())
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # The main thread may be compiling, and would not hear.


def go_on() -> str:
  """What to type to go on, as a sentence."""
  spec = sys.modules['__main__'].__spec__
  program = ['-m', spec.name] if spec else sys.argv[:1]
  return ('To go on, the same command resumes: '
          f'python {shlex.join(program + sys.argv[1:])}')
