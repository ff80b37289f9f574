"""Mistakes in a config end in one line that says what to do about them."""

import pytest

from big_distill import command
from big_distill import course
from configs import common
from configs import quickstart


def one_line(error):
  """What was said, which is a single line."""
  said = str(error.value)
  assert '\n' not in said
  return said


@pytest.mark.parametrize('content, message', [
    ('def get_config(arg=None:\n  pass\n', 'line 1: SyntaxError: invalid syntax'),
    ('import nosuchmodule\n', 'line 1: ModuleNotFoundError: No module named'),
    ('x = 1\n\ndef get_config():\n  return 1 / 0\n',
     'line 4: ZeroDivisionError: division by zero. Mend that line.'),
    ('def get_config():\n  return {}["lr"]\n', "line 2: KeyError: 'lr'"),
    ('from configs import quickstart\n\ndef get_config():\n'
     '  c = quickstart.get_config("tiny=True")\n  c.nothing.x = 5\n  return c\n',
     'line 5: AttributeError: '),
    ('x = 1\n', 'has no get_config: define one'),
    ('def get_config():\n  pass\n', 'returned NoneType: it should return an '
                                    'ml_collections.ConfigDict'),
    ('def get_config():\n  return dict(seed=1)\n', 'returned dict: it should'),
])
def test_a_config_file_that_is_no_config_is_named_with_the_line(
    tmp_path, content, message):
  path = tmp_path / 'mine.py'
  path.write_text(content)
  with pytest.raises(ValueError) as error:
    command.resolve([f'--config={path}'])
  said = one_line(error)
  assert str(path) in said and message in said


SECTIONS = ('student', 'optim', 'loss', 'data', 'crops', 'mixup', 'checkpoints',
            'answers', 'teachers', 'evals')


@pytest.mark.parametrize('change, message', [
    *(({key: 5}, f'config.{key}=5 should be a section')
      for key in SECTIONS),
    ({'teachers': {'prof': 'x'}}, "config.teachers.prof='x' should be a section"),
    ({'evals': {'val': 'x'}}, "config.evals.val='x' should be a section"),
    *(({key: None}, f'The config has no {key}: set config.{key}')
      for key in ('student', 'optim', 'data', 'teachers', 'mode', 'batch_size')),
    ({'mode': 3}, 'mode=3 should be one of fix/rs'),
    ({'mode': ['a']}, "mode=['a'] should be one of"),
    ({'batch_size': '32'}, "batch_size='32' should be a whole number"),
    ({'accumulate': 1.5}, 'accumulate=1.5 should be a whole number'),
    ({'seed': 'a'}, "seed='a' should be a whole number"),
    ({'crops': {'fraction': 2.}}, 'crops.fraction=2.0 should be a finite number '
                                  'above 0, at most 1'),
    ({'checkpoints': {'keep': 1.5}}, 'config.checkpoints.keep=1.5 should be a whole'),
    ({'data': {'name': 5}}, 'config.data.name=5 should be text'),
    ({'data': {'name': 'caltech12', 'split': 5}}, 'config.data.split=5 should be text'),
    ({'data': {'parts': {'a': 'caltech12'}}}, 'data.parts.a names no data'),
    ({'data': {'parts': {'a': {'weight': 1}}}}, 'data.parts.a names no data'),
    ({'steps_per_call': 'a'}, "steps_per_call='a' should be a whole number"),
    ({'mixup': {'group': 0}}, 'mixup.group=0 should be a whole number, 1 or more'),
    ({'mixup': {'alpha': 0}}, 'mixup.alpha=0 should be a finite number above 0'),
    ({'batch_size': 10**12}, 'batch_size=1000000000000 should be a finite number, '
                             '1 or more, at most 1.04858e+06'),
    ({'total_steps': 0}, 'The run has 0 steps'),
    ({'evals': {'val': {}}}, "evals.val.type='classification'"),
    ({'evals': {'val': {'type': 'classification', 'data': 'x'}}},
     "config.evals.val.data='x' should be a section"),
    ({'evals': {'val': {'type': 'classification', 'view': 3}}},
     'config.evals.val.view=3 should be text'),
    ({'evals': {'val': {'type': 'classification', 'view': 'centre'}}},
     "There is no crop 'centre'; did you mean central?"),
    ({'teachers': {'prof': {'random': {'family': 'bit'}, 'size': -4}}},
     'teachers.prof.size=-4 should be a whole number, 1 or more'),
    # What a function is given by others, a config would set to no effect.
    ({'optim': {'lr': .1, 'warmup': 5}}, "no key of config.optim 'warmup'; did you "
                                         'mean warmup_steps'),
    ({'optim': {'lr': .1, 'total': 5}}, "no key of config.optim 'total'"),
    ({'teachers': {'prof': {'init': 'caltech12 teacher', 'num_classes': 5}}},
     "no key of config.teachers.prof 'num_classes'"),
    ({'crops': {'host': (0, 2)}}, "no key of config.crops 'host'"),
    ({'mixup': {'rng': 0}}, "no key of config.mixup 'rng'"),
    ({'student': {'family': 'bit', 'size': 16, 'folded': True}},
     "no key of config.student 'folded'"),
    ({'optim': {'name': 'adam'}}, 'set config.optim.lr'),
    ({'optim': {'lr': .1, 'mu_dtype': 'int8'}}, "no mu_dtype 'int8'; known: "
                                                'float32, bfloat16'),
    ({'student': {'family': 'bit', 'size': 16.}},
     'config.student.size=16.0 should be a whole number'),
    ({'student': {'family': 'bit', 'size': 16, 'dtype': 'int32'}},
     "no dtype of a model 'int32'; did you mean float32"),
    ({'student': {'family': 'bit', 'size': 16, 'width': .001}},
     'BiT width=0.001 leaves none of 64 channels'),
    ({'mode': {'student': 'central', 'teacher': None}}, "no crop 'None'"),
    ({'mode': {'student': 'central', 'teacher': 'central', 'votes': -1}},
     'mode.votes=-1 should be a whole number, 0 or more'),
    ({'answers': {'audit_percent': 500.}}, 'audit_percent=500.0 should be a finite '
                                           'number, 0 or more, at most 100'),
    ({'evals': {'train': {'type': 'classification'}}},
     "An evaluation cannot be called 'train'"),
    ({'evals': {'val': {'type': 'classification', 'who': 'me'}}},
     "no who in evals.val 'me'; known: student, teacher"),
    ({'evals': {'val': {'type': 'calibration', 'bins': 0}}},
     'bins=0 should be a whole number, 1 or more'),
    ({'evals': {'val': {'type': 'fewshot', 'shots': (0,)}}},
     'shots=0 should be a whole number, 1 or more'),
])
def test_a_config_of_the_wrong_structure_is_one_line(change, message):
  from big_distill.input import pipeline
  config = {**quickstart.get_config('tiny=True'), **change}
  config = {key: value for key, value in config.items() if value is not None}
  with pytest.raises(ValueError) as error:
    course.make(config, pipeline, read=False)
  assert message in one_line(error)


def test_an_argument_that_is_given_twice_is_refused():
  with pytest.raises(ValueError, match='argument epochs is given twice'):
    common.parse('epochs=3,epochs=4', epochs=1)


def test_a_file_that_cannot_be_written_is_one_line_in_every_program(
    tmp_path, monkeypatch):
  monkeypatch.setattr(command.app, 'run', lambda obey, flags_parser: obey(['x']))
  monkeypatch.setattr('sys.argv', ['x'])
  with pytest.raises(SystemExit) as left:
    command.program(lambda flag: (tmp_path / 'none' / 'x.csv').write_text(''))
  assert str(left.value) == (
      f'Error: {tmp_path}/none/x.csv: No such file or directory. Mend it, or '
      'name another file or folder.')
