"""Own images, own teachers: what is chosen for them, and a run, end to end."""

import os
import shutil
import types

import numpy as np
import pytest

import big_distill
from big_distill import cards
from big_distill import estimate
from big_distill import metrics
from big_distill import patience
from big_distill import pretrained
from big_distill import recipe
from big_distill import train
from big_distill.input import pipeline
from big_distill.tools import predict
from configs import distill

TEN = tuple(f'kind{i}' for i in range(10))
TINY = dict(depth=(1,), width=.125)


def write_teacher(path, classes=TEN, size=16, named=True, card=True,
                  family='bit', **options):
  """A checkpoint whose answers differ from image to image."""
  model, params = pretrained.create(
      family=family, num_classes=len(classes), size=size or 16,
      **(options or TINY))
  params['head']['kernel'] = np.random.default_rng(0).normal(
      size=params['head']['kernel'].shape).astype(np.float32)
  big_distill.save(path, params, card=cards.of(
      model, size=size, classes=classes if named else ()) if card else None)
  return str(path)


@pytest.fixture(scope='module')
def photographs(tmp_path_factory):
  """Three of the twelve classes, by folders, eight photographs of each."""
  folder = tmp_path_factory.mktemp('photographs')
  source, count = pipeline.load('caltech12', 'train', cache='none'), {}
  for i in range(300):
    image, label = source.fetch(i)
    name = source.classes[int(label)]
    if name in ('watch', 'bonsai', 'ketch') and count.get(name, 0) < 8:
      count[name] = count.get(name, 0) + 1
      (folder / name).mkdir(exist_ok=True)
      (folder / name / f'{i}.jpg').write_bytes(image.numpy())
  assert sum(count.values()) == 24
  return folder


@pytest.fixture(scope='module')
def unlabelled(photographs, tmp_path_factory):
  folder = tmp_path_factory.mktemp('unlabelled')
  for path in photographs.rglob('*.jpg'):
    os.symlink(path, folder / path.name)
  return folder


class Rows(list):
  """A writer that keeps metrics in memory."""
  write = lambda self, step, row: self.append({'step': step, **row})
  read = lambda self: self
  rewind = lambda self, step: None


def run(arg, workdir):
  """(rows, result) of three steps with a student of one block."""
  config = distill.get_config(arg)
  with config.unlocked():
    del config.total_epochs
    config.total_steps = 3
    config.student.update(depth=(1,), width=.125)
  rows = Rows()
  return rows, train.train(config.lock(), str(workdir), pipeline, rows)


def test_photographs_by_class_are_distilled_measured_and_predicted(
    photographs, tmp_path):
  rows, result = run(f'images={photographs},teacher=caltech12 teacher,'
                     'student=R26x1@16', tmp_path)
  # The bundled teacher has learned from these photographs, and knows twelve
  # classes: those of three folders are numbered as it numbers them.
  assert result['teacher_top1'] == 1. and result['agreement_top1'] is not None
  card = big_distill.card(f'{tmp_path}/student.npz')
  assert card.size == 16 and card.classes == big_distill.card(
      'caltech12 teacher').classes
  model = predict.load(f'{tmp_path}/student.npz')
  answers = list(predict.rows([model], str(photographs), pipeline))
  assert len(answers) == 24
  assert {row['student'] for row in answers} <= {*card.classes}


def test_two_teachers_of_ten_classes_teach_what_has_no_labels(
    unlabelled, tmp_path):
  """Each at its own size; then the student is a teacher, by its workdir."""
  a = write_teacher(tmp_path / 'a.npz')
  b = write_teacher(tmp_path / 'b.npz', size=24)
  rows, result = run(f'images={unlabelled},teacher={a}+{b},student=R26x1@16',
                     tmp_path / 'out')
  assert result['agreement_top1'] is not None and result['kl'] > 0
  assert result['teacher_top1'] is None and result['student_top1'] is None
  assert big_distill.card(tmp_path / 'out/student.npz').classes == TEN
  again = recipe.choose(str(unlabelled), str(tmp_path / 'out'), 'R50x1')
  assert again.teachers['teacher']['size'] == again.student['size'] == 16
  # The first step compiles, so its rate would mean nothing.
  assert metrics.RATE not in rows[1] and rows[1]['step'] == 1


def test_teachers_sizes_are_those_of_cards_names_or_positions(
    unlabelled, tmp_path):
  a = write_teacher(tmp_path / 'a.npz', size=40)
  b = write_teacher(tmp_path / 'b.npz', card=False)
  v = write_teacher(tmp_path / 'v.npz', size=24, card=False, family='vit',
                    variant='mu/8')
  own = recipe.choose(str(unlabelled), f'{a}+{b}@64+{v}', 'R26x0.5')
  assert [each['size'] for each in own.teachers.values()] == [40, 64, 24]
  assert own.student == dict(family='bit', depth=26, width=.5, size=24)
  lite = write_teacher(tmp_path / 'l.npz', card=False,
                       family='efficientnet_lite', variant='lite1')
  own = recipe.choose(str(unlabelled), lite, 'R26x0.5')
  assert own.teachers['teacher']['size'] == 240  # efficientnet_lite_builder.py
  with pytest.raises(ValueError, match=r'write teacher=.*b.npz@224'):
    recipe.choose(str(unlabelled), b, 'R50x1')


@pytest.mark.parametrize('name, known', [
    ('R26x0.5', dict(family='bit', depth=26, width=.5)),
    ('mobilenet_v3_small', dict(family='mobilenet_v3', variant='small',
                                norm='gn', width=1.)),
    ('mobilenet_v3_largex0.75_bn', dict(family='mobilenet_v3', variant='large',
                                        norm='bn', width=.75)),
    ('vit_s16', dict(family='vit', variant='S/16')),
    ('vit_G14', dict(family='vit', variant='G/14')),
    ('vit_g14', dict(family='vit', variant='g/14')),
    ('efficientnet_lite4', dict(family='efficientnet_lite', variant='lite4'))])
def test_students_have_names_with_and_without_a_size(name, known):
  assert recipe.student_of(name, 32) == (known, 32)
  assert recipe.student_of(f'{name}@160', 32) == (known, 160)


def test_all_usual_names_make_models():
  for family, module in pretrained.families().items():
    for name in module.NAMES:
      arguments, _ = recipe.student_of(name, 32)
      assert arguments['family'] == family
      pretrained.build(num_classes=2, **arguments)
    arguments, _ = recipe.student_of(module.NAMES[0], 32)
    pretrained.shapes_of(size=32, num_classes=2, **arguments)


@pytest.mark.parametrize('classes, named, labelled, says', [
    (('bonsai', 'ketch', 'watch'), True, True, "of the teacher's classes"),
    (('watch', 'sun', 'ketch', 'bonsai'), True, True, 'numbers its 4 classes'),
    (('a', 'b', 'c'), False, True, 'look at its accuracy'),
    (('a', 'ketch', 'watch'), True, False, '1 of 3 classes, such as bonsai'),
    (TEN, False, False, 'there are 3 classes, and the teacher has 10')])
def test_labels_count_where_they_mean_what_the_teacher_s_classes_do(
    photographs, tmp_path, classes, named, labelled, says):
  teacher = write_teacher(tmp_path / 't.npz', classes, named=named)
  own = recipe.choose(str(photographs), teacher, 'R50x1')
  assert own.labelled == labelled and any(says in note for note in own.notes)
  source = pipeline.load(**own.data)
  assert source.classes == (() if not labelled else classes if named
                            else ('bonsai', 'ketch', 'watch'))
  config = distill.get_config(f'images={photographs},teacher={teacher}')
  of_labels = {'student', 'teacher', 'calibration'} if labelled else set()
  assert set(config.evals) == {'agree'} | of_labels


def test_a_tenth_is_held_out_unless_the_dataset_has_a_split_for_that(
    photographs, tmp_path):
  def parts(root):
    own = recipe.choose(str(root), 'caltech12 teacher', 'R50x1')
    sources = [section and pipeline.load(**section)
               for section in (own.data, own.val, own.test)]
    return [source and {source.name(i) for i in range(source.num_examples)}
            for source in sources]

  train, val, test = parts(photographs)
  assert len(train) == 22 and len(test) == 2 and not train & test and not val
  assert parts(photographs) == [train, val, test]
  for name in ('train', 'Test'):
    os.symlink(photographs, tmp_path / name)
  # The same photographs twice, by a link, would be read once.
  (tmp_path / 'Test').unlink()
  (tmp_path / 'Test' / 'ketch').mkdir(parents=True)
  os.link(next(photographs.rglob('ketch/*.jpg')), tmp_path / 'Test/ketch/1.jpg')
  train, val, test = parts(tmp_path)
  assert len(train) == 24 and not val and [os.path.basename(name) for name in
                                           test] == ['1.jpg']


@pytest.mark.parametrize('train, other, held_out', [
    ('training images', 'test images', 'test'), ('images_train', 'images_test',
    'images_test'), ('train', 'val2017', 'val2017'), ('train', 'devices', None),
    ('train', 'latest', None)])
def test_what_is_held_out_is_a_split_of_a_usual_name(
    photographs, tmp_path, train, other, held_out):
  shutil.copytree(photographs, tmp_path / train)
  shutil.copytree(photographs / 'ketch', tmp_path / other / 'ketch')
  own = recipe.choose(str(tmp_path), 'caltech12 teacher', 'R50x1')
  assert own.test['split'] == (held_out or 'train[-2:]')
  assert pipeline.load(**own.test).num_examples == (8 if held_out else 2)


def test_what_images_need_to_be_read_is_said_to_the_config(photographs, tmp_path):
  shutil.copytree(photographs, tmp_path / 'images')
  (tmp_path / 'images/ketch/phone.heic').write_bytes(b'x')
  (tmp_path / 'images/ketch/cut.jpg').write_bytes(b'x')
  arg = f'images={tmp_path}/images'
  with pytest.raises(ValueError, match='by corrupt=skip in that of distill.py'):
    distill.get_config(arg)
  config = distill.get_config(f'{arg},corrupt=skip')
  assert pipeline.load(**config.data).num_examples == 22  # And two held out.

  rows = [f'images/{path.parent.name}/{path.name},images/ketch/mask.png,'
          f'{path.parent.name},b' for path in photographs.rglob('*.jpg')]
  (tmp_path / 'list.csv').write_text('\n'.join(['shown,mask,kind,group', *rows]))
  arg = f'images={tmp_path}/list.csv'
  with pytest.raises(ValueError, match='distill.py by image=COLUMN: shown, mask'):
    distill.get_config(arg)
  config = distill.get_config(f'{arg},image=shown,label=kind')
  source = pipeline.load(**config.data)
  assert source.num_examples == 22 and source.classes == (
      big_distill.card('caltech12 teacher').classes)


def test_a_teacher_is_a_file_here_or_at_home(photographs, tmp_path, monkeypatch):
  write_teacher(tmp_path / 't.npz')
  monkeypatch.setenv('HOME', str(tmp_path))
  monkeypatch.chdir(tmp_path)
  for name in ('~/t.npz', 't.npz'):
    own = recipe.choose(str(photographs), name, 'R50x1')
    assert own.teachers['teacher']['size'] == 16
  assert pretrained.load('~/t.npz')[0].num_classes == 10
  (tmp_path / 't.pth').write_bytes(b'x')  # No published name, and not PyTorch's.
  with pytest.raises(ValueError, match='t.pth is not a state_dict'):
    pretrained.load('t.pth')


@pytest.mark.parametrize('images, teacher, student, message', [
    ('/nowhere/at/all', 'caltech12 teacher', 'R50x1', 'is not there'),
    ('caltech12', 'caltech12 teach', 'R50x1', 'did you mean caltech12 teacher'),
    ('caltech12', 'caltech12 teacher', 'R50', 'did you mean R50x1'),
    ('caltech12', 'caltech12 teacher', 'mobilenet_v3_smal', 'did you mean'),
    ('caltech12', '{tmp}', 'R50x1', 'there is no .*student.npz'),
    ('caltech12', 'caltech12 teacher+{tmp}/t.npz', 'R50x1',
     'the same classes: caltech12 teacher has 12, .*t.npz 10')])
def test_what_cannot_be_is_said_in_a_line(images, teacher, student, message,
                                          tmp_path):
  write_teacher(tmp_path / 't.npz')
  with pytest.raises(ValueError, match=message) as error:
    recipe.choose(images, teacher.format(tmp=tmp_path), student)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('variant', patience.PAPER)
def test_at_the_paper_s_sizes_settings_are_the_paper_s(variant):
  for n, epochs, batch, lr, wd, t in patience.PAPER[variant]:
    found, _ = patience.settings(n, variant)
    assert (found['epochs'], found['batch_size']) == (epochs, batch)
    assert (found['optim']['lr'], found['optim']['wd']) == (lr, wd)
    assert found['loss']['t'] == t


def test_between_the_paper_s_sizes_epochs_fall_and_batches_fit():
  found = [patience.settings(n)[0] for n in (20, 300, 1020, 1500, 2500, 3312,
                                             10_000, 40_000, 68_175)]
  epochs = [each['epochs'] for each in found]
  assert epochs == sorted(epochs, reverse=True) and epochs[0] == 10_000
  assert [each['batch_size'] for each in found[:3]] == [64, 128, 512]
  # Halfway between 3,312 and 68,175 in ratio: between 1,000 and 100 likewise.
  middle, _ = patience.settings(round((3_312 * 68_175) ** .5))
  assert middle['epochs'] == 320  # The root of 1,000 x 100, to two digits.


def test_a_short_run_has_the_steps_of_the_paper_s_shortest_if_it_can():
  for epochs, batch in ((1, 64), (100, 64), (300, 128), (1_000, 512),
                        (20_000, 512)):
    found, _ = patience.settings(1_016, epochs=epochs)
    assert (found['epochs'], found['batch_size']) == (epochs, batch)
  assert patience.settings(1_200_000, epochs=90)[0]['batch_size'] == 4096


def test_epochs_below_zero_are_refused():
  with pytest.raises(ValueError, match='0 or more'):
    patience.settings(100, epochs=-1)


@pytest.mark.parametrize('family, slow', [
    ('bit', False), ('vit', False), ('mobilenet_v3', True),
    ('efficientnet_lite', True)])
def test_depthwise_students_are_taken_to_be_slow_on_cpus(
    family, slow, monkeypatch):
  monkeypatch.setattr(estimate, 'flop_per_s', lambda: 1e9)
  monkeypatch.setattr(estimate.costs, 'training', lambda room: (10**9, 3 * 10**9))
  shapes = pretrained.shapes_of(family=family, num_classes=2, size=32, **{
      'bit': TINY, 'vit': dict(variant='mu/8'),
      'mobilenet_v3': dict(variant='small', width=.25),
      'efficientnet_lite': dict(variant='lite0')}[family])[1]
  room = types.SimpleNamespace(params=shapes)
  # Teachers at half the rate, students at half or a tenth.
  said = '64 s, for 0.008 TFLOP at 12%' if slow else '16 s, for 0.008 TFLOP at 50%'
  assert f'Estimated time: {said}' in estimate.text([room], 2)


@pytest.mark.parametrize('seconds, text', [
    (.5, '0.5 s'), (119, '119 s'), (120, '2 min'), (7199, '120 min'),
    (9000, '2.5 h'), (172_800, '2 days')])
def test_durations_are_said_in_units_that_fit(seconds, text):
  assert estimate.duration(seconds) == text
