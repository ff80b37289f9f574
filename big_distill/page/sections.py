"""Sections of a page that logs and configs alone can fill."""

from collections.abc import Sequence
import json
from typing import Any

from big_distill import metrics
from big_distill import runs
from big_distill.page import charts
from big_distill.page import html
from big_distill.page import side as side_lib
from big_distill.page.html import Html
from big_distill.page.html import tag
from big_distill.page.side import Side

Sides = Sequence[Side]


def section(title: str, *content: Any) -> Html:
  """A section with an anchor that the navigation names."""
  return tag('section', tag('h2', title, id=anchor(title)), *content)


def anchor(title: str) -> str:
  return title.lower().replace(' ', '-').replace("'", '')


def named(side: Side) -> Html:
  """The name of a run with its colour."""
  return html.join(tag('i', class_=f'key {side.look}'), side.name)


def each(sides: Sides, show: Any) -> Html:
  """show(side) of all, side by side under their names where there are two."""
  if len(sides) == 1:
    return html.text(show(sides[0]))
  return tag('div', *(tag('div', tag('h3', named(side)), show(side))
                      for side in sides), class_='pair')


def curves(sides: Sides) -> Html:
  """Loss, accuracy, agreement, KL and rate against steps."""
  rates = [side.epochs_per_step for side in sides]
  by_epoch = all(rates) and max(rates) > 1.001 * min(rates)
  scales = rates if by_epoch else [1] * len(sides)
  plain = lambda value: html.number(value, '.3g')
  short = lambda value: html.percent(value, 1)
  single = len(sides) == 1
  found, absent = [], []
  for title, kind, form in (
      ('Training loss, nats', metrics.LOSS, plain),
      ('Accuracy', 'student', short), ('Agreement with the teacher', 'agree',
                                       short),
      ('KL to the teacher, nats', 'kl', plain),
      ('Learning rate', metrics.LR, plain),
      ('Images a second', metrics.RATE, html.amount)):
    series = []
    for side, scale in zip(sides, scales):
      metric = kind if '/' in kind else side.metric(kind)
      points = [(x * scale, y) for x, y in side.points(metric)]
      if points:
        who = 'student' if single else side.name
        series.append(charts.Series(who, side.look, points))
      teacher = kind == 'student' and side.last('teacher')
      if points and teacher:
        series.append(charts.Series(
            'teacher' if single else f'teacher of {side.name}',
            'b' if single else side.look, [(points[-1][0], teacher)], True))
    if series:
      found.append(tag('figure', charts.lines(
          title, series, form, share=form is short,
          factors='nats' in title,
          name_x='epoch' if by_epoch else 'step')))
    else:
      absent.append(title.partition(',')[0])
  return section(
      'Curves', tag('div', *found, class_='charts') if found else '',
      html.note(f'Not in the logs: {", ".join(absent)}.') if absent else '',
      _evaluations(sides))


def _evaluations(sides):
  """First and last value of all that evaluations measured."""
  names = dict.fromkeys(
      name for side in sides for row in side.run.rows for name in row
      if '/' in name and name.split('/')[0] not in ('train', 'time'))
  if not names:
    return html.note('No evaluation was logged.')
  rows = [[name, *(html.number(points[i][1], '.4g') if points else '–'
                   for side in sides for points in [side.points(name)]
                   for i in (0, -1))] for name in names]
  header = [html.join(named(side), ' ', when) if len(sides) > 1 else when
            for side in sides for when in ('first', 'last')]
  return tag('details', tag('summary', 'All that evaluations measured'),
             html.table(['', *header], rows))


def cost(sides: Sides) -> Html:
  """Time, speed, arithmetic and parameters."""
  found = [side_lib.cost(side) for side in sides]
  rows = [
      ('training, without evaluations', lambda c: html.duration(c['seconds'])),
      ('images seen', lambda c: html.number(c['images'], ',')),
      ('images/s', lambda c: html.number(c['rate'])),
      ("student's parameters", lambda c: html.number(
          c.get('student_params'), ',')),
      ("teachers' parameters", lambda c: html.number(
          c.get('teacher_params'), ',')),
      ("student's FLOPs an image", lambda c: html.amount(
          c.get('student_flops'))),
      ("teachers' FLOPs an image", lambda c: html.amount(
          c.get('teacher_flops'))),
      ('arithmetic of training', lambda c: (
          html.amount(c['each'] * c['images']) + 'FLOP'
          if c['each'] and c['images'] else '–'))]
  return section(
      'Cost', html.table(
          ['', *(named(side) if len(sides) > 1 else '' for side in sides)],
          [[title, *map(form, found)] for title, form in rows]),
      html.note('Arithmetic counts a student three times, for its gradient, and '
                'its teachers once.'))


def config(sides: Sides) -> Html:
  """The config; of two runs, what differs."""
  configs = [side.run.config for side in sides]
  if not all(configs):
    return section('Config', html.note(*(
        f'{side.name} has no config.json. ' for side in sides
        if not side.run.config)))
  flat = [runs.flat(config) for config in configs]
  keys = (flat[0] if len(sides) == 1 else
          runs.differences(configs[0], configs[-1]))

  def show(side, values, key):
    if key not in values:
      return '–'
    value = values[key]
    return tag('code', side.hide(value) if value and isinstance(value, str)
               else side.hide(json.dumps(value, ensure_ascii=False)))

  if not keys:
    return section('Config', html.note('The two configs are equal.'))
  return section('Config', html.table(
      ['', 'value'] if len(sides) == 1 else ['', *map(named, sides)],
      [[tag('code', key), *(show(side, values, key)
                            for side, values in zip(sides, flat))]
       for key in keys], words=range(3)))


def doctors(sides: Sides) -> Html:
  """What the doctor found when the run started."""
  def show(side):
    if not side.findings:
      return html.note('There is no doctor.json in this workdir: the run is of '
                       'a version that did not keep what the doctor found.')
    return html.table(
        ['', '', ''], [[tag('span', found.status, class_=False if
                            found.status == 'ok' else 'wrong'), found.about,
                        side.hide(found.text)] for found in side.findings],
        words=range(3))

  return section("Doctor's findings", each(sides, show))
