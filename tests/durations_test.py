"""Durations become steps by arithmetic that the paper's tables confirm."""

import fractions

import hypothesis
from hypothesis import strategies
import pytest

from big_distill.durations import due
from big_distill.durations import Durations
from big_distill.durations import without


@pytest.mark.parametrize('n, batch, epochs, steps', [  # Paper, Table of steps.
    (1020, 512, 1000, 1992), (1020, 512, 1_000_000, 1_992_188),
    (3312, 512, 300, 1941), (68_175, 512, 100, 13_315),
    (76_128, 512, 3000, 446_063), (1_255_544, 4096, 9600, 2_942_681)])
def test_total_steps_are_the_papers(n, batch, epochs, steps):
  assert Durations(batch, n).of({'total_epochs': epochs}, 'total') == steps


def test_every_unit_says_the_same():
  durations = Durations(batch_size=10, n_train=100, total=200)
  for unit, amount in (('steps', 20), ('examples', 200), ('epochs', 2),
                       ('percent', 10)):
    section = {f'log_{unit}': amount, 'other': 1}
    assert durations.of(section, 'log') == 20
    assert without(section, 'log') == {'other': 1}


@hypothesis.settings(max_examples=200, deadline=None, derandomize=True)
@hypothesis.given(
    strategies.sampled_from(['steps', 'examples', 'epochs', 'percent']),
    strategies.integers(0, 10**7) | strategies.floats(0, 1e5),
    strategies.integers(1, 4096), strategies.integers(1, 2 * 10**6),
    strategies.integers(1, 10**6))
def test_any_duration_is_its_exact_value_rounded(unit, amount, batch, n, total):
  got = Durations(batch, n, total).of({f'log_{unit}': amount}, 'log')
  worth = {'steps': 1, 'examples': fractions.Fraction(1, batch),
           'epochs': fractions.Fraction(n, batch),
           'percent': fractions.Fraction(total, 100)}[unit]
  exact = fractions.Fraction(amount) * worth
  # Half a step, and float64's rounding of what may be 1e14 steps.
  assert abs(got - exact) <= .5 + exact * 2**-51 or got == 1 > exact > 0
  assert (got == 0) == (amount == 0)


def test_zero_is_never_and_little_is_once():
  durations = Durations(10, 100, 200)
  assert durations.of({'log_steps': 0}, 'log') == 0
  assert durations.of({'log_percent': .001}, 'log') == 1
  assert durations.of({}, 'log', default=7) == 7


@pytest.mark.parametrize('section, message', [
    ({'log_steps': 1, 'log_epochs': 2}, 'log_steps and log_epochs'),
    ({}, 'None of log_steps'),
    ({'log_steps': -1}, 'log_steps=-1 should be a finite number, 0 or more'),
    ({'log_epochs': float('inf')}, 'log_epochs=inf should be a finite number'),
    ({'log_steps': 'often'}, "log_steps='often' should be"),
    ({'log_percent': 3}, 'log_percent=3 would be a percentage of itself')])
def test_an_unclear_duration_is_an_error(section, message):
  with pytest.raises(ValueError, match=message):
    Durations(10, 100).of(section, 'log')


def test_due_at_multiples_and_at_the_end():
  assert [s for s in range(1, 11) if due(s, 4, 10)] == [4, 8, 10]
  assert [s for s in range(1, 11) if due(s, 0, 10)] == [10]
