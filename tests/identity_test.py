"""A workdir goes on with what decided its results, or says what would change."""

import copy
import importlib
import json
import logging
import os
import pathlib

import pytest

from big_distill import identity
from big_distill import runs
from configs import quickstart

CONFIG = quickstart.get_config('tiny=True').to_dict()
FACTS = {'data.examples': 64, 'data.lengths': 123, 'teachers.teacher': 'abc'}


def changed(**dotted):
  """CONFIG with other values; '__' stands for a dot."""
  config = copy.deepcopy(CONFIG)
  for key, value in dotted.items():
    *path, last = key.split('__')
    at = config
    for part in path:
      at = at[part]
    at[last] = value
  return config


def go_on(workdir, config=CONFIG, allow=(), total=40, step=20, facts=FACTS):
  run = identity.Identity(str(workdir), config, allow)
  run.confirm(total, step, facts)
  run.record()


def files(folder):
  return {path: path.read_text() for path in pathlib.Path(folder).rglob('*')
          if path.is_file()}


@pytest.fixture
def begun(tmp_path):
  """A workdir after 20 of 40 steps."""
  go_on(tmp_path, step=0)
  (tmp_path / 'checkpoints' / '20').mkdir(parents=True)
  return tmp_path


@pytest.fixture
def finished(begun):
  (begun / 'checkpoints' / '20').rename(begun / 'checkpoints' / '40')
  runs.save(begun / 'result.json', {'steps': 40})
  return begun


@pytest.mark.parametrize('key, old, new', [
    ('optim__lr', '0.01', .5), ('seed', '0', 1), ('batch_size', '32', 64),
    ('mode', '"funmatch"', 'same/ic'), ('loss__t', '1.0', 2.),
    ('data__split', '"train[:64]"', 'train[:32]'), ('data__resident', 'false', True),
    ('student__depth', '[1, 1]', (1, 2)), ('mixup__group', '8', 4),
    ('teachers__teacher__init', '"caltech12 teacher"', 'x.npz'),
    ('student__new', 'not set', 3), ('accumulate', '1', 2)])
@pytest.mark.parametrize('state', ['begun', 'finished'])
def test_what_decides_results_is_refused_before_anything_is_written(
    request, state, key, old, new):
  workdir = request.getfixturevalue(state)
  before, dotted = files(workdir), key.replace('__', '.')
  config = changed(**{key: new})
  with pytest.raises(ValueError) as error:
    go_on(workdir, config)
  message = str(error.value)
  assert f': {dotted} {old} there, ' in message and '\n' not in message
  assert f'--allow_changes={dotted}.' in message
  assert files(workdir) == before


def test_every_change_is_listed_with_its_two_values(begun):
  with pytest.raises(ValueError) as error:
    go_on(begun, changed(optim__lr=.5, seed=3))
  assert ('optim.lr 0.01 there, 0.5 here; seed 0 there, 3 here. Choose another '
          '--workdir, or go on with --allow_changes=optim.lr,seed.'
          ) in str(error.value)


def test_what_was_allowed_is_recorded_and_is_the_identity_from_then_on(begun):
  config = changed(optim__lr=.5, seed=3)
  with pytest.raises(ValueError, match='seed 0 there'):
    go_on(begun, config, allow=['optim.lr'])
  go_on(begun, config, allow=['optim.lr', 'seed'])
  go_on(begun, config)  # Again, without asking.
  known = runs.load(begun / 'identity.json')
  assert [change['from_to'] for change in known['changes']] == [
      {'seed': [0, 3], 'optim.lr': [.01, .5]}]
  assert known['changes'][0]['step'] == 20
  assert runs.load(begun / 'config.json')['seed'] == 3
  with pytest.raises(ValueError, match='seed 3 there, 0 here'):
    go_on(begun)


def test_a_misspelt_key_to_allow_is_an_error(begun):
  with pytest.raises(ValueError, match="'optim.lrr'; did you mean optim.lr"):
    go_on(begun, allow=['optim.lrr'])


@pytest.mark.parametrize('changes', [
    dict(log_percent=7), dict(evals={}), dict(checkpoints=dict(every_steps=1)),
    dict(steps_per_call=8), dict(layout='big_transfer'),
    dict(data__cache='encoded'), dict(data__data_dir='/elsewhere'),
    dict(evals__student__view='squash')])
def test_what_changes_no_result_goes_through(begun, changes, caplog):
  with caplog.at_level(logging.WARNING):
    go_on(begun, changed(**changes))
  assert not caplog.records
  assert runs.load(begun / 'identity.json')['changes'] == []
  want = runs.load(begun / 'config.json')
  assert runs.flat(want) == runs.flat(json.loads(
      json.dumps(changed(**changes))))


def test_answers_stay_kept_or_live_wherever_they_are_kept(begun):
  kept = changed(answers__store='/a')
  with pytest.raises(ValueError, match='answers.store not set there, true here'):
    go_on(begun, kept)
  go_on(begun, kept, allow=['answers.store'])
  go_on(begun, changed(answers__store='/b'))
  with pytest.raises(ValueError, match='answers.store true there, not set here'):
    go_on(begun)


@pytest.mark.parametrize('key', FACTS)
def test_data_and_teachers_that_changed_under_a_run_are_refused(begun, key):
  before = files(begun)
  with pytest.raises(ValueError, match=f'{key} .* there, "other" here'):
    go_on(begun, facts=FACTS | {key: 'other'})
  assert files(begun) == before
  go_on(begun, facts=FACTS | {key: 'other'}, allow=[key])


def test_a_longer_run_is_allowed_and_said(begun, caplog):
  go_on(begun, changed(total_steps=80), total=80)
  assert 'begun for 40 steps and now ends at 80' in caplog.text
  assert runs.load(begun / 'identity.json')['steps'] == 80


def test_a_run_shorter_than_the_steps_taken_is_refused(begun):
  before = files(begun)
  with pytest.raises(ValueError) as error:
    go_on(begun, changed(total_steps=10), total=10)
  assert 'has taken 20 steps already, more than the 10' in str(error.value)
  assert '\n' not in str(error.value) and files(begun) == before


def test_a_finished_run_repeated_writes_nothing(finished):
  before = files(finished)
  go_on(finished, changed(log_percent=7), step=40)
  assert files(finished) == before


def test_a_finished_run_that_goes_on_keeps_its_old_result_apart(finished):
  go_on(finished, changed(total_steps=80), total=80, step=40)
  assert runs.load(finished / 'result_40.json') == {'steps': 40}
  assert not runs.finished(finished)


def test_other_versions_are_said_and_not_refused(begun, caplog):
  known = runs.load(begun / 'identity.json')
  known['versions']['jax'] = '0.0.1'
  runs.save(begun / 'identity.json', known)
  go_on(begun)
  assert 'begun with jax 0.0.1 and goes on with' in caplog.text
  change, = runs.load(begun / 'identity.json')['changes']
  assert change['from_to']['jax'][0] == '0.0.1'


def test_a_workdir_that_learned_nothing_yet_takes_another_config(tmp_path):
  go_on(tmp_path, step=0)
  go_on(tmp_path, changed(seed=1), step=0)
  assert runs.load(tmp_path / 'config.json')['seed'] == 1


def test_a_run_of_before_identities_is_known_by_its_config(begun):
  os.remove(begun / 'identity.json')
  with pytest.raises(ValueError, match='seed 0 there, 1 here'):
    go_on(begun, changed(seed=1))
  go_on(begun)
  assert runs.load(begun / 'identity.json')['facts'] == FACTS


def test_a_damaged_identity_is_named(begun):
  (begun / 'identity.json').write_text('{"config": ')
  with pytest.raises(ValueError, match=f'{begun}/identity.json is not JSON'):
    go_on(begun)


@pytest.mark.parametrize('name', ['quickstart', 'imagenet', 'flowers102'])
def test_most_of_a_config_decides_results(name):
  config = importlib.import_module(f'configs.{name}').get_config().to_dict()
  kept = identity.decisive(config)
  assert {'seed', 'batch_size', 'optim.lr', 'optim.name', 'loss.t',
          'data.name', 'data.split', 'student.size'} <= kept.keys()
  gone = {key.split('.')[0] for key in runs.flat(config).keys() - kept.keys()}
  assert gone <= {'answers', 'log_percent', 'log_steps', 'evals', 'checkpoints', 'data',
                  'steps_per_call', 'layout', 'total_epochs', 'total_steps',
                  'total_examples'}
