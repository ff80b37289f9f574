"""Stages of the study's second half, tiny, from a pack of random photographs."""

import time

import jax
import numpy as np
import pytest

from bench import agenda
from bench import further
from bench import lab as lab_lib
from big_distill import render
from big_distill.tools import pack

N = 2060  # Up to those that the tiny study validates on.


@pytest.fixture(scope='module')
def lab(tmp_path_factory):
  rng = np.random.default_rng(0)
  arrays = {'classes': [*'abcd']}
  for split, n in (('train', N), ('test[:3000]', 9)):
    images = [rng.integers(0, 256, (12, 14, 3), np.uint8) for _ in range(n)]
    arrays |= pack.pack((render.pack(images), np.arange(n) % 4), split, 12, 90)
  path = tmp_path_factory.mktemp('lab') / 'caltech.npz'
  np.savez(path, **arrays)
  return lab_lib.Lab({'caltech': str(path)}, {'lite0': ''}, 'float32', True)


def stage(epochs, cooldowns=()):
  return agenda.Stage('cooled', epochs, (agenda.Arm('funmatch', rates=(.01,)),),
                      cooldowns=cooldowns)


def run(lab, one):
  """[(marked, its parameters)] of a stage."""
  lab.enroll([one])
  lab.prepare([one])
  lab.wait(one)
  return [(marked, jax.device_get(marked.params)) for marked in lab.run(
      one, agenda.hypers(one, []), time.monotonic() + 1e6)]


def test_a_rate_that_is_cooled_at_two_lengths_is_two_runs(lab):
  """The longer one is, to the bit, the run that is cooled once."""
  (short, _), (long, got) = run(lab, stage(100, (30, 100)))
  (alone, want), = run(lab, stage(100, (100,)))
  assert [short.epochs, long.epochs, alone.epochs] == [30, 100, 100]
  jax.tree.map(np.testing.assert_array_equal, got, want)
  cosine = run(lab, stage(100))[-1][1]
  assert any(np.any(a != b) for a, b in zip(*map(jax.tree.leaves,
                                                 (cosine, want))))


def test_rows_say_what_was_marked_of_each_student(lab):
  one = stage(100)
  *_, (marked, _) = run(lab, one)
  hypers = agenda.hypers(one, [])
  rows = further.rows_of(one, marked, hypers, 1.)
  assert [row['seed'] for row in rows] == list(agenda.SEEDS)
  assert {(row['stage'], row['at'], row['lr']) for row in rows} == {
      ('cooled_run_100', 100, .01)}
  assert marked.answers.shape == (1, 3, 9, 4)
  told = lab.told.result()['test']
  for i, row in enumerate(rows):
    guess = marked.answers[0, i].argmax(-1)
    assert row['test_top1'] == pytest.approx(
        (guess == lab.labels['test']).mean(), abs=1e-4)
    assert row['test_agree'] == pytest.approx(
        (guess == told.argmax(-1)).mean(), abs=1e-4)


def test_a_stage_that_would_not_end_in_time_stops(lab):
  one = stage(3000)
  lab.enroll([one])
  with pytest.raises(lab_lib.OutOfTime):
    for _ in lab.run(one, agenda.hypers(one, []), time.monotonic() - 1):
      pass


def test_students_begin_from_labels_or_not_at_all(lab):
  one = agenda.Stage('begun', 30, (agenda.Arm('begun', rates=(.01,),
                                              begun=True),))
  lab.enroll([one])
  with pytest.raises(ValueError, match='Nobody began from labels'):
    next(lab.run(one, agenda.hypers(one, []), time.monotonic() + 1e6))
  assert lab.lacks(agenda.Stage('kinds', 30, (
      agenda.Arm('dtd', agenda.Source('dtd', 'lite1')),))) == ['dtd', 'lite1']
