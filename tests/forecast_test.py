"""Forecasts from curves whose future is known."""

import json

import numpy as np
import pytest

from big_distill import runs
from big_distill.tools import forecast

LAWS = {  # Whether less is better, and the value at a length.
    'accuracy': (False, lambda e: .8 - 2.5 * e**-.5),
    'accuracy, slow': (False, lambda e: .95 - 1.4 * e**-.25),
    'kl': (True, lambda e: .3 + 8 * e**-.5),
}


def curve(law, lengths=(30, 100, 300), seeds=3, noise=0., rng=None):
  rng = rng or np.random.default_rng(0)
  return {length: [law(length) + noise * rng.normal() for _ in range(seeds)]
          for length in lengths}


@pytest.mark.parametrize('name', LAWS)
def test_exact_curves_are_carried_on(name):
  lower, law = LAWS[name]
  told = forecast.forecast(curve(law, (30, 100, 300, 1000)), 3000, lower)
  assert told.low <= law(3000) <= told.high
  assert told.value == pytest.approx(law(3000), abs=.015)
  assert law(1000) * (1 if lower else -1) > told.value * (1 if lower else -1)


def test_intervals_hold_what_comes_as_often_as_they_say():
  """At least nine times in ten, and they are wider farther ahead."""
  lower, law = LAWS['accuracy']
  rng, inside, wide = np.random.default_rng(1), [], []
  for _ in range(60):
    values = curve(law, (30, 100, 300), noise=.01, rng=rng)
    near, far = (forecast.forecast(values, at, lower) for at in (600, 3000))
    inside += [near.low <= law(600) <= near.high,
               far.low <= law(3000) <= far.high]
    wide.append((near.high - near.low) < (far.high - far.low))
  assert np.mean(inside) >= .9 and all(wide)


def test_more_seeds_narrow_the_interval():
  _, law = LAWS['accuracy']
  few, many = (forecast.forecast(curve(law, seeds=n, noise=.02), 600)
               for n in (2, 40))
  assert many.high - many.low < few.high - few.low


def test_it_is_useless_where_the_law_breaks():
  """Accuracy that falls again, as from labels, and accuracy that stays."""
  fallen = {30: [.2], 100: [.3], 300: [.34], 1000: [.25]}
  assert not forecast.score(fallen).useful
  lines = forecast.report(fallen, 'student/acc@1')
  assert any(line.startswith('useless') for line in lines)
  risen = curve(LAWS['accuracy'][1], (30, 100, 300, 1000))
  assert forecast.score(risen).useful
  assert not forecast.score({30: [.5], 100: [.5], 300: [.5]}).useful


def test_shares_stay_shares():
  told = forecast.forecast({30: [.9], 100: [.97], 300: [.99]}, 3000)
  assert 0 <= told.low <= told.value <= told.high <= 1
  told = forecast.forecast({30: [.1], 100: [.03], 300: [.01]}, 3000, lower=True)
  assert 0 <= told.low <= told.value <= told.high


def test_too_few_lengths_are_refused():
  with pytest.raises(ValueError, match='two lengths'):
    forecast.forecast({30: [.5, .6]}, 60)
  with pytest.raises(ValueError, match='3 lengths'):
    forecast.score({30: [.5], 100: [.6]})


@pytest.fixture
def workdir(tmp_path):
  def write(name, epochs, value, seed=0, lr=.1, finished=True):
    path = tmp_path / name
    path.mkdir()
    runs.save(path / 'config.json', {'seed': seed, 'total_epochs': epochs,
                                     'optim': {'lr': lr}})
    (path / 'metrics.jsonl').write_text(json.dumps(
        {'step': epochs, 'student/acc@1': value}) + '\n')
    if finished:
      runs.save(path / 'result.json', {'steps': epochs})
    return str(path)
  return write


def test_workdirs_are_read_by_length_and_seed(workdir):
  paths = [workdir('a', 30, .5), workdir('b', 30, .6, seed=1),
           workdir('c', 100, .7)]
  assert forecast.collect(paths, 'student/acc@1') == {30: [.5, .6], 100: [.7]}
  with pytest.raises(ValueError, match=r'differ in optim\.lr'):
    forecast.collect([*paths, workdir('d', 300, .8, lr=.2)], 'student/acc@1')
  with pytest.raises(ValueError, match='not finished'):
    forecast.collect([workdir('e', 300, .8, finished=False)], 'student/acc@1')
  with pytest.raises(ValueError, match='has no agree/kl'):
    forecast.collect(paths, 'agree/kl')
