"""Hosts that train as one start together and leave together.

Each host that cannot go on tells the others why, through JAX's coordinator;
they say so and leave too, wherever they wait. A host that dies without a word
is missed after GONE seconds, and JAX then ends the others.
"""

import contextlib
import os
import socket
import threading
import time

from absl import logging
import jax
from jax._src import distributed

START = 300  # Seconds within which all hosts have to have joined.
GONE = 30  # Seconds without a sign of life after which a host counts as dead.
GRACE = 2  # Seconds that a host that leaves gives the others to hear of it.
_LEFT = 'big_distill/left'


def join(coordinator: str | None = None, processes: int | None = None,
         process: int | None = None) -> None:
  """Joins the other hosts: those named, or those that JAX detects.

  `coordinator` is HOST:PORT of process 0, and each host gets its number among
  so many `processes`. JAX detects TPU pods, SLURM and Open MPI by itself.
  """
  given = [coordinator, processes, process]
  if any(x is not None for x in given):
    if None in given or ':' not in coordinator:
      raise ValueError(
          '--coordinator=HOST:PORT, --processes=N and --process=K go together, '
          f'or not at all; given were {coordinator}, {processes}, {process}.')
    if not 0 <= process < processes:
      raise ValueError(f'--process={process}: processes are numbered from 0 to '
                       f'{processes - 1} (--processes={processes}).')
  try:
    jax.distributed.initialize(
        *given, initialization_timeout=START, heartbeat_timeout_seconds=GONE,
        cluster_detection_method='deactivate' if coordinator else None)
  except Exception as error:  # jaxlib raises its own kinds.
    raise ValueError(
        f'The hosts did not come together within {START} s: '
        f'{str(error).strip().splitlines()[0]} Start the same command on all, '
        'and where JAX does not detect them (it knows TPU pods, SLURM and Open '
        'MPI), say --coordinator=HOST:PORT --processes=N --process=K.'
    ) from error
  threading.Thread(target=_listen, daemon=True).start()


def tell(why: str) -> None:
  """Tells the other hosts that this one leaves, and why; for alone, nothing."""
  client = distributed.global_state.client
  if client is None:
    return
  me = f'{distributed.global_state.process_id} ({socket.gethostname()})'
  with contextlib.suppress(Exception):  # The coordinator may be gone.
    client.key_value_set(_LEFT, f'Host {me} left: {why}')
    time.sleep(GRACE)


def _listen():
  """Leaves when another host says that it did."""
  while (client := distributed.global_state.client) is not None:
    try:
      said = client.blocking_key_value_get(_LEFT, 60_000)
    except Exception:  # A minute without a word; or there is no coordinator.
      time.sleep(.1)
      continue
    if not said.startswith(f'Host {distributed.global_state.process_id} '):
      logging.error('%s This host leaves too.', said)
      logging.flush()
      os._exit(1)  # The main thread may wait for the other host, for ever.
    return
