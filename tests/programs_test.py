"""What is compiled for devices that are not here is what training compiles."""


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


def test_a_run_that_does_not_fit_is_told_what_would():
  config = imagenet.get_config()
  which = slices.parse('v5e-32')
  with parallel.planned_for([jax.devices()[0]] * 32):
    made = programs.Programs(programs.plan_lib.make(config, 10**6), 0, [])
  gib = 2**30
  # 2 GiB that stay, and 20 GiB that grow with 128 images on each device.
  found = fit.judge(
      [compiled(held=22 * gib, temporary=20 * gib)], made, which)
  assert found['largest'] == 88 * 32  # 13.75 of 20 GiB, in groups of 8.
  assert fit.remedies(found, made.plan, config, which) == [
      '--config.batch_size=2816', '--config.accumulate=2',
      '--config.student.remat=True', '--config.student.dtype=bfloat16',
      '--slice=v5e-64']


def test_least_time_is_that_of_what_takes_longest():
  chip = slices.CHIPS['v3']  # Two devices a chip share its peaks.
  times = compiled(flops=123e12, moved=9e9, given={'all-reduce': (1, 41e6)}
                   ).least(chip)
  assert times == dict(arithmetic=2., memory=.02, links=pytest.approx(5e-4))


def test_amounts_have_the_prefix_that_leaves_three_digits():
  assert compile_tool.amount(93.14e9, 'B') == '93.1 GB'
  assert compile_tool.amount(0, 'B') == '0 B'
  assert compile_tool.amount(918e12, 'FLOP/s') == '918 TFLOP/s'
