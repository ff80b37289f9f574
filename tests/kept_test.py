"""Students of kept views and answers are those of views that are rendered."""

import concurrent.futures
import types

import jax
import numpy as np
import pytest

from bench import agenda
from bench import alone
from bench import kept as kept_lib
from bench import school
from bench import shelf as shelf_lib
from bench import study
from big_distill import packed
from big_distill import params as params_lib
from big_distill import pretrained
from big_distill import teaching
from big_distill.ops import layers
from big_distill.pupil import Pupil
from big_distill.state import State

CLASSES, STEPS, SIZE = 12, 8, 8
STUDENT = dict(family='bit', depth=(1,), width=.125)
FUNMATCH, SAME = agenda.Source(), agenda.Source(mixed=False)
LABELS = agenda.Source(teacher=agenda.LABELS)


@pytest.fixture(scope='module')
def room(random_pack):
  """32 random photographs and a random teacher; an epoch is a step."""
  data = packed.Data(random_pack)
  held = data.hold(data.load())
  teacher = teaching.load('lite0', size=16, num_classes=CLASSES, random=STUDENT)
  return shelf_lib.Room(
      kept_lib.Setting(CLASSES, batch_size=32, seed=3), {'caltech': data},
      {'caltech': held}, {'caltech': shelf_lib.packs([held[0]])[0]},
      {'lite0': teacher}, {'lite0': teacher.params}, round,
      {'caltech': 'train'}, 'lite0')


@pytest.fixture(scope='module')
def shelf(room):
  with concurrent.futures.ThreadPoolExecutor(1) as pool:
    shelf = shelf_lib.Shelf(SIZE, dict.fromkeys((FUNMATCH, SAME, LABELS), STEPS),
                            room, pool)
    for source in (SAME, FUNMATCH, LABELS):
      shelf.record(source, STEPS)
  return shelf


def learn(room, shelf, sources, periods, seeds, lr, stacked=True):
  """(Parameters [a, s, ...], losses) after STEPS steps."""
  created = [pretrained.create(size=SIZE, seed=seed, num_classes=CLASSES,
                               **STUDENT) for seed in seeds]
  params = jax.tree.map(lambda *x: np.stack([np.stack(x)] * len(sources)),
                        *(each for _, each in created))
  lessons = kept_lib.Lessons(*(np.asarray(each, np.int32) for each in (
      [shelf.view[source.stream] for source in sources],
      [shelf.answer[source] for source in sources], periods)),
                             np.asarray([source.mixed for source in sources]))
  ones = np.ones_like(lr)
  program = (jax.jit(kept_lib.make_learn(room.setting, created[0][0]))
             if stacked else alone.make_learn(room.setting, created[0][0]))
  states, losses = program(
      kept_lib.begin(params, 'adam'), kept_lib.Hypers(
          lr, 1e-3 * ones, ones, np.int32(STEPS), np.int32(0), np.int32(0)),
      lessons, shelf.kept, np.int32(STEPS))
  return jax.device_get(states.params), np.asarray(losses)


def distance(a, b):
  a, b = params_lib.flatten(a), params_lib.flatten(b)
  return np.sqrt(sum(np.square(a[name] - b[name]).sum() for name in a))


def test_kept_rows_teach_as_views_do_that_are_rendered(room, shelf):
  """The stacked study without a store (bench/school.py) makes these students."""
  arms = {'same/ic': SAME, 'funmatch': FUNMATCH, 'labels, mixed up': LABELS}
  # Rates a hundred times higher make up to .11 of a rounding in eight steps.
  seeds, lr = [5, 3], np.float32([[1, 2], [3, .5], [1, 1]]) * np.float32(1e-4)
  got, losses = learn(room, shelf, list(arms.values()), [STEPS] * 3, seeds, lr)
  one = school.School(
      room.data['caltech'], 'train', study.Setting(
          STUDENT, SIZE, tuple(arms), CLASSES, batch_size=32, warmup=0.,
          per_call=STEPS), room.teachers['lite0'], seed=3)
  with layers.stacked():  # Convolutions are computed in the same way.
    (_, want_losses, want), = one.run(seeds, lr, 1e-3, epochs=STEPS)
  np.testing.assert_allclose(losses, want_losses, rtol=1e-3)
  _, begun = pretrained.create(size=SIZE, seed=3, num_classes=CLASSES, **STUDENT)
  for arm in range(3):
    for other in range(3):
      apart = distance(*(jax.tree.map(lambda x, i=i: x[i, 1], tree)
                         for tree, i in ((got, arm), (want, other))))
      moved = distance(jax.tree.map(lambda x, i=other: x[i, 1], want), begun)
      # Seen: up to 1.4e-5 of what it moved from itself, .3 and more from others.
      assert (apart < .01 * moved) == (arm == other)


def test_students_alone_are_those_that_are_stacked(room, shelf):
  seeds, lr = [5, 3], np.float32([[1, 2], [3, .5]]) * np.float32(1e-4)
  (got, losses), (want, want_losses) = (
      learn(room, shelf, [SAME, FUNMATCH], [2, STEPS], seeds, lr, stacked)
      for stacked in (False, True))
  np.testing.assert_allclose(losses, want_losses, rtol=1e-3)
  for i in np.ndindex(2, 2):
    one, other, *rest = (jax.tree.map(lambda x, j=j: x[j], tree)
                         for tree, j in ((got, i), (want, i), (want, (1 - i[0],
                                                                      i[1]))))
    assert distance(one, other) < .01 * distance(one, *rest)


def test_rows_alone_are_those_that_are_recorded_together(room, shelf):
  with concurrent.futures.ThreadPoolExecutor(1) as pool:
    other = shelf_lib.Shelf(SIZE, dict.fromkeys((FUNMATCH, SAME, LABELS), STEPS),
                            room._replace(alone=True), pool)
    for source in (SAME, FUNMATCH, LABELS):
      other.record(source, STEPS)
  np.testing.assert_array_equal(other.kept.views, shelf.kept.views)
  np.testing.assert_allclose(other.kept.answers, shelf.kept.answers, atol=1e-4)
  assert np.ptp(shelf.kept.answers[shelf.answer[SAME]]) > .1


def test_an_exam_alone_is_that_of_all(room):
  model, one = pretrained.create(size=SIZE, seed=1, num_classes=CLASSES,
                                 **STUDENT)
  params = jax.tree.map(lambda x: np.stack([[x, x * .5]]), one)
  rng = np.random.default_rng(0)
  images = {name: rng.integers(0, 256, (n, SIZE, SIZE, 3), np.uint8)
            for name, n in (('val', 5), ('test', 300))}
  got, want = (make(model, images)(params)
               for make in (alone.make_exam, school.make_exam))
  for name in images:
    assert got[name].shape == (1, 2, len(images[name]), CLASSES)
    np.testing.assert_allclose(got[name], want[name], atol=1e-4)


def test_rows_that_repeat_are_the_first_ones_again(room, shelf):
  """A period of 2 equals a stream of its first two rows, written four times."""
  lr = np.full((1, 1), .01, np.float32)
  got, _ = learn(room, shelf, [SAME], [2], [3], lr)
  kept = jax.tree.map(np.array, shelf.kept)
  for rows, first in ((kept.views, shelf.view['caltech']),
                      (kept.answers, shelf.answer[SAME])):
    for step in range(2, STEPS):
      rows[first + step] = rows[first + step % 2]
  tiled = types.SimpleNamespace(kept=kept, view=shelf.view, answer=shelf.answer)
  want, _ = learn(room, tiled, [SAME], [STEPS], [3], lr)
  other, _ = learn(room, shelf, [SAME], [STEPS], [3], lr)
  assert distance(got, want) == 0 < distance(got, other)


@pytest.mark.parametrize('name', ['shampoo', 'soap'])
def test_what_an_optimizer_does_now_and_then_stays_a_branch(name):
  """Students are updated together as they are alone, by the same gradients."""
  tx = study.optimizer(.01, 0., 1., name)
  pupil = Pupil(None, '', tx, None, None)
  update = lambda state, grads: pupil.update(state, grads, {})[0]

  def together(states, grads):
    axes = kept_lib.axes_of(states)
    return jax.vmap(jax.vmap(update, (axes, 0), axes), (axes, 0), axes)(
        states, grads)

  rng = np.random.default_rng(0)
  # Square, so that one gradient fills the statistics: else a part of SOAP's
  # basis is any basis, as rounding has it.
  params, *grads = ({'kernel': np.float32(rng.normal(size=(1, 2, 16, 16)))}
                    for _ in range(31))
  states = kept_lib.begin(params, name)
  alone = [State.init(jax.tree.map(lambda x, i=i: x[0, i], params), tx)
           for i in range(2)]
  assert ' cond[' in str(jax.make_jaxpr(together)(states, grads[0]))
  each = jax.jit(update)
  for grad in grads:
    states = jax.jit(together)(states, grad)
    alone = [each(state, {'kernel': grad['kernel'][0, i]})
             for i, state in enumerate(alone)]
  assert states.step.shape == () and states.step == len(grads)
  for i, state in enumerate(alone):
    moved = state.params['kernel'] - params['kernel'][0, i]
    np.testing.assert_allclose(
        states.params['kernel'][0, i], state.params['kernel'],
        atol=1e-3 * np.abs(moved).max())


@pytest.mark.parametrize('name', agenda.TWINS)
def test_every_stage_has_rates_rows_and_students(name):
  """What a stage reads is on the shelf, and no longer than it is kept."""
  twin = agenda.TWINS[name]
  tuned = [dict(arm=arm.name, stage=stage.name, epochs=stage.epochs,
                at=stage.epochs, val_top1=-abs(rate - .003), lr=rate)
           for stage in twin.plan if stage.points == 'rates'
           for arm in stage.arms for rate in arm.rates]
  names = [stage.name for stage in twin.plan]
  assert len(set(names)) == len(names)
  for stage in twin.plan:
    seeds, lr, wd, t = agenda.hypers(stage, tuned)
    shape = len(stage.arms), stage.columns
    assert lr.shape == wd.shape == t.shape == shape and len(seeds) == shape[1]
    room = twin.room[agenda.STUDENTS[stage.student][1]]
    for arm in stage.arms:
      assert (arm.period or stage.epochs) <= room[arm.source]
      pack, split = agenda.STREAMS[arm.source.stream]
      assert int(split[7:-1] or 0) <= int(agenda.HELD[pack][7:-1] or 0)
  with pytest.raises(ValueError, match='not tuned'):
    agenda.rate([], 'funmatch', 300)
