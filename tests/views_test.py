"""The view algebra: one written form, and the paper's modes as a table."""

import hypothesis
from hypothesis import strategies
import ml_collections
import pytest

from big_distill import views
from big_distill.views import View


@pytest.mark.parametrize('text', [
    'squash', 'central', 'central@224', 'random#student@1', 'inception#both',
    'inception#both@224', 'random#teacher@160'])
def test_the_written_form_is_the_view(text):
  view = View.parse(text)
  assert str(view) == text and View.parse(str(view)) == view


words = strategies.from_regex(r'\w{1,9}', fullmatch=True)
drawn, fixed = ([name for name, die in views.CROPS.items() if die == throws]
                for throws in (True, False))


@hypothesis.settings(max_examples=100, deadline=None, derandomize=True)
@hypothesis.given(
    strategies.one_of(strategies.tuples(strategies.sampled_from(drawn), words),
                      strategies.tuples(strategies.sampled_from(fixed),
                                        strategies.none())),
    strategies.none() | strategies.integers(1))
def test_any_view_is_what_its_written_form_says(region, size):
  view = View(*region, size)
  assert View.parse(str(view)) == view
  assert view.region == View(*region) and view.at(7).region == view.region


@hypothesis.settings(max_examples=200, deadline=None, derandomize=True)
@hypothesis.given(strategies.text('central#both@01 ', max_size=16))
def test_any_text_is_a_view_or_a_clear_error(text):
  try:
    view = View.parse(text)
  except ValueError as error:
    assert '\n' not in str(error)
  else:
    assert View.parse(str(view)) == view


@pytest.mark.parametrize('text, message', [
    ('central#x', 'central takes no draw'), ('squash#both@3', 'takes no draw'),
    ('inception', 'inception needs a draw, for example inception#both'),
    ('random@32', 'needs a draw'), ('incepton#both', 'did you mean inception'),
    ('central@0', 'whole number of pixels, at least 1'), ('central@', 'not of the form'),
    ('central@-1', 'not of the form'), ('', 'not of the form'),
    ('random#a#b', 'not of the form')])
def test_what_is_not_a_view_is_an_error_that_helps(text, message):
  with pytest.raises(ValueError, match=message):
    View.parse(text)


def test_modes_are_the_papers():
  table = {name: (str(mode.student), str(mode.teacher), mode.mixup, mode.votes)
           for name, mode in views.MODES.items()}
  assert table == {
      'fix/rs': ('squash', 'squash', False, 0),
      'fix/cc': ('random#student', 'central', False, 0),
      'fix/ic_ens': ('inception#student', 'inception#votes', False, 1024),
      'ind/rc': ('random#student', 'random#teacher', False, 0),
      'ind/ic': ('inception#student', 'inception#teacher', False, 0),
      'same/rc': ('random#both', 'random#both', False, 0),
      'same/ic': ('inception#both', 'inception#both', False, 0),
      'funmatch': ('inception#both', 'inception#both', True, 0)}


def test_a_mode_can_be_written_in_a_config():
  spec = {'student': 'central', 'teacher': 'random#t', 'mixup': True}
  for written in (spec, ml_collections.ConfigDict(spec)):
    mode = views.mode(written)
    assert mode == views.Mode(View('central'), View('random', 't'), True)


@pytest.mark.parametrize('spec, message', [
    ('same/icc', 'did you mean same/ic'),
    ({'student': 'central'}, 'what the teacher sees'),
    ({'student': 'central', 'teacher': 'central', 'mixp': 1}, 'mean mixup'),
    ({'student': 'central@3', 'teacher': 'central'}, 'belong to the models')])
def test_what_is_not_a_mode_is_an_error_that_helps(spec, message):
  with pytest.raises(ValueError, match=message):
    views.mode(spec)


def test_every_model_sees_its_own_size_of_the_modes_region():
  student, teachers = views.assign(views.MODES['funmatch'], 160, [224, 384])
  assert (str(student), *map(str, teachers)) == (
      'inception#both@160', 'inception#both@224', 'inception#both@384')
  assert len({view.region for view in (student, *teachers)}) == 1


def test_draws_are_different_dice_and_fixed_crops_have_none():
  dice = [View('random', draw).die for draw in ('student', 'teacher', 'both')]
  assert len(set(dice)) == 3 and View('central').die is None


def test_a_size_is_a_whole_number_of_pixels():
  with pytest.raises(ValueError, match='central@2.5: a size is a whole number'):
    View('central').at(2.5)
