"""What is compiled for devices that are not here is what training compiles."""

import jax
import pytest

from big_distill import costs
from big_distill import course
from big_distill import parallel
from big_distill import pretrained
from big_distill import programs
from big_distill import render
from big_distill import unread
from big_distill.ops import int8
from big_distill.tools import noise
from configs import common
from configs import flowers102
from configs import imagenet


def tiny(**changes):
  return {**flowers102.get_config('tiny=True'), **changes}


def planned(config, evals=False):
  with parallel.planned_for(jax.devices()):
    found = programs.make(config, evals=evals)
    return found, {each.name: each.lower().as_text() for each in found.all}


@pytest.mark.parametrize('changes', [
    {}, {'accumulate': 2, 'batch_size': 64},
    {'combine': 'probs', 'mode': 'same/ic'}])
def test_planned_programs_are_those_that_training_lowers(changes):
  config = tiny(**changes)
  _, texts = planned(config)
  made = course.make({**unread.config_of(config), 'evals': {}},
                     noise.Noise(12))
  state, teachers, batch = costs.step_arguments(
      made.state, made.room.teacher_params, next(made.feed.batches(0)))
  taught = made.steps.teach.lower(state.step, teachers, batch)
  learners = made.steps.learners['']
  answers, numbers = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype),
      (taught.out_info[2], learners.numbers['']))
  learnt = learners.program.lower(state, numbers,
                                  {**batch, 'answers': answers})
  assert texts == {'teach': taught.as_text(), 'learn': learnt.as_text()}


def test_devices_may_hold_the_images_and_take_several_steps():
  config = tiny(steps_per_call=4)
  config['data'] = {**config['data'], 'resident': True}
  found, texts = planned(config)
  assert found.plan.per_call == 4
  assert 'stablehlo.while' in texts['learn']
  # The images, of which views are rendered; no axis of devices before them.
  assert 'tensor<2630400xui8>' in texts['learn']
  assert 'x2630400xui8' not in texts['learn']


def test_tpus_hold_images_so_that_each_is_read_in_one_turn(monkeypatch):
  monkeypatch.setattr(parallel, 'platform', lambda: 'tpu')
  config = tiny(steps_per_call=4)
  config['data'] = {**config['data'], 'resident': True}
  _, texts = planned(config)
  # 64 images of up to 373 pixels a side, in whole tiles.
  assert 'tensor<64x1152x384xui8>' in texts['learn']
  assert 'tensor<2630400xui8>' not in texts['learn']


def test_evaluations_are_programs_too():
  _, texts = planned(tiny(), evals=True)
  assert {*texts} == {'teach', 'learn', 'student at central',
                      'teachers at central'}


def test_recorded_answers_need_no_program_that_teaches():
  config = tiny(mode='fix/ic_ens')
  config['answers'] = {**config['answers'], 'store': '/nowhere'}
  assert {*planned(config)[1]} == {'learn'}


def test_of_kept_answers_teachers_are_asked_once_and_foreign_ones_never(tmp_path):
  config = tiny(total_steps=40)
  config['answers'] = {**config['answers'], 'store': '/nowhere',
                       'period_epochs': 2}
  found, _ = planned(config)
  assert {each.name: each.runs for each in found.all} == {'teach': 4, 'learn': 40}
  path = tmp_path / 'mine.py'
  path.write_text('def make():\n  return None\n')
  config['teachers'] = dict(t=dict(python=f'{path}:make', size=16))
  config['student'] = {**config['student'], 'num_classes': 12}
  assert {*planned(config)[1]} == {'learn'}


def test_students_wait_for_each_other_and_share_what_they_can():
  alone = planned(tiny(total_steps=40))[0]
  config = tiny(total_steps=40)
  config['students'] = {
      'a': {}, 'b': {'student': {'seed': 7}}, 'wide': {'student': {'width': .25}}}
  found = planned(config)[0]
  assert [(each.name, each.runs) for each in found.all] == [
      ('teach', 40), ('learn a', 80), ('learn wide', 40)]
  one, (teach, learn, wide) = alone.all, found.all
  a = one[0].beside - 2 * one[0].batches // 3  # The state, while teachers answer.
  assert learn.taken == one[1].taken < wide.taken
  width = wide.taken - learn.taken  # What the wide one's state is more.
  assert teach.beside - one[0].beside == 2 * a + width
  assert learn.beside - one[1].beside == 2 * a + width
  assert wide.beside - one[1].beside == 2 * a


def test_evaluations_run_as_often_as_they_are_due_and_find_all_that_waits():
  config = tiny(total_steps=40)
  config['evals'] = {
      'student': dict(type='classification', every_steps=16,
                      data=dict(split='test[:80]')),
      'teacher': dict(type='classification', who='teacher',
                      data=dict(split='test[:80]'))}
  host, held = (planned({**config, 'data': {**config['data'], 'resident': on}},
                        evals=True)[0].all for on in (False, True))
  # At steps 0, 16, 32 and 40, in three batches of 32; the teachers once.
  assert [each.runs for each in host] == [40, 40, 12, 3]
  images = 64 * 137 * 100 * 3
  teach, learn, student, _ = host
  # The student's own weights are arguments; its state and the teacher wait.
  pixels = 32 // jax.device_count() * 16 * 16 * 3
  assert student.batches == teach.batches + 3 * pixels
  assert student.beside > teach.batches + 2 * pixels
  for before, after in zip(host, held):
    rise = after.taken + after.beside - before.taken - before.beside
    assert .95 * images < rise < 1.05 * images


def test_kernels_of_int8_are_a_quarter():
  float32, int8_ = (tiny(teachers=dict(t=dict(
      random=dict(family='bit', depth=(1,), width=.25), size=16, weights=kept)))
                    for kept in ('float32', 'int8'))
  texts = [planned(config)[1]['teach'] for config in (float32, int8_)]
  assert 'xi8>' not in texts[0] and 'xi8>' in texts[1]
  _, params = pretrained.create(family='bit', depth=(1,), width=.25, size=16,
                                num_classes=3)
  assert jax.tree.map(lambda x: (x.shape, x.dtype), int8.shapes(
      jax.eval_shape(lambda: params))) == jax.tree.map(
          lambda x: (x.shape, x.dtype), int8.quantize(params))


def test_published_names_tell_depth_width_and_classes():
  assert unread.architecture('BiT-M R152x2 flowers rc128') == dict(
      family='bit', depth=152, width=2., num_classes=102)
  assert unread.architecture('BiT-M-R50x1')['num_classes'] == 21_843
  assert unread.architecture('ViT-B16 augreg imagenet2012 384')[
      'variant'] == 'B/16'
  assert unread.architecture('DIR/student.npz') == {}


def test_splits_have_the_examples_of_the_papers_table():
  for dataset in common.DATASETS.values():
    sizes, _ = unread.KNOWN[dataset['name']]
    assert unread.size_of(dataset['train'], sizes) == dataset['n']
  assert unread.size_of('train[:64]', dict(train=100)) == 64
  assert unread.size_of('train[90%:]+test', dict(train=100, test=7)) == 17


def test_bundled_photographs_are_as_many_as_the_table_says():
  pipeline = pytest.importorskip('big_distill.input.pipeline')
  sizes, classes = unread.KNOWN['caltech12']
  for split, n in sizes.items():
    source = pipeline.load('caltech12', split, cache='none')
    assert (source.num_examples, len(source.classes)) == (n, classes)


def test_data_that_nobody_read_needs_its_size():
  config = tiny(data=dict(name='folder:/nowhere'))
  with pytest.raises(ValueError, match='--examples=N and --classes=C'):
    planned(config)
  with parallel.planned_for(jax.devices()):
    found = programs.make(config, examples=640, classes=12, evals=False)
  assert found.plan.epochs == 40 * 32 / 640


def test_images_on_the_devices_are_as_large_as_is_known_and_as_a_run_holds():
  shapes = unread.Shapes(10**6, 10)
  held = lambda **section: shapes.hold(shapes.load(**section))[0]
  # A set that is not known may be of small images: a run holds no more.
  assert len(held(name='folder:/nowhere').pixels) == render.LIMIT
  with pytest.raises(ValueError, match='imagenet2012 is too large .* 559 GiB'):
    held(name='imagenet2012')
  pipeline = pytest.importorskip('big_distill.input.pipeline')
  real, _ = pipeline.hold(pipeline.load('caltech12', 'train', cache='none'))
  guess, _ = unread.Shapes().hold(unread.Shapes().load('caltech12', 'train'))
  assert len(guess.pixels) == pytest.approx(len(real.pixels), rel=.01)
  assert guess.widest == max(real.widest, real.tallest)


def test_what_models_compute_in_is_not_asked_of_functions_of_the_users():
  config = tiny(teachers=dict(t=dict(python='FILE.py:make', size=16)))
  found = unread.config_of(config, 'bfloat16')
  assert found['student']['dtype'] == 'bfloat16'
  assert 'dtype' not in found['teachers']['t']


def test_a_config_without_a_student_is_told_so():
  config = tiny()
  del config['student']
  with pytest.raises(ValueError, match='no student: set config.student'):
    unread.config_of(config)


def test_nothing_is_read_of_weights_that_are_published():
  config = imagenet.get_config('init=BiT-M-R50x1,mode=same/ic,images=food101')
  found = unread.config_of(config, 'bfloat16')
  assert 'init' not in found['student']
  assert found['student']['num_classes'] == 1000
  assert found['teachers']['T224']['random']['depth'] == 152
  assert found['teachers']['T224']['dtype'] == 'bfloat16'
  assert 'init' in config.student  # The config stays as it was.
