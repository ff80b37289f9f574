"""Sections of a page with photographs: confusions, disagreements, views."""

from big_distill.page import charts
from big_distill.page import html
from big_distill.page import measures
from big_distill.page import pictures
from big_distill.page import side as side_lib
from big_distill.page.answered import teacher_look
from big_distill.page.answered import with_answers
from big_distill.page.html import Html
from big_distill.page.html import tag
from big_distill.page.sections import each
from big_distill.page.sections import named
from big_distill.page.sections import section
from big_distill.page.sections import Sides


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
      'from these.'), each(sides, with_answers(show)))


def disagreements(sides: Sides) -> Html:
  """The photographs of the greatest KL, with both answers."""
  def show(side):
    answers = side.evidence.answers
    if not answers.taught:
      return html.note('Labels taught; there is no teacher to disagree with.')
    looks = {'teacher': teacher_look(sides), 'student': side.look}

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
                 each(sides, with_answers(show)))


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
