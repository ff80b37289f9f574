"""Parameters by name: what differs is listed, what is not a number named."""

import jax
import ml_dtypes
from npz_files_test import one_line
from npz_files_test import same
from npz_files_test import TREE
import numpy as np
import pytest

from big_distill import costs
from big_distill import params


def test_names_are_paths_and_paths_are_names():
  flat = params.flatten(TREE)
  assert list(flat) == ['block1/unit01/kernel', 'block1/unit01/bias',
                        'norm-pre-head/scale', 'step', 'mask', 'none']
  assert jax.tree.all(jax.tree.map(same, params.unflatten(flat), TREE))


def test_numbers_are_finite_floats_or_their_leaf_is_named():
  good = {'a': np.zeros(3, np.float16), 'b/c': np.ones(2, ml_dtypes.bfloat16)}
  params.check_numbers(good, 'F')
  for value, message in [
      (np.zeros(2), 'F: b/c is of float64, but parameters are of float32, '
       'bfloat16, float16.'),
      (np.zeros(2, np.int8), 'b/c is of int8'), (np.zeros(2, '<U3'), 'of <U3'),
      (np.float32([0, np.nan, -np.inf]),
       'F: 2 of the 3 numbers in b/c are NaN or infinite.'),
      (np.asarray([np.inf], ml_dtypes.bfloat16), '1 of the 1 numbers')]:
    text = one_line(lambda: params.check_numbers(
        good | {'b/c': value}, 'F'))
    assert message in text


def test_every_mismatch_is_listed_by_name_and_shape():
  given = {'a': np.zeros(3), 'b': np.zeros((1, 2)), 'd': np.zeros(())}
  wanted = {'a': np.zeros(3), 'b': np.zeros((2, 1)), 'c': np.zeros((4,))}
  lines = ['! b (1, 2): should be (2, 1)', '+ c (4,): missing',
           '- d (): unexpected']
  assert params.mismatches(given, wanted) == lines
  shapes = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
            for name, leaf in wanted.items()}
  assert params.mismatches(given, shapes) == lines
  with pytest.raises(ValueError) as error:
    params.check_match(given, wanted, 'This')
  assert str(error.value).splitlines() == [
      'This does not fit the model:', *(f'  {line}' for line in lines)]


def test_what_matches_passes_whatever_its_order_and_dtype():
  given = {'b': np.zeros((2, 1)), 'a': np.zeros(3, np.int8)}
  wanted = {'a': np.zeros(3), 'b': np.zeros((2, 1))}
  assert params.mismatches(given, wanted) == []
  params.check_match(given, wanted, 'This')


def test_count_is_the_sum_of_sizes():
  assert costs.parameters(TREE) == 6 + 3 + 8 + 1 + 2 + 0
  assert costs.parameters(jax.ShapeDtypeStruct((3, 5), np.float32)) == 15


def test_running_averages_are_not_counted():
  norm = {name: np.zeros(4) for name in ('scale', 'bias', 'mean', 'var')}
  assert costs.parameters({'stem': {'norm': norm, 'kernel': np.zeros(5)}}) == 13
  flat = params.flatten({'stem': {'norm': norm}, 'mean': {'kernel': 0.}})
  assert list(filter(params.is_average, flat)) == [
      'stem/norm/mean', 'stem/norm/var']


def test_overview_tells_names_shapes_sizes_and_the_total():
  text = params.overview({'a': {'kernel': np.ones((2, 3), np.float32)},
                          'b': np.zeros(1000, np.float32)})
  for cell in ('a/kernel', '(2, 3)', '1,000', 'Total: 1,006'):
    assert cell in text, text
