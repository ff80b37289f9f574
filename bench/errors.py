"""What students take over from their teacher beyond accuracy (claim 12).

  python -m bench.errors --pack=caltech101.npz docs/logs/.../all_run_1000.npz ...

Of each arm, over its seeds and the test photographs, in %:
  rare, common  agreement with the teacher, mean over the third of the classes
                of which the students saw the fewest, and the most, photographs
  errors alike  of the photographs that the teacher calls wrongly, how many the
                student calls the same
  ECE           expected calibration error over 15 bins of equal width
"""

import pathlib

from absl import flags
from absl import logging
import numpy as np

from big_distill import command
from big_distill import packed
from big_distill.evaluators import calibration
from configs import study as config


def thirds(labels: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
  """(The classes with the fewest examples, those with the most), a third each."""
  order = np.argsort(np.bincount(labels, minlength=classes), kind='stable')
  return order[:classes // 3], order[-(classes // 3):]


def by_class(agree: np.ndarray, labels: np.ndarray,
             classes: np.ndarray) -> float:
  """Mean over classes of the mean over their images; agree is [s, n]."""
  return float(np.mean([agree[:, labels == each].mean() for each in classes
                        if (labels == each).any()]))


def alike(guess: np.ndarray, teacher: np.ndarray, label: np.ndarray
          ) -> tuple[float, np.ndarray]:
  """(Share of the teacher's errors that students [s, n] make alike, 95 %)."""
  wrong = teacher != label
  same = (guess[:, wrong] == teacher[wrong]).mean(axis=0)
  draws = np.random.default_rng(0).integers(0, len(same), (2000, len(same)))
  return float(same.mean()), np.quantile(same[draws].mean(axis=1), [.025, .975])


def table(file: str, rare: np.ndarray, common: np.ndarray) -> list[list[str]]:
  """Cells of a line per arm of a file of answers."""
  with np.load(file) as opened:
    answers = {key: opened[key] for key in opened.files}
  label, teacher = answers['label'], answers['teacher']
  share = lambda x: f'{100 * x:.1f}'
  lines = []
  for i, arm in enumerate(answers['arms']):
    guess = answers['guess'][i]
    same, interval = alike(guess, teacher, label)
    ece = ''
    if 'sure' in answers:
      ece = share(np.mean([
          calibration.error(np.float64(sure), each == label)
          for sure, each in zip(answers['sure'][i], guess)]))
    lines.append([
        pathlib.Path(file).stem, str(arm), share((guess == label).mean()),
        share(by_class(guess == teacher, label, rare)),
        share(by_class(guess == teacher, label, common)),
        f'{share(same)} ({" to ".join(map(share, interval))})', ece])
  if 'teacher_sure' in answers:
    lines.append([pathlib.Path(file).stem, 'teacher', share(
        (teacher == label).mean()), '', '', '', share(
            calibration.error(np.float64(answers['teacher_sure']),
                              teacher == label))])
  return lines


def main(flag: flags.FlagValues, files: list[str]) -> None:
  logging.set_verbosity(logging.WARNING)
  data = packed.Data(flag.pack)
  source = data.load(split=config.TWINS['caltech101']['train'])
  groups = thirds(data.hold(source)[1], len(source.classes))
  for file in files:
    for cells in table(file, *groups):
      print(f'| {" | ".join(cells)} |')


def _define_flags() -> None:
  flags.DEFINE_string('pack', None, 'Images, of tools/pack.py.', required=True)


if __name__ == '__main__':
  command.program(main, _define_flags, words=True)
