"""The ways to feed a config are measured on steps that training takes."""

import functools
import itertools
import types

import numpy as np
import pytest

from big_distill import course
from big_distill import feed as feed_lib
from big_distill import parallel
from big_distill.input import pipeline
from big_distill.tools import feed
from configs import quickstart


def test_every_way_takes_as_many_steps_whole_calls_at_a_time(monkeypatch):
  made = []

  def make(config, data):
    del data
    most, calls = config['steps_per_call'], []
    made.append((config['data']['resident'], calls))

    def take(states, batch, first, last):
      assert last - first == most
      calls.append(most)
      return {name: (state, state) for name, state in states.items()}

    batch = {'index': np.zeros(4, np.int32)}
    return types.SimpleNamespace(
        state=np.float32(0), steps=types.SimpleNamespace(take=take),
        feed=types.SimpleNamespace(
            ends=functools.partial(
                feed_lib.call_ends, total=config['total_steps'], most=most,
                periods=[]),
            batches=lambda start: itertools.repeat(batch)))

  monkeypatch.setattr(feed.course_lib, 'make', make)
  config = dict(data={}, batch_size=4, total_epochs=3, log_percent=1)
  rates = feed.measure(config, None, per_call=3, steps=6, repeats=2)
  assert [*rates] == [(False, 1), (True, 1), (True, 3)]
  assert all(rate > 0 for rate in rates.values())
  assert made == [(False, [1] * 18), (True, [1] * 18), (True, [3] * 6)]


@pytest.mark.parametrize('resident, most', [(False, 1), (True, 1), (True, 3)])
def test_a_variant_of_a_config_is_never_interrupted(resident, most):
  config = quickstart.get_config('tiny=True').to_dict()
  config['teachers'] = dict(labels=dict(labels=True))
  made = course.make(feed.variant(config, resident, most), pipeline)
  assert [*itertools.islice(made.feed.ends(0), 4)] == [most * i for i in range(1, 5)]
  batch = parallel.split(next(made.feed.batches(0)))
  assert ('boxes' in batch) == resident
  assert batch['label'].shape == (4, 8) + (most,) * (most > 1)
