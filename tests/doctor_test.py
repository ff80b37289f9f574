"""What would make a run worthless is said before its first step."""

import copy

import jax
import numpy as np
import pytest

from big_distill import cards
from big_distill import course as course_lib
from big_distill import doctor
from big_distill import parallel
from big_distill import pretrained
from big_distill.input import pipeline
from big_distill.tools import doctor as tool
from configs import imagenet
from configs import quickstart


def config(**changes):
  c = quickstart.get_config('tiny=True')
  with c.unlocked(), c.ignore_type():
    c.total_steps, c.student.depth = 4, (1,)
    c.evals = {}
    c.update_from_flattened_dict(changes)
  return c


@pytest.fixture(scope='module')
def course():
  return course_lib.make(config(), pipeline)


def saved(path, change=lambda params: None, **fields):
  """A copy of the bundled teacher, its parameters changed in place."""
  model, params = pretrained.load('caltech12 teacher')
  params = copy.deepcopy(jax.tree.map(np.array, params))
  change(params)
  card = cards.of(model, **{'size': 48, **fields})
  pretrained.save(str(path), params, card=card)
  return str(path)


def wrong(**changes):
  with pytest.raises(ValueError) as caught:
    doctor.check(course_lib.make(config(**changes), pipeline))
  assert '\n' not in str(caught.value)
  return str(caught.value)


def test_a_sound_config_has_nothing_wrong(course):
  findings = doctor.static(course)
  assert {finding.status for finding in findings} == {doctor.OK}
  assert any('same tensor' in finding.text for finding in findings)
  doctor.check(course)


def test_a_parameter_that_is_not_finite_is_named(tmp_path, course):
  def spoil(params):
    params['block1']['unit01']['gn1']['bias'][0] = np.nan

  teacher, = course.room.models
  params = copy.deepcopy(jax.tree.map(np.array, teacher.params))
  spoil(params)
  found = [*doctor._weights(teacher._replace(params=params))]
  assert found[0].status == doctor.WRONG
  assert 'block1/unit01/gn1/bias' in found[0].text


def test_a_head_of_zeros_teaches_nothing(tmp_path):
  def spoil(params):
    params['head']['kernel'][:] = 0

  path = saved(tmp_path / 't.npz', spoil)
  assert 'teaches nothing' in wrong(**{'teachers.teacher.init': path})


def test_classes_are_compared_by_name_not_by_number(tmp_path, course):
  names = list(course.source.classes)
  path = saved(tmp_path / 't.npz', classes=['zebra', *names[1:]])
  text = wrong(**{'teachers.teacher.init': path})
  assert f"number 0 is '{names[0]}' here and 'zebra'" in text


def test_a_dead_teacher_is_looked_at_and_a_live_one_is_ok(course, tmp_path):
  (found,) = doctor.accuracies(course)
  assert found.status == doctor.OK, found

  def shuffle(params):
    kernel, bias = (params['head'][name] for name in ('kernel', 'bias'))
    params['head'].update(kernel=np.roll(kernel, 5, 1), bias=np.roll(bias, 5))

  path = saved(tmp_path / 't.npz', shuffle)
  other = course_lib.make(config(**{'teachers.teacher.init': path}), pipeline)
  (found,) = doctor.accuracies(other)
  assert found.status == doctor.LOOK and 'in its order' in found.text


def test_answers_that_changed_under_a_run_are_said_at_its_end(course):
  assert doctor.unchanged(course) == []  # Nobody was asked yet.
  call = parallel.split(next(course.feed.batches(0)))
  course.steps.take({'': parallel.replicate(course.state)}, call, 0, 1)
  good, = doctor.unchanged(course)
  assert good.status == doctor.OK and 'bit for bit' in good.text
  params = course.faculty()
  for factor, status in ((1 + 1e-5, doctor.OK), (1.01, doctor.WRONG),
                         (np.nan, doctor.WRONG)):
    course.steps._faculty = lambda factor=factor: jax.tree.map(
        lambda x: x * np.float32(factor), params)
    found, = doctor.unchanged(course)
    assert found.status == status and 'bit for bit' not in found.text
  course.steps._faculty = course.faculty


def test_a_step_under_a_teacher_on_the_host_is_timed_and_leaves_no_answers(tmp_path):
  (tmp_path / 'mine.py').write_text('import numpy as np\n'
                                    'def make():\n  return answer\n'
                                    'def answer(images):\n'
                                    '  open(__file__ + ".asked", "a").write("x")\n'
                                    '  return np.ones((len(images), 12), "f4")\n')
  c = config(**{'answers.store': str(tmp_path / 'kept'),
                'answers.period_epochs': 1})
  with c.unlocked():
    c.teachers = dict(mine=dict(python=f'{tmp_path}/mine.py:make', size=16))
  *_, time = tool.examine({**c}, pipeline)
  assert 'images/s in three steps' in time.text
  assert (tmp_path / 'mine.py.asked').read_text() == 'x' * (tool.STEPS + 1)
  assert not (tmp_path / 'kept').exists()


def test_a_plan_reads_no_weights_and_costs_what_it_says(monkeypatch, course):
  want = doctor.cost(course.plan, course.room, course.state)

  def refuse(*args, **kwargs):
    raise AssertionError('Weights were read.')

  monkeypatch.setattr(pretrained, 'load', refuse)
  got = tool.plan(config(), pipeline)
  assert got == want
  text = doctor.table(got)
  assert '4 steps of 32 images = 2 epochs' in text and 'GFLOP' in text


def test_the_price_is_that_of_the_hours(course):
  *_, found = doctor.cost(course.plan, course.room, course.state, seconds=900.,
                          price=8.)
  assert found.text.endswith('1 hours, 8.00 at 8 an hour.')


def far(**changes):
  """The paper's ImageNet config, whose images and teacher are not at hand."""
  c = imagenet.get_config('data_dir=/nowhere')
  with c.unlocked(), c.ignore_type():
    c.update_from_flattened_dict(changes)
  return c


def test_a_plan_says_what_is_not_at_hand_and_what_stands_in():
  first, *rest = tool.plan(far(), pipeline)
  assert first.status == doctor.LOOK and first.about == 'data'
  assert 'imagenet2012 is not prepared in /nowhere' in first.text
  assert first.text.endswith('In its place: 1,255,544 examples of 1000 classes, as '
                             'published; --examples=N --classes=C say otherwise.')
  assert 'steps of 4096 images' in rest[0].text
  given, *_ = tool.plan(far(**{'data.name': 'mine'}), pipeline, 4096 * 3, 1000)
  assert '12,288 examples of 1000 classes, as given' in given.text


@pytest.mark.parametrize('changes, message', [
    ({'data.name': 'mine'}, 'mine, split train.*is not read, and its size is not '
                            'known: give --examples=N and --classes=C.'),
    ({'teachers': {'prof': {'init': '/nowhere.npz', 'size': 224}}},
     'teachers.prof.init: There is no checkpoint /nowhere.npz. To plan without '
     r"that file, describe its model in the config: random=dict\(family='bit'")])
def test_a_plan_that_lacks_what_nothing_stands_for_says_what_to_give(
    changes, message):
  with pytest.raises(ValueError, match=message) as error:
    tool.plan(far(**changes), pipeline)
  assert '\n' not in str(error.value)
