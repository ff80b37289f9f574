"""What is compiled for devices that are not here is what training compiles."""

import importlib.util
import json

import jax
import pytest

from big_distill import costs
from big_distill import course
from big_distill import fit
from big_distill import parallel
from big_distill import pretrained
from big_distill import programs
from big_distill import slices
from big_distill import unread
from big_distill.ops import int8
from big_distill.tools import compile as compile_tool
from big_distill.tools import doctor as doctor_tool
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
  assert 'tensor<38400000xui8>' in texts['learn']
  assert 'x38400000xui8' not in texts['learn']


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
  images = 64 * 500 * 400 * 3
  teach, learn, student, _ = host
  # The student's own weights are arguments; its state and the teacher wait.
  pixels = 32 // jax.device_count() * 16 * 16 * 3
  assert student.batches == teach.batches + 3 * pixels
  assert student.beside > teach.batches + 2 * pixels
  for before, after in zip(host, held):
    rise = after.taken + after.beside - before.taken - before.beside
    assert .99 * images < rise < 1.01 * images


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


def test_nothing_is_read_of_weights_that_are_published():
  config = imagenet.get_config('init=BiT-M-R50x1,mode=same/ic,images=food101')
  found = unread.config_of(config, 'bfloat16')
  assert 'init' not in found['student']
  assert found['student']['num_classes'] == 1000
  assert found['teachers']['T224']['random']['depth'] == 152
  assert found['teachers']['T224']['dtype'] == 'bfloat16'
  assert 'init' in config.student  # The config stays as it was.


def compiled(**changes):
  return fit.Compiled(**{**dict(
      name='learn', held=0, temporary=0, donated=0, flops=0, moved=0, given={},
      seconds=1.), **changes})


def test_libtpus_refusals_tell_what_a_program_needs():
  for message in (
      'RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required '
      'for HLO temporaries (20.50G) exceeds available HBM (15.75G).',
      'RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in '
      'memory space hbm. Used 20.50G of 15.75G hbm. Exceeded hbm capacity'):
    assert fit.over(message) == int(20.5 * 2**30)
  assert not fit.over('INTERNAL: no such thing (20.50G)')


GIB = 2**30


def program(name, **changes):
  return programs.Program(**{**dict(
      name=name, whose='teachers' if 'teach' in name else 'student',
      trains=' at ' not in name, lower=None, flops=None, taken=0, beside=0,
      batches=0, runs=1), **changes})


def judged(*pairs, config=None, name='v5e-32'):
  """(what is found, what would fit) of programs as they were compiled."""
  config, which = config or imagenet.get_config(), slices.parse(name)
  with parallel.planned_for([jax.devices()[0]] * which.devices):
    made = programs.Programs(programs.plan_lib.make(config, 10**6),
                             [each for _, each in pairs])
  results = [each for each, _ in pairs]
  found = fit.judge(results, made, which)
  return found, fit.remedies(found, results, made, config, which), fit.sentence(
      found, results, made, config, which)


def test_a_run_that_does_not_fit_is_told_what_would():
  # 2 GiB that stay, and 20 GiB that grow with 128 images on each device.
  found, would, said = judged((compiled(held=22 * GIB, temporary=20 * GIB),
                               program('learn')))
  assert not found['fits'] and 'by its learn' in said
  assert found['largest'] == 88 * 32  # 13.75 of 20 GiB, in groups of 8.
  assert would == [
      '--config.batch_size=2816', '--config.accumulate=2',
      '--config.student.remat=True', '--config.student.dtype=bfloat16',
      '--slice=v5e-64']


def test_what_would_not_help_is_not_advised():
  student, teachers = (compiled(held=5 * GIB, temporary=4 * GIB),
                       program('learn')), compiled(
                           name='teach', held=22 * GIB, temporary=20 * GIB)
  # It is the teachers that do not fit: nothing of the student would help.
  _, would, said = judged(student, (teachers, program('teach')))
  assert 'by its teach' in said
  assert would == ['--config.batch_size=2816', '--config.accumulate=2',
                   '--config.teachers.T224.dtype=bfloat16', '--slice=v5e-64']
  # An evaluation is not computed in parts.
  _, would, _ = judged(student, (teachers, program('teachers at central')))
  assert would == ['--config.batch_size=2816',
                   '--config.teachers.T224.dtype=bfloat16', '--slice=v5e-64']
  # What waits, the batch not among it, does not fit whatever is done.
  _, would, said = judged((compiled(held=22 * GIB, temporary=GIB),
                           program('learn')))
  assert would == [] and 'a smaller model' in said


def test_changes_that_fit_only_together_are_advised_together():
  config = imagenet.get_config()
  config.batch_size = 8 * 32  # A group on each device: no part is less.
  config.accumulate = 1
  _, would, _ = judged((compiled(held=42 * GIB, temporary=40 * GIB),
                        program('learn')), config=config)
  assert would == ['--config.student.remat=True '
                   '--config.student.dtype=bfloat16 '
                   '--config.teachers.T224.dtype=bfloat16']


def test_what_waits_of_a_batch_grows_with_it_too():
  found, _, _ = judged((compiled(held=15 * GIB, temporary=2 * GIB),
                        program('learn', batches=10 * GIB)))
  assert found['largest'] == 136 * 32  # 12.75 of 12 GiB, in groups of 8.


def test_hours_are_those_of_all_calls_that_a_run_makes():
  chip = slices.CHIPS['v5e']
  second = compiled(flops=int(chip.flops))
  found, _, said = judged(*(
      (second, program(name, runs=runs, batches=1)) for name, runs in (
          ('teach', 1000), ('learn', 125_000), ('student at central', 3600))))
  steps = 1200 * 10**6 // 4096  # All but a rest.
  assert found['step_seconds'] == pytest.approx(126_000 / steps, rel=1e-4)
  assert found['hours'] == pytest.approx(126_000 / 3600 + 1)
  assert 'steps and evaluations' in said


def test_least_time_is_that_of_what_takes_longest():
  chip = slices.CHIPS['v3']  # Two devices a chip share its peaks.
  times = compiled(flops=123e12, moved=9e9, given={'all-reduce': (1, 41e6)}
                   ).least(chip)
  assert times == dict(arithmetic=2., memory=.02, links=pytest.approx(5e-4))
  # What is gathered is received, and was summed nowhere.
  gathered = compiled(given={'all-gather': (1, 41e6)}).least(chip)
  assert gathered['links'] == times['links'] / 2


@pytest.mark.parametrize('line', [
    '{"key": "0", "name": "learn", "hel', '[1]', '{"name": "learn"}',
    '{"key": "0", "name": "learn", "of another version": 1}'])
def test_a_damaged_line_of_results_is_named_before_anything_is_compiled(
    line, tmp_path):
  path = tmp_path / 'results.jsonl'
  row = {'key': '1', **compiled()._asdict()}
  path.write_text(f'{json.dumps(row)}\n{line}\n')
  with pytest.raises(ValueError, match='results.jsonl, line 2, is no result'):
    compile_tool.examine({}, slices.parse('v5e-4'), results=str(path))


def test_what_libtpu_refuses_for_another_reason_is_one_line():
  class Lowered:
    def compile(self):
      raise jax.errors.JaxRuntimeError('INTERNAL: no\n  such thing')

  with pytest.raises(ValueError, match='compile learn: INTERNAL: no such thing'):
    fit.build(program('learn'), Lowered())


def test_a_slice_that_cannot_be_asked_leaves_the_doctors_table(monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  found = doctor_tool.on_slice(tiny(), slices.parse('v5e-4'))
  assert found.status == 'wrong' and 'no libtpu' in found.text


def test_amounts_have_the_prefix_that_leaves_three_digits():
  assert compile_tool.amount(93.14e9, 'B') == '93.1 GB'
  assert compile_tool.amount(0, 'B') == '0 B'
  assert compile_tool.amount(918e12, 'FLOP/s') == '918 TFLOP/s'
