"""A step on more devices, each with as much to do: weak scaling, simulated.

  python -m bench.scaling --config=configs/quickstart.py --csv=bench/scaling.csv

Devices are simulated on the cores of this machine, in one process or in two
that speak over sockets. They share the cores, so images per second would stay
as they are with one device if sharing a batch cost nothing: what is missing is
the price of exchange, of waiting and of small operations. Pixels are random.
"""

import itertools
import json
import os
import socket
import statistics
import subprocess
import sys

from absl import flags
from absl import logging
import jax

from big_distill import command
from big_distill import costs
from big_distill import course as course_lib
from big_distill import parallel
from big_distill.tools import footprint
from big_distill.tools import noise
from big_distill.tools import stopwatch

LAYOUTS = ((1, 1), (1, 2), (1, 4), (2, 1))  # Processes, devices of each.
CLASSES = 12  # Of a config whose data says how many.


def time_step(config, per_device, calls, repeats):
  """Of this process: (median seconds of a step, bytes a device exchanges)."""
  course = course_lib.make(
      {**config, 'batch_size': per_device * jax.device_count(), 'evals': {}},
      noise.Noise(CLASSES))
  state = parallel.replicate(course.state)
  batch = parallel.split(next(course.feed.batches(0)))

  def step():
    nonlocal state
    (state, scalars), = course.steps.take({'': state}, batch, 0, 1).values()
    return scalars

  (_, seconds), = stopwatch.in_turn({'step': step}, calls, repeats).values()
  _, learn = footprint.arguments(course, next(course.feed.batches(0)))
  return seconds, costs.exchanged(
      course.steps.learners[''].program, *learn)


def run(layout):
  """As time_step, by as many processes as the layout says; of the first."""
  processes, devices = layout
  with socket.socket() as free:
    free.bind(('localhost', 0))
    address = f'localhost:{free.getsockname()[1]}'
  env = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': os.environ.get(
      'XLA_FLAGS', '') + f' --xla_force_host_platform_device_count={devices}'}
  workers = [subprocess.Popen(
      [sys.executable, '-m', 'bench.scaling', *sys.argv[1:], '--csv=',
       f'--worker={i}', f'--workers={processes}', f'--address={address}'],
      env=env, stdout=subprocess.PIPE, text=True) for i in range(processes)]
  said = [worker.communicate()[0] for worker in workers]
  if any(worker.returncode for worker in workers):
    sys.exit('Error: a worker failed; what it said is above.')
  return json.loads(said[0].splitlines()[-1])


def measure(per_device, rounds):
  """A row per layout; layouts take turns."""
  times = {layout: [] for layout in LAYOUTS}
  for _, layout in itertools.product(range(rounds), LAYOUTS):
    times[layout].append(run(layout))
  rows = []
  for (processes, devices), results in times.items():
    images = per_device * processes * devices
    rate = images / statistics.median(seconds for seconds, _ in results)
    rows.append({
        'processes': processes, 'devices_each': devices, 'batch': images,
        'ms': round(1e3 * images / rate, 2), 'images_per_s': round(rate, 1),
        'of_one_device': round(rate / (rows[0]['images_per_s'] if rows else rate),
                               3),
        'exchanged_bytes': results[0][1]})
  return rows


def main(flag):
  logging.set_verbosity(logging.WARNING)
  if flag.worker is not None:
    if flag.workers > 1:
      jax.distributed.initialize(flag.address, flag.workers, flag.worker)
    print(json.dumps(time_step({**flag.config}, flag.per_device, flag.steps,
                               flag.repeats)))
    return
  rows = measure(flag.per_device, flag.rounds)
  for row in rows:
    print(f'{row["processes"]} x {row["devices_each"]} devices'
          f'{row["images_per_s"]:9,.0f} images/s{row["of_one_device"]:7.0%}'
          f'{row["exchanged_bytes"] / 1e6:9.2f} MB exchanged')
  if flag.csv:
    stopwatch.save(flag.csv, rows, {'per_device': flag.per_device,
                                    **stopwatch.machine()})


def _define_flags():
  flags.DEFINE_string('config', None, 'A file of configs/.')
  flags.DEFINE_integer('per_device', 32, 'Images of a device.', 1)
  flags.DEFINE_integer('steps', 4, 'Steps in a row that are timed as one.', 1)
  flags.DEFINE_integer('repeats', 10, 'Times that a process takes them.', 1)
  flags.DEFINE_integer('rounds', 3, 'Times that processes are started.', 1)
  flags.DEFINE_string('csv', None, 'File to write the rows to.')
  flags.DEFINE_integer('worker', None, 'For the processes that it starts.')
  flags.DEFINE_integer('workers', 1, 'As above.')
  flags.DEFINE_string('address', None, 'As above.')
  flags.mark_flags_as_required(['config'])


if __name__ == '__main__':
  command.program(main, _define_flags)
