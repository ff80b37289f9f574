"""Laws of every family of models, by small ones."""

import importlib
import pathlib
import re
import sys

import jax
import jax.export
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from big_distill import contracts
from big_distill import models
from big_distill import pretrained
from big_distill import registry
from big_distill.models import efficientnet_lite
from big_distill.models import mobilenet_v3
from big_distill.ops import layers

FAMILIES = {
    # Wide enough for 3x3 convolutions by Winograd's filtering.
    'bit': dict(depth=(1,), width=1),
    'mobilenet_v3': dict(variant='short', width=.25),
    'efficientnet_lite': {},
    'vit': dict(variant='mu/8', pool='map'),
    'mine': dict(width=.25),  # Of the page on models of one's own.
}
PAGE = pathlib.Path(__file__).parent.parent / 'docs/howto/model.md'


@pytest.fixture(scope='module')
def mine(tmp_path_factory):
  """The page has been followed: its file is one of models/."""
  folder = tmp_path_factory.mktemp('models')
  code, = re.findall(r'```python\n(.*?)```', PAGE.read_text(), re.S)
  (folder / 'mine.py').write_text(code)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(models, '__path__', [*models.__path__, str(folder)])
    importlib.invalidate_caches()
    yield registry.load('models', 'mine')
  del sys.modules['big_distill.models.mine'], models.mine


@pytest.fixture(scope='module', params=FAMILIES)
def family(request, mine):
  """(model, parameters), whose head is no longer zero.

  Of deep networks the first blocks have all kinds of parts.
  """
  with pytest.MonkeyPatch.context() as patch:
    rows, _ = mobilenet_v3.VARIANTS['small']
    patch.setitem(mobilenet_v3.VARIANTS, 'short', (rows[:4], 128))
    patch.setattr(efficientnet_lite, 'ROWS', efficientnet_lite.ROWS[:3])
    model, params = pretrained.create(family=request.param, num_classes=3,
                                      size=16, **FAMILIES[request.param])
    params['head']['kernel'] = np.random.default_rng(0).normal(
        size=params['head']['kernel'].shape).astype(np.float32)
    yield model, params


def test_families_have_what_is_asked_of_them_and_are_all_here(mine):
  found = pretrained.families()
  assert found.keys() == FAMILIES.keys()
  for name, module in found.items():
    assert isinstance(module, contracts.Family), name
    assert all(module.named(each) for each in module.NAMES), name
  assert mine.Model(num_classes=3, **mine.named('mine')).width == 1


def test_a_model_is_exported_for_batches_of_any_size(family):
  model, params = family
  answer = jax.jit(lambda params, images: model.apply(
      {'params': params}, images)[0])
  batch, = jax.export.symbolic_shape('b')
  exported = jax.export.deserialize(jax.export.export(answer)(
      params, jax.ShapeDtypeStruct((batch, 16, 16, 3), jnp.float32)
  ).serialize())
  images = np.random.default_rng(0).uniform(-1, 1, (3, 16, 16, 3))
  images = images.astype(np.float32)
  want = answer(params, images)
  # Where the batch is known, some convolutions are computed otherwise.
  np.testing.assert_allclose(exported.call(params, images), want, rtol=0,
                             atol=2e-5 * abs(want).max())


def test_mean_and_deviation_are_of_pixels_in_0_to_1(family):
  """A model that wants others answers as one that is given what it wants."""
  model, params = family
  images = np.random.default_rng(0).uniform(-1, 1, (2, 16, 16, 3))
  mean, std = (.3, .5, .6), (.2, .4, .3)

  def answers(mean, std):
    asks = model.clone(mean=mean, std=std)
    return jax.jit(lambda x: asks.apply({'params': params}, x)[0],
                   compiler_options={'xla_backend_optimization_level': 0})

  plain = answers(layers.HALF, layers.HALF)
  got = answers(mean, std)(np.float32(images))
  want = plain(np.float32(((images + 1) / 2 - mean) / std))
  assert abs(got - plain(np.float32(images))).max() > .01 * abs(want).max()
  np.testing.assert_allclose(got, want, rtol=0, atol=2e-5 * abs(want).max())


def test_pixels_that_are_no_floats_or_no_images_are_refused(family):
  """Annotations of shapes and dtypes are checked; raw pixels are a mistake."""
  model, params = family
  for wrong in (np.zeros((1, 16, 16, 3), np.uint8), np.zeros((16, 16, 3)),
                np.zeros((1, 16, 16, 1), np.float32)):
    with pytest.raises(jaxtyping.TypeCheckError):
      model.apply({'params': params}, wrong)
