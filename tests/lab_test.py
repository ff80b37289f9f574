"""Stages of the study's later parts, tiny, from a pack of random photographs."""

import time
import types

import jax
import numpy as np
import pytest

from bench import agenda
from bench import further
from bench import lab as lab_lib
from bench import school
from big_distill import render
from big_distill.tools import pack

N = 2060  # Up to those that the tiny study validates on.


@pytest.fixture(scope='module')
def make(tmp_path_factory):
  rng = np.random.default_rng(0)
  arrays = {'classes': [*'abcd']}
  for split, n in (('train', N), ('test[:3000]', 9)):
    images = [rng.integers(0, 256, (12, 14, 3), np.uint8) for _ in range(n)]
    arrays |= pack.pack((render.pack(images), np.arange(n) % 4), split, 12, 90)
  folder = tmp_path_factory.mktemp('lab')
  np.savez(folder / 'pack.npz', **arrays)
  return lambda twin, pack, teacher, alone=False: lab_lib.Lab(
      {pack: str(folder / 'pack.npz')}, {teacher: ''}, 'float32', True, twin,
      folder, alone)


@pytest.fixture(scope='module')
def lab(make):
  return make('caltech101', 'caltech', 'lite0')


def stage(epochs, cooldowns=()):
  return agenda.Stage('cooled', epochs, (agenda.Arm('funmatch', rates=(.01,)),),
                      cooldowns=cooldowns)


def run(lab, one):
  """[(marked, its parameters)] of a stage."""
  lab.ask()
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
  lab.ask()
  with pytest.raises(lab_lib.OutOfTime):
    for _ in lab.run(one, agenda.hypers(one, []), time.monotonic() - 1):
      pass


def test_a_run_that_pauses_goes_on_as_if_it_had_not(lab, monkeypatch):
  """To the bit, and each evaluation comes once."""
  one = stage(1000)
  whole = run(lab, one)[-1][1]
  one, hypers, now = one._replace(pauses=True), agenda.hypers(one, []), [0.]
  monkeypatch.setattr(lab_lib, 'time',
                      types.SimpleNamespace(monotonic=lambda: now[0]))
  first = lab.run(one, hypers, 1.)
  marks = [next(first).at]
  now[0] = 2.
  with pytest.raises(lab_lib.OutOfTime, match='at step 80'):
    next(first)
  for marked in lab.run(one, hypers, 3.):
    marks.append(marked.at)
    got = jax.device_get(marked.params)
  assert marks == [800, 1000]
  jax.tree.map(np.testing.assert_array_equal, got, whole)


def test_the_second_twin_learns_from_five_kinds_of_answers(make):
  """A fixed teacher answers the same for each photograph, an independent one
  something else than one that sees what the student sees."""
  lab = make('cifar10', 'cifar', 'lite0_cifar', alone=True)
  modes = next(stage for stage in lab.twin.plan
               if stage.name == 'modes_rates_30')
  lab.ask()
  hypers = agenda.hypers(modes, [])
  *_, last = lab.run(modes, hypers, time.monotonic() + 1e6)
  assert last.answers.shape == (5, 3, 9, 4)
  shelf = lab._shelves[32]
  index = shelf.stream('cifar').result().index
  fixed, independent, same = (
      np.asarray(shelf.kept.answers)[shelf.answer[source]:][:len(index)]
      for source in (agenda.FIXED, agenda.INDEPENDENT,
                     agenda.CIFAR._replace(mixed=False)))
  photograph = index[0, 0]
  rows = fixed[:4][index[:4] == photograph]
  assert len(rows) > 1 and (rows == rows[0]).all()
  central = school.ask(lab.teachers['lite0_cifar'], school.pixels_of(
      lab.data['cifar'], 'train[:32]', 'central@32'))[photograph]
  np.testing.assert_allclose(rows[0], central, atol=1e-5)
  assert np.abs(independent[:4] - same[:4]).max() > 1e-3
  one, other = same[:4][index[:4] == photograph]
  assert np.abs(one - other).max() > 1e-3


def test_students_begin_from_labels_or_not_at_all(lab):
  one = agenda.Stage('begun', 30, (agenda.Arm('begun', rates=(.01,),
                                              begun=True),))
  lab.ask()
  with pytest.raises(ValueError, match='Nobody began from labels'):
    next(lab.run(one, agenda.hypers(one, []), time.monotonic() + 1e6))
  assert lab.lacks(agenda.Stage('kinds', 30, (
      agenda.Arm('dtd', agenda.Source('dtd', 'lite1')),))) == ['dtd', 'lite1']
