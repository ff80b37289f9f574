"""Names that exist are found, others name their neighbours."""

from collections.abc import Sequence
import dataclasses
import pathlib

import numpy as np
import pytest

import big_distill
from big_distill import contracts
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


def test_a_file_of_models_is_a_family():
  """All that the package asks of one; no family is named elsewhere."""
  package = pathlib.Path(big_distill.__file__).parent
  names = [file.stem for file in package.glob('models/[a-z]*.py')]
  for name in names:
    family = registry.load('models', name)
    assert isinstance(family, contracts.Family), name
    assert 'big_vision' in family.LAYOUTS
    fields = {field.name for field in dataclasses.fields(family.Model)}
    assert {'num_classes', 'mean', 'std', 'dtype', 'folded'} <= fields, name
  for file in package.rglob('*.py'):
    if file.parent.name not in ('models', 'weights'):
      for name in names:
        assert f'models import {name}' not in file.read_text(), file


def test_a_file_of_evaluators_is_one_of_two_kinds():
  package = pathlib.Path(big_distill.__file__).parent
  for file in package.glob('evaluators/[a-z]*.py'):
    evaluator = registry.load('evaluators', file.stem).Evaluator()
    kinds = contracts.OfExamples, contracts.OfSplits
    assert sum(isinstance(evaluator, kind) for kind in kinds) == 1, file
    assert set(evaluator.needs) <= {'student', 'teacher'}, file


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


@pytest.mark.parametrize('options, message', [
    (dict(text=5), 'The option text=5 of f should be text.'),
    (dict(count=1.5), 'count=1.5 of f should be a whole number.'),
    (dict(count=True), 'count=True of f should be a whole number.'),
    (dict(size='a'), "size='a' of f should be a number or None."),
    (dict(flag='yes'), "flag='yes' of f should be True or False.")])
def test_bound_options_are_of_the_type_that_is_annotated(options, message):
  def f(*, text: str = '', count: int = 1, size: float | None = None,
        flag: bool = False, any_=0, several: Sequence[int] = ()):
    return text, count, size, flag, any_, several

  with pytest.raises(ValueError) as error:
    registry.bind(f, **options)
  assert message in str(error.value)
  fit = dict(text='a', count=np.int64(2), size=3, flag=True, any_='x',
             several=[1])
  assert registry.bind(f, **fit)() == tuple(fit.values())
