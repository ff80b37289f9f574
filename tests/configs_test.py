"""Every config builds at every argument, and says no more than is read."""

import functools
import importlib
import operator
import pathlib

import jax
import ml_collections
import pytest

from big_distill import stage
from big_distill import views
from big_distill.input import pipeline
from big_distill.tools import sweep
from configs import common

FILES = sorted(path.stem for path in (pathlib.Path(__file__).parent.parent
                                      / 'configs').glob('*.py')
               if path.stem != 'common')


def get_config(name, arg=''):
  return importlib.import_module(f'configs.{name}').get_config(arg)


@pytest.mark.parametrize('name', FILES)
def test_the_stage_of_every_config_is_set(name):
  config = get_config(name, 'tiny=True,mode=ind/ic').lock()
  set_up = stage.set_stage(config, pipeline)
  assert set_up.total == 40 and set_up.save_every == 5
  batch = next(set_up.batches(0))
  views_seen = {str(set_up.cast.sees),
                *(str(teacher.sees) for teacher in set_up.cast.models)}
  assert batch['views'].keys() == views_seen


@pytest.mark.parametrize('name', FILES)
@pytest.mark.parametrize('arg', [
    '', 'epochs=3', *(f'mode={mode}' for mode in views.MODES)])
def test_every_config_takes_every_argument(name, arg):
  for tiny in ('', 'tiny=True'):
    config = get_config(name, ','.join(filter(None, [arg, tiny])))
    assert isinstance(config, ml_collections.ConfigDict)
    assert set(config) <= set(stage.KEYS)


@pytest.mark.parametrize('name', FILES)
def test_every_point_of_every_sweep_is_a_config(name, tmp_path):
  if not hasattr(importlib.import_module(f'configs.{name}'), 'get_sweep'):
    return
  for arg in ('', ':tiny=True'):
    points = sweep.points(f'configs/{name}.py{arg}', tmp_path)
    assert points and len({point.name for point in points}) == len(points)
    for point in points:  # Checked key by key, and parsed as main will.
      flat = ml_collections.ConfigDict(point.config).lock()
      for key, value in point.overrides.items():
        assert functools.reduce(operator.getitem, key.split('.'), flat) == value


def set_tiny(**changes):
  config = get_config('quickstart', 'tiny=True')
  with config.unlocked():
    config.update_from_flattened_dict(changes)
  return lambda: stage.set_stage(config, pipeline)


@pytest.mark.parametrize('changes, message', [
    ({'optm': {}}, 'did you mean optim'),
    ({'mode': 'funmach'}, 'did you mean funmatch'),
    ({'mode': 'fix/ic_ens'}, 'recorded answer'),
    ({'student.family': 'bitt'}, 'did you mean bit'),
    ({'student.widht': 1.}, 'did you mean width'),
    ({'student.num_classes': 5}, 'knows 12 classes, the student 5'),
    ({'teachers.teacher.int': 'x'}, 'did you mean init'),
    ({'teachers.teacher.init': 'caltech12 teach'}, 'did you mean caltech12 t'),
    ({'evals.student.type': 'classify'}, 'did you mean classification'),
    ({'evals.student.whom': 'x'}, 'did you mean who'),
    ({'data.name': 'caltech13'}, 'did you mean caltech12'),
    ({'data.splt': 'x'}, 'did you mean split'),
    ({'data.split': 'train[:0]'}, 'is empty'),
    ({'data.cache': 'decode'}, 'did you mean decoded'),
    ({'loss.name': 'kll'}, 'did you mean kl'),
    ({'optim.learning_rate': 1.}, 'no option'),
    ({'crops': {'fractoin': .5}}, 'did you mean fraction'),
    ({'mixup.groups': 4}, 'did you mean group'),
    ({'checkpoints.keeep': 4}, 'did you mean keep'),
    ({'batch_size': 30}, '30 / 32 = 0.9375. Nearest that do: 32'),
    ({'evals.student.view': 'centre'}, 'did you mean central'),
    ({'layout': 'bigvision'}, 'did you mean big_vision')])
def test_a_misspelling_is_named_with_its_neighbour(changes, message):
  with pytest.raises(ValueError, match=message):
    set_tiny(**changes)()


def test_labels_and_models_teach_together_only_by_probabilities():
  both = {'teachers.labels': {'labels': True}}
  with pytest.raises(ValueError, match="combine='probs'"):
    set_tiny(**both)()
  assert len(set_tiny(combine='probs', **both)().cast.teachers) == 2


def test_a_student_may_start_from_a_checkpoint():
  start = {'student.init': 'caltech12 teacher', 'student.depth': (2, 2, 2),
           'student.width': .75}
  cast = set_tiny(**start)().cast
  _, params = __import__('big_distill').load('caltech12 teacher')
  assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), cast.params,
                                   params))


@pytest.mark.parametrize('arg, message', [
    ('epoch=3', 'did you mean epochs'), ('epochs=x', 'not of type int'),
    ('tiny=maybe', 'not of type bool')])
def test_a_wrong_argument_is_one_clear_line(arg, message):
  with pytest.raises(ValueError, match=message):
    get_config('quickstart', arg)


def test_arguments_take_the_type_of_their_default():
  arg = common.parse('a=3,b=1e-3,c,d=same/ic', a=1, b=.5, c=False, d='x')
  assert dict(arg) == {'a': 3, 'b': 1e-3, 'c': True, 'd': 'same/ic'}
