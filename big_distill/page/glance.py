"""The top of a page: what a run is, how far it came, a few numbers."""

from big_distill import metrics
from big_distill import views
from big_distill.page import html
from big_distill.page import measures
from big_distill.page import side as side_lib
from big_distill.page.html import Html
from big_distill.page.html import tag
from big_distill.page.sections import named
from big_distill.page.sections import Sides
from big_distill.page.side import Side


def head(side: Side) -> Html:
  """What the run is and how far it came, in two lines."""
  config = side.run.config or {}
  mode = config.get('mode')
  said = []
  if mode:
    if isinstance(mode, str) and mode in views.MODES:
      said.append(f'{mode}: {views.MODES[mode]}')
    else:
      said.append(str(views.mode(mode)))
  if name := config.get('data', {}).get('name'):
    said.append(f'images of {side.hide(name)}')
  if family := config.get('student', {}).get('family'):
    said.append(f'a student of family {family}')
  state, look = _state(side)
  if skipped := side.run.last(metrics.SKIPPED):
    said.append(f'{skipped:,.0f} steps were left out, not being finite')
  return tag('p', tag('span', state, class_=f'state{look}'), ' ',
             '; '.join(said) + '.' if said else
             'There is no config.json in this workdir.', class_='lead')


def _state(side):
  """(how far a run came, a class for its look)."""
  of = f' of {side.total:,}' if side.total else ''
  rate = side.epochs_per_step
  epochs = f' ({html.number(side.step * rate)} epochs)' if rate else ''
  if side.run.result:
    return f'Finished after {side.step:,} steps{epochs}.', ''
  if side.failed:
    return (f'Stopped after step {side.failed:,}{of}: the loss or its gradient was '
            'not finite. python -m big_distill.tools.replay '
            f'{side.name}/nan says whose fault it was.', ' look')
  if not side.run.rows:
    return 'Nothing was logged yet.', ' look'
  return f'Not finished: {side.step:,}{of} steps{epochs} so far.', ' look'


def facts(side: Side) -> dict[str, tuple[str, str]]:
  """{title: (value, more about it)} of a run in a few numbers."""
  cost, answers = side_lib.cost(side), side.evidence and side.evidence.answers
  found = {}

  def spread(share, n):
    low, high = measures.interval(share, n)
    return (f'{100 * low:.1f} to {100 * high:.1f} (95 %), from {n:,} '
            'photographs')

  for who in ('student', 'teacher'):
    share = side.last(who)
    if share is not None:
      n = int(answers.known.sum()) if answers and answers.labelled else 0
      whole = answers and len(answers) == side.evidence.whole
      found[f"{who.title()}'s top-1"] = (
          html.percent(share), spread(share, n) if n and whole else '')
  if side.last('agree') is not None:
    found['Agreement'] = (html.percent(side.last('agree')),
                          'top answers that are the same')
  if side.last('kl') is not None:
    found['KL'] = (html.number(side.last('kl'), '.3g'),
                   'nats from teacher to student')
  for key, title in (('params', 'Parameters'), ('flops', 'FLOPs an image')):
    if student := cost.get(f'student_{key}'):
      teacher = cost.get(f'teacher_{key}')
      found[title] = (html.amount(student), (
          f"the teacher's {html.amount(teacher)} are {teacher / student:.3g} "
          'times as many') if teacher else '')
  if cost['rate']:
    found['Training'] = (html.duration(cost['seconds']),
                         f'{html.number(cost["rate"], ",.3g")} images/s')
  return found


def numbers(sides: Sides) -> Html:
  """The few numbers; of two runs, in two columns."""
  if len(sides) == 1:
    side, = sides
    looks = {"Student's top-1": 'a', "Teacher's top-1": 'b'}
    return tag('dl', *(tag(
        'div', tag('dt', title), tag('dd', value, class_=looks.get(title, False)),
        tag('dd', more, class_='more') if more else '')
                       for title, (value, more) in facts(side).items()),
               class_='tiles')
  found = [facts(side) for side in sides]
  titles = dict.fromkeys(title for each in found for title in each)
  return html.table(
      ['', *map(named, sides)],
      [[title, *(tag('span', *each.get(title, ('–', ''))[:1], title=each.get(
          title, ('', ''))[1] or False) for each in found)]
       for title in titles])
