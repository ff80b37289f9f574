"""Writes one page on a run, or on two side by side.

  python -m big_distill.tools.report WORKDIR
  python -m big_distill.tools.report WORKDIR OTHER

WORKDIR/report.html is one file that needs nothing beside it: curves, accuracy
against the teacher's, agreement by class, the confusions that are the student's
own, calibration, the photographs on which both disagree most, what they saw in
training, cost, config, and what the doctor found. A run may be unfinished, or
have stopped; what cannot be shown is said. A folder of several runs, as of
students that learn together, gives a page on all of them.
"""

from collections.abc import Sequence
import importlib.resources
import os
from typing import Any

from absl import logging
from etils import epath

from big_distill import command
from big_distill import runs
from big_distill.page import answered
from big_distill.page import charts
from big_distill.page import glance
from big_distill.page import html
from big_distill.page import sections
from big_distill.page import shown
from big_distill.page import side as side_lib
from big_distill.page.html import Html
from big_distill.page.html import tag

# Nothing is fetched, whatever a name on the page says.
POLICY = ("default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
          "script-src 'unsafe-inline'")


def document(title: str, *content: Any) -> str:
  """A whole page, with its style and its script inside."""
  files = importlib.resources.files('big_distill.page')
  style, script = (Html(files.joinpath(name).read_text())
                   for name in ('page.css', 'page.js'))
  head = tag('head', tag('meta', charset='utf-8'),
             tag('meta', http_equiv='Content-Security-Policy', content=POLICY),
             tag('meta', name='viewport',
                 content='width=device-width, initial-scale=1'),
             tag('title', title), tag('style', style))
  return '<!doctype html>\n' + tag('html', head, tag(
      'body', *content, tag('script', script)), lang='en') + '\n'


def page(sides: Sequence[side_lib.Side]) -> str:
  """The page of one or two runs."""
  title = ' and '.join(side.name for side in sides)
  parts = {
      'Curves': sections.curves(sides),
      "Accuracy against the teacher's": answered.accuracy(sides),
      'Agreement by class': answered.classes(sides),
      "The student's own confusions": shown.confusions(sides),
      'Calibration': answered.calibration(sides),
      'Where they disagree most': shown.disagreements(sides),
      'What they saw': shown.sheet(sides),
      'Cost': sections.cost(sides),
      'Config': sections.config(sides),
      "Doctor's findings": sections.doctors(sides),
  }
  links = [tag('a', name, href=f'#{sections.anchor(name)}') for name in parts]
  return document(
      title, tag('header', tag('h1', title),
                 sections.each(sides, glance.head),
                 tag('nav', *links, aria_label='Sections')),
      tag('main', glance.numbers(sides), answered.source(sides),
          *parts.values()),
      tag('footer', 'python -m big_distill.tools.report ',
          ' '.join(side.name for side in sides)))


def family(path: str, members: Sequence[str]) -> str:
  """The page of a folder of runs: their points, against what they cost."""
  name = side_lib.names([path])[0]
  results = {member: runs.load(f'{path}/{member}/result.json')
             for member in members}
  done = {member: result for member, result in results.items() if result}
  rows = [[member, *(html.percent((result or {}).get(key)) for key in (
      'student_top1', 'agreement_top1')), html.number(
          (result or {}).get('kl'), '.3g'), *(html.amount((result or {}).get(key))
                                              for key in ('student_params',
                                                          'student_flops'))]
          for member, result in results.items()]
  figures = []
  for key, title in (('student_top1', 'Accuracy'),
                     ('agreement_top1', 'Agreement')):
    for by, said in (('student_params', 'parameters'),
                     ('student_flops', 'FLOPs an image')):
      points = [(member, result[by], result[key]) for member, result
                in done.items() if result.get(key) is not None]
      if points:
        figures.append(tag('figure', charts.scatter(
            f'{title} against {said}', points, html.percent, said)))
  return document(
      name, tag('header', tag('h1', name), tag(
          'p', f'{len(members)} runs, {len(done)} of them finished.',
          class_='lead')),
      tag('main', html.table(
          ['', 'accuracy', 'agreement', 'KL', 'parameters', 'FLOPs'], rows),
          sections.section('Points', tag('div', *figures, class_='charts')
                           if figures else html.note(
                               'No run is finished, so there is no point.')),
          html.note('A page on one of them: python -m big_distill.tools.report '
                    f'{name}/{members[0]}')))


def report(workdirs: Sequence[str], data: Any, without: str = '') -> str:
  """Writes the page on one or two workdirs; returns its path.

  `data` has the functions of input/pipeline.py; None with the reason `without`.
  Raises ValueError where a folder is no workdir.
  """
  paths = [runs.folder(workdir) for workdir in workdirs]
  members = [_members(path) for path in paths]
  if members[0] and len(paths) > 1 or any(members[1:]):
    raise ValueError(f'{" and ".join(workdirs)}: two runs can be compared, and '
                     'one of these folders holds several. Name two runs.')
  if members[0]:
    text = family(paths[0], members[0])
  else:
    text = page([side_lib.make(path, name, look, data, without)
                 for path, name, look in zip(paths, side_lib.names(paths),
                                             'ab')])
  out = os.path.join(paths[0], 'report.html')
  runs.write(out, text)
  return out


def _members(path):
  """Names of the runs in a folder that is no run itself."""
  place = epath.Path(path)
  if not place.is_dir():
    raise ValueError(f'There is no folder {path}: name the --workdir of a run.')
  if any((place / name).exists() for name in ('config.json', 'metrics.jsonl')):
    return []
  found = sorted(each.name for each in place.iterdir()
                 if (each / 'config.json').exists())
  if not found:
    raise ValueError(f'{path} holds no run: neither config.json nor '
                     'metrics.jsonl, nor folders with them. Name the --workdir '
                     'of a run.')
  return found


def main(flag, workdirs):
  del flag
  if len(workdirs) not in (1, 2):
    raise ValueError(f'{len(workdirs)} workdirs are given: name one, or two to '
                     'compare. See --help.')
  command.narrate()
  data, without = None, ''
  try:
    data = command.pipeline()
  except ImportError as error:
    without = str(error)
    logging.warning('%s', without)
  print(f'Written to {report(workdirs, data, without)}.')


if __name__ == '__main__':
  command.program(main, words=True)
