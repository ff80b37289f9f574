"""Folders as people have them: layouts, links, names; nothing dropped unsaid."""

import io
import logging
import os
import pathlib

import numpy as np
from PIL import Image
import pytest
import tensorflow as tf

from big_distill.input import sources


def jpeg(value):
  buffer = io.BytesIO()
  Image.new('RGB', (8, 8), (value % 256, 0, 0)).save(buffer, 'JPEG')
  return buffer.getvalue()


def fill(root, names):
  for i, name in enumerate(names):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(jpeg(i))
  return root


def load(root, split='train', **options):
  return sources.load(f'folder:{root}', split, cache='none', **options)


def contents(source, root):
  """{path below root: name of the class, or None}."""
  fetch = tf.function(source.fetch)
  labels = [int(fetch(tf.constant(i, tf.int64))[1])
            for i in range(source.num_examples)]
  names = [os.path.relpath(source.name(i), root)
           for i in range(source.num_examples)]
  assert len(set(names)) == len(names)
  return {name: source.classes[label] if label >= 0 else None
          for name, label in zip(names, labels)}


@pytest.mark.parametrize('train, test', [
    ('Train', 'Test'), ('TRAIN', 'TEST'), ('training', 'testing'),
    ('train_images', 'test_images'), ('images-train', 'images-test'),
    ('Train2017', 'test2017'), ('train/train', 'test/test'),
    ('data/train', 'data/test'), ('archive/cars/train', 'archive/cars/Test')])
def test_splits_are_found_in_any_case_and_further_down(tmp_path, train, test):
  fill(tmp_path, [f'{train}/cat/1.jpg', f'{train}/dog/2.jpg', f'{test}/dog/3.jpg'])
  assert contents(load(tmp_path), tmp_path) == {
      f'{train}/cat/1.jpg': 'cat', f'{train}/dog/2.jpg': 'dog'}
  assert contents(load(tmp_path, 'test'), tmp_path) == {f'{test}/dog/3.jpg': 'dog'}
  assert load(tmp_path, 'train[:1]+test').num_examples == 2


@pytest.mark.parametrize('name', ['val', 'valid', 'Validation', 'dev'])
def test_validation_has_many_names(tmp_path, name):
  fill(tmp_path, ['train/a/1.jpg', 'train/b/2.jpg', f'{name}/b/3.jpg'])
  for asked in ('validation', 'val', name):
    assert contents(load(tmp_path, asked), tmp_path) == {f'{name}/b/3.jpg': 'b'}


def test_two_folders_of_one_usual_name_are_told_apart(tmp_path, caplog):
  fill(tmp_path, ['train/1.jpg', 'val/2.jpg', 'Valid/3.jpg'])
  with pytest.raises(ValueError, match='may be each of Valid, val'):
    load(tmp_path, 'validation')
  assert set(contents(load(tmp_path, 'valid'), tmp_path)) == {'Valid/3.jpg'}
  assert 'Valid, val are not read together' in caplog.text


def test_a_split_alone_is_no_class(tmp_path):
  fill(tmp_path, ['val/a/1.jpg', 'val/b/2.jpg'])
  with pytest.raises(ValueError, match="no split 'train'; its splits are val"):
    load(tmp_path)
  assert load(tmp_path, 'validation').classes == ('a', 'b')


def test_folders_beside_splits_are_named(tmp_path, caplog):
  fill(tmp_path, ['train/1.jpg', 'bus/2.jpg', 'car/3.jpg'])
  assert load(tmp_path).num_examples == 1
  assert 'train is taken for a split' in caplog.text and 'bus, car' in caplog.text


@pytest.mark.parametrize('images, notes', [
    ('yolo/images', 'yolo/labels'), ('ILSVRC/Data/CLS-LOC', 'ILSVRC/Notes/CLS-LOC'),
    ('JPEGImages', 'Annotations')])
def test_folders_of_other_files_do_not_count(tmp_path, images, notes):
  fill(tmp_path, [f'{images}/train/1.jpg', f'{images}/val/2.jpg'])
  for split in ('train', 'val'):
    (tmp_path / notes / split).mkdir(parents=True)
    (tmp_path / notes / split / '1.txt').write_text('0 .5 .5 .1 .1')
  assert contents(load(tmp_path), tmp_path) == {f'{images}/train/1.jpg': None}
  assert contents(load(tmp_path, 'validation'), tmp_path) == {
      f'{images}/val/2.jpg': None}


def test_splits_inside_of_classes_are_refused(tmp_path):
  fill(tmp_path, [f'{c}/{s}/1.jpg' for c in ('cat', 'dog')
                  for s in ('train', 'test')])
  with pytest.raises(ValueError, match='splits in each of cat, dog'):
    load(tmp_path)


@pytest.mark.parametrize('outer', ['', 'Caltech/', 'a/b/', 'images/'])
def test_a_folder_that_holds_the_classes_is_no_class(tmp_path, outer):
  fill(tmp_path, [f'{outer}cat/1.jpg', f'{outer}dog/deep/2.jpg'])
  assert contents(load(tmp_path), tmp_path) == {
      f'{outer}cat/1.jpg': 'cat', f'{outer}dog/deep/2.jpg': 'dog'}


@pytest.mark.parametrize('where', ['train/images', 'images', 'train/Images/data'])
def test_a_folder_called_images_is_no_class(tmp_path, where):
  fill(tmp_path, [f'{where}/1.jpg', f'{where}/2.jpg'])
  (tmp_path / 'train' / 'labels').mkdir(parents=True, exist_ok=True)
  (tmp_path / 'train' / 'labels' / '1.txt').write_text('0 .5 .5 .1 .1')
  if where == 'images':
    (tmp_path / 'train' / 'labels' / '1.txt').unlink()
    (tmp_path / 'train' / 'labels').rmdir(), (tmp_path / 'train').rmdir()
  source = load(tmp_path)
  assert source.num_examples == 2 and source.classes == ()


def test_a_folder_without_images_is_named(tmp_path, caplog):
  fill(tmp_path, ['a/1.jpg', 'c/2.jpg'])
  (tmp_path / 'b').mkdir()
  assert load(tmp_path).classes == ('a', 'c')
  assert 'folders without images are no classes: b.' in caplog.text


def test_files_that_systems_leave_behind_are_ignored(tmp_path):
  fill(tmp_path, [
      'cat/1.jpg', 'dog/2.jpg', 'cat/._1.jpg', '.Trash/3.jpg', '@eaDir/1.jpg/4.jpg',
      '__MACOSX/cat/5.jpg', '.ipynb_checkpoints/6.jpg', 'dog/Thumbs.db',
      'dog/.DS_Store', '#recycle/7.jpg', 'desktop.ini'])
  assert contents(load(tmp_path), tmp_path) == {'cat/1.jpg': 'cat',
                                                'dog/2.jpg': 'dog'}


def test_links_to_folders_are_followed_once(tmp_path, caplog):
  root, away = tmp_path / 'root', tmp_path / 'away'
  fill(root, ['cat/1.jpg', 'dog/2.jpg'])
  fill(away, ['3.jpg', '4.jpg'])
  (root / 'dog' / 'more').symlink_to(away)  # Elsewhere: is read.
  (root / 'dog' / 'again').symlink_to(away)  # A second time: is not.
  (root / 'cat' / 'up').symlink_to(root)  # To what it is in.
  (away / 'down').symlink_to(away)
  (root / 'cat' / 'top').symlink_to(tmp_path)
  (root / 'cat' / 'self').symlink_to(root / 'cat' / 'self')
  (root / 'best').symlink_to(root / 'cat')  # To what is read otherwise.
  source = load(root)
  got = contents(source, root)
  assert {name: label for name, label in got.items() if '/more/' not in name
          and '/again/' not in name} == {'cat/1.jpg': 'cat', 'dog/2.jpg': 'dog'}
  assert sorted(map(os.path.basename, got)) == [f'{i}.jpg' for i in (1, 2, 3, 4)]
  assert caplog.text.count('is passed over') == 5


def test_two_links_to_each_other_end(tmp_path):
  fill(tmp_path, ['a/1.jpg', 'b/2.jpg'])
  (tmp_path / 'a' / 'b').symlink_to(tmp_path / 'b')
  (tmp_path / 'b' / 'a').symlink_to(tmp_path / 'a')
  assert contents(load(tmp_path), tmp_path) == {'a/1.jpg': 'a', 'b/2.jpg': 'b'}


def test_class_folders_may_be_links(tmp_path):
  fill(tmp_path / 'away', ['x/1.jpg', 'y/2.jpg'])
  for name, target in (('cat', 'x'), ('dog', 'y')):
    (tmp_path / 'root').mkdir(exist_ok=True)
    (tmp_path / 'root' / name).symlink_to(tmp_path / 'away' / target)
  assert contents(load(tmp_path / 'root'), tmp_path / 'root') == {
      'cat/1.jpg': 'cat', 'dog/2.jpg': 'dog'}


def test_names_need_not_be_utf8(tmp_path):
  folder = os.fsencode(tmp_path) + b'/caf\xe9'
  os.mkdir(folder)
  pathlib.Path(os.fsdecode(folder + b'/\xff1.jpg')).write_bytes(jpeg(1))
  pathlib.Path(os.fsdecode(folder + b'/bad\xfe.jpg')).write_bytes(b'')
  fill(tmp_path, ['tea/2.jpg', 'tèe/3.jpg'])
  with pytest.raises(ValueError, match=r'caf\\xe9/bad\\xfe.jpg cannot be dec'):
    sources.load(f'folder:{tmp_path}', cache='decoded')
  source = load(tmp_path, corrupt='skip')
  assert contents(source, tmp_path) == {
      'caf\\xe9/\\xff1.jpg': 'caf\\xe9', 'tea/2.jpg': 'tea', 'tèe/3.jpg': 'tèe'}
  assert str(source.classes).encode() and source.fingerprint


@pytest.mark.parametrize('ending', ['.jxl', '.HEIC', '.svg', '.dng'])
def test_formats_that_cannot_be_read_are_refused_by_name_and_number(
    tmp_path, ending, caplog):
  fill(tmp_path, ['a/1.jpg', 'b/2.jpg', f'b/3{ending}', f'c/4{ending}'])
  with pytest.raises(ValueError, match=f'2 {ending.lower()}, such as '
                     f'b/3{ending}. Convert them: find .* magick') as error:
    load(tmp_path)
  assert '\n' not in str(error.value)
  source = load(tmp_path, corrupt='skip')
  assert source.num_examples == 2 and source.classes == ('a', 'b')
  assert f'skipping images that cannot be read: 2 {ending.lower()}' in caplog.text


def test_a_raw_file_beside_its_photograph_is_no_image_of_its_own(tmp_path):
  fill(tmp_path, ['1.jpg', '1.dng', '2.heic', '2.heic.png'])
  assert set(contents(load(tmp_path), tmp_path)) == {'1.jpg', '2.heic.png'}


def test_files_that_are_no_images_are_counted(tmp_path, caplog):
  caplog.set_level(logging.INFO)
  fill(tmp_path, ['1.jpg', 'notes.txt', 'more.TXT', 'list.json', '0002'])
  (tmp_path / 'README').write_text('no image')
  assert set(contents(load(tmp_path), tmp_path)) == {'1.jpg', '0002'}
  assert 'no images: 2 of .txt, 1 of ' in caplog.text
  assert '1 of no ending' in caplog.text


def test_an_unlabelled_part_needs_no_classes(tmp_path):
  fill(tmp_path, ['train/a/1.jpg', 'train/b/2.jpg', 'extra/c/3.jpg',
                  'flat/4.jpg', 'flat/5.jpg'])
  with pytest.raises(ValueError, match='images of c in extra, which is not'):
    load(tmp_path, 'extra')
  assert contents(load(tmp_path, 'extra', label=None), tmp_path) == {
      'extra/c/3.jpg': None}
  assert set(contents(load(tmp_path, 'flat'), tmp_path).values()) == {None}
  assert load(tmp_path, 'train+flat').num_examples == 4


def test_classes_of_a_split_count_where_those_of_train_are_unknown(tmp_path):
  fill(tmp_path, ['train/1.jpg', 'train/2.jpg', 'test/b/3.jpg', 'test/a/4.jpg'])
  assert load(tmp_path).classes == ()
  assert contents(load(tmp_path, 'test'), tmp_path) == {'test/b/3.jpg': 'b',
                                                        'test/a/4.jpg': 'a'}


def test_numbers_are_classes_in_the_order_asked_for(tmp_path, caplog):
  caplog.set_level(logging.INFO)
  fill(tmp_path, [f'{i}/{i}.jpg' for i in range(12)])
  as_text = tuple(sorted(map(str, range(12))))
  assert load(tmp_path).classes == as_text and as_text[2] == '10'
  assert "0, 1, 10, 11, 2" in caplog.text and "classes='numeric'" in caplog.text
  as_numbers = tuple(map(str, range(12)))
  source = load(tmp_path, classes='numeric')
  assert source.classes == as_numbers
  for i in range(12):
    _, label = source.fetch(tf.constant(i, tf.int64))
    assert source.name(i).endswith(f'/{int(label)}.jpg')
  backwards = as_numbers[::-1]
  assert load(tmp_path, classes=backwards).classes == backwards


@pytest.mark.parametrize('classes, message', [
    ('numeric', 'a class is called cat'), (['cat'], 'dog are not in it'),
    (['cat', 'dog', 'cat'], 'is in it twice'), ('alphabet', 'numeric or a list')])
def test_orders_of_classes_that_do_not_fit_are_errors(tmp_path, classes, message):
  fill(tmp_path, ['cat/1.jpg', 'dog/2.jpg'])
  with pytest.raises(ValueError, match=message):
    load(tmp_path, classes=classes)
  assert load(tmp_path, classes=['x', 'dog', 'cat']).classes == ('x', 'dog', 'cat')


def test_prepared_sets_have_their_order():
  with pytest.raises(ValueError, match='TFDS has numbered those of caltech12'):
    sources.load('caltech12', classes='numeric', cache='none')


def test_the_order_of_a_folder_depends_on_names_alone(tmp_path):
  names = [f'{c}/{i}.jpg' for c in 'ab' for i in range(20)]
  fill(tmp_path / 'one', names), fill(tmp_path / 'two/data/Train', names[::-1])
  first = list(contents(load(tmp_path / 'one'), tmp_path / 'one'))
  second = contents(load(tmp_path / 'two'), tmp_path / 'two/data/Train')
  assert first == list(second) and first != sorted(first)
  assert np.unique([name[0] for name in first[:16]]).size == 2
