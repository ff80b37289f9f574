"""HTML as values: text is escaped unless it is Html, which tags return.

So a class called '<b>' is shown as it is called. What a page says of files is
their names: `nameless` leaves out the folders of the machine that wrote it.
"""

from collections.abc import Iterable, Sequence
import html
import math
import os
import re
from typing import Any

EMPTY = ('meta', 'img', 'br')  # Elements that have no end.
# A path from the root on, in the middle of a sentence; no URL, no 'images/s'.
PATH = re.compile(r'(?<![\w/.…])/(?!/)(?:[^/\s\'"]+/)+')


class Html(str):
  """Text that is HTML already."""


def text(value: Any) -> Html:
  """A value as HTML: Html as it is, any other escaped."""
  return value if isinstance(value, Html) else Html(html.escape(str(value)))


def join(*parts: Any) -> Html:
  """Values as HTML, one after another."""
  return Html(''.join(map(text, parts)))


def tag(name: str, /, *content: Any, **attributes: Any) -> Html:
  """An element: tag('p', 'a < b', class_='note'). False leaves an attribute out.

  class_ is written class, data_x and aria_x data-x and aria-x.
  """
  said = ''.join(
      f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
      for key, value in attributes.items() if value is not False)
  if name in EMPTY:
    return Html(f'<{name}{said}>')
  return Html(f'<{name}{said}>{join(*content)}</{name}>')


def note(*content: Any) -> Html:
  """A sentence that explains, or says what is missing and why."""
  return tag('p', *content, class_='note')


def table(header: Sequence[Any], rows: Iterable[Sequence[Any]],
          caption: str = '', words: Sequence[int] = (0,)) -> Html:
  """A table that scrolls inside its box; columns in `words` are no numbers."""
  def cell(name, i, value, **more):
    kind = False if i in words else 'number'
    return tag(name, value, class_=kind, **more)

  head = tag('tr', *(cell('th', i, value, scope='col')
                     for i, value in enumerate(header)))
  body = [tag('tr', *(cell('td' if i else 'th', i, value,
                           scope=False if i else 'row')
                      for i, value in enumerate(row))) for row in rows]
  return tag('div', tag(
      'table', tag('caption', caption) if caption else '',
      tag('thead', head), tag('tbody', *body)), class_='scroll', tabindex=0)


def percent(share: float | None, digits: int = 1) -> str:
  """.844 -> '84.4 %'; None or NaN -> '–'."""
  return number(share, f'.{digits}%').replace('%', ' %')


def number(value: float | None, form: str = ',.4g') -> str:
  """A number as text; '–' for what is not known."""
  if value is None or not math.isfinite(value):
    return '–' if value is None or math.isnan(value) else str(value)
  return f'{value:{form}}'


def amount(value: float | None) -> str:
  """285540 -> '286 k', 92418048 -> '92.4 M'."""
  if value is None:
    return '–'
  for unit, sign in ((1e15, 'P'), (1e12, 'T'), (1e9, 'G'), (1e6, 'M'),
                     (1e3, 'k')):
    if abs(value) >= unit:
      return f'{value / unit:.3g} {sign}'
  return f'{value:.3g}'


def duration(seconds: float | None) -> str:
  """511.2 -> '8 min 31 s'."""
  if seconds is None:
    return '–'
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f'{hours:,} h {minutes:02} min'
  return f'{minutes} min {seconds:02} s' if minutes else f'{seconds} s'


def nameless(said: str, paths: Iterable[str] = ()) -> str:
  """A sentence without folders of this machine: '…/photos' for '/home/me/photos'.

  `paths` are those that are known, which may have spaces.
  """
  for path in sorted({*paths, os.path.expanduser('~'), os.getcwd()}, key=len,
                     reverse=True):
    if len(path) > 1 and path.startswith('/'):
      said = said.replace(path.rstrip('/'), f'…/{os.path.basename(path.rstrip("/"))}')
  return PATH.sub('…/', said)
