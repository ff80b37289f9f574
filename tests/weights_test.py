"""Checkpoints of either layout load as what they are, or say what is wrong."""

import jax
import ml_dtypes
import numpy as np
import pytest

import big_distill
from big_distill import cards
from big_distill import npz_files
from big_distill import params as params_lib
from big_distill import pretrained
from big_distill import students
from big_distill.models import bit
from big_distill.models import mobilenet_v3


@pytest.fixture(scope='module')
def student():
  model, params = pretrained.create(size=16, family='bit', depth=(2, 1),
                                    width=.25, num_classes=5)
  rng = np.random.default_rng(0)
  return model, jax.tree.map(
      lambda x: rng.normal(size=x.shape).astype(np.float32), params)


def assert_equal(a, b):
  a, b = params_lib.flatten(a), params_lib.flatten(b)
  assert a.keys() == b.keys()
  for name in a:
    np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.mark.parametrize('layout', ['big_vision', 'big_transfer'])
def test_what_is_saved_in_a_layout_loads_as_it_was(student, tmp_path, layout):
  model, params = student
  big_distill.save(tmp_path / 's.npz', params, layout)
  loaded, got = big_distill.load(tmp_path / 's.npz')
  assert_equal(got, params)
  assert (loaded.depth, loaded.width, loaded.num_classes) == ((2, 1), .25, 5)
  images = np.random.default_rng(1).normal(size=(2, 16, 16, 3))
  want = model.apply({'params': params}, images)[0]
  assert (loaded.apply({'params': got}, images)[0] == want).all()


def test_names_and_shapes_are_those_of_big_transfer(student, tmp_path):
  big_distill.save(tmp_path / 's.npz', student[1], 'big_transfer')
  shapes = {name: leaf.shape for name, leaf
            in npz_files.load(tmp_path / 's.npz').items()}
  conv = 'standardized_conv2d/kernel'
  assert {name: shape for name, shape in shapes.items()
          if 'unit02' not in name and 'block2' not in name} == {
      f'resnet/root_block/{conv}': (7, 7, 3, 16),
      f'resnet/block1/unit01/a/{conv}': (1, 1, 16, 16),
      f'resnet/block1/unit01/b/{conv}': (3, 3, 16, 16),
      f'resnet/block1/unit01/c/{conv}': (1, 1, 16, 64),
      f'resnet/block1/unit01/a/proj/{conv}': (1, 1, 16, 64),
      **{f'resnet/block1/unit01/{unit}/group_norm/{name}': (16,)
         for unit in 'abc' for name in ('gamma', 'beta')},
      'resnet/group_norm/gamma': (128,), 'resnet/group_norm/beta': (128,),
      'resnet/head/conv2d/kernel': (1, 1, 128, 5), 'resnet/head/conv2d/bias': (5,)}


def test_names_and_shapes_are_those_of_big_vision(student):
  flat = params_lib.flatten(student[1])
  assert flat['block1/unit01/gn1/scale'].shape == (1, 1, 1, 16)
  assert flat['norm-pre-head/bias'].shape == (1, 1, 1, 128)
  assert {'root_block/conv_root/kernel', 'block2/unit01/conv_proj/kernel',
          'block1/unit02/conv3/kernel', 'head/bias'} <= flat.keys()


@pytest.mark.parametrize('prefix', ['params/', 'opt/target/'])
def test_nested_checkpoints_are_unwrapped(student, tmp_path, prefix):
  flat = {prefix + name: leaf for name, leaf
          in params_lib.flatten(student[1]).items()}
  npz_files.save(tmp_path / 's.npz', flat | {'chrono/x': np.zeros(1)})
  assert_equal(big_distill.load(tmp_path / 's.npz')[1], student[1])


def test_numbered_names_of_big_transfer_are_understood(student, tmp_path):
  flat = bit.LAYOUTS['big_transfer'](params_lib.flatten(student[1]))
  flat = {name.replace('conv2d/', f'conv2d_{i}/') if 'head' not in name
          else name: leaf for i, (name, leaf) in enumerate(flat.items())}
  npz_files.save(tmp_path / 's.npz', flat)
  assert_equal(big_distill.load(tmp_path / 's.npz')[1], student[1])


def test_bfloat16_survives_npz(student, tmp_path):
  half = jax.tree.map(lambda x: x.astype(ml_dtypes.bfloat16), student[1])
  big_distill.save(tmp_path / 's.npz', half)
  assert_equal(big_distill.load(tmp_path / 's.npz')[1], half)


@pytest.mark.parametrize('depth, width', [
    (50, 1), (152, 2), (26, 4), ((1, 1, 1), .375), ((3,), 2)])
def test_family_size_and_classes_are_read_off_the_shapes(depth, width):
  model = pretrained.build('bit', depth=depth, width=width, num_classes=7)
  shapes = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct(
      (1, 32, 32, 3), np.float32))['params']
  assert bit.recognise(params_lib.flatten(shapes)) == dict(
      depth=bit.units(depth), width=width, num_classes=7)


def test_the_bundled_teacher_is_one_of_the_published(tmp_path):
  model, _ = big_distill.load('caltech12 teacher')
  assert (model.depth, model.width, model.num_classes) == ((2, 2, 2), .75, 12)
  assert pretrained.path_of('BiT-M R152x2 imagenet2012 ic224') == (
      'gs://bit_models/distill/R152x2_T_224.npz')
  with pytest.raises(ValueError, match='did you mean BiT-M-R50x1'):
    pretrained.path_of('BiT-M-R50')


def test_every_mismatch_is_listed_by_name(student, tmp_path):
  flat = params_lib.flatten(student[1])
  del flat['norm-pre-head/bias']
  flat['block1/unit02/gn3/scale'] = np.zeros([1, 1, 1, 9])
  flat['extra/kernel'] = np.zeros([2])
  npz_files.save(tmp_path / 's.npz', flat)
  with pytest.raises(ValueError) as error:
    big_distill.load(tmp_path / 's.npz')
  for line in ('s.npz does not fit', '+ norm-pre-head/bias (1, 1, 1, 128): miss',
               '- extra/kernel (2,): unexpected',
               '! block1/unit02/gn3/scale (1, 1, 1, 9): should be (1, 1, 1, 16)'):
    assert line in str(error.value)


def test_what_is_no_checkpoint_is_one_clear_line(student, tmp_path):
  whole = tmp_path / 'whole.npz'
  big_distill.save(whole, student[1])
  (tmp_path / 'cut.npz').write_bytes(whole.read_bytes()[:-2000])
  (tmp_path / 'text.npz').write_text('hello')
  npz_files.save(tmp_path / 'other.npz', {'a/b': np.zeros(2)})
  for name, message in (('none', 'There is no checkpoint'),
                        ('cut', 'is not an npz file'),
                        ('text', 'is not an npz file'),
                        ('other', 'no model of a known family')):
    with pytest.raises(ValueError, match=message):
      big_distill.load(str(tmp_path / f'{name}.npz'))


def test_a_model_of_what_is_no_number_is_not_loaded(student, tmp_path):
  for value, message in ((np.nan, '1 of the 128 numbers in norm-pre-head/scale'),
                         (None, 'norm-pre-head/scale is of int32')):
    flat = params_lib.flatten(student[1])
    scale = flat['norm-pre-head/scale'].copy()
    scale[..., 5] = value or 0
    flat['norm-pre-head/scale'] = scale if value else scale.astype(np.int32)
    npz_files.save(tmp_path / 's.npz', flat)
    with pytest.raises(ValueError, match=message):
      big_distill.load(tmp_path / 's.npz')


def test_a_head_is_kept_dropped_or_reshaped_as_said(student, tmp_path):
  _, params = student
  big_distill.save(tmp_path / 's.npz', params)
  for classes in (5, 9):
    _, fresh = pretrained.create(size=16, family='bit', depth=(2, 1), width=.25,
                                 num_classes=classes)
    for head in ('keep', 'drop', 'reshape'):
      if head == 'keep' and classes == 9:
        with pytest.raises(ValueError, match=r'head/bias \(5,\): should be'):
          students.init_from(fresh, tmp_path / 's.npz', head)
        continue
      got = students.init_from(fresh, tmp_path / 's.npz', head)
      kept = head == 'keep' or (head == 'reshape' and classes == 5)
      assert_equal(got['head'], (params if kept else fresh)['head'])
      assert_equal(got['block1'], params['block1'])
  with pytest.raises(ValueError, match='did you mean keep'):
    students.init_from(fresh, tmp_path / 's.npz', 'kep')


@pytest.mark.parametrize('section', [
    {}, dict(depth=(2, 1)), dict(family='bit', depth=(2, 1), width=.25)])
def test_a_student_of_a_file_is_what_the_section_says_else_the_file(
    student, tmp_path, section):
  model, params = student
  big_distill.save(tmp_path / 's.npz', params)
  section = dict(section, init=str(tmp_path / 's.npz'))
  for more, suggested, classes, keeps in [
      ({}, 9, 5, True), (dict(head='drop'), 9, 9, False),
      (dict(head='drop', num_classes=5), 9, 5, False),
      (dict(head='reshape'), 5, 5, True), (dict(head='reshape'), 9, 9, False),
      (dict(head='reshape', num_classes=7), 5, 7, False)]:
    got, began = students.create({**section, **more}, 16, suggested)
    assert got == model.clone(num_classes=classes), more
    assert_equal(began['block1'], params['block1'])
    head = params['head'] if keeps else {
        'kernel': np.zeros((128, classes)), 'bias': np.zeros(classes)}
    assert_equal(began['head'], head)
  for wrong, message in [
      (dict(num_classes=9), 'head/bias .*should be'),
      (dict(depth=(1, 1)), 'block1/unit02/conv1/kernel .*unexpected'),
      (dict(family='vit'), 'is a bit, not a vit'),
      (dict(head='kep'), 'did you mean keep')]:
    with pytest.raises(ValueError, match=message):
      students.create({**section, **wrong}, 16, 5)


def test_a_student_needs_a_number_of_classes():
  for section in (dict(depth=(1,)), dict(init='never read', head='drop')):
    with pytest.raises(ValueError, match='set config.student.num_classes'):
      students.create(section, 16)


def mobilenet(width=.25, **kwargs):
  """(model, random parameters), by shape alone."""
  model = pretrained.build('mobilenet_v3', num_classes=5, width=width, **kwargs)
  shapes = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct(
      (1, 32, 32, 3), np.float32))['params']
  rng = np.random.default_rng(0)
  return model, jax.tree.map(
      lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)


@pytest.mark.parametrize('layout', mobilenet_v3.LAYOUTS)
@pytest.mark.parametrize('variant', ['large', 'small'])
@pytest.mark.parametrize('norm', ['gn', 'bn'])
def test_a_mobilenet_of_either_layout_loads_as_it_was(
    tmp_path, layout, variant, norm):
  model, params = mobilenet(variant=variant, norm=norm)
  big_distill.save(tmp_path / 's.npz', params, layout, cards.of(model))
  loaded, got = big_distill.load(tmp_path / 's.npz')
  assert loaded == model
  assert_equal(got, params)


@pytest.fixture(scope='module')
def torchvision():
  """A state_dict's arrays, of Small with BatchNorm."""
  _, params = mobilenet(1., variant='small', norm='bn')
  return mobilenet_v3.LAYOUTS['torchvision'](params_lib.flatten(params))


def test_names_and_shapes_are_those_of_torchvision(torchvision):
  shapes = {name: leaf.shape for name, leaf in torchvision.items()}

  def conv(place, *shape):
    leaves = ('weight', 'bias', 'running_mean', 'running_var')
    return {f'{place}.0.weight': shape,
            **{f'{place}.1.{leaf}': shape[:1] for leaf in leaves}}

  def squeeze(place, c, mid):
    return {f'{place}.fc1.weight': (mid, c, 1, 1), f'{place}.fc1.bias': (mid,),
            f'{place}.fc2.weight': (c, mid, 1, 1), f'{place}.fc2.bias': (c,)}

  # As print(torchvision.models.mobilenet_v3_small()) has them.
  published = {
      **conv('features.0', 16, 3, 3, 3),
      **conv('features.1.block.0', 16, 1, 3, 3),
      **squeeze('features.1.block.1', 16, 8),
      **conv('features.1.block.2', 16, 16, 1, 1),
      **conv('features.2.block.0', 72, 16, 1, 1),
      **conv('features.2.block.1', 72, 1, 3, 3),
      **conv('features.2.block.2', 24, 72, 1, 1),
      **conv('features.11.block.0', 576, 96, 1, 1),
      **conv('features.11.block.1', 576, 1, 5, 5),
      **squeeze('features.11.block.2', 576, 144),
      **conv('features.11.block.3', 96, 576, 1, 1),
      **conv('features.12', 576, 96, 1, 1),
      'classifier.0.weight': (1024, 576), 'classifier.0.bias': (1024,),
      'classifier.3.weight': (5, 1024), 'classifier.3.bias': (5,)}
  assert published.items() <= shapes.items()
  assert len(shapes) == 210  # len(state_dict) less its 34 counts of batches.


def test_values_of_torchvision_stand_where_its_formulas_read_them(torchvision):
  ours = mobilenet_v3.to_ours(torchvision)
  for theirs, name, transposed in (
      ('features.0.0.weight', 'stem/kernel', 'oihw->hwio'),
      ('features.4.block.1.0.weight', 'block04/depthwise/kernel', 'oihw->hwio'),
      ('features.4.block.2.fc2.weight', 'block04/squeeze/expand/kernel',
       'oihw->io'),
      ('features.4.block.3.1.running_var', 'block04/project/norm/var', 'o->o'),
      ('features.12.1.weight', 'top/norm/scale', 'o->o'),
      ('classifier.3.weight', 'head/kernel', 'oi->io')):
    want = np.einsum(transposed, torchvision[theirs])
    assert (ours[name].reshape(want.shape) == want).all(), name


def test_counts_of_batches_are_left_behind(torchvision, tmp_path):
  counts = {name.replace('running_var', 'num_batches_tracked'): np.int64(3)
            for name in torchvision if name.endswith('running_var')}
  npz_files.save(tmp_path / 's.npz', torchvision | counts)
  model, params = big_distill.load(tmp_path / 's.npz')
  assert (model.variant, model.norm, model.width) == ('small', 'bn', 1)
  assert_equal(params, params_lib.unflatten(mobilenet_v3.to_ours(torchvision)))


@pytest.mark.parametrize('variant', ['large', 'small'])
def test_width_of_a_mobilenet_is_the_shortest_that_makes_its_channels(variant):
  plan = mobilenet_v3.plan
  for width in (.125, .25, .35, .5, .75, 1., 1.25, 2., 1 / 3, .0237, .777):
    rows, features = plan(variant, width)
    flat = {'stem/kernel': np.zeros(1), 'head/kernel': np.zeros((1, 7)),
            'pre_logits/kernel': np.zeros((1, features))}
    for i, row in enumerate(rows, 1):
      flat[f'block{i:02d}/depthwise/kernel'] = np.zeros((1, row.mid))
      flat[f'block{i:02d}/project/kernel'] = np.zeros((1, row.out))
    got = mobilenet_v3.recognise(flat)
    assert plan(variant, got['width']) == (rows, features), width
    assert len(f'{got["width"]:g}') <= len(f'{width:g}'), width
    assert got == dict(variant=variant, norm='gn', num_classes=7,
                       width=got['width'])


def test_families_do_not_take_each_others_files(student, torchvision):
  flat = params_lib.flatten(student[1])
  files = [(bit, layout(flat)) for layout in bit.LAYOUTS.values()]
  ours = mobilenet_v3.to_ours(torchvision)
  files += [(mobilenet_v3, torchvision), (mobilenet_v3, ours)]
  for whose, file in files:
    for family in (bit, mobilenet_v3):
      assert bool(family.recognise(family.to_ours(file))) == (family is whose)
  assert pretrained.layouts(student[1]) is bit.LAYOUTS
  assert pretrained.layouts(params_lib.unflatten(ours)) is mobilenet_v3.LAYOUTS


def test_every_mismatch_of_a_mobilenet_is_listed_by_name(
    torchvision, tmp_path):
  flat = torchvision | {'features.3.block.1.0.weight': np.zeros((9, 1, 3, 3)),
                        'features.3.block.1.2.weight': np.zeros(2)}
  del flat['features.5.block.2.fc1.bias']
  npz_files.save(tmp_path / 's.npz', flat)
  with pytest.raises(ValueError) as error:
    big_distill.load(tmp_path / 's.npz')
  for line in (
      '+ block05/squeeze/reduce/bias (64,): missing',
      '- features.3.block.1.2.weight (2,): unexpected',
      '! block03/depthwise/kernel (3, 3, 1, 9): should be (3, 3, 1, 88)'):
    assert line in str(error.value)


def test_another_network_of_torchvision_is_not_mistaken(tmp_path):
  # As MobileNetV2 and EfficientNet name their first parameters.
  for names in (('features.1.conv.0.0.weight', 'classifier.1.weight'),
                ('features.1.0.block.0.0.weight', 'classifier.1.weight')):
    flat = {name: np.zeros((2, 2)) for name in names}
    flat |= {'features.0.0.weight': np.zeros((32, 3, 3, 3))}
    npz_files.save(tmp_path / 's.npz', flat)
    with pytest.raises(ValueError, match='no model of a known family'):
      big_distill.load(tmp_path / 's.npz')
