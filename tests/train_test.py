"""The program as it is used: started, killed at odd moments, started again."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parent.parent
KEYS = ('teacher_top1', 'student_top1_before', 'student_top1', 'agreement_top1',
        'kl', 'teacher_params', 'student_params', 'teacher_flops',
        'student_flops', 'images_per_s', 'steps')


def start(workdir):
  command = [sys.executable, '-m', 'big_distill.main',
             '--config=configs/quickstart.py:tiny=True', f'--workdir={workdir}']
  # One device, as most people have; steps_test compares device counts. Compiled
  # to run fast, since what is compiled once is run by several starts.
  env = os.environ | {'XLA_FLAGS': ''}
  return subprocess.Popen(command, cwd=ROOT, env=env, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def finish(process):
  out, _ = process.communicate(timeout=900)
  return process.returncode, out


def wait_for_rows(workdir, rows, process):
  """Waits until metrics.jsonl has so many lines."""
  for _ in range(45000):
    if count_rows(workdir) >= rows:
      return
    assert process.poll() is None, process.communicate()[0]
    time.sleep(.02)
  raise TimeoutError(workdir)


def count_rows(workdir):
  path = workdir / 'metrics.jsonl'
  return len(path.read_text().splitlines()) if path.exists() else 0


def outcome(workdir):
  """What must not depend on interruptions: weights, and metrics but times."""
  with np.load(workdir / 'student.npz') as file:
    weights = {name: file[name] for name in file.files}
  rows = [json.loads(line) for line in open(workdir / 'metrics.jsonl')]
  rows = [{name: value for name, value in row.items() if 'time/' not in name}
          for row in rows]
  return weights, rows


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """A run that nobody disturbed: (workdir, its output)."""
  workdir = tmp_path_factory.mktemp('whole')
  code, out = finish(start(workdir))
  assert code == 0, out
  return workdir, out


def test_a_run_ends_with_its_result_in_a_table_and_a_file(whole):
  workdir, out = whole
  result = json.loads((workdir / 'result.json').read_text())
  assert tuple(result) == KEYS
  assert result['steps'] == 40 and result['images_per_s'] > 0
  assert 0 <= result['student_top1'] <= 1 and result['kl'] > 0
  assert f'{result["teacher_top1"]:.1%}' in out and 'agreement' in out
  said = json.loads((workdir / 'doctor.json').read_text())['findings'][-1]
  assert (said['status'], said['about']) == ('ok', 'answers at the end')
  assert f'ok, answers at the end: {said["text"]}' in out


def test_a_run_says_at_its_start_what_one_would_ask_of_a_dead_one(whole):
  _, out = whole
  for fact in ('64 examples, 12 classes', 'Batch: 32 = 1 hosts x 1 devices x 32',
               'Steps: 40 = 20 epochs', 'inception#both@16: uint8[32, 16, 16, 3]',
               'head/kernel', 'starting in', 'First step:', 'ETA'):
    assert fact in out, fact


def test_a_run_leaves_its_curves_for_tensorboard(whole):
  assert list((whole[0] / 'tensorboard').glob('events*'))


def test_a_saved_student_answers_as_it_did_in_training(whole):
  import jax

  import big_distill
  from big_distill import steps
  from big_distill import views
  from big_distill.input import pipeline
  model, params = big_distill.load(whole[0] / 'student.npz')
  view = views.View.parse('central@16')
  source = pipeline.load('caltech12', 'test[:64]')
  answer = jax.jit(lambda images: model.apply(
      {'params': params}, steps.scale(images))[0].argmax(-1))
  hits = [answer(batch['views'][str(view)]) == batch['label']
          for batch in pipeline.eval_batches(source, [view], 32, 0)]
  result = json.loads((whole[0] / 'result.json').read_text())
  assert np.mean(hits) == pytest.approx(result['student_top1'])


def test_a_run_killed_terminated_and_resumed_is_bitwise_the_whole_run(
    whole, tmp_path):
  process = start(tmp_path)
  # By then the second checkpoint is begun, and so the first is whole.
  wait_for_rows(tmp_path, 13, process)
  process.kill()
  code, _ = finish(process)
  assert code == -signal.SIGKILL
  rows = count_rows(tmp_path)

  process = start(tmp_path)
  wait_for_rows(tmp_path, rows + 3, process)  # It begins by taking some back.
  process.terminate()
  code, out = finish(process)
  assert code == 0 and 'resuming at' in out
  assert 'the same command resumes' in out
  assert not (tmp_path / 'student.npz').exists()

  code, out = finish(start(tmp_path))
  assert code == 0 and 'resuming at' in out
  weights, log = outcome(tmp_path)
  want_weights, want_log = outcome(whole[0])
  assert weights.keys() == want_weights.keys()
  for name, want in want_weights.items():
    assert (weights[name] == want).all(), name
  assert log == want_log


def test_a_finished_run_repeats_its_result_without_training(whole):
  workdir, _ = whole
  before = (workdir / 'result.json').read_text()
  code, out = finish(start(workdir))
  assert code == 0 and 'First step' not in out
  assert (workdir / 'result.json').read_text() == before
