"""Recorded votes are what the teacher would have said, and to what."""

import json
import shutil

import jax
import numpy as np
import pytest

from big_distill import course
from big_distill import lessons as lessons_lib
from big_distill.input import pipeline
from big_distill.tools import record
from configs import quickstart

VOTES = 3


def config(**changes):
  c = quickstart.get_config('tiny=True')
  with c.unlocked(), c.ignore_type():
    c.mode = dict(student='inception#student', teacher='inception#votes',
                  votes=VOTES)
    c.data.split = 'train[:40]'  # Blocks of 16: the last has 8.
    c.evals = {}
    c.update_from_flattened_dict(changes)
  return c


def stored(folder, **changes):
  return config(**{'answers.store': str(folder), **changes})


@pytest.fixture(scope='module')
def recording(tmp_path_factory):
  """A recording of three blocks, the second of them written last."""
  folder = tmp_path_factory.mktemp('recording') / 'answers'
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(lessons_lib, 'BLOCK', 16)
    assert record.record(stored(folder), pipeline) == 3
    checks = np.memmap(folder / 'checks-00000-of-00001.bin', np.uint64, 'r+')
    whole, checks[1] = checks.copy(), 0
    assert record.record(stored(folder), pipeline) == 1
    assert (checks == whole).all()
    assert record.record(stored(folder), pipeline) == 0
    yield folder


def set_up(folder, **changes):
  return course.make(stored(folder, **changes), pipeline)


def test_recorded_answers_are_the_mean_of_live_ones(recording):
  made = set_up(recording)
  batch = next(made.feed.batches(0))
  teacher, = made.room.read_teachers().models
  view, source = teacher.sees, made.source
  answer = jax.jit(lambda images: jax.nn.softmax(
      teacher.answer(teacher.params, images / 127.5 - 1)))
  for place in (0, 7):
    index = int(batch['index'][place])
    votes = next(pipeline.vote_batches(source, [view], VOTES, 0, index,
                                       index + 1, VOTES))
    want = answer(votes['views'][str(view)].astype(np.float32)).mean(axis=0)
    got = jax.nn.softmax(np.float32(batch['answers'][0][place]))
    # Half precision keeps three digits.
    np.testing.assert_allclose(got, want, atol=1e-3)
    shown = votes['views'][str(view)]
    assert (shown[0] != shown[1]).any() and (shown[1] != shown[2]).any()


def test_a_student_learns_from_the_recording_alone(recording):
  """Its targets are the recorded answers; no teacher is read or shown images."""
  made = set_up(recording)
  assert all(isinstance(leaf, jax.ShapeDtypeStruct)
             for leaf in jax.tree.leaves(made.room.teacher_params))
  batch = next(made.feed.batches(0))
  assert list(batch['views']) == [str(made.room.sees)]
  target = made.lesson.agree(made.lesson.form.unpack(batch['answers']),
                             made.lesson.see(0, batch))
  np.testing.assert_allclose(
      target, jax.nn.log_softmax(np.float32(batch['answers'][0])), atol=1e-5)


@pytest.mark.parametrize('field, changes', [
    ('data', {'data.split': 'train[:39]'}),
    ('data', {'data.name': 'caltech12:1.0.0', 'data.split': 'test[:40]'}),
    ('seed', {'seed': 1}),
    ('votes', {'mode.votes': 4}),
    ('teachers', {'mode.teacher': 'inception#others'}),
    ('teachers', {'teachers.teacher.size': 24}),
    ('fraction', {'crops': {'fraction': .5}}),
    ('reduced', {'crops': {'reduced': True}}),
    ('teachers', {'teachers.teacher.dtype': 'bfloat16'}),
    ('teachers', {'teachers.teacher.weights': 'int8'}),
    ('dtype', {'answers.dtype': 'float32'}),
    ('images', {'data.as_shown': True}),
    ('teachers', {'teachers.teacher.init': '', 'teachers.teacher.random': {
        'family': 'bit', 'depth': (1,), 'width': .125}})])
def test_a_recording_of_something_else_is_refused_by_field(
    recording, field, changes):
  with pytest.raises(ValueError, match=f'has {field}='):
    set_up(recording, **changes)


def test_a_recording_of_renamed_images_is_refused(tmp_path):
  """Their order follows from their names: answers would go to other images."""
  folder, out = tmp_path / 'images', tmp_path / 'out'
  folder.mkdir()
  source = pipeline.load('caltech12', 'train[:6]')
  for i in range(6):
    image, _ = source.fetch(i)
    (folder / f'{i}.jpg').write_bytes(image.numpy())
  changes = {'data.name': f'folder:{folder}', 'data.split': 'train'}
  record.record(stored(out, **changes), pipeline)
  for file in folder.iterdir():
    file.rename(folder / f'new{file.name}')
  with pytest.raises(ValueError, match='has images='):
    set_up(out, **changes)


def test_a_recording_not_finished_is_refused(recording, tmp_path):
  shutil.copytree(recording, tmp_path / 'copy')
  np.memmap(tmp_path / 'copy' / 'checks-00000-of-00001.bin', np.uint64,
            'r+')[2] = 0
  with pytest.raises(ValueError, match='lacks 1 of 3 blocks .* being 2'):
    set_up(tmp_path / 'copy')
  with pytest.raises(ValueError, match='no answers in'):
    set_up(tmp_path / 'nowhere')
  assert not (tmp_path / 'nowhere').exists()


def test_recordings_and_modes_belong_together(recording):
  with pytest.raises(ValueError, match='needs its recorded answers'):
    course.make(config(), pipeline)
  with pytest.raises(ValueError, match='Set answers.period_epochs'):
    set_up(recording, mode='same/ic')
  with pytest.raises(ValueError, match='cannot be mixed up'):
    set_up(recording, **{'mode.mixup': True})
  with pytest.raises(ValueError, match='leave answers.period_epochs out'):
    set_up(recording, **{'answers.period_epochs': 2})
  with pytest.raises(ValueError, match='does not say where'):
    record.record(config(mode='same/ic'), pipeline)


def test_the_manifest_is_for_people_too(recording):
  manifest = json.loads((recording / 'manifest.json').read_text())
  assert manifest['votes'] == VOTES and manifest['examples'] == 40
  assert manifest['teachers'][0]['view'] == 'inception#votes@16'
  assert 'caltech12' in manifest['data'] and 'jax' in manifest['made_by']
