"""How fast a config trains, its images coming from the host or held by devices.

  python -m big_distill.tools.feed --config=configs/quickstart.py

Trains as `train` does, input and the copy to the devices included, but without
evaluations and checkpoints: with views from the host, with data.resident=True,
and with that and several steps per call. The ways take turns, so that what else
the machine does falls on all alike; each is given as its median round.
"""

import functools

from absl import flags
from absl import logging
import jax

from big_distill import command
from big_distill import course as course_lib
from big_distill import parallel
from big_distill.tools import noise
from big_distill.tools import stopwatch

COUNTED = ('total', 'log')  # Durations of a config that a bench replaces.


def variant(config, resident, per_call):
  """The config, fed so, without an end and without interruptions."""
  config = {key: value for key, value in config.items()
            if key.split('_')[0] not in COUNTED}
  return {**config, 'total_steps': 10**6, 'evals': {}, 'checkpoints': {},
          'data': {**config['data'], 'resident': resident},
          'steps_per_call': per_call}


def trainer(course):
  """-> train(steps): takes that many steps, whole calls, and waits for them."""
  state = parallel.replicate(course.state)
  calls = zip(course.feed.ends(0), parallel.prefetch(course.feed.batches(0)))
  end = 0

  def train(steps):
    nonlocal state, end
    until = end + steps
    with jax.transfer_guard('disallow'):
      while end < until:
        start = end
        end, batch = next(calls)
        (state, scalars), = course.steps.take(
            {'': state}, batch, start, end).values()
    jax.block_until_ready(scalars)

  return train


def measure(config, data, per_call=8, steps=16, repeats=5):
  """{(resident, steps per call): median images per second}."""
  ways = [(False, 1), (True, 1), (True, per_call)]
  trainers = {way: functools.partial(
      trainer(course_lib.make(variant(config, *way), data)), steps)
              for way in ways}
  return {way: steps * config['batch_size'] / seconds for way, (_, seconds)
          in stopwatch.in_turn(trainers, repeats=repeats).items()}


def _data():
  """The pipeline of training or, where TensorFlow is not, random images."""
  try:
    return command.pipeline()
  except ImportError:
    print('No TensorFlow here: the images are random, and cost the host nothing.')
    return noise.Noise(1000)


def main(flag):
  logging.set_verbosity(logging.WARNING)
  steps = -(-flag.steps // flag.per_call) * flag.per_call
  rates = measure({**flag.config}, _data(), flag.per_call, steps, flag.repeats)
  print(f'{jax.device_count()} x {jax.devices()[0].device_kind}, batch '
        f'{flag.config.batch_size}, median of {flag.repeats} rounds of {steps} '
        'steps')
  for (resident, count), rate in rates.items():
    print(f'{"resident" if resident else "host":10}{count:3} steps per call'
          f'{rate:12,.0f} images/s')


def _define_flags():
  flags.DEFINE_string('config', None, 'A file of configs/.')
  flags.DEFINE_integer('per_call', 8, 'Steps per call.', 1)
  flags.DEFINE_integer('steps', 16, 'Steps per round, rounded up to calls.', 1)
  flags.DEFINE_integer('repeats', 5, 'Rounds.', 1)
  flags.mark_flags_as_required(['config'])


if __name__ == '__main__':
  command.program(main, _define_flags)
