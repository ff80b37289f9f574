"""Students that learn together leave what each would leave alone."""

import numpy as np
import pytest
import replay_test

from big_distill import course
from big_distill import main
from big_distill import member
from big_distill import train
from big_distill.input import pipeline

MEMBERS = {
    'slow': {'optim.lr': .003, 'optim.wd': 1e-3},
    'warm': {'loss.t': 3.},
    'wide': {'student.width': .25, 'student.size': 24},
    'plain': {'optim': dict(name='sgd', lr=.1)},
}


NUMBERS = {  # Students of one program.
    'first': {'optim.lr': .01},
    'second': {'optim.lr': .003, 'optim.wd': 1e-3, 'student.seed': 3},
    'third': {'optim.clip': .5, 'optim.warmup_percent': 10},
    'fourth': {'loss.t': 3.},
}


def together(folder, changes, shared=(), rows=None, layout=None):
  """{name: (weights, losses, rows)} of a class."""
  rows = rows or {name: replay_test.Rows() for name in changes}
  seats = {}
  for name, own in changes.items():
    (folder / name).mkdir(exist_ok=True, parents=True)
    seats[name] = member.Seat(replay_test.config(**{**dict(shared), **own}),
                              str(folder / name), rows[name])
  results = train.train_class(seats, pipeline, layout=layout)
  got = {}
  for name in results:
    with np.load(folder / name / 'student.npz') as file:
      weights = {key: file[key] for key in file.files}
    got[name] = weights, [row['train/loss'] for row in rows[name]
                          if 'train/loss' in row], rows[name]
  return got


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
  folder = tmp_path_factory.mktemp('alone')
  return {name: replay_test.run(folder / name, **changes)
          for name, changes in MEMBERS.items()}


def test_each_student_equals_the_one_trained_alone(alone, tmp_path):
  got = together(tmp_path, MEMBERS)
  assert got.keys() == alone.keys()
  for name, want in alone.items():
    replay_test.same(got[name], want)


def test_a_class_records_and_replays_one_store(alone, tmp_path):
  shared = {'answers.store': f'{tmp_path}/answers'}
  for again in ('first', 'second'):
    got = together(tmp_path / again, MEMBERS, shared)
    for name, want in alone.items():
      replay_test.same(got[name], want)


def test_a_class_cut_off_between_its_members_goes_on(alone, tmp_path):
  """One member had saved step 6 when the program died, the others step 3."""
  rows = {name: replay_test.Rows() for name in MEMBERS}
  rows['warm'].until = 6
  with pytest.raises(KeyboardInterrupt):
    together(tmp_path, MEMBERS, rows=rows)
  rows['warm'].until = None
  got = together(tmp_path, MEMBERS, rows=rows)
  for name, want in alone.items():
    replay_test.same(got[name], want)


def test_one_that_diverges_is_named_and_left_behind(alone, tmp_path, caplog):
  changes = {'bad': {'optim.lr': 1e30, 'optim.clip': None},
             'slow': MEMBERS['slow']}
  got = together(tmp_path, changes)
  assert [*got] == ['slow'] and 'bad is left behind' in caplog.text
  replay_test.same(got['slow'], alone['slow'])
  assert not (tmp_path / 'bad' / 'student.npz').exists()
  # The same command again: the other waits at its end, and keeps its result.
  again = together(tmp_path, changes)
  assert [*again] == ['slow'] and caplog.text.count('bad is left behind') == 2
  for name, want in got['slow'][0].items():
    assert (again['slow'][0][name] == want).all(), name


def test_calls_of_several_steps_end_where_anything_is_due_to_any_student():
  shared = {'data.resident': True, 'steps_per_call': 8, 'log_steps': 100,
            'total_steps': 16}
  own = {'first': {}, 'second': {'checkpoints': dict(every_steps=5)}}
  courses = course.make_class(
      {name: replay_test.config(**shared, **changes)
       for name, changes in own.items()}, pipeline)
  for each in courses.values():
    assert [*each.feed.ends(0)] == [3, 5, 6, 9, 10, 12, 15, 16]


def programs(changes, layout=None):
  """How many learn together: [names of those of one program]."""
  courses = course.make_class(
      {name: replay_test.config(**own) for name, own in changes.items()},
      pipeline, layout=layout)
  groups = {}
  for name in changes:
    first, *_ = courses.values()
    groups.setdefault(id(first.steps.learners[name]), []).append(name)
  return [*groups.values()]


def test_students_that_differ_in_numbers_alone_are_one_program():
  assert programs(NUMBERS) == [[*NUMBERS]]
  assert programs(MEMBERS) == [['slow', 'warm'], ['wide'], ['plain']]
  others = {'clip': {'optim.clip': None}, 'schedule': {'optim.schedule': 'steps'},
            'loss': {'loss.t2': False}, 'depth': {'student.depth': (2,)}}
  assert programs({'first': {}, **others}) == [['first'], *(
      [name] for name in others)]


@pytest.mark.parametrize('key, value', [
    ('loss.t', 3.), ('optim.wd', 1e-3), ('optim.clip', .5)])
def test_a_number_that_one_student_leaves_out_is_not_another_s(
    key, value, monkeypatch):
  """Of one program both would learn by the first one's defaults."""
  full, (section, name) = replay_test.config, key.split('.')

  def config(**changes):
    c = full()
    with c.unlocked():
      del c[section][name]
      c.update_from_flattened_dict(changes)
    return c

  monkeypatch.setattr(replay_test, 'config', config)
  assert programs({'silent': {}, 'says': {key: value}}) == [['silent'], ['says']]


@pytest.fixture(scope='module')
def few(tmp_path_factory):
  folder = tmp_path_factory.mktemp('few')
  return {name: replay_test.run(folder / name, **{**FEW, **changes})
          for name, changes in NUMBERS.items()}


# Adam divides by the size of gradients, where rounding shows first.
FEW = {'total_steps': 10, 'optim.warmup_percent': 0, 'optim.name': 'sgd'}


def test_students_of_one_program_equal_those_trained_alone(few, tmp_path):
  got = together(tmp_path, NUMBERS, FEW)
  for name, want in few.items():
    replay_test.same(got[name], want)
  assert len({tuple(losses) for _, losses, _ in got.values()}) == len(NUMBERS)


@pytest.mark.parametrize('layout', ['map', 'vmap'])
def test_a_stacked_student_is_the_one_trained_alone_but_for_rounding(
    layout, few, tmp_path):
  """Sums are in another order; yet no other student is anywhere near."""
  got = together(tmp_path, NUMBERS, FEW, layout=layout)
  for name, want in few.items():
    np.testing.assert_allclose(got[name][1][0], want[1][0], rtol=1e-5)
    check_near(got[name], name, few)


def check_near(got, name, few):
  """Rounding takes a student 50 times less far than other numbers do."""
  nearest = min(distance(few[other], few[name])
                for other in few if other != name)
  assert distance(got, few[name]) < .02 * nearest


def distance(one, other):
  """Between the weights of two runs."""
  return np.sqrt(sum(np.square(one[0][name] - other[0][name]).sum()
                     for name in one[0]))


def test_one_that_leaves_a_stack_leaves_the_others_as_they_were(
    few, tmp_path, caplog):
  bad = {'optim.lr': 1e30, 'optim.clip': 1e30}
  got = together(tmp_path, {'bad': bad, **NUMBERS}, FEW, layout='map')
  assert got.keys() == NUMBERS.keys() and 'bad is left behind' in caplog.text
  for name, want in few.items():
    check_near(got[name], name, few)
    assert [row['step'] for row in got[name][2]
            if 'train/loss' in row] == [*range(1, 11)]


def test_a_stack_cut_off_between_its_members_goes_on(few, tmp_path):
  rows = {name: replay_test.Rows() for name in NUMBERS}
  rows['third'].until = 6
  with pytest.raises(KeyboardInterrupt):
    together(tmp_path, NUMBERS, FEW, rows=rows, layout='map')
  rows['third'].until = None
  got = together(tmp_path, NUMBERS, FEW, rows=rows, layout='map')
  for name, want in few.items():
    check_near(got[name], name, few)


@pytest.mark.parametrize('changes, message', [
    ({'seed': 1}, 'its seed differs'), ({'total_steps': 7}, 'total_steps'),
    ({'mode': 'same/ic'}, 'mode'), ({'teachers.a.size': 20}, 'teachers')])
def test_students_of_other_streams_are_refused(changes, message, tmp_path):
  with pytest.raises(ValueError, match=f'odd cannot learn .*{message}'):
    together(tmp_path, {'one': {}, 'odd': changes})


def test_a_family_is_written_as_sections_that_differ():
  config = {'student': {'family': 'bit', 'depth': (1,), 'size': 16},
            'optim': {'name': 'adam', 'lr': .1}, 'seed': 3}
  got = main.overridden(config, 'small', {
      'student': {'family': 'mobilenet_v3', 'variant': 'small'},
      'optim': {'lr': .2}})
  assert got == {
      'student': {'family': 'mobilenet_v3', 'variant': 'small', 'size': 16},
      'optim': {'name': 'adam', 'lr': .2}, 'seed': 3}
  del config['student']['size']  # Its absence is for others to complain of.
  assert main.overridden(config, 'small', {'student': {'family': 'vit'}})[
      'student'] == {'family': 'vit'}
  with pytest.raises(ValueError, match='students.small .*did you mean optim'):
    main.overridden(config, 'small', {'optm': {}})
