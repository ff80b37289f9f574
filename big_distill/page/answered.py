"""Sections of a page on what student and teachers answered to photographs."""

from collections.abc import Callable

from big_distill.page import charts
from big_distill.page import html
from big_distill.page import measures
from big_distill.page.html import Html
from big_distill.page.html import tag
from big_distill.page.sections import each
from big_distill.page.sections import named
from big_distill.page.sections import section
from big_distill.page.sections import Sides
from big_distill.page.side import Side

CLASSES = 60  # Of more classes, so many are shown.


def _absent(side):
  return html.note(f'Not shown: {side.hide(side.missing)}')


def with_answers(show: Callable[[Side], Html]) -> Callable[[Side], Html]:
  """show(side), or why there are no answers to show."""
  return lambda side: show(side) if side.evidence else _absent(side)


def teacher_look(sides: Sides) -> str:
  """Colours are the students', where there are two."""
  return 'b' if len(sides) == 1 else 'ink'


def source(sides: Sides) -> Html:
  """Which photographs were asked about."""
  def show(side):
    found = side.evidence
    asked = len(found.answers)
    return html.note(
        f'Answers below are to {asked:,} photographs of '
        f'{side.hide(found.source.title)}',
        f', spread evenly over its {found.whole:,}' if asked < found.whole
        else '', f', seen as {found.exam.view}',
        f', by the student of step {found.step:,}' if found.step is not None
        else '', '.')

  return each([side for side in sides if side.evidence], show) if any(
      side.evidence for side in sides) else Html('')


def accuracy(sides: Sides) -> Html:
  """Who is right where."""
  def show(side):
    answers = side.evidence.answers
    if not answers.labelled:
      return html.note('The photographs have no labels, so that there is '
                       'agreement to be measured and no accuracy.')
    if not answers.taught:
      return html.note(
          f'{html.percent(answers.accuracy("student"))} of '
          f'{int(answers.known.sum()):,} are right. There is no teacher that '
          'looks at images to compare with: labels taught.')
    found = measures.outcomes(answers)
    names = {'both': 'both are right', 'teacher': 'only the teacher is',
             'student': 'only the student is', 'neither': 'neither is'}
    looks = {'both': 'soft', 'teacher': teacher_look(sides),
             'student': side.look, 'neither': 'faint'}
    total = sum(found.values())
    lost, won = found['teacher'], found['student']
    return html.join(
        charts.shares([(names[key], looks[key], count)
                       for key, count in found.items()],
                      '; '.join(f'{names[key]}: {count} of {total}'
                                for key, count in found.items())),
        tag('p', f'The student has {html.percent(answers.accuracy("student"))} '
            f'right, its teacher {html.percent(answers.accuracy("teacher"))}: '
            f'it loses {lost:,} photographs that the teacher has right, and has '
            f'{won:,} right that the teacher has not.'))

  return section("Accuracy against the teacher's",
                 each(sides, with_answers(show)), _between(sides))


def _between(sides):
  """Of two students that were asked the same, which has what right."""
  if len(sides) < 2 or not all(side.evidence for side in sides):
    return ''
  first, second = (side.evidence for side in sides)
  if (first.source.fingerprint != second.source.fingerprint
      or len(first.answers) != len(second.answers)
      or not (first.answers.labelled and second.answers.labelled)):
    return html.note('The two runs were evaluated on different photographs.')
  a, b = (each.answers.right['student'] for each in (first, second))
  one, other = (int((x & ~y).sum()) for x, y in ((a, b), (b, a)))
  # McNemar: of n that differ, one in either way, as coins fall.
  sure = abs(one - other) > measures.Z * (one + other)**.5
  return tag('p', f'Of the same photographs {sides[0].name} alone has {one:,} '
             f'right, {sides[1].name} alone {other:,}: ',
             'more than chance makes of equals (McNemar, 95 %).' if sure else
             'no more than chance makes of equals (McNemar, 95 %).')


def classes(sides: Sides) -> Html:
  """Agreement and accuracy, class by class; of two runs in one table."""
  title, absent = 'Agreement by class', [
      side for side in sides if not side.evidence]
  if absent:
    return section(title, each(absent, _absent))
  asked = [side.evidence.answers for side in sides]
  rows = list(map(measures.by_class, asked))
  columns = [(key, said, side, row) for key, said in (
      ('chosen', "teacher's choices"), ('agree', 'agreement'),
      ('images', 'photographs'), ('student', 'student right'),
      ('teacher', 'teacher right')) for side, row in zip(sides, rows)
             if any(key in values for values in row.values())
             and (len(sides) == 1 or key in ('agree', 'student'))]
  by = 'agree' if asked[0].taught else 'student'
  order = sorted({c for row in rows for c in row}, key=lambda c: (
      min(row.get(c, {}).get(by, 2.) for row in rows), c))

  def cell(key, side, values):
    value = values.get(key)
    if key in ('chosen', 'images'):
      return html.number(value, ',')
    if key == by and value is not None:
      return charts.bar(value, side.look, html.percent(value, 0))
    return html.percent(value, 0)

  header = ['class', *(
      html.join(named(side), tag('br'), said) if len(sides) > 1 else said
      for _, said, side, _ in columns)]
  name = max(asked, key=lambda each: len(each.classes)).name
  return section(
      title, html.note(
          'How often the student chooses what its teacher chose, the least '
          'first.' if by == 'agree' else 'There is no teacher to agree with: '
          'how often the student is right, the least first.'),
      html.table(header, [[name(c), *(
          cell(key, side, row.get(c, {})) for key, _, side, row in columns)]
                          for c in order[:CLASSES]], words=[0, *(
                              i for i, column in enumerate(columns, 1)
                              if column[0] == by)]),
      html.note(f'{CLASSES} of {len(order):,} classes are shown.')
      if len(order) > CLASSES else '')


def calibration(sides: Sides) -> Html:
  """How far confidence is from accuracy, of student and teacher."""
  def show(side):
    answers = side.evidence.answers
    if not answers.labelled:
      return html.note('Calibration is measured against labels, and the '
                       'photographs have none.')
    found = {who: measures.reliability(answers, who) for who in answers.logits}
    looks = {'student': side.look, 'teacher': teacher_look(sides)}
    said = '; '.join(f'{who}: expected calibration error {ece:.3f}'
                     for who, (ece, _) in found.items())
    return tag('div', tag('figure', charts.legend(
        [(who, looks[who], False, '') for who in found]), charts.reliability(
            {who: (looks[who], bins) for who, (_, bins) in found.items()},
            f'Accuracy against confidence. {said}')), html.table(
                ['', *found], [
                    ['accuracy', *(html.percent(answers.accuracy(who))
                                   for who in found)],
                    ['mean confidence', *(
                        html.percent(answers.sureness(who)) for who in found)],
                    ['ECE', *(html.percent(ece) for ece, _ in found.values())],
                ]), class_='charts')

  return section('Calibration', html.note(
      'Accuracy against confidence in 15 bins; areas are counts. Above the '
      'diagonal a model is right more often than it says, below it is too sure; '
      'ECE is the mean distance from it.'), each(sides, with_answers(show)))
