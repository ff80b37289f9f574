"""A loss that is not finite is traced to who was not, and can be seen again."""


import jax
import numpy as np
import pytest

from big_distill import checkpoint
from big_distill import course as course_lib
from big_distill import nonfinite
from big_distill import parallel
from big_distill import train
from big_distill.input import pipeline
from big_distill.tools import replay
from configs import quickstart
from tests.configs_test import Rows


def config_of(**changes):
  """A small teacher and student, nothing evaluated, a row for every step."""
  c = quickstart.get_config('tiny=True')
  c.evals, c.log_percent = {}, 1
  c.teachers = dict(prof=dict(random=dict(
      family='bit', depth=(1, 1), width=.125), size=16))
  c.checkpoints = dict(every_steps=2)
  for key, value in changes.items():
    c[key] = value
  return c


@pytest.fixture(scope='module')
def course():
  return course_lib.make(config_of(), pipeline)


def first_bad(course, state=None, batch=None):
  """(the first part that is not finite or None, what is said of it)."""
  state = course.state if state is None else state
  batch = nonfinite.batch_of(course, 0) if batch is None else batch
  parts = nonfinite.inspect(course, state, batch)
  return (next((part.name for part in parts if part.bad), None),
          nonfinite.verdict(parts))


def poison(tree, value):
  return jax.tree.map(lambda x: np.full_like(x, value), tree)


def test_a_finite_step_is_finite_in_every_part(course):
  name, said = first_bad(course)
  assert name is None and 'every part of this step is finite' in said


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_a_teacher_that_is_not_finite_is_named(course, value):
  sick = [poison(params, value) for params in course.faculty()]
  name, said = first_bad(course._replace(faculty=lambda: sick))
  assert name.startswith('teacher prof: parameters')
  assert 'the teacher prof is the first that is not finite' in said
  assert "Check the teacher's checkpoint" in said


def test_a_student_that_is_not_finite_is_named(course):
  params = {**course.state.params}
  params['head'] = {**params['head'], 'bias': params['head']['bias'] + np.nan}
  name, said = first_bad(course, course.state.replace(params=params))
  assert name == 'student: parameters head/bias'
  assert 'student is the first' in said and '12 of 12 numbers' in said


def test_recorded_answers_that_are_not_finite_are_of_the_batch(course):
  batch = nonfinite.batch_of(course, 0)
  answers = np.zeros((32, 12), np.float32)
  answers[3, 5] = np.nan
  name, said = first_bad(course, batch=batch | {'answers': [answers]})
  assert name == 'batch: recorded answers 0'
  assert 'the batch is the first' in said and '1 of 384 numbers' in said
  answers[3, 5] = -np.inf  # The logarithm of no probability at all.
  assert first_bad(course, batch=batch | {'answers': [answers]})[0] is None


def test_sizes_and_means_are_of_all_devices(course):
  batch = nonfinite.batch_of(course, 0)
  parts = {part.name: part for part in nonfinite.inspect(
      course, course.state, batch)}
  images = parts['batch: inception#both@16']
  assert images.good == 32 * 16 * 16 * 3
  kernel = course.state.params['root_block']['conv_root']['kernel']
  part = parts['student: parameters root_block/conv_root/kernel']
  assert part.good == kernel.size
  assert part.rms == pytest.approx(float(np.sqrt(np.mean(kernel**2))), rel=1e-5)


def test_a_run_that_diverges_keeps_what_shows_it_again(
    tmp_path, course, capsys):
  params = {**course.state.params, 'head': poison(
      course.state.params['head'], np.nan)}
  checkpoints = checkpoint.Checkpoints(f'{tmp_path}/checkpoints')
  checkpoints.save(parallel.replicate(course.state.replace(
      step=np.int32(2), params=params)), 2)
  checkpoints.close()
  with pytest.raises(ValueError) as error:
    train.train(config_of(log_percent=25), str(tmp_path), pipeline, Rows())
  said = str(error.value)
  # A row is logged at step 10; what it stops at is what came first.
  assert said.startswith('Step 3: the student is the first that is not finite: '
                         "12 of 12 numbers of 'student: parameters head/bias'.")
  assert f'the last good checkpoint is {tmp_path}/checkpoints/2' in said
  assert said.endswith(f'python -m big_distill.tools.replay {tmp_path}/nan')
  assert '\n' not in said

  replay.main(None, [str(tmp_path / 'nan')])
  out = capsys.readouterr().out
  assert out.splitlines()[-1] == said.split(' Training stops')[0]
  assert '! student: parameters head/bias' in out and 'another batch' not in out


def test_weights_that_grow_without_bound_end_a_run(tmp_path):
  config = config_of(optim=dict(name='sgd', lr=1e30, wd=0.))
  with pytest.raises(ValueError, match='Step 1: the norm of the student is inf. '
                     'Try a lower lr'):
    train.train(config, str(tmp_path), pipeline, Rows())


def test_the_state_kept_is_that_of_before_the_step(tmp_path, course):
  state = course.state.replace(step=np.int32(3), skipped=np.int32([1, 1]))
  batch = nonfinite.batch_of(course, 3)
  for _ in range(2):  # What was there before is replaced.
    nonfinite.keep(str(tmp_path / 'nan'), config_of(), state, batch)
  got, again = nonfinite.restore(str(tmp_path / 'nan'), course)
  for a, b in zip(jax.tree.leaves((got, again)), jax.tree.leaves((state, batch))):
    assert (np.asarray(a) == np.asarray(b)).all()


def test_skipping_goes_on_and_counts(tmp_path, monkeypatch):
  """One batch in three has answers that are not finite."""
  config, rows = config_of(on_nonfinite='skip', total_steps=9), Rows()
  make = course_lib.make_class

  def sick(*args, **options):
    courses = make(*args, **options)
    course = courses['']
    good = course.faculty()
    bad, taken = parallel.replicate(
        [poison(params, np.nan) for params in parallel.first(good)]), []
    monkeypatch.setattr(course.steps, '_faculty', lambda: (
        taken.append(1) or (bad if len(taken) % 3 == 2 else good)))
    return courses

  monkeypatch.setattr(course_lib, 'make_class', sick)
  train.train(config, str(tmp_path), pipeline, rows)
  assert [row['train/skipped'] for row in rows if 'train/skipped' in row] == [
      0, 1, 1, 1, 2, 2, 2, 3, 3]
  assert [row['step'] for row in rows if 'train/lr' in row
          and 'train/loss' not in row] == [2, 5, 8]
  assert (tmp_path / 'student.npz').exists()


@pytest.mark.parametrize('words, message', [
    ([], 'Give one folder'), (['a', 'b'], 'Give one folder'),
    (['/nowhere/nan'], 'There is no /nowhere/nan/config.json')])
def test_a_folder_that_holds_no_step_is_one_line(words, message):
  with pytest.raises(ValueError, match=message):
    replay.main(None, words)
