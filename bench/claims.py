"""What the study shows: each inequality of docs/reproduction.md, judged.

  python -m bench.claims --study=DIR [--markdown] [--figure=STEM [--further=DIR]]

The folders are those of bench/reproduce.py and bench/further.py; of the latter
the figure has what is longer. It is the paper's Figs 3 and 4: each arm at each
length, with the range over seeds. An inequality says that one side's mean over
arms and seeds is above another's, on the same test images: it is `shown` where
the 95 % interval of the difference, by bootstrap over these images, lies above
zero; `against` where it lies below; else `null`. Training losses, of which there
is one a student, take the range over seeds.
"""

from collections.abc import Iterator, Sequence
import functools
import pathlib
from typing import Any, NamedTuple

from absl import flags
from absl import logging
import numpy as np

from bench import journal
from big_distill import command
from big_distill import metrics
from big_distill.tools import figures

FIXED = ('fix/rs', 'fix/cc', 'fix/ic_ens')
INDEPENDENT, SAME = ('ind/rc', 'ind/ic'), ('same/rc', 'same/ic')
FUNMATCH, LABELS = ('funmatch',), ('labels, mixed up',)
SHORT, LONG, DRAWS = 30, 1000, 2000


class Side(NamedTuple):
  """The mean of arms at a length; of all students there."""
  arms: tuple[str, ...]
  epochs: int
  school: str = 'all'


class Claim(NamedTuple):
  """`high` is above `low` by `metric`: top1, agree, loss, or kl."""
  number: int
  words: str
  metric: str
  high: Side
  low: Side


def _claims():
  patient = lambda arms: Side(arms, LONG)
  for metric in ('agree', 'top1'):
    for words, high, low in (
        ('independent above fixed', INDEPENDENT, FIXED),
        ('same above independent', SAME, INDEPENDENT),
        ('funmatch above same', FUNMATCH, SAME)):
      yield Claim(1, f'{words}, patient', metric, patient(high), patient(low))
    yield Claim(1, 'fixed above funmatch, short', metric, Side(FIXED, SHORT),
                Side(FUNMATCH, SHORT))
  for whose, arms in (("funmatch's", FUNMATCH), ("same's", SAME)):
    yield Claim(2, f"{whose} training loss above fixed's", 'loss',
                patient(arms), patient(FIXED))
    yield Claim(2, f"fixed's test KL above {whose}", 'kl', patient(FIXED),
                patient(arms))
  lengths = (SHORT, 100, 300, LONG)
  for short, long in zip(lengths, lengths[1:]):
    yield Claim(3, f'funmatch, {long} epochs above {short}', 'top1',
                Side(FUNMATCH, long), Side(FUNMATCH, short))
  yield Claim(3, f'funmatch, 3000 epochs above {LONG}', 'top1',
              Side(FUNMATCH, 3000, 'patient'), patient(FUNMATCH))
  yield Claim(3, 'funmatch above labels, patient', 'top1', patient(FUNMATCH),
              patient(LABELS))
  for metric in ('agree', 'top1'):
    yield Claim(4, f'same/ic above funmatch, {SHORT} epochs', metric,
                Side(('same/ic',), SHORT), Side(FUNMATCH, SHORT))
    for epochs in lengths[1:]:  # Where it turns from against to shown.
      yield Claim(4, f'funmatch above same/ic, {epochs} epochs', metric,
                  Side(FUNMATCH, epochs), Side(('same/ic',), epochs))
    yield Claim(4, 'funmatch above same/ic, 3000 epochs', metric,
                Side(FUNMATCH, 3000, 'patient'),
                Side(('same/ic',), 3000, 'patient'))
  for arms in (('labels',), LABELS):
    yield Claim(5, f'{arms[0]}: 300 epochs above {LONG}', 'top1',
                Side(arms, 300), patient(arms))


def _pairs():
  for metric in ('agree', 'top1'):
    for high, low in (
        (INDEPENDENT, FIXED[1:]), (('ind/rc',), ('fix/cc',)),
        (('ind/ic',), ('fix/cc',)), (('ind/ic',), ('fix/ic_ens',)),
        (('same/rc',), ('ind/rc',)), (('same/ic',), ('ind/ic',)),
        (('same/ic',), ('same/rc',)), (LABELS, ('same/ic',))):
      yield Claim(1, f'{" and ".join(high)} above {" and ".join(low)}, patient',
                  metric, Side(high, LONG), Side(low, LONG))


CLAIMS = tuple(_claims())
PAIRS = tuple(_pairs())  # Looked at once the claims were judged.


class Study:
  """Rows and answers of bench/reproduce.py."""

  def __init__(self, folder: str | pathlib.Path):
    self._folder = pathlib.Path(folder)
    self.rows = journal.read(self._folder)

  def images(self, side: Side, metric: str) -> np.ndarray | None:
    """Per test image, the mean over a side's arms and seeds [n], or None."""
    file = self._folder / f'{side.school}_run_{side.epochs}.npz'
    if not file.exists():
      return None
    with np.load(file) as answers:
      chosen = [list(answers['arms']).index(arm) for arm in side.arms]
      values = (answers['kl'].astype(np.float64) if metric == 'kl' else
                answers['guess'] == answers[
                    dict(top1='label', agree='teacher')[metric]])
      return values[chosen].mean(axis=(0, 1))

  def teacher(self) -> float:
    """Its top-1 on the test images."""
    with np.load(next(self._folder.glob('*_run_*.npz'))) as answers:
      return float((answers['teacher'] == answers['label']).mean())

  def losses(self, side: Side) -> np.ndarray | None:
    """The mean training loss over a side's arms, of each seed [s], or None."""
    stage = f'{side.school}_run_{side.epochs}'
    found: dict[int, list[float]] = {}
    for row in self.rows:
      if (row['stage'] == stage and row['at'] == row['epochs']
          and row['arm'] in side.arms):
        found.setdefault(row['seed'], []).append(row['loss'])
    means = [np.mean(each) for each in found.values()]
    return np.asarray(means) if means else None


@functools.lru_cache(1)
def draws(n: int) -> np.ndarray:
  """How often each of n images is drawn, in each draw [DRAWS, n]."""
  return np.random.default_rng(0).multinomial(n, [1 / n] * n, DRAWS)


def judge(claim: Claim, study: Study) -> dict[str, Any] | None:
  """{high, low, difference, its interval, verdict}, None if not yet run."""
  sides = [study.losses(side) if claim.metric == 'loss'
           else study.images(side, claim.metric)
           for side in (claim.high, claim.low)]
  if any(side is None for side in sides):
    return None
  difference = sides[0] - sides[1]
  if claim.metric == 'loss':
    interval = difference.min(), difference.max()
  else:
    n = len(difference)
    interval = np.quantile(draws(n) @ difference / n, [.025, .975])
  verdict = ('shown' if interval[0] > 0 else
             'against' if interval[1] < 0 else 'null')
  return dict(high=sides[0].mean(), low=sides[1].mean(),
              difference=difference.mean(), interval=interval, verdict=verdict)


def grid(study: Study) -> tuple[dict[int, dict[str, float]], str]:
  """({epochs: geometric means over the best tenth of the grid}, the verdict).

  By accuracy on the validation photographs. The claim is that the best rate and
  temperature fall as runs grow longer.
  """
  best = {}
  for epochs in sorted({row['epochs'] for row in study.rows}):
    rows = [row for row in study.rows if row['at'] == epochs
            and row['stage'] == f'grid_tune_{epochs}']
    rows.sort(key=lambda row: -row['val_top1'])
    if tenth := rows[:len(rows) // 10]:
      best[epochs] = {key: float(np.exp(np.mean(np.log(
          [row[key] for row in tenth])))) for key in ('lr', 't')}
  if len(best) < 2:
    return best, 'not run'
  short, long = best[min(best)], best[max(best)]
  change = [np.sign(round(np.log(long[key] / short[key]), 6)) for key in short]
  return best, {(-1, -1): 'shown', (1, 1): 'against'}.get(tuple(change), 'null')


def joined(study: Study, further: Sequence[dict]) -> list[dict]:
  """Rows of a study, and of a further one those that are longer."""
  return [*study.rows, *(row for row in further if row['epochs'] > LONG)]


def panels(rows: Sequence[dict], teacher: float,
           patient: int = LONG) -> list[figures.Panel]:
  """Accuracy against length, that of patient runs, loss against length."""
  runs: dict[tuple, list[dict]] = {}
  for row in rows:
    if not row['tuning'] and row['at'] == row['epochs']:
      runs.setdefault((row['arm'], row['epochs'], row['stage']), []).append(row)

  def panel(x_of, y_of, key, style, lengths=()):
    points = []
    for (arm, epochs, stage), group in sorted(runs.items()):
      values = [row[key] for row in group]
      if not lengths or epochs in lengths:
        points.append(figures.Point(
            x_of, y_of, style, arm, stage, epochs, float(np.mean(values)),
            min(values), max(values), len(values)))
    return figures.Panel(x_of, y_of, points)

  drawn = [
      panel(figures.LENGTH, metrics.STUDENT, 'test_top1', 'dots'),
      panel(figures.RANK, metrics.STUDENT, 'test_top1', 'ranked', [patient]),
      panel(figures.LENGTH, metrics.LOSS, 'loss', 'dots')]
  drawn[0].points.append(figures.Point(
      figures.LENGTH, metrics.STUDENT, 'teacher', 'teacher', '', '', teacher,
      teacher, teacher, 1))
  return drawn


def draw(drawn: list[figures.Panel], stem: str) -> None:
  """STEM.png and .pdf of `panels`, and .csv of what is on them."""
  figures.save(f'{stem}.csv', drawn)
  figures.draw(drawn, stem, width=2.7)


def table(study: Study) -> Iterator[list[str]]:
  """Cells of a line per inequality: its sides and their difference."""
  for claim in CLAIMS + PAIRS:
    judged = judge(claim, study)
    share = claim.metric in ('top1', 'agree')
    number = (lambda x: f'{100 * x:.1f}') if share else '{:.4f}'.format
    yield [str(claim.number), claim.words, claim.metric] + (
        ['', '', '', 'not run'] if judged is None else [
            number(judged['high']), number(judged['low']),
            f'{number(judged["difference"])} '
            f'({" to ".join(map(number, judged["interval"]))})',
            judged['verdict']])
  best, verdict = grid(study)
  means = '; '.join(f'{epochs} epochs: lr {point["lr"]:.2g}, t {point["t"]:.2g}'
                    for epochs, point in best.items())
  yield ['11', 'best rate and temperature fall', means, '', '', '', verdict]


def main(flag: flags.FlagValues) -> None:
  logging.set_verbosity(logging.WARNING)
  study = Study(flag.study)
  if flag.figure:
    further = journal.read(flag.further) if flag.further else ()
    draw(panels(joined(study, further), study.teacher()), flag.figure)
  for cells in table(study):
    print(f'| {" | ".join(cells)} |' if flag.markdown else '  '.join(cells))


def _define_flags() -> None:
  flags.DEFINE_string('study', None, "The folder of bench/reproduce.py's --out.",
                      required=True)
  flags.DEFINE_string('figure', None, 'Where to draw: STEM.png, .pdf and .csv.')
  flags.DEFINE_string('further', None, "The folder of bench/further.py's --out.")
  flags.DEFINE_bool('markdown', False, 'Rows of a table.')


if __name__ == '__main__':
  command.program(main, _define_flags)
