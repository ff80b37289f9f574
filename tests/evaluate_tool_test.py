"""A checkpoint is evaluated as a config says, without training."""

import pytest

from big_distill.input import pipeline
from big_distill.tools import evaluate
from configs import quickstart


@pytest.fixture(scope='module')
def metrics():
  config = quickstart.get_config('tiny=True')
  config.data.split = 'train[:16]'
  for name in config.evals:
    config.evals[name].data.split = 'test[:40]'
  return evaluate.evaluate(config, 'caltech12 teacher', pipeline)


def test_a_teacher_agrees_with_itself(metrics):
  assert metrics['student/acc@1'] == metrics['teacher/acc@1'] > .4
  assert metrics['agree/top1'] == 1
  assert metrics['agree/kl'] == pytest.approx(0, abs=1e-6)


def test_a_batch_that_does_not_divide_over_devices_is_named():
  config = quickstart.get_config('tiny=True')
  config.batch_size = 30
  with pytest.raises(ValueError, match='batch_size=30 does not divide over 4 dev'):
    evaluate.evaluate(config, 'caltech12 teacher', pipeline)


@pytest.mark.parametrize('key, message', [
    ('student.size', 'size of its images'), ('evals', 'config.evals is empty')])
def test_what_a_config_leaves_out_is_named(key, message):
  config = quickstart.get_config('tiny=True')
  section, _, name = key.rpartition('.')
  del (config[section] if section else config)[name]
  with pytest.raises(ValueError, match=message):
    evaluate.evaluate(config, 'caltech12 teacher', pipeline)


def test_the_table_has_a_line_for_every_number(metrics):
  lines = evaluate.table(metrics).splitlines()
  assert [line.split()[0] for line in lines] == [*metrics]
