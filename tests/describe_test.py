"""docs/configs.md is what the signatures say, and leaves no key unexplained."""

import pathlib

import pytest

from big_distill import meanings
from big_distill import signatures
from big_distill.tools import describe

PAGE = pathlib.Path(__file__).parent.parent / 'docs' / 'configs.md'


def test_the_page_is_of_today():
  assert PAGE.read_text() == describe.page(), (
      'Stale: python -m big_distill.tools.describe --out=docs/configs.md')


@pytest.mark.parametrize('path', [
    path for path in signatures.SECTIONS
    if path[2:] not in (('data',), ('train',)) and len(path) < 4
    and not (path[:1] == ('students',) and len(path) > 2)])
def test_every_key_has_a_meaning(path):
  found = list(describe.rows(path))
  assert found and not [row for row in found if not row[-1]]
  # Every key that a flag can set is on the page.
  section = tuple(name.replace('*', 'x') for name in path)
  written = ' '.join(row[1] for row in found)
  assert all(f'`{key}`' in written for key in signatures.keys(section))


def test_no_meaning_is_left_of_a_key_that_is_gone():
  known = set()
  for path in signatures.SECTIONS:
    section = '.'.join('NAME' if name == '*' else name for name in path)
    for row in describe.rows(path):
      for key in row[1].replace('`', '').split(', '):
        known |= {f'{section}.{key}', f'{section}({row[0]}).{key}', key}
  assert not [name for name in meanings.MEANINGS
              if name not in known | {'students.NAME'}]
