"""Answers that are replayed teach as they taught live, to the bit."""

import json
import os
import shutil
import textwrap

import numpy as np
import pytest

from big_distill import course
from big_distill import lessons as lessons_lib
from big_distill import pretrained
from big_distill import train
from big_distill import views
from big_distill.input import pipeline
from big_distill.tools import record
from configs import quickstart

# More by hand: REPLAY_STEPS=200 python -m pytest tests/replay_test.py -k equals
STEPS = int(os.environ.get('REPLAY_STEPS', 13))
PERIOD = -(-STEPS // 4)


class Rows(list):
  """A writer in memory, of what does not depend on time."""
  read = lambda self: self
  until = None

  def write(self, step, row):
    if step == self.until:
      raise KeyboardInterrupt
    self.append({'step': step, **{name: value for name, value in row.items()
                                  if 'time/' not in name}})

  def rewind(self, step):
    self[:] = [row for row in self if row['step'] <= step]


def config(**changes):
  """Two teachers of two sizes, mixup, a log every step."""
  c = quickstart.get_config('tiny=True')
  with c.unlocked(), c.ignore_type():
    c.total_steps, c.log_steps = STEPS, 1
    del c.log_percent
    c.checkpoints = dict(every_steps=3)
    c.student.depth = (1,)
    small = dict(random=dict(family='bit', depth=(1,), width=.125), dtype='float32',
                 weights='float32')
    c.teachers = dict(a=dict(size=16, **small), b=dict(size=24, **small))
    c.evals = {}
    c.answers = dict(dtype='float32', audit_percent=0, period_steps=PERIOD)
    c.update_from_flattened_dict(changes)
  return c


def run(folder, rows=None, **changes):
  """(weights, losses by step, rows)."""
  rows = Rows() if rows is None else rows
  folder.mkdir(exist_ok=True)
  train.train(config(**changes), str(folder), pipeline, rows)
  with np.load(folder / 'student.npz') as file:
    weights = {name: file[name] for name in file.files}
  return weights, [row['train/loss'] for row in rows
                   if 'train/loss' in row], rows


def same(one, other):
  assert one[1] == other[1]
  for name, want in other[0].items():
    assert (one[0][name] == want).all(), name


@pytest.fixture(scope='module')
def live(tmp_path_factory):
  return run(tmp_path_factory.mktemp('live'))


@pytest.fixture(scope='module')
def store(tmp_path_factory, live):
  """The folder of answers that a run gave, which learned as the live one."""
  folder = tmp_path_factory.mktemp('first')
  same(run(folder / 'run', **{'answers.store': f'{folder}/answers'}), live)
  return folder / 'answers'


def test_batches_repeat_after_a_period(live):
  batches = [*pipeline.train_batches(
      pipeline.load('caltech12', 'train[:64]'),
      [views.View.parse('inception#both@8')], 32, 0, 0, 3 * PERIOD,
      period=PERIOD)]
  orders = [tuple(batch['index']) for batch in batches]
  assert orders[:PERIOD] == orders[PERIOD:2 * PERIOD] == orders[2 * PERIOD:]
  assert len({*orders}) == PERIOD
  assert len({*live[1]}) == STEPS  # Though the student moves on.


def test_a_run_that_reads_equals_the_one_that_was_taught(store, live, tmp_path):
  again = run(tmp_path, **{'answers.store': str(store)})
  same(again, live)
  for a, b in zip(again[2], live[2]):
    assert a == b  # Entropies and task losses of the teachers, too.


def test_no_teacher_is_read_where_all_answers_are_there(
    store, live, tmp_path, monkeypatch):
  def refuse(*args, **kwargs):
    raise AssertionError('A teacher was read.')

  monkeypatch.setattr(pretrained, 'freeze', refuse)
  same(run(tmp_path, **{'answers.store': str(store)}), live)


def test_another_student_learns_from_the_same_answers(store, tmp_path):
  """What the stream does not depend on may differ, and replays as live."""
  changes = {'optim.lr': .003, 'loss.t': 3., 'student.width': .25,
             'total_steps': 6, 'optim.name': 'sgd'}
  same(run(tmp_path / 'kept', **{'answers.store': str(store), **changes}),
       run(tmp_path / 'live', **changes))


@pytest.mark.parametrize('changes', [
    {'seed': 1}, {'batch_size': 64}, {'answers.period_steps': 5},
    {'mixup.group': 4}, {'mode': 'same/ic'}, {'combine': 'probs'},
    {'teachers.b.size': 32}, {'data.split': 'train[:63]'}])
def test_answers_to_another_stream_are_refused(store, tmp_path, changes):
  with pytest.raises(ValueError, match='this run'):
    run(tmp_path, **{'answers.store': str(store), **changes})


def test_a_run_cut_off_while_it_records_goes_on_as_if_it_was_not(
    live, tmp_path):
  rows, changes = Rows(), {'answers.store': f'{tmp_path}/answers'}
  rows.until = 4
  with pytest.raises(KeyboardInterrupt):
    run(tmp_path / 'run', rows, **changes)
  rows.until = None
  same(run(tmp_path / 'run', rows, **changes), live)


def test_damaged_answers_are_given_again(store, live, tmp_path):
  """The run stops in words, and the same command goes on."""
  shutil.copytree(store, tmp_path / 'answers')
  path = tmp_path / 'answers' / 'answers-00000-of-00001.bin'
  content = bytearray(path.read_bytes())
  content[-5] ^= 1
  path.write_bytes(content)
  changes, rows = {'answers.store': f'{tmp_path}/answers'}, Rows()
  with pytest.raises(ValueError, match='block 3 .* damaged.*same command'):
    run(tmp_path / 'run', rows, **changes)
  same(run(tmp_path / 'run', rows, **changes), live)


@pytest.mark.parametrize('most', [1, 3])
def test_devices_that_hold_the_images_record_and_replay(most, tmp_path):
  changes = {'data.resident': True, 'steps_per_call': most}
  kept = {**changes, 'answers.store': f'{tmp_path}/answers'}
  want = run(tmp_path / 'live', **changes)
  same(run(tmp_path / 'first', **kept), want)
  same(run(tmp_path / 'second', **kept), want)
  # Calls of another length are another program, whose rounding a run amplifies.
  other = run(tmp_path / 'other', **{**kept, 'steps_per_call': 4 - most,
                                     'total_steps': 5})
  np.testing.assert_allclose(other[1][0], want[1][0], rtol=1e-5)


def test_each_teacher_is_kept_where_probabilities_average(tmp_path):
  changes = {'combine': 'probs', 'loss.t': 2.}
  want = run(tmp_path / 'live', **changes)
  changes['answers.store'] = f'{tmp_path}/answers'
  for name in ('first', 'second'):
    same(run(tmp_path / name, **changes), want)
  manifest = json.loads((tmp_path / 'answers' / 'manifest.json').read_text())
  assert manifest['record_bytes'] == 2 * 4 * 12


@pytest.mark.float16
def test_half_precision_teaches_alike_given_or_read(tmp_path):
  """The first visit learns from what is kept, not from what was rounded."""
  changes = {'answers.store': f'{tmp_path}/answers',
             'answers.dtype': 'float16'}
  same(run(tmp_path / 'second', **changes), run(tmp_path / 'first', **changes))


def test_the_largest_logits_alone_teach_alike_given_or_read(tmp_path):
  changes = {'answers.store': f'{tmp_path}/answers', 'answers.top': 3,
             'loss.t': 2.}
  same(run(tmp_path / 'first', **changes), run(tmp_path / 'second', **changes))


@pytest.mark.parametrize('t', [.5, 11.])
def test_a_temperature_that_tails_are_not_kept_for_is_refused(t, tmp_path):
  changes = {'answers.store': f'{tmp_path}/answers', 'loss.t': t}
  with pytest.raises(ValueError, match=f'A temperature of {t:g} is outside 1 to'):
    course.make(config(**changes, **{'answers.top': 3}), pipeline)
  assert course.make(config(**changes, **{'answers.top': 12}), pipeline)


def test_an_audit_measures_no_drift_and_finds_other_answers(
    store, live, tmp_path):
  changes = {'answers.store': str(store), 'answers.audit_percent': 30.}
  got = run(tmp_path / 'run', **changes)
  same(got, live)
  drifts = [row for row in got[2] if 'answers/drift_kl' in row]
  assert drifts
  # Compiled apart, a float32 answer may differ in its last digits.
  assert all(abs(row['answers/drift_kl']) < 1e-5 for row in drifts)
  assert all(row['answers/drift_max'] < 1e-4 for row in drifts)
  shutil.copytree(store, tmp_path / 'answers')
  changes['answers.store'] = f'{tmp_path}/answers'
  other = lessons_lib.open_store(lessons_lib.prepare(config(**changes), pipeline),
                            config(**changes))
  for block in range(PERIOD):
    other.write(block, [x[::-1].copy() for x in other.read(block)])
  with pytest.raises(ValueError, match='not those of this teacher.*no version'):
    run(tmp_path / 'other', **changes)


FOREIGN = textwrap.dedent('''
    import numpy as np

    def make():
      kernel = np.random.default_rng(5).normal(size=(16 * 16 * 3, 12)) / 20

      def answer(images):
        assert images.dtype == np.float32 and images.shape[1:] == (16, 16, 3)
        return images.reshape(len(images), -1) @ kernel

      return answer
    ''')


def test_a_function_of_the_user_teaches_and_is_evaluated(tmp_path):
  path = tmp_path / 'mine.py'
  path.write_text(FOREIGN)
  teacher = dict(python=f'{path}:make', size=16, mean=(.4, .5, .6),
                 std=(.2, .25, .3))
  test = dict(name='caltech12', split='test[:40]', data_dir='')
  changes = {'teachers': dict(mine=teacher), 'evals': dict(
      agree=dict(type='distance', data=test),
      teacher=dict(type='classification', who='teacher', data=test))}
  changes['answers.store'] = f'{tmp_path}/answers'
  first = run(tmp_path / 'first', **changes)
  same(run(tmp_path / 'second', **changes), first)
  assert first[2][-1]['agree/kl'] > 0 and 'teacher/acc@1' in first[2][0]

  # What was kept is the function's answer to the mixed view of a step.
  lessons = lessons_lib.prepare(config(**changes), pipeline)
  store = lessons_lib.open_store(lessons, config(**changes))
  view = lessons.lesson.teachers[0].sees
  batch = next(pipeline.train_batches(lessons.source, [view], 32, 0, 2, 3,
                                      period=PERIOD))
  images = np.asarray(lessons.lesson.see(2, batch)[str(view)])
  kernel = np.random.default_rng(5).normal(size=(16 * 16 * 3, 12)) / 20
  pixels = ((images + 1) / 2 - [.4, .5, .6]) / [.2, .25, .3]
  np.testing.assert_allclose(store.read(2)[0],
                             pixels.reshape(32, -1) @ kernel, atol=1e-3)
  other = {**changes, 'teachers': dict(mine={**teacher, 'mean': (.5, .5, .5)})}
  with pytest.raises(ValueError, match='has teachers='):
    run(tmp_path / 'third', **other)
  changes.pop('answers.store')
  with pytest.raises(ValueError, match='Set answers.store'):
    run(tmp_path / 'third', **changes)


def test_a_store_recorded_beforehand_is_the_one_that_a_run_records(
    store, tmp_path):
  changes = {'answers.store': f'{tmp_path}/answers'}
  assert record.record(config(**changes), pipeline) == PERIOD
  assert record.record(config(**changes), pipeline) == 0
  a, b = (np.fromfile(folder / 'answers-00000-of-00001.bin', np.float32)
          for folder in (store, tmp_path / 'answers'))
  # Compiled apart from a student, sums may be in another order.
  np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_an_onnx_file_teaches(tmp_path):
  """What ONNX Runtime answers is what the student learns from."""
  onnx = pytest.importorskip('onnx', reason='onnx is not installed')
  pytest.importorskip('onnxruntime', reason='onnxruntime is not installed')
  kernel = np.random.default_rng(5).normal(size=(3, 12)).astype(np.float32)
  helper, kind = onnx.helper, onnx.TensorProto.FLOAT
  graph = helper.make_graph(
      [helper.make_node('ReduceMean', ['x', 'axes'], ['mean'], keepdims=0),
       helper.make_node('MatMul', ['mean', 'kernel'], ['logits'])], 'g',
      [helper.make_tensor_value_info('x', kind, ['b', 16, 16, 3])],
      [helper.make_tensor_value_info('logits', kind, ['b', 12])],
      [onnx.numpy_helper.from_array(kernel, 'kernel'),
       onnx.numpy_helper.from_array(np.asarray([1, 2]), 'axes')])
  onnx.save(helper.make_model(
      graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=9),
            tmp_path / 'model.onnx')
  (tmp_path / 'mine.py').write_text(textwrap.dedent(f'''
      import onnxruntime

      def make():
        session = onnxruntime.InferenceSession('{tmp_path}/model.onnx')
        return lambda images: session.run(None, {{'x': images}})[0]
      '''))
  changes = {'teachers': dict(mine=dict(
      python=f'{tmp_path}/mine.py:make', size=16)),
             'answers.store': f'{tmp_path}/answers', 'total_steps': 2}
  run(tmp_path / 'run', **changes)
  lessons = lessons_lib.prepare(config(**changes), pipeline)
  store = lessons_lib.open_store(lessons, config(**changes))
  view = lessons.lesson.teachers[0].sees
  batch = next(pipeline.train_batches(lessons.source, [view], 32, 0, 1, 2,
                                      period=PERIOD))
  images = np.asarray(lessons.lesson.see(1, batch)[str(view)])
  np.testing.assert_allclose(store.read(1)[0],
                             images.mean(axis=(1, 2)) @ kernel, atol=1e-4)
