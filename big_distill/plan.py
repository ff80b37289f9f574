"""The numbers of a run: steps, batches, and what is due when.

A Plan follows from a config, the number of examples and the number of devices
alone. It reads no data and makes no arrays, so that it costs nothing to ask.
"""

from collections.abc import Mapping, Sequence
import inspect
from typing import Any, NamedTuple

from absl import logging

from big_distill import bounds
from big_distill import parallel
from big_distill import registry
from big_distill import steps
from big_distill import views
from big_distill.durations import Durations

SECTION = Mapping[str, Any]
REQUIRED = inspect.Parameter.empty
# Everything a config can say; the rest is a misspelling: types and defaults.
KEYS: dict[str, tuple[Any, Any]] = {
    'seed': (int, 0), 'data': (SECTION, REQUIRED), 'crops': (SECTION, {}),
    'mode': (str | SECTION, REQUIRED), 'mixup': (SECTION, {}),
    'batch_size': (int, REQUIRED),
    'total_steps': (int, None), 'total_examples': (int, None),
    'total_epochs': (float, None), 'log_steps': (int, None),
    'log_examples': (int, None), 'log_epochs': (float, None),
    'log_percent': (float, None),
    'student': (SECTION, REQUIRED), 'teachers': (SECTION, REQUIRED),
    'combine': (str, 'logits'), 'loss': (SECTION, {}),
    'optim': (SECTION, REQUIRED), 'evals': (SECTION, {}),
    'checkpoints': (SECTION, {}), 'layout': (str, 'big_vision'),
    'steps_per_call': (int, 1), 'accumulate': (int, 1), 'answers': (SECTION, {}),
    'students': (SECTION, {}), 'on_nonfinite': (str, 'stop'),
    'notes': (Sequence[str], ())}
NEEDED = [key for key, (_, default) in KEYS.items() if default is REQUIRED]
OWN = ('student', 'loss', 'optim', 'evals', 'checkpoints', 'layout')
SECTIONS = [key for key, (kind, _) in KEYS.items() if kind is SECTION]
NAMED = ('teachers', 'evals')  # Sections of sections, one for each name.
TAKEN = ('train', 'time', 'answers')  # What metrics of training begin with.

MOST = 1 << 20  # Examples of a batch: what is larger is a slip of the hand.

# Most steps in a row that are left out because they are not finite.
SKIPS = {'stop': 1, 'skip': 10}


class Plan(NamedTuple):
  """A run in numbers. Durations are in steps; 0 is never."""
  seed: int
  num_examples: int
  batch_size: int
  group: int  # Examples of a mixup group, 1 without mixup.
  accumulate: int  # Parts of a device's batch.
  skips: int  # Steps in a row that end the run if they are not finite.
  per_call: int  # Most steps of one call.
  total: int
  warmup: int
  log_every: int
  save_every: int
  exams: dict[str, int]  # How often each evaluation is due.
  period: int  # After so many steps batches repeat; 0: they never do.

  @property
  def periods(self) -> list[int]:
    """How often anything is due after a step."""
    return [self.log_every, self.save_every, *self.exams.values()]

  @property
  def stream(self) -> int:
    """How many different batches the run has."""
    return min(self.period or self.total, self.total)

  @property
  def epochs(self) -> float:
    """How often the run sees each example."""
    return self.total * self.batch_size / self.num_examples


def make(config: Mapping[str, Any], num_examples: int,
         devices: int | None = None, hosts: int | None = None) -> Plan:
  """The Plan of a config for so many examples; by default on all devices.

  Raises ValueError where a key is misspelt, a duration is missing or given
  twice, or the batch does not divide over the devices.
  """
  check_keys(config)
  batch_size, accumulate = config['batch_size'], config.get('accumulate', 1)
  group = group_of(config)
  on_nonfinite = config.get('on_nonfinite', 'stop')
  registry.check('on_nonfinite', on_nonfinite, SKIPS)
  for key, value in {'batch_size': batch_size, 'accumulate': accumulate,
                     'seed': config.get('seed', 0),
                     'steps_per_call': config.get('steps_per_call', 1),
                     }.items():
    bounds.check(key, value, whole=True)
  bounds.check('batch_size', batch_size, least=1, most=MOST)
  bounds.check('mixup.group', group, least=1, whole=True)
  bounds.check('mixup.alpha', config.get('mixup', {}).get('alpha', 1.), above=0)
  parallel.check_batch(batch_size, group, accumulate,
                       devices or parallel.device_count(),
                       hosts or parallel.host_count())
  per_call, resident = config.get('steps_per_call', 1), is_resident(config)
  if per_call < 1 or per_call > 1 and not resident:
    raise ValueError(f'steps_per_call={per_call}: a call takes one step, or '
                     'several with data.resident=True.')

  total = Durations(batch_size, num_examples).of(config, 'total')
  if not total:
    raise ValueError('The run has 0 steps: set total_steps, total_examples or '
                     'total_epochs to more than 0.')
  durations = Durations(batch_size, num_examples, total)
  warmup = durations.of(config['optim'], 'warmup', default=0)
  if warmup > total // 10:
    logging.warning('Warmup is shortened from %d to %d steps, a tenth of this '
                    'run.', warmup, total // 10)
    warmup = total // 10
  return Plan(
      seed=config.get('seed', 0), num_examples=num_examples,
      batch_size=batch_size, group=group, accumulate=accumulate,
      skips=SKIPS[on_nonfinite],
      per_call=per_call, total=total, warmup=warmup,
      log_every=durations.of(config, 'log', default=max(total // 100, 1)),
      save_every=durations.of(config.get('checkpoints', {}), 'every',
                              default=0),
      exams={name: durations.of(section, 'every', default=0)
             for name, section in config.get('evals', {}).items()},
      period=durations.of(config.get('answers', {}), 'period', default=0))


def check_keys(config: Mapping[str, Any]) -> None:
  """Raises ValueError for a key that means nothing or is missing.

  The same for a value where a section should be.
  """
  for key in config:
    registry.check('config key', key, KEYS)
  for key in NEEDED:
    if key not in config:
      raise ValueError(f'The config has no {key}: set config.{key}, see '
                       'configs/quickstart.py.')
  for key in SECTIONS:
    check_section(key, config.get(key, {}))
  views.mode(config['mode'])
  for key in NAMED:
    for name, section in config.get(key, {}).items():
      check_section(f'{key}.{name}', section)
  if 'lr' not in config['optim']:
    raise ValueError('The config has no optim.lr: set config.optim.lr, such as '
                     '0.003.')
  for name, section in config.get('evals', {}).items():
    if name in TAKEN:
      raise ValueError(f'An evaluation cannot be called {name!r}: its metrics '
                       f'could not be told from those of training. Choose '
                       'another name.')
    if 'type' not in section:
      raise ValueError(f'The evaluation {name!r} does not say what it is: set '
                       f"config.evals.{name}.type='classification', or another "
                       'of big_distill/evaluators.')
    for key in ('data', 'train'):
      check_section(f'evals.{name}.{key}', section.get(key) or {})


def check_section(key: str, value: Any) -> None:
  """Raises ValueError where a section of a config is a value."""
  if not hasattr(value, 'items'):
    raise ValueError(f'config.{key}={value!r} should be a section, such as '
                     'dict(name=...): see configs/quickstart.py.')


def is_resident(config: Mapping[str, Any]) -> bool:
  """Whether devices are to hold the images of a config."""
  return bool(config['data'].get('resident', False))


def group_of(config: Mapping[str, Any]) -> int:
  """How many neighbours a config mixes among; 1 where nothing is mixed."""
  if not views.mode(config['mode']).mixup:
    return 1
  group = inspect.signature(steps.mixup).parameters['group'].default
  return config.get('mixup', {}).get('group', group)
