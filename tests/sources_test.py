"""What is read is what was prepared, in order; what cannot be is named."""

import io
import os
import pathlib

from array_record.python import array_record_module
import numpy as np
from PIL import Image
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from big_distill.input import caches
from big_distill.input import crops
from big_distill.input import offsets
from big_distill.input import pipeline
from big_distill.input import prepared
from big_distill.input import reading
from big_distill.input import records
from big_distill.input import sources
from big_distill.views import View


def jpeg(value=0, side=16):
  buffer = io.BytesIO()
  pixels = np.random.default_rng(value).integers(0, 256, (side, side, 3),
                                                 np.uint8)
  Image.fromarray(pixels).save(buffer, format='JPEG')
  return buffer.getvalue()


def read(source):
  """[(pixels or bytes, label)] of a source, in order."""
  fetch = tf.function(source.fetch)
  return [tuple(x.numpy() for x in fetch(tf.constant(i, tf.int64)))
          for i in range(source.num_examples)]


def folder(root, names):
  for i, name in enumerate(names):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(jpeg(i))
  return f'folder:{root}'


def prepare(root, features, example, lengths):
  """Prepares a dataset 'dots' of example(i) in shards: its data_dir."""
  path = root / 'dots' / '1.0.0'
  path.mkdir(parents=True)
  features, first = tfds.features.FeaturesDict(features), 0
  for shard, length in enumerate(lengths):
    name = path / f'dots-train.tfrecord-{shard:05d}-of-{len(lengths):05d}'
    with tf.io.TFRecordWriter(str(name)) as writer:
      for i in range(first, first + length):
        writer.write(features.serialize_example(example(i)))
    first += length
  tfds.folder_dataset.write_metadata(
      data_dir=str(path), features=features, check_data=False,
      split_infos=[tfds.core.SplitInfo(
          name='train', shard_lengths=lengths, num_bytes=0,
          filename_template=tfds.core.ShardedFileTemplate(
              dataset_name='dots', data_dir=str(path), split='train',
              filetype_suffix='tfrecord'))])
  return str(root)


LABEL = tfds.features.ClassLabel(names=['a', 'b'])
IMAGE = tfds.features.Image(encoding_format='jpeg')


@pytest.fixture(scope='module')
def shards(tmp_path_factory):
  """A prepared dataset 'dots' of 20 images in 3 shards: its data_dir."""
  return prepare(tmp_path_factory.mktemp('tfds'),
                 {'image': IMAGE, 'label': LABEL},
                 lambda i: {'image': jpeg(i), 'label': i % 2},
                 [9, 4, 7])


def test_the_bundled_photographs_are_found():
  train, test = (sources.load('caltech12', split, cache='none')
                 for split in ('train', 'test'))
  assert (train.num_examples, test.num_examples) == (1016, 288)
  assert len(train.classes) == 12 and train.classes[0] == 'airplanes'
  image, label = read(sources.load('caltech12', 'test[:1]'))[0]
  assert min(crops.decode(image).shape[:2]) == 96 and 0 <= label < 12


@pytest.mark.parametrize('split, numbers', [
    ('train', range(20)), ('train[:90%]', range(18)), ('train[90%:]', (18, 19)),
    ('train[:2]+train[8:14]', (0, 1, *range(8, 14)))])
def test_examples_come_in_the_order_tfds_gives_them(shards, split, numbers):
  got = read(sources.load('dots', split, shards))
  assert [image for image, _ in got] == [jpeg(i) for i in numbers]
  assert [label for _, label in got] == [i % 2 for i in numbers]
  # TFDS reads shards in turns, unless told to read one after the other.
  theirs = tfds.builder('dots', data_dir=shards).as_dataset(
      split=split, read_config=tfds.ReadConfig(interleave_cycle_length=1),
      decoders={'image': tfds.decode.SkipDecoding()})
  assert got == [(example['image'], example['label'])
                 for example in theirs.as_numpy_iterator()]


def test_every_cache_holds_the_same(shards):
  encoded, decoded, none = (read(sources.load('dots', 'train', shards, cache))
                            for cache in sources.CACHES)
  assert encoded == none
  for (image, label), (pixels, same) in zip(encoded, decoded):
    assert (crops.decode(image).numpy() == pixels).all() and label == same


@pytest.mark.parametrize('block, pieces', [(64, 3), (6, 6), (1, 20)])
def test_caches_are_filled_in_pieces_of_files(shards, monkeypatch, block, pieces):
  """20 records in files of 9, 4 and 7: a piece ends with its block or file."""
  monkeypatch.setattr(prepared, 'BLOCK', block)
  read_pieces, real = [], records.payloads
  monkeypatch.setattr(records, 'payloads', lambda *args: (
      read_pieces.append(args), real(*args))[1])
  got = read(sources.load('dots', 'train', shards))
  assert len(read_pieces) == pieces
  assert got == [(jpeg(i), i % 2) for i in range(20)]


def test_what_is_not_prepared_says_how_to_prepare_it(tmp_path):
  with pytest.raises(ValueError, match='tfds build oxford_flowers102 --data_dir='
                     f'{tmp_path}'):
    sources.load('oxford_flowers102', data_dir=str(tmp_path))
  with pytest.raises(ValueError, match='did you mean oxford_flowers102'):
    sources.load('oxford_flowers', data_dir=str(tmp_path))


@pytest.mark.parametrize('split, message', [
    ('trian', 'no split .trian.; its splits, .* are train .20.'),
    ('train[25:]', 'no split .train.25:.*train .20.'),
    ('train[:5', 'no split'), ('all[:5]', 'no split'),
    ('train[:0]', 'is empty')])
def test_splits_that_are_not_there_are_errors(shards, split, message):
  with pytest.raises(ValueError, match=message):
    sources.load('dots', split, shards)


def test_class_folders_are_labels(tmp_path):
  name = folder(tmp_path, ['cat/1.jpg', 'dog/2.JPEG', 'dog/deep/3.jpg'])
  (tmp_path / 'cat' / 'notes.txt').write_text('not an image')
  source = sources.load(name)
  assert source.classes == ('cat', 'dog') and source.num_examples == 3
  labels = {source.name(i): label for i, (_, label) in enumerate(read(source))}
  assert {pathlib.Path(k).name: v for k, v in labels.items()} == {
      '1.jpg': 0, '2.JPEG': 1, '3.jpg': 1}


def test_a_folder_needs_no_labels(tmp_path):
  source = sources.load(folder(tmp_path, ['1.jpg', '2.png', '3.jpg']))
  assert source.classes == ()
  assert [label for _, label in read(source)] == [-1] * 3


def test_sub_folders_may_be_splits(tmp_path):
  name = folder(tmp_path, ['train/a/1.jpg', 'train/b/2.jpg', 'test/a/3.jpg',
                           'test/b/4.jpg', 'test/b/5.jpg'])
  train, test = sources.load(name, 'train'), sources.load(name, 'test')
  assert (train.num_examples, test.num_examples) == (2, 3)
  assert train.classes == test.classes == ('a', 'b')
  with pytest.raises(ValueError, match="no split 'validation'"):
    sources.load(name, 'validation')


def test_sub_splits_of_a_folder_are_disjoint_and_fair(tmp_path):
  name = folder(tmp_path, [f'{c}/{i}.jpg' for c in 'ab' for i in range(50)])
  head, tail = sources.load(name, 'train[:80%]'), sources.load(name,
                                                               'train[80%:]')
  names = [{s.name(i) for i in range(s.num_examples)} for s in (head, tail)]
  assert [len(n) for n in names] == [80, 20] and not names[0] & names[1]
  assert 4 <= sum('/a/' in name for name in names[1]) <= 16


def test_labels_mean_in_every_split_what_they_mean_in_train(tmp_path):
  name = folder(tmp_path, ['train/a/1.jpg', 'train/b/2.jpg', 'train/c/3.jpg',
                           'test/c/4.jpg', 'new/d/5.jpg'])
  test = sources.load(name, 'test')
  assert test.classes == ('a', 'b', 'c') and read(test)[0][1] == 2
  with pytest.raises(ValueError, match='images of d in new, .* not a class'):
    sources.load(name, 'new')


def test_splits_of_a_folder_add_up(tmp_path):
  name = folder(tmp_path, [f'{split}/{c}/{i}.jpg' for i in range(4)
                           for c in 'ab' for split in ('train', 'test')])
  parts = [read(sources.load(name, split))
           for split in ('train[:5]', 'test[6:]', 'train[:5]+test[6:]')]
  assert parts[0] + parts[1] == parts[2] and len(parts[2]) == 7
  train, test, both = (read(sources.load(name, split))
                       for split in ('train', 'test', 'all'))
  assert sorted(train + test) == sorted(both) and len(both) == 16


def test_hidden_files_are_not_images(tmp_path):
  name = folder(tmp_path, ['a/1.jpg', 'a/._1.jpg', '.trash/2.jpg', 'b/3.gif'])
  source = sources.load(name)
  assert source.num_examples == 2 and source.classes == ('a', 'b')


def test_an_image_beside_the_class_folders_is_named(tmp_path, caplog):
  source = sources.load(folder(tmp_path, ['a/1.jpg', 'b/2.jpg', 'cover.jpg']))
  assert source.classes == () and source.num_examples == 3
  assert 'cover.jpg' in caplog.text


@pytest.mark.parametrize('name, split, message', [
    ('folder:/no/such', 'train', 'is not a folder'),
    ('folder:{}', 'train', 'is empty'), ('folder:{}', 'train[x]', 'of the form'),
    ('folder:{}', 'all[:5]', "no split 'all'"),
    ('folder:{}', 'test', "no split 'test'")])
def test_folders_that_cannot_serve_are_errors(tmp_path, name, split, message):
  with pytest.raises(ValueError, match=message):
    sources.load(name.format(tmp_path), split)


@pytest.fixture
def damaged(tmp_path):
  """Twelve images; one is cut short, one is no image."""
  name = folder(tmp_path, [f'{i}.jpg' for i in range(12)])
  (tmp_path / '4.jpg').write_bytes(jpeg(4)[:-150])
  (tmp_path / '7.jpg').write_bytes(b'not a jpeg')
  return name


@pytest.mark.parametrize('cache', sources.CACHES)
@pytest.mark.parametrize('kind', ['empty', 'gone'])
def test_a_file_that_cannot_be_read_is_named(tmp_path, cache, kind):
  name = folder(tmp_path, [f'{i}.jpg' for i in range(5)])
  if kind == 'empty':
    (tmp_path / '3.jpg').write_bytes(b'')
  else:
    (tmp_path / '9.jpg').symlink_to(tmp_path / 'nowhere')
  bad = {'empty': '3.jpg', 'gone': '9.jpg'}[kind]
  with pytest.raises(ValueError, match=f'{tmp_path}/{bad} cannot be decoded'):
    drain(sources.load(name, cache=cache))


def drain(source, view='inception#a@8', steps=6):
  return list(pipeline.train_batches(source, [View.parse(view)], 4, 0, 0, steps))


@pytest.mark.parametrize('cache', sources.CACHES)
@pytest.mark.parametrize('bad', ['4.jpg', '7.jpg'])
def test_a_damaged_image_is_named(damaged, cache, bad):
  root = pathlib.Path(damaged.removeprefix('folder:'))
  for other in {'4.jpg', '7.jpg'} - {bad}:
    (root / other).unlink()
  with pytest.raises(ValueError, match=f'{root}/{bad} cannot be decoded'):
    drain(sources.load(damaged, cache=cache))


@pytest.mark.parametrize('cache', sources.CACHES)
def test_damaged_images_are_skipped_and_counted_only_if_asked(
    damaged, cache, caplog):
  source = sources.load(damaged, cache=cache, corrupt='skip')
  assert source.num_examples == 10
  assert 'skipping 2 of 12' in caplog.text and '7.jpg' in caplog.text
  seen = np.concatenate([batch['index'] for batch in drain(source)])
  assert set(seen) == set(range(10))
  assert not any(source.name(i).endswith(('/4.jpg', '/7.jpg'))
                 for i in range(10))


def test_skipping_leaves_the_rest_as_it_is(damaged):
  kept = read(sources.load(damaged, cache='decoded', corrupt='skip'))
  root = pathlib.Path(damaged.removeprefix('folder:'))
  (root / '4.jpg').unlink(), (root / '7.jpg').unlink()
  rest = read(sources.load(damaged, cache='decoded'))
  assert len(kept) == len(rest) == 10
  for (pixels, label), (same, label_too) in zip(kept, rest):
    assert (pixels == same).all() and label == label_too


@pytest.mark.parametrize('cache', ['encoded', 'decoded'])
def test_the_first_of_several_damaged_images_is_named(tmp_path, cache):
  """Images are read in batches, across whose ends order is kept."""
  name = folder(tmp_path, [f'{i}.jpg' for i in range(3 * reading.TOGETHER)])
  source = sources.load(name, cache='none')
  whole = read(sources.load(name))
  assert whole == read(source)
  bad = [source.name(i) for i in (reading.TOGETHER + 3, reading.TOGETHER + 9)]
  for path in reversed(bad):
    pathlib.Path(path).unlink()
    pathlib.Path(path).symlink_to(tmp_path / 'nowhere')
    with pytest.raises(ValueError, match=f'{path} cannot be decoded'):
      sources.load(name, cache=cache)


def test_bytes_are_kept_in_order_and_aligned(monkeypatch):
  monkeypatch.setattr(caches, 'BLOCK', 1 << 20)
  pieces = [np.random.default_rng(i).integers(0, 256, 300_007, np.uint8)
            for i in range(30)]
  kept = caches.Bytes()
  for piece in pieces:
    kept.append(piece)
  whole = kept.take(spare=5)
  assert (whole == np.concatenate([*pieces, np.zeros(5, np.uint8)])).all()
  assert whole.ctypes.data % caches.ALIGNED == 0


def test_a_fingerprint_knows_names_not_places(tmp_path):
  names = ['a/1.jpg', 'a/2.jpg', 'b/3.jpg']
  prints = [sources.load(folder(tmp_path / place, names)).fingerprint
            for place in ('here', 'there')]
  assert prints[0] == prints[1]
  assert sources.load(f'folder:{tmp_path}/here', cache='decoded',
                      resident=True).fingerprint == prints[0]
  (tmp_path / 'there' / 'b' / '3.jpg').rename(tmp_path / 'there' / 'b' / '4.jpg')
  assert sources.load(f'folder:{tmp_path}/there').fingerprint != prints[0]
  half = sources.load(f'folder:{tmp_path}/here', 'train[:2]')
  assert half.fingerprint != prints[0]


def test_a_fingerprint_knows_what_is_skipped(damaged):
  root = pathlib.Path(damaged.removeprefix('folder:'))
  both = sources.load(damaged, corrupt='skip').fingerprint
  (root / '4.jpg').write_bytes(jpeg(4))
  one = sources.load(damaged, corrupt='skip').fingerprint
  (root / '7.jpg').write_bytes(jpeg(7))
  whole = sources.load(damaged, corrupt='skip').fingerprint
  assert len({both, one, whole}) == 3
  assert whole == sources.load(damaged).fingerprint


def test_a_fingerprint_knows_lengths_of_records(shards, tmp_path):
  same = copy(shards, tmp_path / 'same', lambda _, data: data)
  other = tmp_path / 'other'
  copy(shards, other, lambda _, data: data)
  file = other / 'dots' / '1.0.0' / 'dots-train.tfrecord-00001-of-00003'
  records = [*tf.data.TFRecordDataset(str(file)).as_numpy_iterator()]
  with tf.io.TFRecordWriter(str(file)) as writer:
    for i in (0, 2, 1, 3):  # As many records of as many bytes, in other order.
      writer.write(records[i])
  prints = [sources.load('dots', 'train', str(each)).fingerprint
            for each in (shards, same, other)]
  assert prints[0] == prints[1] != prints[2]
  mixed = [sources.load(parts={'a': dict(name='dots', data_dir=shards,
                                         weight=weight)}).fingerprint
           for weight in (1, 2)]
  assert len({prints[0], *mixed}) == 3


def copy(shards, root, change):
  """A data_dir of 'dots' with changed bytes in its files."""
  path = root / 'dots' / '1.0.0'
  path.mkdir(parents=True)
  for file in (pathlib.Path(shards) / 'dots' / '1.0.0').iterdir():
    (path / file.name).write_bytes(change(file.name, file.read_bytes()))
  return str(root)


@pytest.mark.parametrize('cache', sources.CACHES)
def test_a_damaged_record_is_named_or_skipped(shards, tmp_path, cache, caplog):
  bad = jpeg(11)[:-100] + bytes(100)  # Of the second shard.
  shards = copy(shards, tmp_path, lambda _, data: data.replace(jpeg(11), bad))
  place = 'tfrecord-00001-of-00003, record at byte'
  with pytest.raises(ValueError, match=f'{place} .* cannot be decoded'):
    drain(sources.load('dots', 'train', shards, cache), steps=5)
  source = sources.load('dots', 'train', shards, cache, corrupt='skip')
  assert 'skipping 1 of 20' in caplog.text and place in caplog.text
  labels = [label for _, label in read(source)]
  assert labels == [i % 2 for i in range(20) if i != 11]


def test_a_shard_cut_short_is_named(shards, tmp_path):
  shards = copy(shards, tmp_path, lambda name, data: (
      data[:-9] if '00002' in name else data))
  with pytest.raises(ValueError, match='00002-of-00003 is cut short or damaged'):
    sources.load('dots', 'train', shards)


def test_a_shard_cut_between_records_is_named(shards, tmp_path):
  first = 8 + 4 + 4 + len(next(iter(tf.data.TFRecordDataset(str(
      pathlib.Path(shards) / 'dots/1.0.0/dots-train.tfrecord-00001-of-00003')
      ).as_numpy_iterator())))
  shards = copy(shards, tmp_path, lambda name, data: (
      data[:first] if '00001' in name else data))
  with pytest.raises(ValueError, match='00001-of-00003 has 1 records, .* 4:'):
    sources.load('dots', 'train', shards)


def test_a_missing_shard_is_named(shards, tmp_path):
  shards = copy(shards, tmp_path, lambda name, data: data)
  (tmp_path / 'dots/1.0.0/dots-train.tfrecord-00001-of-00003').unlink()
  with pytest.raises(ValueError, match='is missing .*00001-of-00003'):
    sources.load('dots', 'train', shards)


@pytest.mark.parametrize('cache', sources.CACHES)
def test_a_bit_that_flipped_in_a_record_is_noticed(shards, tmp_path, cache):
  """In a label, which is decoded without complaint."""
  def flip(name, data):
    if '00002' not in name:
      return data
    at = data.index(b'label')  # The value follows: 1 becomes 0.
    at = data.index(b'\x01', at + 11)
    return data[:at] + b'\x00' + data[at + 1:]
  shards = copy(shards, tmp_path, flip)
  with pytest.raises(ValueError, match='00002-of-00003, record at byte .* '
                     'checksum differs'):
    drain(sources.load('dots', 'train', shards, cache))


@pytest.fixture
def indexed(monkeypatch, tmp_path):
  """Sets of any size have an index of records; the user's cache is empty."""
  monkeypatch.setattr(offsets, 'SMALL', 0)
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))


def count_visits(monkeypatch):
  visits, real = [], records.lengths
  monkeypatch.setattr(records, 'lengths', lambda path, size: (
      visits.append(path), real(path, size))[1])
  return visits


@pytest.mark.parametrize('writable', [True, False])
def test_records_are_found_once(shards, tmp_path, indexed, monkeypatch, writable):
  data_dir = copy(shards, tmp_path, lambda _, data: data)
  beside = tmp_path / 'dots' / '1.0.0' / 'dots-train.offsets.npz'
  if not writable:  # Not even to a user who may write anywhere.
    beside.mkdir()
  visits = count_visits(monkeypatch)
  load = lambda split: sources.load('dots', split, data_dir)
  half = read(load('train[:40%]'))
  assert len(visits) == 1
  whole = read(load('train'))
  assert len(visits) == 3
  assert read(load('train')) == whole and read(load('train[:40%]')) == half
  assert len(visits) == 3
  assert beside.is_file() == writable
  assert (tmp_path / 'cache').exists() != writable
  assert whole == [(jpeg(i), i % 2) for i in range(20)]


@pytest.mark.parametrize('change', ['cut', 'lie', 'touch', 'empty'])
def test_an_index_that_does_not_fit_is_not_used(shards, tmp_path, indexed,
                                                monkeypatch, change):
  data_dir = copy(shards, tmp_path, lambda _, data: data)
  want = read(sources.load('dots', 'train', data_dir))
  path = tmp_path / 'dots' / '1.0.0'
  index = path / 'dots-train.offsets.npz'
  if change == 'cut':
    index.write_bytes(index.read_bytes()[:-40])
  elif change == 'empty':
    index.write_bytes(b'')
  elif change == 'lie':
    table = dict(np.load(index))
    table['lengths'][[3, 12, 17]] += 1
    np.savez(index, **table)
  else:
    for file in path.glob('*.tfrecord*'):
      os.utime(file, (1, 1))
  visits = count_visits(monkeypatch)
  assert read(sources.load('dots', 'train', data_dir)) == want
  assert len(visits) == 3
  assert read(sources.load('dots', 'train', data_dir)) == want
  assert len(visits) == 3


@pytest.fixture(scope='module')
def arrays(shards, tmp_path_factory):
  """The dataset 'dots', prepared as array_record: its data_dir."""
  root = tmp_path_factory.mktemp('arrays')
  def write(name, data):
    if '.tfrecord' not in name:
      return data.replace(b'"tfrecord"', b'"array_record"').replace(
          b'{FILEFORMAT}', b'array_record')
    source = pathlib.Path(shards) / 'dots' / '1.0.0' / name
    file = str(root / 'part')
    writer = array_record_module.ArrayRecordWriter(
        file, 'group_size:1,uncompressed')
    for record in tf.data.TFRecordDataset(str(source)).as_numpy_iterator():
      writer.write(record)
    writer.close()
    return pathlib.Path(file).read_bytes()
  data_dir = copy(shards, root, write)
  for file in (root / 'dots' / '1.0.0').glob('*.tfrecord*'):
    file.rename(str(file).replace('tfrecord', 'array_record'))
  return data_dir


@pytest.mark.parametrize('split', ['train', 'train[:2]+train[8:14]'])
@pytest.mark.parametrize('cache', sources.CACHES)
def test_array_records_are_read_as_tfrecords_are(shards, arrays, split, cache):
  got, want = (sources.load('dots', split, each, cache)
               for each in (arrays, shards))
  tf.nest.map_structure(np.testing.assert_array_equal, read(got), read(want))
  assert got.name(0) == 'dots-train.array_record-00000-of-00003, record 0'
  tf.nest.map_structure(np.testing.assert_array_equal, drain(got), drain(want))


def test_array_records_cut_short_or_damaged_are_named(arrays, tmp_path):
  cut = copy(arrays, tmp_path / 'cut', lambda name, data: (
      data[:-9] if '00002' in name else data))
  with pytest.raises(ValueError, match='00002-of-00003 (has|cannot)'):
    sources.load('dots', 'train', cut)
  bad = jpeg(11)[:-100] + bytes(100)
  bad = copy(arrays, tmp_path / 'bad', lambda _, data: data.replace(
      jpeg(11), bad))
  with pytest.raises(ValueError, match='00001-of-00003, record 2 cannot be dec'):
    drain(sources.load('dots', 'train', bad))


@pytest.mark.parametrize('old, new', [
    (b'"splits"', b'"spilts"'), (b'"uint8"', b'"uinu8"'), (b'{', b''),
    (b'image_feature', b'imaoe_feature')])
def test_damaged_descriptions_are_said_in_one_line(shards, tmp_path, old, new):
  shards = copy(shards, tmp_path, lambda name, data: (
      data.replace(old, new) if name.endswith('.json') else data))
  with pytest.raises(ValueError, match='dots') as error:
    sources.load('dots', 'train', shards)
  assert '\n' not in str(error.value)


def test_a_path_is_no_name_of_tfds(tmp_path, monkeypatch):
  with pytest.raises(ValueError, match=f'is a path.*write folder:{tmp_path}.$'):
    sources.load(str(tmp_path))
  with pytest.raises(ValueError, match='^There is no file or folder .*/none.$'):
    sources.load(f'{tmp_path}/none')
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'mine').mkdir()
  with pytest.raises(ValueError, match='mine is a path.*write folder:mine.$'):
    sources.load('mine')
  for wrong in ('qqxzqq', 'my photographs teacher=t.npz', 'cifar1O'):
    with pytest.raises(ValueError, match='^There is no file, folder or dataset '
                       ) as error:
      sources.load(wrong)
    assert len(str(error.value)) < 200


def test_other_formats_of_tfds_are_refused(shards, tmp_path):
  shards = copy(shards, tmp_path, lambda name, data: (
      data.replace(b'"tfrecord"', b'"riegeli"')
      if name == 'dataset_info.json' else data))
  with pytest.raises(ValueError, match='prepared as .riegeli.; known: tfrec'):
    sources.load('dots', 'train', shards)


def test_features_of_any_name_are_found(tmp_path):
  data_dir = prepare(
      tmp_path, {'photo': IMAGE, 'kind': LABEL, 'depth': tfds.features.Tensor(
          shape=(2, 2), dtype=np.float32)},
      lambda i: {'photo': jpeg(i), 'kind': i % 2,
                 'depth': np.zeros((2, 2), np.float32)}, [3])
  want = [(jpeg(i), i % 2) for i in range(3)]
  assert read(sources.load('dots', data_dir=data_dir)) == want
  assert read(sources.load('dots', data_dir=data_dir, image='photo',
                           label='kind')) == want
  with pytest.raises(ValueError, match='no image in dots .depth.; .*photo'):
    sources.load('dots', data_dir=data_dir, image='depth')
  with pytest.raises(ValueError, match='no names of classes for .depth.'):
    sources.load('dots', data_dir=data_dir, label='depth')


def test_one_of_several_features_is_asked_for(tmp_path):
  data_dir = prepare(
      tmp_path, {'left': IMAGE, 'right': IMAGE, 'shape': LABEL, 'colour': LABEL},
      lambda i: {'left': jpeg(i), 'right': jpeg(9 - i),
                 'shape': i % 2, 'colour': 1 - i % 2}, [3])
  with pytest.raises(ValueError, match='2 features .* data.image=KEY: left, r'):
    sources.load('dots', data_dir=data_dir)
  with pytest.raises(ValueError, match='data.label=KEY.*: colour, shape'):
    sources.load('dots', data_dir=data_dir, image='right')
  assert read(sources.load('dots', data_dir=data_dir, image='right',
                           label='colour')) == [
      (jpeg(9 - i), 1 - i % 2) for i in range(3)]
  assert sources.load('dots', data_dir=data_dir, image='left',
                      label=None).classes == ()
  parts = {'a': {'name': 'dots', 'label': None}}
  assert read(sources.load(parts=parts, data_dir=data_dir, image='right')) == [
      (jpeg(9 - i), -1) for i in range(3)]
  with pytest.raises(ValueError, match='A mixture has no labels'):
    sources.load(parts=parts, data_dir=data_dir, label='colour')


def test_images_of_floats_are_refused_not_read_as_bytes(tmp_path):
  data_dir = prepare(
      tmp_path, {'image': tfds.features.Image(shape=(4, 4, 1), dtype=np.float32)},
      lambda i: {'image': np.full((4, 4, 1), .5, np.float32)}, [3])
  with pytest.raises(ValueError, match='Images of dots are float32'):
    sources.load('dots', data_dir=data_dir)


def test_a_set_without_encoded_images_says_what_it_has(tmp_path):
  data_dir = prepare(
      tmp_path, {'image': tfds.features.Tensor(shape=(2, 2, 3), dtype=np.uint8)},
      lambda i: {'image': np.zeros((2, 2, 3), np.uint8)}, [3])
  with pytest.raises(ValueError, match='0 features that are encoded images; all '
                     'it has is image'):
    sources.load('dots', data_dir=data_dir)


def test_unknown_options_are_errors():
  with pytest.raises(ValueError, match='did you mean decoded'):
    sources.load('caltech12', cache='decode')
  with pytest.raises(ValueError, match='known: stop, skip'):
    sources.load('caltech12', corrupt='never')
