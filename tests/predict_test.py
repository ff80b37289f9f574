"""Predictions are those of the model, of the images that are named."""

import csv
import shutil
import subprocess
import sys

import numpy as np
import pytest

import big_distill
from big_distill import cards
from big_distill import exported
from big_distill import pretrained
from big_distill import served
from big_distill.formats import onnx
from big_distill.input import pipeline
from big_distill.tools import predict


@pytest.fixture(scope='module')
def photographs(tmp_path_factory):
  """The first photographs of the test split, as files."""
  folder = tmp_path_factory.mktemp('photographs')
  source = pipeline.load('caltech12', 'test[:5]')
  for i in range(5):
    (folder / f'{i}.jpg').write_bytes(source.fetch(i)[0].numpy())
  return folder


def test_a_row_per_image_has_the_model_s_class_and_probability(photographs):
  model = predict.load('caltech12 teacher')
  got = {row['image'].rsplit('/', 1)[-1]: row
         for row in predict.rows([model], str(photographs), pipeline, 2)}
  assert [*got] == [f'{i}.jpg' for i in range(5)]
  net, params = big_distill.load('caltech12 teacher')
  source = pipeline.load('caltech12', 'test[:5]')
  batch = next(pipeline.eval_batches(source, [model.view], 5, 0))
  logits = np.float64(net.apply({'params': params}, batch['views'][str(
      model.view)] / np.float32(127.5) - 1)[0])
  probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
  for i in range(5):
    row = got[f'{i}.jpg']
    assert row[model.name] == source.classes[probs[i].argmax()]
    # The photographs are the same files, so pixels are; rounded to 4 digits.
    assert row[f'{model.name} p'] == pytest.approx(probs[i].max(), abs=2e-4)


def test_a_workdir_answers_by_its_student(tmp_path):
  model, params = pretrained.load('caltech12 teacher')
  pretrained.save(str(tmp_path / 'student.npz'), params,
                  card=cards.of(model, size=24))
  assert predict.load(str(tmp_path)).view.size == 24
  with pytest.raises(ValueError, match='no checkpoint .*/none/student.npz'):
    (tmp_path / 'none').mkdir()
    predict.load(str(tmp_path / 'none'))


def test_without_tensorflow_a_folder_has_the_same_answers(
    photographs):
  """Two decoders of JPEGs differ by a few grey levels, not in a class."""
  model = predict.load('caltech12 teacher')
  want = [*predict.rows([model], str(photographs), pipeline, 2)]
  code = ('import sys\n'
          "for name in ('tensorflow', 'tensorflow_datasets'):\n"
          '  sys.modules[name] = None\n'
          'from big_distill import command\n'
          'from big_distill.tools import predict\n'
          "sys.argv = ['predict', 'caltech12 teacher', '--images=' + sys.argv[1],"
          " '--csv=' + sys.argv[2]]\n"
          'command.program(predict.main, predict._define_flags, words=True)')
  file = photographs.parent / 'answers.csv'
  subprocess.run([sys.executable, '-c', code, str(photographs), str(file)],
                 check=True)
  got = [*csv.DictReader(file.open())]
  assert [row['image'] for row in got] == [row['image'] for row in want]
  for ours, theirs in zip(want, got):
    assert theirs[model.name] == ours[model.name]
    assert float(theirs[f'{model.name} p']) == pytest.approx(
        ours[f'{model.name} p'], abs=.05)


@pytest.fixture
def odd(photographs, tmp_path):
  """A folder with splits, a link to a folder, and what systems leave behind."""
  folder = tmp_path / 'odd'
  for place in ('train', 'val', '@eaDir', '.trash'):
    shutil.copytree(photographs, folder / place)
  shutil.copytree(photographs, tmp_path / 'elsewhere')
  (folder / 'linked').symlink_to(tmp_path / 'elsewhere')
  shutil.copy(photographs / '0.jpg', folder / 'beside.jpg')
  shutil.copy(photographs / '0.jpg', folder / 'without_ending')
  return folder


@pytest.mark.parametrize('inner', ['', 'val'])
def test_of_a_folder_all_images_are_shown_with_tensorflow_and_without(odd, inner):
  model = predict.load('caltech12 teacher')
  folder = odd / inner
  with_tf, without = ([row['image'] for row in predict.rows(
      [model], str(folder), data, 5)] for data in (pipeline, None))
  assert with_tf == without == sorted(without)
  assert len(without) == (5 if inner else 3 * 5 + 2)


def test_images_that_cannot_be_read_are_refused_by_name(odd):
  (odd / 'phone.heic').write_bytes(b'x')
  for data in (pipeline, None):
    with pytest.raises(ValueError, match='1 .heic, such as phone.heic. Convert'):
      next(predict.rows([], str(odd), data))


def test_one_image_has_the_answer_that_it_has_in_its_folder(photographs):
  model = predict.load('caltech12 teacher')
  first, *_ = predict.rows([model], str(photographs))
  assert predict._data(first['image']) is None
  assert [*predict.rows([model], first['image'])] == [first]


def test_what_is_no_folder_needs_tensorflow_and_says_so(monkeypatch):
  monkeypatch.setitem(sys.modules, 'tensorflow', None)
  with pytest.raises(ValueError, match=r"pip install 'big_distill\[train\]'"):
    predict._data('caltech12')


def test_several_models_stand_side_by_side(photographs, tmp_path, capsys):
  model, params = pretrained.create(family='bit', depth=(1,), width=.125,
                                    num_classes=3, size=16)
  big_distill.save(tmp_path / 'small.npz', params, card=cards.of(
      model, size=16, classes=('a', 'b', 'c')))
  flag = type('Flags', (), {'size': None, 'images': str(photographs),
                            'csv': str(tmp_path / 'rows.csv')})
  predict.main(flag, [str(tmp_path / 'small.npz'), 'caltech12 teacher'])
  with open(tmp_path / 'rows.csv') as file:
    table = list(csv.DictReader(file))
  assert [*table[0]] == ['image', 'small', 'small p', 'caltech12 teacher',
                         'caltech12 teacher p', 'agree']
  assert len(table) == 5 and table[0]['small'] == 'a'
  assert table[0]['agree'] == 'False'


def test_a_model_without_names_of_classes_takes_those_of_another(
    photographs, tmp_path, caplog):
  _, params = big_distill.load('caltech12 teacher')
  big_distill.save(tmp_path / 'plain.npz', params)
  models = [predict.load(str(tmp_path / 'plain.npz'), 48),
            predict.load('caltech12 teacher')]
  for row in predict.rows(models, str(photographs)):
    assert row['agree'] and row['plain'] in models[1].classes
  assert 'plain has no names of classes' in caplog.text
  assert next(predict.rows(models[:1], str(photographs)))['plain'].isdecimal()


def test_exported_files_say_what_their_checkpoint_does(photographs, tmp_path,
                                                       capsys):
  file = pretrained.path_of('caltech12 teacher')
  model = served.load(file)
  files = [file]
  for name in ('onnx', 'stablehlo', 'npz'):
    module = exported.load(name)
    files.append(str(tmp_path / f'same{module.SUFFIX}'))
    module.write(model, files[-1])
  flag = type('Flags', (), {'size': None, 'images': str(photographs),
                            'csv': str(tmp_path / 'rows.csv')})
  predict.main(flag, files)
  with open(tmp_path / 'rows.csv') as rows:
    table = list(csv.DictReader(rows))
  assert [*table[0]] == [
      'image', 'caltech12_teacher', 'caltech12_teacher p', 'same.onnx',
      'same.onnx p', 'same.stablehlo', 'same.stablehlo p', 'same', 'same p',
      'agree']
  for row in table:
    assert row['agree'] == 'True' and row['same.onnx'] in model.card.classes
    for name in ('same.onnx', 'same.stablehlo', 'same'):
      assert float(row[f'{name} p']) == pytest.approx(
          float(row['caltech12_teacher p']), abs=2e-4)


def test_a_file_of_others_is_one_clear_line(tmp_path):
  graph = onnx.Graph()
  graph.node('Cast', graph.node('Identity', 'images'), out='logits', to=1)
  path = tmp_path / 'other.onnx'
  path.write_bytes(onnx.proto(graph, (4, 4, 3), 3).SerializeToString())
  with pytest.raises(ValueError, match='has no card') as error:
    predict.load(str(path))
  assert len(str(error.value).splitlines()) == 1


def test_a_file_that_does_not_say_its_size_is_one_clear_line(tmp_path):
  model, params = pretrained.create(family='bit', depth=(1,), width=.125,
                                    num_classes=3, size=16)
  big_distill.save(tmp_path / 'x.npz', params, card=cards.of(model))
  with pytest.raises(ValueError, match='--size=PIXELS'):
    predict.load(str(tmp_path / 'x.npz'))
  assert predict.load(str(tmp_path / 'x.npz'), 16).view.size == 16
  with pytest.raises(ValueError, match='No MODEL'):
    predict.main(None, [])
