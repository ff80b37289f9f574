"""Every config builds at every argument, and says no more than is read."""

import importlib
import operator
import pathlib

import jax
import ml_collections
import numpy as np
import pytest

from big_distill import course
from big_distill import metrics
from big_distill import plan
from big_distill import train
from big_distill import views
from big_distill.input import pipeline
from big_distill.models import mobilenet_v3
from configs import common
from configs import flowers102
from configs import imagenet

FILES = sorted(path.stem for path in (pathlib.Path(__file__).parent.parent
                                      / 'configs').glob('*.py')
               if path.stem not in ('common', 'bench', 'distill'))


def get_config(name, arg=''):
  return importlib.import_module(f'configs.{name}').get_config(arg)


# Every value of every argument that changes what is built.
CHOICES = {
    'mode': [*views.MODES], 'epochs': ['3', '100000'], 'seed': ['1'],
    'variant': ['fast', 'medium', 'long'],
    'optim': ['adam', 'sgd', 'shampoo', 'soap', 'muon'],
    'dataset': ['flowers102', 'pets', 'food101', 'sun397'],
    'init': ['BiT-M-R50x1'], 'answers': ['DIR'], 'data_dir': ['DIR'],
    'images': ['food101', 'folder:PATH', 'food101*3+imagenet'],
    'student': [*imagenet.STUDENTS], 'size': ['128', '224', '384'],
    'teacher': [*imagenet.TEACHERS, 'T384+T224'], 'evals': ['val', 'all'],
    'combine': ['probs'], 'depth': ['50'], 'width': ['1.'],
    'period': ['0', '3'], 'seeds': ['2'],
    'steps': ['300'], 'lr': ['0.02'], 'twin': ['caltech101', 'cifar10'],
}

# What runs differ in: a student or teacher of its own, data, a schedule.
RUNS = [

    ('flowers102', ''), ('pets', 'images=food101*2+imagenet'),
    ('food101', 'mode=ind/rc'), ('sun397', ''),
    ('baselines', 'init=BiT-M-R50x1'), ('hyperrule', 'dataset=food101'),
    ('imagenet', 'teacher=T384+T224,combine=probs,evals=all'),
    ('imagenet', 'teacher=labels,optim=sgd,mode=same/ic'),
    ('imagenet', 'optim=shampoo'),
    ('imagenet', 'student=mobilenet_v3_large_bn'),
    ('imagenet', 'student=vit_s16'),
    ('quickstart_teacher', ''),
    ('optimizers', 'optim=soap'), ('optimizers_teacher', ''),
    ('study', ''), ('study_teacher', ''),
]


class Rows(list):
  """A writer that keeps metrics in memory."""
  write = lambda self, step, row: self.append({'step': step, **row})
  read = lambda self: self
  rewind = lambda self, step: None


@pytest.mark.parametrize('name, arg', RUNS)
def test_every_config_trains_and_evaluates_two_steps(
    name, arg, tmp_path, monkeypatch):
  # Four blocks of MobileNetV3 have all kinds of parts, and compile sooner.
  rows, _ = mobilenet_v3.VARIANTS['small']
  monkeypatch.setitem(mobilenet_v3.VARIANTS, 'small', (rows[:4], 128))
  config = get_config(name, ','.join(filter(None, [arg, 'tiny=True'])))
  config.total_steps = 2
  rows = Rows()
  result = train.train(config.lock(), str(tmp_path), pipeline, rows)
  assert result['steps'] == 2 and (tmp_path / 'student.npz').exists()
  scores = {name for row in rows for name in row if '/' in name}
  assert {f'{name}/' for name in config.evals} <= {
      f'{score.split("/")[0]}/' for score in scores}
  assert all(np.isfinite([*row.values()]).all() for row in rows)
  jax.clear_caches()  # Programs of all configs together fill 2 GB.


@pytest.mark.parametrize('name', FILES)
def test_every_config_takes_every_argument(name, monkeypatch):
  takes, parse = {}, common.parse
  monkeypatch.setattr(common, 'parse', lambda arg, **defaults: (
      takes.update(defaults), parse(arg, **defaults))[1])
  get_config(name)
  assert set(takes) <= {'tiny', *CHOICES}
  for arg in ['', *(f'{argument}={value}' for argument in takes
                    for value in CHOICES.get(argument, []))]:
    for tiny in ('', 'tiny=True'):
      config = get_config(name, ','.join(filter(None, [arg, tiny])))
      assert isinstance(config, ml_collections.ConfigDict)
      assert set(config) <= set(plan.KEYS), arg


@pytest.mark.parametrize('name', FILES)
def test_every_point_of_a_sweep_fits_its_config(name):
  module = importlib.import_module(f'configs.{name}')
  for point in getattr(module, 'get_sweep', list)():
    config = module.get_config().lock()
    config.update_from_flattened_dict(point)
    for key, value in point.items():
      assert operator.attrgetter(key)(config) == value


def test_the_paper_s_grid_has_eighty_points():
  points = flowers102.get_sweep()
  assert len(points) == len({*map(repr, points)}) == 80


def set_tiny(**changes):
  config = get_config('quickstart', 'tiny=True')
  with config.unlocked():
    config.update_from_flattened_dict(changes)
  return lambda: course.make(config, pipeline)


@pytest.mark.parametrize('changes, message', [
    ({'optm': {}}, 'did you mean optim'),
    ({'mode': 'funmach'}, 'did you mean funmatch'),
    ({'mode': 'fix/ic_ens'}, 'needs its recorded answers'),
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
    ({'optim.learning_rate': 1.}, "no key of config.optim 'learning_rate'"),
    ({'crops': {'fractoin': .5}}, 'did you mean fraction'),
    ({'mixup.groups': 4}, 'did you mean group'),
    ({'checkpoints.keeep': 4}, 'did you mean keep'),
    ({'batch_size': 30}, '30 / 32 = 0.9375. Nearest that do: 32'),
    ({'accumulate': 3}, r'in accumulate=3 parts, .* Nearest that do: 96'),
    ({'accumulate': 0}, 'at least one part'),
    ({'student.remta': True}, 'did you mean remat'),
    ({'steps_per_call': 2}, 'with data.resident=True'),
    ({'evals.student.view': 'centre'}, 'did you mean central'),
    ({'layout': 'bigvision'}, 'did you mean big_vision')])
def test_a_misspelling_is_named_with_its_neighbour(changes, message):
  with pytest.raises(ValueError, match=message):
    set_tiny(**changes)()


def test_labels_and_models_teach_together_only_by_probabilities():
  both = {'teachers.labels': {'labels': True}}
  with pytest.raises(ValueError, match="combine='probs'"):
    set_tiny(**both)()
  assert len(set_tiny(combine='probs', **both)().room.teachers) == 2


def test_a_student_may_start_from_a_checkpoint():
  start = {'student.init': 'caltech12 teacher', 'student.depth': (2, 2, 2),
           'student.width': .75}
  room = set_tiny(**start)().room
  _, params = __import__('big_distill').load('caltech12 teacher')
  assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), room.params,
                                   params))


@pytest.mark.parametrize('name, arg, message', [
    ('quickstart', 'epoch=3', 'did you mean epochs'),
    ('quickstart', 'epochs=x', 'not of type int'),
    ('quickstart', 'tiny=maybe', 'not of type bool'),
    ('pets', 'epochs=-5', 'epochs=-5 should be'),
    ('pets', 'images=food101*x', 'weights are whole'),
    ('pets', 'images=food101*0+imagenet', 'weights are whole')])
def test_a_wrong_argument_is_one_clear_line(name, arg, message):
  with pytest.raises(ValueError, match=message):
    get_config(name, arg)


def test_arguments_take_the_type_of_their_default():
  arg = common.parse('a=3,b=1e-3,c,d=same/ic', a=1, b=.5, c=False, d='x')
  assert dict(arg) == {'a': 3, 'b': 1e-3, 'c': True, 'd': 'same/ic'}


def test_evaluations_have_a_name_that_rankings_read():
  gives = {'classification': metrics.ACC1, 'distance': metrics.TOP1}
  for name in FILES:
    evals = get_config(name).get('evals', {})
    given = {f'{key}/{gives[section.type]}' for key, section in evals.items()
             if section.type in gives}
    assert given & set(metrics.RANKING), name
