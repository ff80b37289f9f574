"""Whether programs fit a slice, what would fit, and the least time they take."""

import importlib.util
import json

import jax
import pytest

from big_distill import fit
from big_distill import parallel
from big_distill import plan as plan_lib
from big_distill import programs
from big_distill import slices
from big_distill.tools import compile as compile_tool
from big_distill.tools import doctor as doctor_tool
from configs import flowers102
from configs import imagenet


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
    made = programs.Programs(plan_lib.make(config, 10**6),
                             [each for _, each in pairs])
  results = [each for each, _ in pairs]
  found = fit.judge(results, made, which)
  return found, fit.remedies(found, results, made, config, which), fit.sentence(
      found, results, made, config, which)


def test_a_run_that_does_not_fit_is_told_what_would():
  # 2 GiB that stay, and 20 GiB that grow with 128 images on each device.
  found, would, said = judged((compiled(held=22 * GIB, temporary=20 * GIB,
                                        fits=False), program('learn')))
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


def test_what_waits_of_a_batch_and_what_is_on_the_chip_grow_with_it_too():
  found, _, said = judged((compiled(held=12 * GIB, temporary=GIB),
                           program('learn', batches=10 * GIB)))
  assert found['largest'] == 168 * 32  # 3.75 more of 11.125 GiB, in groups of 8.
  assert 'A batch of 5,376 would fit' in said
  # Of what lies on the chip, which is 1/8 GiB, no byte is among temporaries.
  found, _, _ = judged((compiled(), program('learn')))
  assert found['largest'] == 128 * (1 + 8 * 15.75) * 32


def test_what_moves_fewer_bytes_is_advised_where_these_bind():
  bytes_bind = compiled(moved=GIB), program('learn')
  _, _, said = judged(bytes_bind)
  assert said.endswith(  # 128 images on a device, in parts of 16.
      'fewer bytes: --config.accumulate=8; --config.student.dtype=bfloat16; '
      '--config.teachers.T224.dtype=bfloat16.')
  config = imagenet.get_config()
  config.accumulate = 8
  config.student.dtype = config.teachers.T224.dtype = 'bfloat16'
  for each in (dict(config=config), dict(name='v4-32', config=config)):
    assert 'fewer bytes' not in judged(bytes_bind, **each)[2]
  assert 'fewer bytes' not in judged((compiled(flops=1e15),
                                      program('learn')))[2]


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
  found = doctor_tool.on_slice(
      flowers102.get_config('tiny=True'), slices.parse('v5e-4'))
  assert found.status == 'wrong' and 'no libtpu' in found.text


def test_amounts_have_the_prefix_that_leaves_three_digits():
  assert compile_tool.amount(93.14e9, 'B') == '93.1 GB'
  assert compile_tool.amount(0, 'B') == '0 B'
  assert compile_tool.amount(918e12, 'FLOP/s') == '918 TFLOP/s'
