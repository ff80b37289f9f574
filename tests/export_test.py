"""tools/export.py writes files, a table and a card, or says why it does not."""

import json
import subprocess
import sys

import numpy as np
from PIL import Image
import pytest
import tensorflow as tf

from big_distill import cards
from big_distill import exported
from big_distill import modelcard
from big_distill import photographs
from big_distill import pretrained
from big_distill import runs
from big_distill import served
from big_distill import views
from big_distill.input import crops
from big_distill.input import pipeline
from big_distill.tools import export


@pytest.fixture
def workdir(tmp_path):
  """What a run with a student of two classes leaves."""
  model, params = pretrained.create(family='bit', depth=(1,), width=.125,
                                    num_classes=2, size=16)
  params['head']['kernel'] = np.random.default_rng(0).normal(
      size=params['head']['kernel'].shape).astype(np.float32)
  config = dict(data=dict(name='mine'), teachers=dict(t=dict(init='T.npz')))
  folder = tmp_path / 'run'
  folder.mkdir()
  pretrained.save(folder / 'student.npz', params, card=cards.of(
      model, size=16, classes=('cat', 'dog'), trained_by=dict(
          config=config, teachers=dict(t='0123'))))
  runs.save(folder / 'config.json', config)
  runs.save(folder / 'result.json', dict(student_top1=.75))
  (folder / 'metrics.jsonl').write_text(
      json.dumps({'step': 1, 'calibration/ece': .25, 'train/loss': 3.}) + '\n')
  return folder


def options(**given):
  return type('Flags', (), dict(to=['npz'], weights=['float32'], out=None,
                                images=None, size=None) | given)


def test_a_machine_without_tensorflow_exports(workdir):
  """And says so in one line where a format needs it."""
  command = (
      'import sys\n'
      "for name in ('tensorflow', 'tensorflow_datasets'):\n"
      '  sys.modules[name] = None\n'
      'from big_distill import command\n'
      'from big_distill.tools import export\n'
      'command.program(export.main, export._define_flags, words=True)\n')
  ran = subprocess.run(
      [sys.executable, '-c', command, str(workdir),
       '--to=onnx,stablehlo,npz,savedmodel', '--weights=int8'],
      text=True, capture_output=True)
  assert ran.returncode == 1
  assert ran.stderr.splitlines()[-1] == (
      'Error: savedmodel needs tensorflow: pip install tensorflow')
  folder = workdir / 'export'
  assert sorted(path.name for path in folder.iterdir()) == [
      'README.md', 'card.json', 'student_int8.npz', 'student_int8.onnx',
      'student_int8.stablehlo']
  table = [line for line in ran.stdout.splitlines() if line.startswith('| stu')]
  assert len(table) == 3 and all('% of 58' in line for line in table)


def test_the_card_tells_the_run_and_keeps_what_was_filled_in(workdir):
  export.main(options(), [str(workdir)])
  folder = workdir / 'export'
  found = json.loads((folder / 'card.json').read_text())
  assert found['model']['classes'] == ['cat', 'dog']
  assert found['model']['parameters'] == sum(
      leaf.size for leaf in np.load(workdir / 'student.npz').values())
  assert found['taught by'] == dict(t=dict(init='T.npz'))
  assert found['identity of teachers'] == dict(t='0123')
  assert found['data'] == dict(name='mine')
  assert found['measured'] == {'calibration/ece': .25}
  assert found['result'] == dict(student_top1=.75)
  assert found['files'][0]['file'] == 'student.npz'
  assert found['licence of the model'] == 'TO FILL IN'
  text = (folder / 'README.md').read_text()
  for words in ('student_top1 | 0.75', 'calibration/ece | 0.25', 't.init | T.npz',
                'licence of the model | TO FILL IN', '| student.npz | float32 |'):
    assert words in text

  found['licence of the model'] = 'CC0'
  runs.save(folder / 'card.json', found)
  export.main(options(), [str(workdir)])
  readme = folder / 'README.md'
  assert 'licence of the model | CC0' in readme.read_text()
  readme.write_text(readme.read_text().replace(
      'licence of the model | CC0', 'licence of the model | MIT').replace(
          'known limits | TO FILL IN', 'known limits | not at night'))
  export.main(options(), [str(workdir)])
  found = json.loads((folder / 'card.json').read_text())
  assert (found['licence of the model'], found['known limits']) == (
      'MIT', 'not at night')
  assert 'known limits | not at night' in readme.read_text()

  export.main(options(weights=['int8']), [str(workdir)])  # Beside the first.
  rows = json.loads((folder / 'card.json').read_text())['files']
  assert [row['file'] for row in rows] == ['student.npz', 'student_int8.npz']
  (folder / 'student.npz').unlink()
  export.main(options(weights=['int8']), [str(workdir)])
  rows = json.loads((folder / 'card.json').read_text())['files']
  assert [row['file'] for row in rows] == ['student_int8.npz']


@pytest.mark.parametrize('given, words, message', [
    (dict(to=['onxx']), ['x.npz'], 'no format .onxx.; did you mean onnx'),
    (dict(), [], '0 models are given'), (dict(), ['nowhere.npz'], 'There is no'),
    (dict(weights=['int4']), None, 'no kind of weights .int4.'),
    (dict(images='.'), None, 'has no images')])
def test_what_is_wrong_is_one_line(given, words, message, workdir, tmp_path,
                                   monkeypatch):
  monkeypatch.chdir(tmp_path)
  words = [str(workdir)] if words is None else words
  with pytest.raises(ValueError, match=message) as error:
    export.main(options(**given), words)
  assert len(str(error.value).splitlines()) == 1
  assert not (workdir / 'export' / 'README.md').exists()


def test_an_unfinished_run_is_one_line(tmp_path):
  with pytest.raises(ValueError, match='has no student.npz'):
    export.main(options(), [str(tmp_path)])


@pytest.mark.parametrize('view', ['central@48', 'squash@32'])
def test_photographs_are_what_evaluation_sees(view):
  """Packaged ones, by other decoders."""
  source = pipeline.load('caltech12', 'test')
  encoded = photographs.packaged()
  assert len(encoded) == source.num_examples
  view = views.View.parse(view)
  batch = next(pipeline.eval_batches(source, [view], 16, 0))
  for each, want in zip(encoded, batch['views'][str(view)]):
    image = photographs.decode(each)
    got = np.float32(photographs.show(image, view))
    # Of the same pixels: both cut off what is behind the point.
    same = crops.render(tf.constant(image), [view], 0, 0, 0)[str(view)].numpy()
    assert abs(got - same).max() <= 1
    # Decoders differ by a few levels; frames a pixel apart by 5 and more.
    assert abs(got - want).mean() < 2


def test_photographs_of_a_folder_are_what_the_model_is_shown(workdir, tmp_path,
                                                             caplog):
  folder = tmp_path / 'mine'
  (folder / 'below').mkdir(parents=True)
  (folder / '.hidden').mkdir()
  colours = np.random.default_rng(0).integers(0, 256, (3, 20, 30, 3), np.uint8)
  for place, pixels in zip(('b.png', 'below/a.bmp', '.hidden/c.png'), colours):
    Image.fromarray(pixels).save(folder / place)
  (folder / 'notes.txt').write_text('no image')
  model = served.load(str(workdir / 'student.npz'))
  got = export.photographs_for(model, str(folder))
  want = [photographs.show(pixels, views.View.parse('central@16'))
          for pixels in colours[:2]]
  assert (got == want).all()
  (folder / 'd.jpg').write_bytes(b'no image')
  with pytest.raises(ValueError, match='d.jpg cannot be read as an image'):
    export.photographs_for(model, str(folder))
  # Of a run's own folder what it may have skipped is left out.
  (folder / 'e.heic').write_bytes(b'x')
  assert (export.photographs_for(model, None, str(folder)) == want).all()
  assert 'Left out: ' in caplog.text and 'd.jpg' in caplog.text
  (tmp_path / 'tables').mkdir()
  (tmp_path / 'tables' / '0.parquet').write_bytes(b'x')
  shown, packaged = (export.photographs_for(model, None, own)
                     for own in (str(tmp_path / 'tables'), None))
  assert (shown == packaged).all()


def test_a_run_is_shown_the_folder_that_it_was_evaluated_on(tmp_path):
  def run(**config):
    return runs.Run('', config, [], None)

  mine = dict(name=f'folder:{tmp_path}')
  other, gone = dict(name='caltech12'), dict(name='folder:/nowhere/at/all')
  assert export.folder_of(run(data=other, evals=dict(a=dict(data=mine)))) == str(
      tmp_path)
  assert export.folder_of(run(data=mine, evals=dict(a=dict(data=gone)))) == str(
      tmp_path)
  for nothing in (None, run(), run(data=other, evals=dict(a=dict(data=gone)))):
    assert export.folder_of(nothing) is None


def test_the_card_has_the_lines_that_make_a_model_of_pytorch(workdir):
  row = exported.Row('student_timm.safetensors', 'timm', 'float32', 1., 1., 0.,
                     1., 1., 9)
  model = served.load(str(workdir / 'student.npz'))
  found = modelcard.facts(model, None, [row])
  python = found['python']['timm']
  assert 'model = ResNetV2(' in python and 'num_classes=2' in python
  assert f'```python\n{python}```' in modelcard.text(found, [row])


def test_many_photographs_are_a_sample_of_all():
  every = [*range(1000)]
  sample = export._spread(every)
  assert len(sample) <= export.MOST and sample[0] == 0
  assert len({*np.diff(sample)}) == 1 and 1000 - sample[-1] <= np.diff(sample)[0]
