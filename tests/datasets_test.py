"""The paper's datasets are read as TFDS prepares them, split as it says.

None of them can be had without a download. So each is prepared here with the
features, name and version of its official builder, and a few photographs.
"""

import itertools

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from big_distill.durations import Durations
from big_distill.input import pipeline
from configs import common
from configs import flowers102
from configs import food101
from configs import imagenet
from configs import pets
from configs import sun397

N = 100  # Images a split, so that a share of it is a whole number.
SPLITS = {  # Paper, Table 5; classes of TFDS's catalogue.
    'oxford_flowers102': (102, ['train', 'validation', 'test']),
    'oxford_iiit_pet': (37, ['train', 'test']),
    'food101': (101, ['train', 'validation']),
    'sun397': (397, ['train', 'validation', 'test']),
    'imagenet2012': (1000, ['train', 'validation']),
    'imagenet_v2': (1000, ['test']),
    'imagenet2012_real': (1000, ['validation']),
    'dtd': (47, ['train', 'test']),
}


def example(features, i):
  """An example that has every feature; its ReaL labels are i and i + 1, or none."""
  image = np.full((12, 10, 3), i, np.uint8)
  values = {
      tfds.features.Text: f'{i}.jpg', tfds.features.Image: image,
      tfds.features.BBoxFeature: tfds.features.BBox(0., 0., 1., 1.),
      tfds.features.Sequence: [i, i + 1] if i else []}
  values = {name: i % feature.num_classes
            if isinstance(feature, tfds.features.ClassLabel)
            else values[type(feature)] for name, feature in features.items()}
  if 'segmentation_mask' in values:
    values['segmentation_mask'] = image[..., :1]
  return features.serialize_example(features.encode_example(values))


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  root = tmp_path_factory.mktemp('tfds')
  for name, (_, splits) in SPLITS.items():
    info = tfds.builder(name, data_dir=str(root)).info
    path = root / info.full_name
    path.mkdir(parents=True)
    examples = [example(info.features, i) for i in range(N)]
    for split in splits:
      file = path / f'{name}-{split}.tfrecord-00000-of-00001'
      with tf.io.TFRecordWriter(str(file)) as writer:
        for each in examples:
          writer.write(each)
    tfds.folder_dataset.write_metadata(
        data_dir=str(path), features=info.features, check_data=False,
        split_infos=[tfds.core.SplitInfo(name=split, shard_lengths=[N],
                                         num_bytes=0) for split in splits])
  return str(root)


def datasets(config):
  """Sections of data that a config names."""
  return [config.data, *itertools.chain.from_iterable(
      [each[key] for key in ('data', 'train') if key in each]
      for each in config.evals.values())]


@pytest.mark.parametrize('module, train, val', [
    (flowers102, 100, 100), (pets, 90, 10), (food101, 90, 10), (sun397, 100, 100),
    (imagenet, 98, 2)])
def test_configs_name_the_splits_of_the_paper(module, train, val, data_dir):
  config = module.get_config()
  name, options = config.data.name, dict(data_dir=data_dir, cache='none')
  for section, want in ((config.data, train), (config.evals.val.data, val),
                        (config.evals.student.data, N)):
    source = pipeline.load(section.name, section.split, **options)
    assert source.num_examples == want, source.title
    assert len(source.classes) == SPLITS[name][0]
  image, label = tf.function(source.fetch)(tf.constant(5, tf.int64))
  assert label == 5 % len(source.classes)
  assert tf.io.decode_image(image).shape == (12, 10, 3)


def test_every_further_evaluation_of_imagenet_finds_its_data(data_dir):
  config = imagenet.get_config('evals=all')
  for section in datasets(config):
    if 'name' in section:
      options = {key: section[key] for key in ('split', 'label')
                 if key in section}
      source = pipeline.load(section.name, data_dir=data_dir, cache='none',
                             **options)
      assert len(source.classes) == SPLITS[section.name][0]


def test_labels_of_imagenet_real_are_sets(data_dir):
  source = pipeline.load('imagenet2012_real', 'validation', data_dir,
                         label='real_label')
  fetch = tf.function(source.fetch)
  for i, want in ((0, []), (7, [7, 8])):
    _, label = fetch(tf.constant(i, tf.int64))
    assert label.shape == (1000,) and list(np.flatnonzero(label)) == want


def test_a_wrong_label_is_named_with_its_neighbour(data_dir):
  with pytest.raises(ValueError, match='did you mean real_label'):
    pipeline.load('imagenet2012_real', 'validation', data_dir,
                  label='reallabel')


def test_images_of_others_teach_without_their_labels(data_dir):
  """Pets from three parts food and one part ImageNet, and from food alone."""
  config = pets.get_config('images=food101*3+imagenet')
  section = {**config.data.to_dict(), 'data_dir': data_dir, 'cache': 'none'}
  mixed = pipeline.load(**section)
  assert mixed.parts == ((90, 3), (98, 1)) and not mixed.classes
  alone = {**pets.get_config('images=food101').data.to_dict(),
           'data_dir': data_dir}
  source = pipeline.load(**alone)
  assert source.num_examples == 90 and not source.classes
  assert tf.function(source.fetch)(tf.constant(3, tf.int64))[1] == -1


def test_steps_are_those_of_the_paper():
  """Total steps by epochs (paper, section 3)."""
  for module, epochs, want in (
      (flowers102, 10_000, 19_922), (pets, 1_000, 6_469),
      (food101, 100, 13_315), (sun397, 100, 14_869), (imagenet, 300, 91_959)):
    config = module.get_config(f'epochs={epochs},tiny=False')
    n = common.DATASETS[module.__name__.split('.')[-1]]['n']
    total = Durations(config.batch_size, n).of(config, 'total')
    assert total == want
