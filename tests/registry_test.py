"""Names that exist are found, others name their neighbours."""

import pytest

from big_distill import registry


@pytest.mark.parametrize('folder, names', [
    ('models', ['bit', 'efficientnet_lite', 'mobilenet_v3', 'vit']),
    ('weights', ['bit', 'efficientnet_lite', 'mobilenet_v3', 'vit']),
    ('optimizers', ['adam', 'muon', 'sgd', 'shampoo', 'soap']),
    ('evaluators', ['agreement', 'calibration', 'cka', 'classification',
                    'distance', 'fewshot'])])
def test_plugins_are_found_by_file_name(folder, names):
  for name in names:
    assert registry.load(folder, name).__name__.endswith(f'{folder}.{name}')


def test_the_nearest_names_are_offered():
  with pytest.raises(ValueError, match="no evaluator 'distanc'; did you mean "
                                       'distance'):
    registry.load('evaluators', 'distanc')
  with pytest.raises(ValueError, match='known: a, b'):
    registry.check('letter', 'zzz', ['a', 'b'])


def test_bound_options_must_exist():
  def f(x, *, t=1.):
    return x * t

  assert registry.bind(f, t=3.)(2.) == 6.
  with pytest.raises(ValueError, match="no option of f 'temp'"):
    registry.bind(f, temp=3.)
