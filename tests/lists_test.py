"""Lists and tables of images give what folders of the same images give."""

import io
import json
import os
import zipfile

import numpy as np
from PIL import Image
import pyarrow as pa
from pyarrow import parquet
import pytest
import tensorflow as tf

from big_distill.input import pipeline
from big_distill.input import sources
from big_distill.views import View


def jpeg(i):
  buffer = io.BytesIO()
  Image.new('RGB', (9, 8), (20 * i, 0, 99)).save(buffer, 'JPEG')
  return buffer.getvalue()


@pytest.fixture
def root(tmp_path):
  """Images 0.jpg ... 9.jpg in a folder `pictures`."""
  (tmp_path / 'pictures').mkdir()
  for i in range(10):
    (tmp_path / 'pictures' / f'{i}.jpg').write_bytes(jpeg(i))
  return tmp_path


def load(path, split='train', **options):
  return sources.load(f'folder:{path}', split, cache='none', **options)


def contents(source):
  """{bytes of an image: name of its class, or None}."""
  fetch = tf.function(source.fetch)
  pairs = [fetch(tf.constant(i, tf.int64)) for i in range(source.num_examples)]
  return {image.numpy(): source.classes[label] if label >= 0 else None
          for image, label in pairs}


def want(numbers, labelled=True):
  return {jpeg(i): ('even', 'odd')[i % 2] if labelled else None
          for i in numbers}


@pytest.mark.parametrize('name, head, row', [
    ('a.csv', 'path,label', '{path},{label}'),
    ('a.csv', '', '{path},{label}'), ('a.csv', '', '"{label}","{path}"'),
    ('a.tsv', 'Class\tfile', '{label}\t{path}'),
    ('a.csv', '\ufefflabel;photo', '{label};{path}'),
    ('a.csv', 'id,width,category,file', '{i},640,{label},{path}')])
def test_lists_have_labels_in_any_column(root, name, head, row):
  rows = [row.format(path=f'pictures/{i}.jpg', label=('even', 'odd')[i % 2], i=i)
          for i in range(10)]
  (root / name).write_text('\r\n'.join([head, *rows] if head else rows),
                           encoding='utf-8')
  source = load(root / name)
  assert contents(source) == want(range(10)) and source.classes == ('even', 'odd')
  assert contents(load(root / name, label=None)) == want(range(10), False)
  assert source.name(0).startswith(f'{root}/pictures/')


def test_a_list_may_have_splits(root):
  rows = [f'pictures/{i}.jpg,{("even", "odd")[i % 2]},{("TRAIN", "val")[i > 6]}'
          for i in range(10)]
  (root / 'a.csv').write_text('\n'.join(['file,label,split', *rows]))
  assert contents(load(root / 'a.csv')) == want(range(7))
  assert contents(load(root / 'a.csv', 'validation')) == want(range(7, 10))
  with pytest.raises(ValueError, match="no split 'test'; its splits are TRAIN, v"):
    load(root / 'a.csv', 'test')


def test_a_list_needs_no_labels(root):
  (root / 'a.csv').write_text('\n'.join(f'pictures/{i}.jpg' for i in range(10)))
  assert contents(load(root / 'a.csv')) == want(range(10), False)


def test_columns_are_asked_for_where_several_would_do(root):
  rows = [f'pictures/{i}.jpg,pictures/{9 - i}.jpg,{("even", "odd")[i % 2]},x'
          for i in range(10)]
  (root / 'a.csv').write_text('\n'.join(['left,right,kind,other', *rows]))
  with pytest.raises(ValueError, match='2 columns of paths .*data.image=COLUMN'):
    load(root / 'a.csv')
  with pytest.raises(ValueError, match='may be labels; .*data.label=COLUMN'):
    load(root / 'a.csv', image='left')
  assert contents(load(root / 'a.csv', image='left', label='kind')
                  ) == want(range(10))
  with pytest.raises(ValueError, match='no column .*did you mean right'):
    load(root / 'a.csv', image='rigth')


@pytest.mark.parametrize('text, message', [
    ('', 'is empty'), ('path,label\npictures/0.jpg', '2 columns, but 1 in row 2'),
    ('a/0.jpg,x\na/1.jpg,y', 'lists 2 of 2 files that do not exist'),
    ('pictures/0.jpg,x\nb.heic,y', 'cannot be read: 1 .heic, such as b.heic'),
    ('id,label\n7,x', '0 columns of paths of images')])
def test_lists_that_cannot_serve_are_errors(root, text, message):
  (root / 'a.csv').write_text(text)
  with pytest.raises(ValueError, match=message):
    load(root / 'a.csv')


def test_labels_that_some_rows_lack_are_left_out_aloud(root, caplog):
  (root / 'a.csv').write_text('path,label\npictures/0.jpg,x\npictures/1.jpg,')
  assert load(root / 'a.csv').classes == ()
  assert '1 of its 2 images have none' in caplog.text


def test_a_folder_without_classes_says_where_they_may_be(root, caplog):
  caplog.set_level('INFO')
  (root / 'labels.csv').write_text('path,label\npictures/0.jpg,x')
  assert load(root).classes == ()
  assert f'name it: folder:{root}/labels.csv.' in caplog.text


def test_labels_of_a_list_are_part_of_its_fingerprint(root):
  prints = []
  for label in 'xy':
    (root / 'a.csv').write_text(f'pictures/0.jpg,x\npictures/1.jpg,{label}')
    prints.append(load(root / 'a.csv').fingerprint)
  assert prints[0] != prints[1]


def write(path, numbers, label='label', names=('even', 'odd'), struct=True,
          image='image'):
  path.parent.mkdir(parents=True, exist_ok=True)
  images = [jpeg(i) for i in numbers]
  images = ([{'bytes': each, 'path': None} for each in images] if struct
            else images)
  labels = [i % 2 if names else ('even', 'odd')[i % 2] for i in numbers]
  table = pa.table({image: images, label: labels, 'width': [9] * len(labels)})
  about = {'info': {'features': {label: {'names': names, '_type': 'ClassLabel'}}}}
  if names:
    table = table.replace_schema_metadata({'huggingface': json.dumps(about)})
  parquet.write_table(table, path)


@pytest.mark.parametrize('options', [
    dict(), dict(struct=False), dict(names=None), dict(label='kind')])
def test_tables_have_images_and_labels(tmp_path, options):
  write(tmp_path / 'some.parquet', range(10), **options)
  source = load(tmp_path / 'some.parquet')
  if options.get('label') == 'kind':
    assert load(tmp_path / 'some.parquet', label='kind').classes
  assert contents(source) == want(range(10)) and source.classes == ('even', 'odd')
  assert source.name(0).startswith('some.parquet, row ')


@pytest.mark.parametrize('files', [
    {'data/train-00000-of-00002.parquet': range(4), 'data/train-00001-of-00002'
     '.parquet': range(4, 7), 'data/validation-00000-of-00001.parquet':
     range(7, 10)},
    {'default/train/0000.parquet': range(4), 'default/train/0001.parquet':
     range(4, 7), 'default/Val/0000.parquet': range(7, 10)}])
def test_folders_of_tables_have_splits(tmp_path, files):
  for name, numbers in files.items():
    write(tmp_path / name, numbers)
  assert contents(load(tmp_path)) == want(range(7))
  assert contents(load(tmp_path, 'validation')) == want(range(7, 10))
  assert load(tmp_path, 'train[:3]').num_examples == 3


def test_a_split_of_tables_without_labels_takes_none_from_train(tmp_path, caplog):
  """Its file comes before that of train, by the alphabet."""
  write(tmp_path / 'train.parquet', range(4))
  parquet.write_table(pa.table({'image': [jpeg(i) for i in range(4, 7)]}),
                      tmp_path / 'test.parquet')
  assert contents(load(tmp_path)) == want(range(4))
  test = load(tmp_path, 'test')
  assert test.num_examples == 3 and test.classes == ()
  assert 'test.parquet has no column label: its images have no' in caplog.text
  parquet.write_table(pa.table({'other': [jpeg(0)]}), tmp_path / 'test.parquet')
  with pytest.raises(ValueError, match='test.parquet has no column image, which'):
    load(tmp_path, 'test')


def test_several_labels_of_an_image_are_no_class(tmp_path):
  parquet.write_table(pa.table({'image': [jpeg(0), jpeg(1)], 'label': [[0], [0, 1]]}),
                      tmp_path / 'a.parquet')
  with pytest.raises(ValueError, match='several labels for an image in .label.'):
    load(tmp_path / 'a.parquet')
  assert load(tmp_path / 'a.parquet', label=None).num_examples == 2


def test_names_in_a_table_number_its_classes(tmp_path):
  """In the order of the file, whatever the alphabet says."""
  write(tmp_path / 'a.parquet', range(4), names=('z', 'a', 'unseen'))
  source = load(tmp_path / 'a.parquet')
  assert source.classes == ('z', 'a', 'unseen')
  fetch = tf.function(source.fetch)
  for i in range(4):
    image, label = fetch(tf.constant(i, tf.int64))
    assert image == jpeg(int(source.name(i)[-1]))
    assert label == int(source.name(i)[-1]) % 2


def test_every_cache_of_a_table_shows_the_same(tmp_path):
  write(tmp_path / 'a.parquet', range(10))
  want, *rest = ([*pipeline.train_batches(
      sources.load(f'folder:{tmp_path}/a.parquet', cache=cache),
      [View.parse('inception#a@8')], 4, 0, 0, 5)] for cache in sources.CACHES)
  for got in rest:
    tf.nest.map_structure(np.testing.assert_array_equal, got, want)


def test_tables_without_images_are_errors(tmp_path):
  parquet.write_table(pa.table({'x': [1], 'y': ['a']}), tmp_path / 'a.parquet')
  with pytest.raises(ValueError, match='0 columns of encoded images; .* x, y'):
    load(tmp_path / 'a.parquet')
  parquet.write_table(pa.table({'image': [{'bytes': None, 'path': 'x.jpg'}]},
                               schema=pa.schema({'image': pa.struct(
                                   {'bytes': pa.binary(), 'path': pa.string()})})),
                      tmp_path / 'a.parquet')
  with pytest.raises(ValueError, match='a.parquet, row 0 has no bytes'):
    load(tmp_path / 'a.parquet')
  (tmp_path / 'a.parquet').write_bytes(b'PAR1 and nothing more')
  with pytest.raises(ValueError, match='cannot be read as a Parquet file'):
    load(tmp_path / 'a.parquet')


def test_damaged_tables_are_errors_of_one_line(tmp_path):
  write(tmp_path / 'a.parquet', range(10))
  whole = (tmp_path / 'a.parquet').read_bytes()
  rng = np.random.default_rng(0)
  failed = 0
  for _ in range(60):
    damaged = bytearray(whole)
    for place in rng.integers(0, len(whole), 5):
      damaged[place] = rng.integers(256)
    (tmp_path / 'a.parquet').write_bytes(damaged)
    try:
      load(tmp_path / 'a.parquet')
    except ValueError as error:
      failed += 1
      assert '\n' not in str(error)
  assert failed > 10


def test_labels_without_a_name_are_errors(tmp_path):
  write(tmp_path / 'a.parquet', range(10), names=('even',))
  with pytest.raises(ValueError, match='the label 1, but names .* 0 to 0'):
    load(tmp_path / 'a.parquet')


def test_archives_are_refused_with_the_command_that_unpacks(root):
  path = root / 'some.zip'
  with zipfile.ZipFile(path, 'w') as file:
    file.write(root / 'pictures' / '1.jpg', 'cat/1.jpg')
  command = f'unzip -q {path} -d {path}.d'
  with pytest.raises(ValueError, match=f'is an archive; .*: {command}'):
    load(path)
  os.mkdir(f'{path}.d')
  with zipfile.ZipFile(path) as file:
    file.extractall(f'{path}.d')
  assert load(f'{path}.d').classes == ('cat',)
  (root / 'some.tar').write_bytes(b'')
  with pytest.raises(ValueError, match='tar -xf .*some.tar -C .*some.tar.d'):
    load(root / 'some.tar')


@pytest.mark.parametrize('name, message', [
    ('pictures/1.jpg', 'is no folder, .csv'), ('nowhere.csv', 'is not a folder'),
    ('nowhere', 'is not a folder')])
def test_paths_that_are_no_dataset_are_errors(root, name, message):
  with pytest.raises(ValueError, match=message):
    load(root / name)


def test_folders_have_no_columns(root):
  with pytest.raises(ValueError, match='labels by folders, no columns'):
    load(root, label='kind')
