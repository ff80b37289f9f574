"""Numbers that make no sense are refused in one clear line."""

import jax.numpy as jnp
import numpy as np
import pytest

from big_distill import bounds
from big_distill import pretrained


@pytest.mark.parametrize('value, options, message', [
    (-1, dict(least=0), 'n=-1 should be a finite number, 0 or more'),
    (0., dict(above=0), 'n=0.0 should be a finite number above 0'),
    (2.5, dict(least=1, whole=True), 'n=2.5 should be a whole number, 1 or more'),
    (float('inf'), {}, 'n=inf should be a finite number'),
    (np.float32('nan'), dict(whole=True), 'should be a whole number'),
    (2., dict(above=0, most=1), 'n=2.0 should be a finite number above 0, at most 1'),
    (None, {}, 'n=None should be'), ('3', {}, "n='3' should be"),
    ((50,), dict(whole=True), r'n=\(50,\) should be')])
def test_numbers_out_of_bounds_are_named_with_their_bounds(value, options,
                                                           message):
  with pytest.raises(ValueError, match=message) as error:
    bounds.check('n', value, **options)
  assert '\n' not in str(error.value)


def test_numbers_within_bounds_and_traced_ones_pass():
  bounds.check('n', 0, least=0)
  bounds.check('n', 1e-9, above=0)
  bounds.check('n', np.int64(3), least=3, whole=True)
  bounds.check('n', 3., whole=True)
  bounds.check('n', jnp.float32(-1), least=0)


@pytest.mark.parametrize('options, message', [
    (dict(size=0), 'size=0'), (dict(size=32.5), 'size=32.5'),
    (dict(width=-1.), 'width=-1.0 should be a finite number above 0'),
    (dict(num_classes=0), 'num_classes=0')])
def test_a_model_of_no_sense_is_refused(options, message):
  with pytest.raises(ValueError, match=message):
    pretrained.create(**{'family': 'bit', 'depth': (1,), 'size': 32,
                         'num_classes': 3, **options})
