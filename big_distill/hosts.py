"""Hosts that train as one start together and leave together.

A host that cannot go on tells the others why, through JAX's coordinator; they
say so and leave too, wherever they wait. A host that dies without a word is
missed after GONE seconds, and JAX then ends the others.
"""

from collections.abc import Iterator
import contextlib
import os
import socket
import sys
import threading
import time
import traceback

from absl import logging
import jax
from jax._src import distributed

START = 300  # Seconds within which all hosts have to join.
GONE = 30  # Seconds without a sign of life after which a host counts as dead.
GRACE = 3  # Seconds that the coordinator gives the others to hear of it.
_LEFT = 'big_distill/left'
_APART = ('The hosts did not come together. Start the same command on all of them '
          f'within {START} s; where JAX detects no TPU pod, SLURM or Open MPI, '
          'with --coordinator=HOST:PORT --processes=N --process=K.')


@contextlib.contextmanager
def joined(coordinator: str | None = None, processes: int | None = None,
           process: int | None = None) -> Iterator[None]:
  """Among the other hosts, inside a `with`: those named, or those JAX detects.

  `coordinator` is HOST:PORT of process 0; each of `processes` hosts has its
  number `process`. JAX by itself detects TPU pods, SLURM and Open MPI. What is
  raised inside ends this program with exit code 1, and all others.
  """
  _initialize(coordinator, processes, process)
  done = threading.Event()
  listener = threading.Thread(target=_listen, args=[done], daemon=True)
  listener.start()
  try:
    yield
  except BaseException as error:
    if isinstance(error, ValueError):
      print(f'Error: {error}', file=sys.stderr)
    else:
      traceback.print_exc()
    done.set()
    with contextlib.suppress(Exception):  # The coordinator may be gone.
      distributed.global_state.client.key_value_set(
          _LEFT, f'{_me()} left: {error}')
    _end()
  # A thread that waits inside JAX would abort Python's exit.
  done.set()
  listener.join()
  jax.distributed.shutdown()


def _initialize(coordinator, processes, process):
  given = [coordinator, processes, process]
  if any(x is not None for x in given):
    if None in given:
      raise ValueError(
          '--coordinator=HOST:PORT, --processes=N and --process=K go together: '
          f'given were {coordinator}, {processes} and {process}.')
    if ':' not in coordinator:
      raise ValueError(f'--coordinator={coordinator} has no port: write '
                       f'--coordinator={coordinator}:1234, a port that is free on '
                       'host 0.')
    if not 0 <= process < processes:
      raise ValueError(f'--process={process}: with --processes={processes} they '
                       f'are numbered from 0 to {processes - 1}.')
  def give_up():
    print(f'Error: {_APART}', file=sys.stderr, flush=True)
    os._exit(1)

  # What JAX does after its own, longer time is a stack trace and an abort.
  timer = threading.Timer(START, give_up)
  timer.start()
  try:
    jax.distributed.initialize(
        *given, initialization_timeout=START + 60,
        heartbeat_timeout_seconds=GONE,
        cluster_detection_method='deactivate' if coordinator else None)
  except Exception as error:  # jaxlib raises kinds of its own.
    line = str(error).strip().splitlines()[0]
    raise ValueError(f'{_APART} JAX says: {line}') from error
  finally:
    timer.cancel()


def _me():
  return (f'Host {distributed.global_state.process_id} '
          f'({socket.gethostname()})')


def _end():
  """Ends this program: the main thread may wait for another host, for ever."""
  sys.stderr.flush()
  if distributed.global_state.process_id == 0:
    time.sleep(GRACE)  # The others hear of it through this program.
  os._exit(1)


def _listen(done):
  """Leaves when another host says that it did."""
  client = distributed.global_state.client
  while not done.is_set():
    try:
      said = client.blocking_key_value_get(_LEFT, 1000)
    except Exception:  # A second without a word.
      time.sleep(.1)
      continue
    if not done.is_set():
      logging.error('%s This host leaves too.', said)
      _end()
