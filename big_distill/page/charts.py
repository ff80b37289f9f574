"""Charts as inline SVG: light axes, lines, dots; they need no script to be read.

A series has a look: 'a' and 'b' are the page's two colours, a teacher's line is
dashed. What a pointer is shown, page.js reads from data-points.
"""

from collections.abc import Callable, Sequence
import json
import math
from typing import Any, NamedTuple

from big_distill.page import html
from big_distill.page.html import Html
from big_distill.page.html import tag

WIDTH, HEIGHT = 400, 230  # Of a chart, in its own units.
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 10, 34
POINTS = 240  # A line has at most so many; longer ones are means of rows.


class Series(NamedTuple):
  """A line: its name, look, and points (x, y). One point is a line across."""
  name: str
  look: str
  points: Sequence[tuple[float, float]]
  dashed: bool = False


class Scale(NamedTuple):
  """From values to pixels between two ends; `log` by factors."""
  low: float
  high: float
  first: float
  last: float
  log: bool = False

  def __call__(self, value: float) -> float:
    low, high = self.low, self.high
    if self.log:
      value, low, high = (math.log10(x) for x in (value, low, high))
    share = (value - low) / (high - low)
    return round(self.first + share * (self.last - self.first), 1)

  def ticks(self, most: int = 5) -> list[float]:
    """Round values between the ends."""
    if self.log:
      first, last = (math.log10(x) for x in (self.low, self.high))
      every = max(1, math.ceil((last - first) / most))
      found = [10.**n for n in range(math.ceil(first), math.floor(last) + 1,
                                     every)]
      if len(found) > 1:
        return found
    step = 10**math.floor(math.log10((self.high - self.low) / most))
    step *= next(factor for factor in (1, 2, 2.5, 5, 10)
                 if (self.high - self.low) / (step * factor) <= most)
    first = math.ceil(self.low / step - 1e-9)
    last = math.floor(self.high / step + 1e-9)
    return [n * step for n in range(first, last + 1)]


def thin(points: Sequence[tuple[float, float]]
         ) -> tuple[list[tuple[float, float]], int]:
  """(at most POINTS points, how many each of them is the mean of)."""
  points = [(x, y) for x, y in points if math.isfinite(y)]
  width = -(-len(points) // POINTS) or 1
  parts = [points[i:i + width] for i in range(0, len(points), width)]
  return [(part[-1][0], sum(y for _, y in part) / len(part))
          for part in parts], width


def _range(values, share, log):
  low, high = min(values), max(values)
  if log:
    return low / 1.1, high * 1.1
  room = .08 * (high - low) or abs(high) * .1 or 1
  bottom = 0. if low >= 0 and low < .5 * high else low - room
  if share:
    return max(bottom, 0.), min(high + room, 1.)
  return bottom, high + room


def _percents(share):
  """A tick of a share, with no more digits than it has."""
  return f'{100 * share:.4g} %'


def frame(x: Scale, y: Scale, form_x: Callable, form_y: Callable,
          name_x: str, most: int = 5) -> Html:
  """Grid, ticks and the name of the axis along."""
  parts = []
  for value in y.ticks(most):
    parts += [tag('line', x1=LEFT, x2=x.last, y1=y(value), y2=y(value),
                  class_='grid'),
              tag('text', form_y(value), x=LEFT - 6, y=y(value) + 4,
                  class_='tick', text_anchor='end')]
  for value in x.ticks(most):
    parts.append(tag('text', form_x(value), x=x(value), y=y.first + 16,
                     class_='tick', text_anchor='middle'))
  parts += [tag('line', x1=LEFT, x2=x.last, y1=y.first, y2=y.first,
                class_='axis'),
            tag('text', name_x, x=(LEFT + x.last) / 2, y=y.first + 31,
                class_='tick', text_anchor='middle')]
  return html.join(*parts)


def svg(content: Any, said: str, height: float = HEIGHT,
        width: float = WIDTH, **attributes: Any) -> Html:
  """An SVG of our units, with what it shows in words."""
  return tag('svg', content, viewBox=f'0 0 {width} {height}', role='img',
             aria_label=said, **attributes)


def legend(entries: Sequence[tuple[str, str, bool, str]]) -> Html:
  """Names beside their looks, and a value: (name, look, dashed, value)."""
  return tag('ul', *(tag(
      'li', tag('i', class_=f'key {look}{" dashed" if dashed else ""}'), name,
      tag('b', value) if value else '') for name, look, dashed, value
                     in entries), class_='legend')


def lines(title: str, series: Sequence[Series], form: Callable[[float], str],
          share: bool = False, factors: bool = False,
          name_x: str = 'step') -> Html:
  """A chart of lines with its title, legend and, where lines are means, a note.

  share: values are within [0, 1]. factors: a range of over two decades is drawn
  by factors.
  """
  drawn = [(each, *thin(each.points)) for each in series]
  drawn = [(each, points, width) for each, points, width in drawn if points]
  if not drawn:
    return html.join(tag('h3', title), html.note('Nothing of it is finite.'))
  values = [y for _, points, _ in drawn for _, y in points]
  log = factors and min(values) > 0 and max(values) > 100 * min(values)
  most = max(max(x for x, _ in each.points) for each, *_ in drawn) or 1
  x = Scale(0, most, LEFT, WIDTH - RIGHT)
  low, high = _range(values, share, log)
  y = Scale(low, high, HEIGHT - BOTTOM, TOP, log)
  parts, told, entries = [
      frame(x, y, html.amount, _percents if share else form, name_x)], [], []
  for each, points, _ in drawn:
    places = [(x(step), y(value)) for step, value in points]
    if len(points) == 1 and each.dashed:
      places = [(LEFT, places[0][1]), (x.last, places[0][1])]
    style = f'line {each.look}' + (' dashed' if each.dashed else '')
    parts.append(tag('path', d='M' + 'L'.join(f'{a} {b}' for a, b in places),
                     class_=style))
    if len(points) <= 24 and not each.dashed:
      parts += [tag('circle', cx=a, cy=b, r=2.6, class_=f'dot {each.look}')
                for a, b in places]
    if not each.dashed:
      told.append({'n': each.name, 'k': each.look, 'p': [
          [*place, f'{step:,.0f}', form(value)]
          for place, (step, value) in zip(places, points)]})
    entries.append((each.name, each.look, each.dashed, form(points[-1][1])))
  said = f'{title}: ' + '; '.join(
      f'{each.name} ' + (f'from {form(points[0][1])} to {form(points[-1][1])}'
                         if len(points) > 1 else form(points[0][1]))
      for each, points, _ in drawn)
  width = max(width for *_, width in drawn)
  return html.join(
      tag('h3', title), legend(entries),
      svg(html.join(*parts), said, data_points=json.dumps(
          told, separators=(',', ':')), data_x=name_x, class_='plot'),
      html.note(f'A point is the mean of {width} rows of the log.')
      if width > 1 else '')


def reliability(bins: dict[str, tuple[str, Sequence[Any]]], said: str) -> Html:
  """Accuracy against confidence: {who: (look, bins)}, areas being counts."""
  size = 300
  x = Scale(0, 1, LEFT, size - RIGHT)
  y = Scale(0, 1, size - BOTTOM, TOP)
  form = lambda value: html.percent(value, 0)
  parts = [frame(x, y, form, form, 'confidence'),
           tag('line', x1=x(0), y1=y(0), x2=x(1), y2=y(1), class_='axis dashed')]
  for who, (look, held) in bins.items():
    most = max(each.size for each in held)
    path = 'M' + 'L'.join(f'{x(each.confidence)} {y(each.accuracy)}'
                          for each in held)
    parts.append(tag('path', d=path, class_=f'line {look} thin'))
    parts += [tag('circle', tag(
        'title', f'{who}: {each.size} answers of {form(each.confidence)} '
        f'confidence, {form(each.accuracy)} right'),
        cx=x(each.confidence), cy=y(each.accuracy),
        r=round(2 + 7 * math.sqrt(each.size / most), 1),
        class_=f'bubble {look}') for each in held]
  return svg(html.join(*parts), said, size, size, class_='square')


def scatter(title: str, points: Sequence[tuple[str, float, float]],
            form: Callable[[float], str], name_x: str) -> Html:
  """Named points (name, x, y), x by factors, y a share."""
  xs, ys = [x for _, x, _ in points], [y for *_, y in points]
  log = min(xs) > 0
  low, high = (min(xs) / 1.5, max(xs) * 1.5) if log else (0, max(xs) or 1)
  x = Scale(low, high, LEFT, WIDTH - RIGHT, log)
  least, greatest = _range(ys, True, False)
  y = Scale(least, greatest, HEIGHT - BOTTOM, TOP)
  parts = [frame(x, y, html.amount, form, name_x)]
  for name, a, b in points:
    left = x(a) > .7 * WIDTH
    parts += [tag('circle', tag('title', f'{name}: {form(b)}'), cx=x(a),
                  cy=y(b), r=4, class_='dot a'),
              tag('text', name, x=x(a) + (-8 if left else 8), y=y(b) - 5,
                  class_='name', text_anchor='end' if left else 'start')]
  return html.join(tag('h3', title), svg(
      html.join(*parts), f'{title}: ' + '; '.join(
          f'{name} {form(b)} at {html.amount(a)}' for name, a, b in points),
      class_='plot'))


def shares(parts: Sequence[tuple[str, str, int]], said: str) -> Html:
  """One bar of counts: (name, look, count)."""
  total = sum(count for *_, count in parts)
  return html.join(
      tag('div', *(tag('span', class_=f'part {look}',
                       style=f'flex:{count}', title=f'{name}: {count}')
                   for name, look, count in parts if count),
          class_='shares', role='img', aria_label=said),
      legend([(name, look, False, html.percent(count / total))
              for name, look, count in parts]))


def bar(share: float, look: str, value: str) -> Html:
  """A share as a bar inside a cell of a table, its value before it."""
  return tag('span', tag('b', value), tag('span', tag(
      'i', class_=look, style=f'width:{100 * share:.1f}%'), class_='bar'),
             class_='barred')
