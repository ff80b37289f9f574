"""Answers that several hosts recorded teach one host, on any devices."""

import json

import hosts_test
import numpy as np

from big_distill import command
from big_distill import lessons as lessons_lib
from big_distill import runs
from big_distill.input import pipeline

PERIOD = 4
CONFIG = '''
from configs import quickstart

def get_config(arg=None):
  c = quickstart.get_config('tiny=True')
  c.evals = dict()
  c.optim = dict(name='sgd', lr=.002, wd=1e-4, clip=1.)
  c.student.depth = (1,)
  c.teachers = dict(teacher=dict(
      size=24, dtype='float32', weights='float32',
      random=dict(family='bit', depth=(1,), width=.125)))
  del c.log_percent
  c.total_steps, c.log_steps = 6, 1
  c.checkpoints = dict(every_steps=0)
  c.answers = dict(dtype='float32', audit_percent=0., period_steps=4, store='')
  return c
'''


def losses(workdir):
  return [row['train/loss'] for row in runs.rows(workdir / 'metrics.jsonl')
          if 'train/loss' in row]


def read(config, store, host):
  """The kept answers to all steps, of one host's share: [steps, b, c]."""
  config = command.resolve([f'--config={config}',
                            f'--config.answers.store={store}'])
  lessons = lessons_lib.prepare(config, pipeline)
  kept = lessons_lib.open_store(
      lessons._replace(crops={'host': host}), config, begin=False)
  return np.stack([kept.read(block)[0] for block in range(PERIOD)])


def test_two_hosts_record_and_one_device_or_four_replay(tmp_path):
  """One run begins the store, tools.record completes it, on two hosts each."""
  config, store = tmp_path / 'config.py', tmp_path / 'answers'
  config.write_text(CONFIG)
  kept = f'--config.answers.store={store}'

  def run(name, count, devices, *flags, program=()):
    workdir = tmp_path / name
    words = ['-m', *(program or ['big_distill.main', f'--workdir={workdir}']),
             f'--config={config}', *flags]
    if count > 1:
      words += ['--coordinator={address}', '--processes={count}',
                '--process={process}']
    ended = hosts_test.finish(
        hosts_test.start(words, workdir, count, devices), workdir, timeout=500)
    assert [code for code, _ in ended] == [0] * count, ended
    return workdir, ended[0][1]

  run('begin', 2, 2, kept, '--config.total_steps=3')
  checks = [np.fromfile(store / f'checks-0000{i}-of-00002.bin', np.uint64) != 0
            for i in range(2)]
  assert [[*each] for each in checks] == [[True] * 3 + [False]] * 2
  run('complete', 2, 2, kept, program=['big_distill.tools.record'])
  assert json.loads((store / 'manifest.json').read_text())['shards'] == 2

  whole = read(config, store, (0, 1))
  assert (whole == np.concatenate(
      [read(config, store, (i, 2)) for i in range(2)], axis=1)).all()
  before = {file.name: file.read_bytes() for file in store.iterdir()}
  live, _ = run('live', 1, 4)
  for devices in (1, 4):
    replayed, said = run(f'replayed{devices}', 1, devices, kept)
    assert '4 of 4 blocks are there' in said
    # Sums over devices are in another order, and steps are small.
    np.testing.assert_allclose(losses(replayed), losses(live), rtol=1e-5)
  assert before == {file.name: file.read_bytes() for file in store.iterdir()}
