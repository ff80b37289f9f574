"""A program told to leave does, at once where nothing would be lost."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

from big_distill import leaving
from tests import run_tpu_test

ROOT = pathlib.Path(__file__).parent.parent
# What XLA is while it compiles: a call that no Python handler interrupts.
LONG = 'import hashlib; hashlib.pbkdf2_hmac("sha512", b"", b"", 2**31 - 1)'
BEGIN = ('from big_distill import command, leaving; command.narrate(); '
         'preemption = leaving.Preemption(); preemption.__enter__(); ')


def told(code, *numbers):
  """(exit code, output) of a program that gets signals; by itself it stays."""
  process = subprocess.Popen(
      [sys.executable, '-c', f'{BEGIN}{code}; print("ready", flush=True); {LONG}',
       '--workdir=my dir'], cwd=ROOT, text=True, stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT)
  assert process.stdout.readline() == 'ready\n'
  said = ''
  try:
    for number in numbers[:-1]:
      process.send_signal(number)
      said += process.stdout.readline()  # It has heard this one.
    process.send_signal(numbers[-1])
    out, _ = process.communicate(timeout=120)
  finally:
    process.kill()
  return process.returncode, said + out


@pytest.mark.parametrize('number', ['SIGTERM', 'SIGINT'])
def test_before_the_first_step_a_signal_ends_the_program_at_once(number):
  code, out = told('preemption.release.append(lambda: print("freed"))',
                   getattr(signal, number))
  assert code == 0 and 'freed' in out
  assert f'{number} before the first step' in out
  assert "the same command resumes: python -c '--workdir=my dir'" in out


def test_a_second_ctrl_c_leaves_without_saving():
  code, out = told('preemption.begin()', signal.SIGINT, signal.SIGINT)
  assert code == 130
  assert out.index('leaves after this step') < out.index('without saving')


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_after_the_first_step_a_signal_is_noticed_and_not_fatal(number):
  before = signal.getsignal(number)
  with leaving.Preemption() as preemption:
    preemption.begin()
    assert not preemption.reached()
    os.kill(os.getpid(), number)
    run_tpu_test.wait_for(preemption.reached)
    assert preemption.reached()
  assert signal.getsignal(number) == before
