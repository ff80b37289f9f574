"""Files for PyTorch have the names that its models have, and their function."""

import zlib

import numpy as np
import pytest

from big_distill import cards
from big_distill import exported
from big_distill import params as params_lib
from big_distill import pretrained
from big_distill import registry
from big_distill import served
from big_distill.formats import timm

# (number of tensors, CRC-32 of the lines 'name (shape)' in order) of timm 1.0.31
# and torchvision 0.28.0, for 3 classes, without num_batches_tracked.
FACTS = {
    'resnetv2_50x1_bit': (153, 434318957),
    'resnetv2_101x3_bit': (306, 2950597932),
    'vit_small_patch16_224': (151, 1923574516),  # At 64 px, pooled by a mean.
    'vit_base_patch32_224': (152, 4046567903),  # At 64 px.
    'tf_efficientnet_lite0': (247, 2550465344),
    'tf_efficientnet_lite4': (457, 3087120959),
    'mobilenetv3_small_100': (210, 3276354015),
    'mobilenetv3_large_100': (266, 292794487),
    'mobilenet_v3_large': (266, 2624396974),  # Of width 0.5.
}


def theirs(layout, *, size=64, family, **options):
  """(tensors of zeros, Python) of a model in a layout."""
  model, shapes = pretrained.shapes_of(size=size, family=family, num_classes=3,
                                       **options)
  flat = {name: np.broadcast_to(np.float32(0), leaf.shape)
          for name, leaf in params_lib.flatten(shapes).items()}
  convert = getattr(registry.load('weights', family), f'to_{layout}')
  return convert(model, size, flat)


@pytest.mark.parametrize('name, layout, options', [
    ('resnetv2_50x1_bit', 'timm', dict(family='bit')),
    ('resnetv2_101x3_bit', 'timm', dict(family='bit', depth=101, width=3)),
    ('vit_small_patch16_224', 'timm', dict(family='vit')),
    ('vit_base_patch32_224', 'timm', dict(family='vit', variant='B/32',
                                          pool='tok')),
    ('tf_efficientnet_lite0', 'timm', dict(family='efficientnet_lite')),
    ('tf_efficientnet_lite4', 'timm', dict(family='efficientnet_lite',
                                           variant='lite4')),
    ('mobilenetv3_small_100', 'timm', dict(family='mobilenet_v3', norm='bn',
                                           variant='small')),
    ('mobilenetv3_large_100', 'timm', dict(family='mobilenet_v3', norm='bn')),
    ('mobilenet_v3_large', 'torchvision', dict(family='mobilenet_v3', norm='bn',
                                               width=.5))])
def test_names_and_shapes_are_theirs(name, layout, options):
  tensors, _ = theirs(layout, **options)
  lines = sorted(f'{each} {value.shape}' for each, value in tensors.items())
  assert (len(lines), zlib.crc32('\n'.join(lines).encode())) == FACTS[name]


@pytest.mark.parametrize('layout, options, message', [
    ('timm', dict(family='bit', width=.2), '12 channels at its root'),
    ('timm', dict(family='mobilenet_v3'), 'choose torchvision'),
    ('timm', dict(family='mobilenet_v3', norm='bn', width=.5), 'of width 1'),
    ('timm', dict(family='efficientnet_lite', norm='gn'), 'BatchNorm alone'),
    ('timm', dict(family='vit', pool='map'), 'pool=map')])
def test_what_they_lack_is_refused_in_one_line(layout, options, message):
  with pytest.raises(ValueError, match=message) as error:
    theirs(layout, **options)
  assert len(str(error.value).splitlines()) == 1


def test_a_layout_without_the_family_is_refused():
  card = cards.Card('vit', dict(num_classes=3), size=64)
  with pytest.raises(ValueError, match='torchvision has no vit'):
    timm.lines(card, 'torchvision')


def test_the_lines_of_a_card_are_those_of_its_model():
  options = dict(depth=(1, 2), width=.75, num_classes=3)
  card = cards.Card('bit', options, size=32)
  _, want = theirs('timm', family='bit', depth=(1, 2), width=.75)
  assert timm.lines(card, 'timm') == want
  assert 'layers=[1, 2], channels=[192, 384]' in want and 'stem_chs=48' in want


@pytest.mark.parametrize('layout, options', [
    # 24 channels, which 32 groups do not divide, and float16.
    ('timm', dict(family='bit', depth=(1, 2), width=.375)),
    ('timm', dict(family='vit', variant='mu/16', pool='tok')),
    ('timm', dict(family='vit', variant='mu/16', posemb='sincos2d')),
    ('timm', dict(family='efficientnet_lite')),
    ('timm', dict(family='mobilenet_v3', variant='small', norm='bn')),
    ('torchvision', dict(family='mobilenet_v3', variant='small', width=.25,
                         mean=(.4, .5, .6), std=(.2, .3, .4)))])
def test_pytorch_computes_the_model(layout, options, tmp_path):
  pytest.importorskip('torch', reason='PyTorch is not installed')
  pytest.importorskip(layout, reason=f'{layout} is not installed')
  model, params = pretrained.create(size=32, num_classes=3, **options)
  rng = np.random.default_rng(0)
  flat = {name: np.float32(leaf + .2 * rng.normal(size=leaf.shape))
          for name, leaf in params_lib.flatten(params).items()}
  flat |= {name: abs(leaf) + .5 for name, leaf in flat.items()
           if name.endswith('/var')}
  path = str(tmp_path / 'student.npz')
  pretrained.save(path, params_lib.unflatten(flat),
                  card=cards.of(model, size=32))
  images = rng.integers(0, 256, (4, 32, 32, 3)).astype(np.uint8)
  want = np.asarray(model.apply({'params': params_lib.unflatten(flat)},
                                images / np.float32(127.5) - 1)[0])
  for weights in ('float32', 'float16'):
    row = exported.write(served.load(path, weights), layout, str(tmp_path),
                         'student', images, want)
    assert row.agreement == 1
    _, answer = exported.read(row.file)
    share = 1e-3 if weights == 'float32' else .05
    np.testing.assert_allclose(answer(images), want, rtol=0,
                               atol=share * want.std())
