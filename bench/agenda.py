"""The stages of the study's second and third part, as data.

docs/reproduction.md says what they are for.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from configs import common
from configs import study as config

TUNING_SEED, SEEDS = 0, (1, 2, 3)
RATES = (.001, .003, .01)
LOW = (.0003, .001, .003)  # For arms that took the lowest of three before.
MOBILE = dict(family='mobilenet_v3', variant='small', width=.5)
STUDENTS = {  # Arguments of pretrained.build, and pixels a side.
    'bit': (config.STUDENT, 48),
    'bit32': (config.STUDENT, 32),
    'thin32': (config.THIN, 32),
    'mobile_gn': (dict(MOBILE, norm='gn'), 48),
    'mobile_bn': (dict(MOBILE, norm='bn'), 48),
}
HELD = {  # Of each pack, the split that the device holds.
    'caltech': 'train[:2048]',
    'dtd': 'train',
    'cifar': 'train[:10240]',
    'large': 'train[:1024]',
}
STREAMS = {  # Pack, and the beginning of HELD that the stream draws from.
    'caltech': ('caltech', 'train[:1024]'),
    'whole': ('caltech', 'train[:2048]'),
    'dtd': ('dtd', 'train'),
    'cifar': ('cifar', 'train[:1024]'),
    'many': ('cifar', 'train[:10240]'),
    'large': ('large', 'train[:1024]'),
}
SIZES = dict(lite0=128, lite1=128, large128=128, large160=160,
             lite0_cifar=64)  # Of teachers.
LABELS, BOTH = 'labels', 'both'  # What teaches in a teacher's place.


class Source(NamedTuple):
  """Answers to a stream: who gives them, whether to mixed images, and what the
  teacher sees of a photograph: a region as views.View has it.
  """
  stream: str = 'caltech'
  teacher: str = 'lite0'
  mixed: bool = True
  shown: str = 'inception#both'


FUNMATCH, SAME = Source(), Source(mixed=False)
CIFAR = Source('cifar', 'lite0_cifar')
FIXED, INDEPENDENT = (CIFAR._replace(mixed=False, shown=shown)
                      for shown in ('central', 'inception#teacher'))
OTHERS = {kind: Source(kind, 'lite0_cifar') for kind in ('caltech', 'dtd')}


class Arm(NamedTuple):
  """What students learn from; all students of a column differ in no more."""
  name: str
  source: Source = FUNMATCH
  period: int = 0  # After so many epochs batches repeat; 0: never.
  like: str = 'funmatch'  # The arm whose tuned rate it takes,
  rates: tuple[float, ...] = ()  # unless it says its own.
  begun: bool = False  # By labels, of the stage 'start'.


class Stage(NamedTuple):
  """Arms at one length: each with three seeds, its rates, or the whole grid."""
  school: str
  epochs: int
  arms: tuple[Arm, ...]
  points: str = 'seeds'
  student: str = 'bit'
  optimizer: str = 'adam'
  cooldowns: tuple[int, ...] = ()  # Lengths that leave one constant rate.
  pauses: bool = False  # What does not end in time goes on another time.

  @property
  def name(self) -> str:
    kind = dict(seeds='run', rates='rates', grid='tune')[self.points]
    return f'{self.school}_{kind}_{self.epochs}'

  @property
  def columns(self) -> int:
    """Students of an arm."""
    return len(list(points())) if self.points == 'grid' else 3


def points() -> Iterator[tuple[float, float, float]]:
  """Rate, decay and temperature over the paper's grid."""
  return (tuple(point.values()) for point in common.sweep())


class Twin(NamedTuple):
  """What a data set is studied with.

  pack: of which students are examined, by splits of configs/study.py. teacher:
  whom they are compared with. room: of students of so many pixels a side, how
  many epochs of answers are kept.
  """
  pack: str
  teacher: str
  plan: tuple[Stage, ...]
  room: dict[int, dict[Source, int]]


def _by_rate(name, source=FUNMATCH):
  return tuple(Arm(f'{name} {rate:g}', source, rates=(rate,))
               for rate in RATES)


def _optimizers(names, epochs, **kwargs):
  return tuple(Stage(name, epochs, _by_rate(name, **kwargs), optimizer=name)
               for name in names)


PATIENT = (Arm('same/ic', SAME, like='same/ic', rates=RATES),
           Arm('funmatch', rates=LOW),
           Arm('labels, mixed up', Source(teacher=LABELS),
               like='labels, mixed up', rates=LOW))
_TUNED = tuple(arm._replace(rates=()) for arm in PATIENT)
_MODES = tuple(Arm(name, source, like=name, rates=RATES) for name, source in (
    ('fixed', FIXED), ('independent', INDEPENDENT),
    ('same/ic', CIFAR._replace(mixed=False)), ('funmatch', CIFAR),
    ('labels, mixed up', CIFAR._replace(teacher=LABELS))))
PERIODS = (1, 3, 10, 30, 100)
_STREAM = tuple(Arm(f'{k} epochs', period=k) for k in PERIODS) + (Arm('fresh'),)
_TEACHERS = tuple(Arm(who, Source(teacher=who))
                  for who in ('lite0', 'lite1', BOTH))
_KINDS = tuple(Arm(who, Source(who)) for who in ('caltech', 'dtd', 'cifar'))
_MANY = (Arm('caltech'), Arm('cifar', Source('cifar')),
         Arm('cifar, 10240', Source('many')))
_LARGE = (Arm('packed at 128'), *(
    Arm(f'{who} px', Source('large', f'large{who}')) for who in (128, 160)))
_BEGUN = (Arm('random'), Arm('begun', begun=True),
          Arm('begun, same/ic', SAME, like='same/ic', begun=True))

_CALTECH = (  # In order of worth; docs/reproduction.md says what of it was run.
    *(Stage('patient', epochs, PATIENT, 'rates') for epochs in (30, 100, 300)),
    Stage('stream', 1000, _STREAM),
    *(Stage('patient', epochs, _TUNED) for epochs in (30, 100, 300, 1000)),
    *_optimizers(('adam', 'muon'), 300),
    Stage('stream', 300, _STREAM),
    Stage('kinds', 300, _KINDS),
    Stage('teachers', 300, _TEACHERS),
    Stage('start', 200, _by_rate('start', Source('whole', LABELS))),
    *(Stage('begun', epochs, _BEGUN) for epochs in (30, 300)),
    Stage('small', 300, (Arm('funmatch'),), student='bit32'),
    Stage('cooled', 300, _TUNED, cooldowns=(30, 100, 300)),
    Stage('grid', 100, (Arm('funmatch'),), 'grid'),
    Stage('long', 3000, _TUNED[1:]),
    Stage('long', 10_000, (Arm('funmatch', period=3000),), pauses=True),
    Stage('many', 300, _MANY),
    *(Stage(name, 300, _by_rate(name), student=name)
      for name in ('mobile_gn', 'mobile_bn')),
    Stage('large', 300, _LARGE),
    *_optimizers(('shampoo', 'soap'), 300),
    Stage('many', 1000, _MANY[2:]),
    Stage('begun', 1000, _BEGUN),
    Stage('long_same', 3000, _TUNED[:1]),
)
_CIFAR = tuple(stage._replace(student='thin32') for stage in (
    *(Stage('modes', epochs, _MODES, 'rates') for epochs in (30, 100)),
    *(Stage('modes', epochs, tuple(arm._replace(rates=()) for arm in _MODES))
      for epochs in (30, 300, 100)),
    Stage('kinds', 100, tuple(Arm(kind, source)
                              for kind, source in OTHERS.items())),
    *_optimizers(('adam', 'shampoo', 'muon', 'soap'), 100, source=CIFAR),
))
TWINS = {
    'caltech101': Twin('caltech', 'lite0', _CALTECH, {
        48: {
            FUNMATCH: 3000,
            SAME: 3000,
            Source(teacher=LABELS): 3000,
            Source(teacher='lite1'): 300,
            Source(teacher=BOTH): 300,
            Source('whole', LABELS): 200,
            Source('dtd'): 300,
            Source('cifar'): 300,
            Source('many'): 1000,
            Source('large', 'large128'): 300,
            Source('large', 'large160'): 300,
        },
        32: {FUNMATCH: 300},
    }),
    'cifar10': Twin('cifar', 'lite0_cifar', _CIFAR, {
        32: {**{arm.source: 300 for arm in _MODES},
             **dict.fromkeys(OTHERS.values(), 100)}}),
}


def rate(rows: Sequence[dict], arm: str, epochs: int) -> float:
  """The tuned rate of an arm: of the longest tuning that is not longer.

  The best by accuracy on val. Raises ValueError where there is none yet.
  """
  tuned = [row for row in rows if row['arm'] == arm and row['at'] == row[
      'epochs'] <= max(epochs, 30) and '_rates_' in row['stage']]
  if not tuned:
    raise ValueError(f'The rates of {arm!r} are not tuned yet: run the stages '
                     '*_rates_* first.')
  length = max(row['epochs'] for row in tuned)
  return max((row for row in tuned if row['epochs'] == length),
             key=lambda row: row['val_top1'])['lr']


def hypers(stage: Stage, rows: Sequence[dict]
           ) -> tuple[list[int], np.ndarray, np.ndarray, np.ndarray]:
  """(Seeds [s]; rates, decays and temperatures [a, s]) of a stage."""
  seeds = [TUNING_SEED] * stage.columns
  shape = len(stage.arms), stage.columns
  wd, t = np.full(shape, config.DECAY), np.ones(shape)
  if stage.points == 'grid':
    lr, wd, t = (np.tile(each, (len(stage.arms), 1)) for each in zip(*points()))
  elif stage.points == 'rates':
    lr = np.asarray([arm.rates for arm in stage.arms])
  else:
    seeds = list(SEEDS)
    lr = np.tile([[*arm.rates] or [rate(rows, arm.like, stage.epochs)]
                  for arm in stage.arms], stage.columns)
  return seeds, lr, wd, t
