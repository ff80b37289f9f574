"""Sections of a page on what student and teachers answered to photographs."""

from collections.abc import Callable

from big_distill.page import charts
from big_distill.page import html
from big_distill.page import measures
from big_distill.page import pictures
from big_distill.page import side as side_lib
from big_distill.page.html import Html
from big_distill.page.html import tag
from big_distill.page.sections import each
from big_distill.page.sections import named
from big_distill.page.sections import section
from big_distill.page.sections import Sides
from big_distill.page.side import Side

CLASSES = 60  # Of more classes, so many are shown.


def _with_answers(show: Callable[[Side], Html]) -> Callable[[Side], Html]:
  """show(side), or why there are no answers to show."""
  return lambda side: (show(side) if side.evidence else html.note(
      f'Not shown: {side.hide(side.missing)}'))


def _teacher_look(sides):
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
    looks = {'both': 'soft', 'teacher': _teacher_look(sides),
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
                 each(sides, _with_answers(show)), _between(sides))


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
    return section(title, each(absent, _with_answers(str)))
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


def _image(side, i, said):
  pixels = side.thumbs.get(i)
  return '' if pixels is None else tag(
      'img', src=pictures.uri(pixels), alt=said, width=pictures.SIZE,
      height=pictures.SIZE, loading='lazy')


def confusions(sides: Sides) -> Html:
  """Mistakes that the student makes and its teacher does not."""
  def show(side):
    answers = side.evidence.answers
    found = measures.confusions(answers)
    if not found:
      return html.note('There is none on these photographs.')
    items = [tag('li', tag('div', *(
        _image(side, i, f'{answers.name(pair.truth)}, taken for '
               f'{answers.name(pair.said)}')
        for i in pair.places[:side_lib.EXAMPLES]), class_='small'), tag(
            'span', tag('b', answers.name(pair.truth)), ' taken for ',
            tag('b', answers.name(pair.said)),
            f', {len(pair.places):,} times' if len(pair.places) > 1 else ''))
             for pair in found[:side_lib.CONFUSIONS]]
    count = sum(len(pair.places) for pair in found)
    return html.join(
        tag('ul', *items, class_='mistakes'),
        html.note(f'{count:,} photographs in {len(found):,} pairs of classes, '
                  'the commonest first.', f' {len(items)} pairs are shown.'
                  if len(items) < len(found) else ''))

  labelled = [side.evidence.answers.labelled and side.evidence.answers.taught
              for side in sides if side.evidence]
  return section("The student's own confusions", html.note(
      'Where the student is wrong and its teacher is right.' if all(labelled)
      else 'Where the student departs from its teacher or, taught by labels, '
      'from these.'), each(sides, _with_answers(show)))


def calibration(sides: Sides) -> Html:
  """How far confidence is from accuracy, of student and teacher."""
  def show(side):
    answers = side.evidence.answers
    if not answers.labelled:
      return html.note('Calibration is measured against labels, and the '
                       'photographs have none.')
    found = {who: measures.reliability(answers, who) for who in answers.logits}
    looks = {'student': side.look, 'teacher': _teacher_look(sides)}
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
      'ECE is the mean distance from it.'), each(sides, _with_answers(show)))


def disagreements(sides: Sides) -> Html:
  """The photographs of the greatest KL, with both answers."""
  def show(side):
    answers = side.evidence.answers
    if not answers.taught:
      return html.note('Labels taught; there is no teacher to disagree with.')
    looks = {'teacher': _teacher_look(sides), 'student': side.look}

    def answer(who, i):
      name = answers.name(int(answers.choice[who][i]))
      wrong = answers.known[i] and not answers.right[who][i]
      return tag('div', tag('i', class_=f'key {looks[who]}'), tag(
          'span', tag('span', name, class_='wrong') if wrong else name,
          f' {html.percent(answers.confidence(who, i), 0)}',
          ' (wrong)' if wrong else ''))

    items = [tag('li', _image(side, i, f'Photograph: {answers.of(i)}'),
                 tag('b', answers.of(i)) if answers.labelled else '',
                 answer('teacher', i), answer('student', i))
             for i in measures.disagreements(answers, side_lib.DISAGREED)]
    return html.join(charts.legend(
        [(who, looks[who], False, '') for who in ('teacher', 'student')]),
                     tag('ul', *items, class_='photos'))

  return section('Where they disagree most', html.note(
      'The photographs of the greatest KL from teacher to student, as both saw '
      'them, with their label, if any, and both answers.'),
                 each(sides, _with_answers(show)))


def sheet(sides: Sides) -> Html:
  """What student and teachers were shown in training."""
  def show(side):
    if not side.sheet:
      return html.note(f'Not shown: {side.hide(side.missing)}')
    found = side.sheet
    mixed = ('Nothing is mixed in this mode.' if found.share is None else
             f'Mixup gave each image {html.percent(found.share, 0)} of its own '
             f'photograph and {html.percent(1 - found.share, 0)} of its '
             "neighbour's.")
    rows = [tag('tr', tag('th', row.title, tag('span', row.view), scope='row'),
                *(tag('td', tag('img', src=pictures.uri(image), loading='lazy',
                                alt=f'{row.title}: {caption}'))
                  for image, caption in zip(row.images, found.captions)))
            for row in found.rows]
    if any(found.captions):
      rows.append(tag('tr', tag('th', 'labels', scope='row'), *(
          tag('td', caption, class_='caption') for caption in found.captions)))
    return html.join(html.note(f'The first photographs of step {found.step + 1:,}. '
                               f'{mixed}'),
                     tag('div', tag('table', tag('tbody', *rows),
                                    class_='sheet'), class_='scroll',
                         tabindex=0))

  if len(sides) == 1:
    return section('What they saw', show(sides[0]))
  return section('What they saw', *(tag('div', tag('h3', named(side)),
                                        show(side)) for side in sides))
