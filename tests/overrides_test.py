"""Whatever a config can say is set by a flag, and removed by one."""

import importlib
import pathlib

import ml_collections
import numpy as np
import pytest

from big_distill import command
from big_distill import kinds
from big_distill import plan
from big_distill import signatures
from big_distill.input import sources
from configs import quickstart

NAMES = {'teachers': 'teacher', 'evals': 'student', 'students': 'small',
         'parts': 'flowers'}
SAMPLES = {'int': '3', 'float': '0.25', 'bool': 'True', 'str': 'word',
           'list': '(0.5, 0.25, 0.5)', 'section': '{}'}
VALUES = {'3': 3, '0.25': .25, 'True': True, '(0.5, 0.25, 0.5)': (.5, .25, .5)}


def resolve(*words, config='configs/quickstart.py'):
  return command.resolve([f'--config={config}', *words])


def every_key():
  """[(path, key, Key, choice's word or None)] of all that signatures know."""
  for shape in signatures.SECTIONS:
    path = []
    for name in shape:
      path.append(NAMES[path[-1]] if name == '*' else name)
    option = signatures.choice(tuple(path))
    for chosen in option.names if option else [None]:
      for key, each in signatures.keys(tuple(path), chosen).items():
        if each.choice in ('', chosen) and not (option and key == option.key):
          word = option and f'--config.{".".join(path)}.{option.key}={chosen}'
          yield tuple(path), key, each, word


EVERY = list(every_key())


def begin(path, choice):
  """Words that make the section of a path."""
  words = [choice] if choice else []
  if 'parts' in path:
    words.append(f'--config.{".".join(path[:path.index("parts")])}'
                 '.parts.flowers.name=x')
  if path[:4] == ('students', 'small', 'evals', 'student') and not choice:
    words.append('--config.students.small.evals.student.type=distance')
  return words


def get(config, path):
  for key in path:
    config = config[key]
  return config


def test_every_key_of_every_signature_is_set_and_removed_by_a_flag():
  assert len(EVERY) > 300
  for path, key, each, choice in EVERY:
    name = '.'.join((*path, key))
    forms = kinds.forms(each.kind)
    sample = SAMPLES[next(iter(forms), 'str')]
    first = begin(path, choice)
    config = resolve(*first, f'--config.{name}={sample}')
    value = get(config, (*path, key))
    if 'section' in forms and sample.startswith('{'):
      assert value.to_dict() == {}, name
    else:
      assert value == VALUES.get(sample, sample), name
    gone = get(resolve(*first, f'--config.{name}=None'), path)
    if 'none' in forms and 'section' not in forms:
      assert gone[key] is None, name
    else:
      assert key not in gone, name


def test_no_key_takes_a_value_of_another_type():
  wrong = {'int': '2.5', 'float': 'fast', 'bool': '3', 'list': '7',
           'section': '7'}
  for path, key, each, choice in EVERY:
    forms = kinds.forms(each.kind)
    for name in forms:
      if name in wrong and 'str' not in forms and not {
          'float', 'int'} & forms.keys() - {name}:
        word = f'--config.{".".join((*path, key))}={wrong[name]}'
        with pytest.raises(ValueError, match='it should be') as error:
          resolve(*begin(path, choice), word)
        assert word in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize('word, path, value', [
    ('student.init=caltech12 teacher', 'student.init', 'caltech12 teacher'),
    ('student.remat', 'student.remat', True),
    ('crops.reduced=true', 'crops.reduced', True),
    ('data.label=None', 'data.label', None),
    ('data.classes=numeric', 'data.classes', 'numeric'),
    ("data.classes=('b', 'a')", 'data.classes', ('b', 'a')),
    ('total_steps=1e3', 'total_steps', 1000),
    ('student.depth=26', 'student.depth', 26),
    ('student.depth=[1, 2]', 'student.depth', (1, 2)),
    ('optim.clip=None', 'optim.clip', None),
    ('optim.lr=1', 'optim.lr', 1.),
    ('data.split=7', 'data.split', '7'),
    ('teachers.second.labels=True', 'teachers.second.labels', True),
    ('evals.few.type=calibration', 'evals.few.type', 'calibration'),
    ('mode=same/ic', 'mode', 'same/ic'),
    ('mode.mixup=False', 'mode.mixup', False),
    ('mode.student=central', 'mode.student', 'central'),
    ("mode={'student': 'central', 'teacher': 'squash'}", 'mode.teacher',
     'squash')])
def test_flags_set_what_people_ask_for(word, path, value):
  got = get(resolve(f'--config.{word}'), path.split('.'))
  assert got == value and isinstance(got, type(value))


def test_sections_are_removed_whole():
  config = resolve('--config.evals.teacher=None', '--config.answers=None')
  assert 'teacher' not in config.evals and 'answers' not in config
  assert {'student', 'agree', 'calibration'} == {*config.evals}


def test_a_duration_in_other_units_takes_the_place_of_the_first():
  config = resolve('--config.total_steps=7', '--config.evals.student.every_steps=2',
                   '--config.optim.warmup_steps=1')
  assert 'total_epochs' not in config and plan.make(config, 100, 1).total == 7
  assert 'every_percent' not in config.evals.student
  assert 'warmup_percent' not in config.optim
  # Two flags that contradict each other are not for us to choose from.
  both = resolve('--config.total_steps=7', '--config.total_epochs=2')
  with pytest.raises(ValueError, match='both given'):
    plan.make(both, 100, 1)


def test_another_family_has_its_own_defaults_whatever_the_order_of_flags():
  for words in (('family=mobilenet_v3', 'width=0.5'),
                ('width=0.5', 'family=mobilenet_v3')):
    config = resolve(*(f'--config.student.{word}' for word in words))
    assert config.student.to_dict() == dict(family='mobilenet_v3', width=.5,
                                            size=48, dtype='float32')
  assert resolve('--config.student.family=bit').student.depth == (1, 1, 1)


def test_another_loss_or_optimizer_drops_what_it_does_not_know():
  loss = resolve('--config.loss.name=hard').loss.to_dict()
  assert loss == {'name': 'hard'}
  words = ('--config.optim.name=shampoo', '--config.optim.root_every=3')
  config = resolve(*words)
  assert config.optim.root_every == 3 and config.optim.lr == .01
  shampoo = 'configs/imagenet.py:optim=shampoo'
  adam = resolve('--config.optim.name=adam', config=shampoo).optim
  assert 'graft' not in adam and adam.b1 == .95 and adam.warmup_steps == 1800


@pytest.mark.parametrize('word, says', [
    ('optm.lr=1', "no config key 'optm'; did you mean optim?"),
    ('student.widht=1', 'did you mean width'),
    ('student.variant=small', "no config key 'variant'"),
    ('student.family=bitt', 'did you mean bit'),
    ('optim.name=adamm', 'did you mean adam'),
    ('data.splt=x', 'did you mean split'),
    ('evals.student.whom=x', 'did you mean who'),
    ('evals.studnt.every_steps=3', 'There is no config.evals.studnt; there is '
     'agree, calibration, student, teacher. A new one needs --config.evals.studnt.type.'),
    ('teachers.second.size=3', 'A new one needs'),
    ('seed.x=3', 'there is nothing inside 0'),
    ('batch_size=2.5', 'config.batch_size=2.5: it should be a whole number.'),
    ('total_steps=2.5', 'a whole number'),
    ('data.resident=3', 'it should be True or False.'),
    ('optim.lr=None', None)])
def test_a_wrong_flag_is_one_line(word, says):
  if says is None:  # It has no default, so the function that needs it says so.
    assert 'lr' not in resolve(f'--config.{word}').optim
    return
  with pytest.raises(ValueError) as error:
    resolve(f'--config.{word}')
  assert says in str(error.value) and '\n' not in str(error.value)


def test_values_in_files_have_types_too(tmp_path):
  path = tmp_path / 'mine.py'
  path.write_text('from configs import quickstart\n'
                  'def get_config(arg=None):\n'
                  '  c = quickstart.get_config(arg)\n'
                  '  c.batch_size = 64.5\n'
                  '  return c\n')
  with pytest.raises(ValueError, match='config.batch_size=64.5 should be a whole'):
    resolve(config=path)


def test_a_config_can_write_a_mode_of_its_own():
  c = quickstart.get_config()
  c.mode = dict(student='central', teacher='random#t', mixup=True)
  signatures.check(c)
  assert plan.make(c, 100, 1).group == 8


def test_a_space_will_do_where_an_equals_sign_does():
  words = ['--config', 'configs/quickstart.py:tiny', '--config.seed', '7',
           '--config.student.remat', '--workdir', 'w']
  assert command.normal(words) == [
      '--config=configs/quickstart.py:tiny', '--config.seed=7',
      '--config.student.remat=True', '--workdir', 'w']
  config = command.resolve(words)
  assert (config.seed, config.total_steps, config.student.remat) == (7, 40, True)


def test_a_path_at_home_is_found_in_any_flag(monkeypatch):
  monkeypatch.setenv('HOME', '/home/me')
  words = ['--config=distill.py:images=~/a,teacher=b', '--config.answers.store',
           '~/c', '--images=~', '--metric=a~/b', 'out=~/d']
  assert command.normal(words) == [
      '--config=distill.py:images=/home/me/a,teacher=b',
      '--config.answers.store=/home/me/c', '--images=/home/me', '--metric=a~/b',
      'out=~/d']


def test_students_of_a_class_have_options_of_their_own_family():
  config = resolve('--config.students.small.student.width=0.5',
                   '--config.students.other.student.family=vit',
                   '--config.students.other.student.variant=mu/8')
  assert config.students.small.student.width == .5
  assert config.students.other.student.variant == 'mu/8'
  with pytest.raises(ValueError, match="no config key 'variant'"):
    resolve('--config.students.small.student.variant=x')


FILES = sorted(path.stem for path in pathlib.Path(
    quickstart.__file__).parent.glob('*.py') if path.stem != 'common')


@pytest.mark.parametrize('name', FILES)
def test_what_configs_say_is_known_and_of_its_type(name):
  module = importlib.import_module(f'configs.{name}')
  for arg in ('', 'tiny=True') if name != 'bench' else ('',):
    config = module.get_config(arg)
    signatures.check(config)
    for path, section in signatures.walk(config):
      known = signatures.keys(path, signatures.chosen(config, path))
      assert signatures.is_named(path) or {*section} <= {*known}, path


def test_data_takes_what_sources_are_opened_with():
  """Signatures are read without TensorFlow; the source is opened with it."""
  assert signatures._of(sources.load) == signatures.SECTIONS['data',]


@pytest.mark.parametrize('kind, good, bad', [
    (int, [1, np.int64(2)], [1.5, 2., True, '1', None]),
    (float | None, [1, .5, np.float32(2), None], ['x', True]),
    (bool, [True], [1, 0]), (str, ['x'], [1, None]),
    (tuple[int, ...], [(1,), [1]], [1, 'x']),
    (dict[str, int], [{}, ml_collections.ConfigDict()], [(), 1])])
def test_types_are_those_of_annotations(kind, good, bad):
  assert all(kinds.fits(kind, value) for value in good)
  assert not any(kinds.fits(kind, value) for value in bad)
