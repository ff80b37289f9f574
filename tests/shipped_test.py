"""A config is the user's own file, or else the one that came with us."""

import os
import pathlib
import sys

import pytest

from big_distill import command
from big_distill import shipped

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture
def here(tmp_path, monkeypatch):
  """An empty folder to be in; what configs import is forgotten afterwards."""
  monkeypatch.chdir(tmp_path)
  kept = {name: module for name, module in sys.modules.items()
          if name.partition('.')[0] == 'configs'}
  for name in kept:
    del sys.modules[name]
  yield tmp_path
  for name in [*sys.modules]:
    if name.partition('.')[0] == 'configs':
      del sys.modules[name]
  sys.modules.update(kept)


@pytest.mark.parametrize('name', ['quickstart', 'quickstart.py',
                                  'configs/quickstart.py'])
def test_ours_are_found_from_anywhere(here, name, capsys):
  path = str(ROOT / 'configs/quickstart.py')
  assert shipped.find(name) == path
  assert command.found([f'--config={name}:tiny,epochs=3', '--run']) == [
      f'--config={path}:tiny,epochs=3', '--run']
  assert capsys.readouterr().err == f'--config={name} is {path}.\n'
  config = command.resolve([f'--config={name}:tiny', '--config.seed=7'])
  assert config.total_steps == 40 and config.seed == 7


def test_a_file_of_the_user_s_comes_first(here):
  (here / 'quickstart.py').write_text('')
  assert shipped.find('quickstart.py') == 'quickstart.py'
  assert shipped.find('quickstart') == 'quickstart.py'
  assert shipped.find('configs/quickstart.py') == str(
      ROOT / 'configs/quickstart.py')


def test_a_config_of_the_user_s_imports_what_is_beside_it_and_ours(here):
  """Whether its folder is called configs, as ours is, or not."""
  text = ('from configs import common\n'
          '{}\n'
          'def get_config(arg=None):\n'
          '  import ml_collections\n'
          '  return ml_collections.ConfigDict(dict(\n'
          '      data=dict(name=common.__file__), seed={}))\n')
  (here / 'alone.py').write_text(text.format('', 1))
  os.mkdir('configs')
  (here / 'configs/mine.py').write_text(text.format(
      'from configs import shared', 'shared.N'))
  (here / 'configs/shared.py').write_text('N = 5')
  ours = str(ROOT / 'configs/common.py')
  assert command.resolve(['--config=alone.py']).to_dict() == {
      'data': {'name': ours}, 'seed': 1}
  assert command.resolve(['--config=configs/mine.py']).to_dict() == {
      'data': {'name': ours}, 'seed': 5}


@pytest.mark.parametrize('name, near', [
    ('quickstrat.py', 'quickstart.py'), ('mnie', 'mine.py'),
    ('configs/quickstrat.py', 'configs/quickstart.py')])
def test_a_misspelt_file_is_an_error_that_names_its_neighbours(
    here, name, near):
  (here / 'mine.py').write_text('')
  with pytest.raises(ValueError, match=f'no config file {name!r}.*{near}'):
    shipped.find(name)
  with pytest.raises(ValueError, match='no config file'):
    shipped.find('/nowhere/quickstart.py')
