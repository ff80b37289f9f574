"""What the study's later parts show: their inequalities, judged.

  python -m bench.verdicts --study=DIR [--twin=cifar10] [--markdown] [--figure=STEM]

DIR is that of bench/further.py, of the same twin. An inequality is a sum of
sides, each the mean over its arms and seeds times a factor, that must be above
zero on the same test images; verdicts are those of bench/claims.py. `allowed` is
what a side may lose. Where an arm has three rates, the best by accuracy on val is
taken.
"""

from collections.abc import Iterator
import itertools
from typing import Any, NamedTuple

from absl import flags
from absl import logging
import numpy as np

from bench import agenda
from bench import claims
from big_distill import command

PATIENT = 300  # Epochs of CIFAR-10's longest runs.


class Sum(NamedTuple):
  """Sides times factors, and what is allowed, that must be above zero."""
  number: int
  words: str
  metric: str
  sides: tuple[tuple[float, claims.Side], ...]
  allowed: float = 0.


def _above(number, words, metric, high, low, allowed=0.):
  return Sum(number, words, metric, ((1., high), (-1., low)), allowed)


def best(study: claims.Study, school: str, epochs: int) -> claims.Side:
  """The arm of a school with the best mean accuracy on val."""
  found: dict[str, list[float]] = {}
  for row in study.rows:
    if (row['stage'] == f'{school}_run_{epochs}'
        and row['at'] == row['epochs'] == epochs):
      found.setdefault(row['arm'], []).append(row['val_top1'])
  arm = max(found, key=lambda arm: np.mean(found[arm]), default='')
  return claims.Side((arm,), epochs, school)


def sums(study: claims.Study) -> Iterator[Sum]:
  """Those of Caltech-101, in the order of docs/reproduction.md."""
  def side(school, arm, epochs):
    return claims.Side((arm,), epochs, school)

  for epochs, k in itertools.product((300, 1000), agenda.PERIODS):
    fresh = side('stream', 'fresh', epochs)
    again = side('stream', f'{k} epochs', epochs)
    if k < 30:
      yield _above(12, f'{epochs} epochs: fresh views above {k} epochs of them', 'top1', fresh,
                   again)
    else:
      yield _above(12, f'{epochs} epochs: {k} of views lose less than a point', 'top1',
                   again, fresh, .01)
    yield _above(12, f'{epochs} epochs: KL from {k} of views above that from fresh',
                 'kl', again, fresh)
  lengths = (30, 100, 300, 1000, 3000, 10_000)
  funmatch, same, labels = ({epochs: side('patient', arm, epochs)
                             for epochs in lengths} for arm in (
                                 'funmatch', 'same/ic', 'labels, mixed up'))
  for epochs in lengths[-2:]:
    funmatch[epochs] = side('long', 'funmatch', epochs)
  labels[3000] = side('long', 'labels, mixed up', 3000)
  same[3000] = side('long_same', 'same/ic', 3000)
  yield from _rises(funmatch)
  # Looked at since 3,000 were not run.
  yield _above(3, 'funmatch, 10000 epochs above 1000', 'top1',
               funmatch[10_000], funmatch[1000])
  for epochs in (1000, 3000):
    yield _above(3, f'funmatch above labels mixed up, {epochs} epochs', 'top1',
                 funmatch[epochs], labels[epochs])
  yield _above(5, 'labels mixed up: 1000 epochs above 3000', 'top1',
               labels[1000], labels[3000])
  yield from _crosses(funmatch, same, lengths[1:-1])
  for epochs in (300, 1000):
    lead = ((1., side('begun', 'begun', 30)), (-1., side('begun', 'random', 30)))
    if epochs == 300:
      yield Sum(6, 'begun from labels above random, 30 epochs', 'top1', lead)
    yield Sum(6, f'a third of that lead above the lead at {epochs}', 'top1', (
        *((factor / 3, one) for factor, one in lead),
        (-1., side('begun', 'begun', epochs)),
        (1., side('begun', 'random', epochs))))
  yield from _against_adam(study, ('shampoo', 'soap', 'muon'), 300)
  yield _above(8, 'teacher shown 160 px above 128', 'top1',
               side('large', '160 px', 300), side('large', '128 px', 300))
  yield _above(8, '32 px lose less than 3 points to 48', 'top1',
               side('small', 'funmatch', 300), funmatch[300], .03)
  for one in ('lite0', 'lite1'):
    yield _above(9, f'two teachers above {one.capitalize()}', 'top1',
                 side('teachers', agenda.BOTH, 300), side('teachers', one, 300))
  yield _above(9, 'GroupNorm above BatchNorm', 'top1',
               best(study, 'mobile_gn', 300), best(study, 'mobile_bn', 300))
  own = side('kinds', 'caltech', 300)
  for kind in ('dtd', 'cifar'):
    yield from _by_others(kind, side('kinds', kind, 300), own)
  own, few, many = (side('many', arm, 300)
                    for arm in ('caltech', 'cifar', 'cifar, 10240'))
  yield Sum(10, '10240 of cifar above a quarter of its own', 'top1',
            ((1., many), (-.25, own)))
  yield Sum(10, '10240 of cifar above twice 1024 of cifar', 'top1',
            ((1., many), (-2., few)))
  yield _above(10, '10240 of cifar: 1000 epochs above 300', 'top1',
               side('many', 'cifar, 10240', 1000), many)


def _rises(funmatch):
  """Claim 3, of {epochs: Side} by length: each above the one before."""
  for (short, before), (long, after) in itertools.pairwise(funmatch.items()):
    yield _above(3, f'funmatch, {long} epochs above {short}', 'top1', after,
                 before)


def _crosses(funmatch, same, lengths):
  """Claim 4: behind same/ic at 30 epochs, above it at these."""
  yield _above(4, 'same/ic above funmatch, 30 epochs', 'top1', same[30],
               funmatch[30])
  for epochs in lengths:
    yield _above(4, f'funmatch above same/ic, {epochs} epochs', 'top1',
                 funmatch[epochs], same[epochs])


def sums_cifar10(study: claims.Study) -> Iterator[Sum]:
  """Those of CIFAR-10."""
  lengths = (30, 100, PATIENT)
  by_name = {arm: {epochs: claims.Side((arm,), epochs, 'modes')
                   for epochs in lengths}
             for arm in ('fixed', 'independent', 'same/ic', 'funmatch',
                         'labels, mixed up')}
  fixed, independent, same, funmatch, labels = by_name.values()
  for metric in ('agree', 'top1'):
    for words, high, low in (('independent above fixed', independent, fixed),
                             ('same above independent', same, independent),
                             ('funmatch above same', funmatch, same)):
      yield _above(1, f'{words}, patient', metric, high[PATIENT], low[PATIENT])
    yield _above(1, 'fixed above funmatch, short', metric, fixed[30],
                 funmatch[30])
  yield from _rises(funmatch)
  yield _above(3, f'funmatch above labels mixed up, {PATIENT} epochs', 'top1',
               funmatch[PATIENT], labels[PATIENT])
  yield from _crosses(funmatch, same, lengths[1:])
  yield _above(5, f'labels mixed up: 100 epochs above {PATIENT}', 'top1',
               labels[100], labels[PATIENT])
  yield from _against_adam(study, ('shampoo', 'muon', 'soap'), 100)
  caltech, dtd = (claims.Side((kind,), 100, 'kinds') for kind in agenda.OTHERS)
  for kind, other in (('caltech', caltech), ('dtd', dtd)):
    yield from _by_others(kind, other, funmatch[100])
  yield _above(10, 'caltech, which is nearer, above dtd', 'top1', caltech, dtd)


def _by_others(kind, other, own):
  """Claim 10: photographs of another kind teach, worse than its own."""
  yield Sum(10, f'{kind} above a quarter of its own', 'top1',
            ((1., other), (-.25, own)))
  yield _above(10, f'its own above {kind}', 'top1', own, other)


def _against_adam(study, names, epochs):
  """Claim 7: each optimizer at its best rate."""
  for name in names:
    yield _above(7, f"KL of Adam above {name.capitalize()}'s", 'kl',
                 best(study, 'adam', epochs), best(study, name, epochs))


SUMS = {'caltech101': sums, 'cifar10': sums_cifar10}


def judge(one: Sum, study: claims.Study) -> dict[str, Any] | None:
  """{sides, difference, its interval, verdict}, None if not yet run."""
  images = [study.images(side, one.metric) for _, side in one.sides]
  if any(each is None for each in images):
    return None
  difference = one.allowed + sum(
      factor * each for (factor, _), each in zip(one.sides, images))
  n = len(difference)
  interval = np.quantile(claims.draws(n) @ difference / n, [.025, .975])
  return dict(sides=[each.mean() for each in images],
              difference=difference.mean(), interval=interval,
              verdict='shown' if interval[0] > 0 else
              'against' if interval[1] < 0 else 'null')


def table(study: claims.Study, twin: str) -> Iterator[list[str]]:
  """Cells of a line per inequality."""
  for one in SUMS[twin](study):
    judged = judge(one, study)
    number = ((lambda x: f'{100 * x:.1f}') if one.metric != 'kl'
              else '{:.3f}'.format)
    names = ', '.join(side.arms[0] for _, side in one.sides)
    yield [str(one.number), one.words, one.metric] + (
        ['', '', 'not run'] if judged is None else [
            f'{", ".join(map(number, judged["sides"]))} ({names})',
            f'{number(judged["difference"])} '
            f'({" to ".join(map(number, judged["interval"]))})',
            judged['verdict']])
  if twin != 'caltech101':
    return  # Whose grid alone was walked.
  points, verdict = claims.grid(study)
  means = '; '.join(
      f'{epochs} epochs: lr {point["lr"]:.2g}, t {point["t"]:.2g}'
      for epochs, point in points.items())
  yield ['11', 'best rate and temperature fall', '', means, '', verdict]


def main(flag: flags.FlagValues) -> None:
  logging.set_verbosity(logging.WARNING)
  study = claims.Study(flag.study)
  if flag.figure:
    if flag.twin != 'cifar10':
      raise ValueError(f'--figure is of --twin=cifar10, not {flag.twin}: '
                       'bench.claims --figure draws that.')
    claims.draw(claims.panels(
        [row for row in study.rows if row['stage'].startswith('modes_')],
        study.teacher(), PATIENT), flag.figure)
  for cells in table(study, flag.twin):
    print(f'| {" | ".join(cells)} |' if flag.markdown else '  '.join(cells))


def _define_flags() -> None:
  flags.DEFINE_string('study', None, "The folder of bench/further.py's --out.",
                      required=True)
  flags.DEFINE_enum('twin', 'caltech101', list(SUMS), 'Whose inequalities.')
  flags.DEFINE_bool('markdown', False, 'Rows of a table.')
  flags.DEFINE_string('figure', None, "Where to draw CIFAR-10's modes: STEM.png, "
                      '.pdf and .csv.')


if __name__ == '__main__':
  command.program(main, _define_flags)
