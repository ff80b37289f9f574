"""Verdicts of the second half, on answers whose shares are known."""

import json
import pathlib

import numpy as np
import pytest

from bench import agenda
from bench import claims
from bench import errors
from bench import forecasts
from bench import stream
from bench import verdicts
from big_distill.evaluators import calibration

N = 400


def write(folder, stage, right, seeds=2):
  """Answers of a stage: the share of test images that each arm calls rightly."""
  label = np.zeros(N, np.uint8)
  guess = np.stack([np.stack([np.arange(N) >= round(share * N)] * seeds)
                    for share in right.values()]).astype(np.uint8)
  np.savez(folder / f'{stage}.npz', arms=list(right), guess=guess, label=label,
           teacher=label, kl=1. - guess)
  epochs = int(stage.split('_')[-1])
  with (folder / 'rows.jsonl').open('a') as file:
    file.writelines(json.dumps(dict(
        stage=stage, arm=arm, epochs=epochs, at=epochs, seed=seed, val_top1=share,
        loss=0., tuning=False)) + '\n' for arm, share in right.items()
                    for seed in range(seeds))


@pytest.fixture
def judged(tmp_path):
  """-> {(number, words): what is judged} of answers that were written."""
  def judge(twin='caltech101', **stages):
    for stage, right in stages.items():
      write(tmp_path, stage, right)
    study = claims.Study(tmp_path)
    return {(one.number, one.words): verdicts.judge(one, study)
            for one in verdicts.SUMS[twin](study)}
  return judge


def test_a_stream_may_lose_a_point_and_no_more(judged):
  shares = {f'{k} epochs': .5 for k in agenda.PERIODS} | {
      'fresh': .6, '30 epochs': .6, '1 epochs': .7}
  found = judged(stream_run_1000=shares)
  assert found[12, '1000 epochs: fresh views above 3 epochs of them']['verdict'] == 'shown'
  assert found[12, '1000 epochs: fresh views above 1 epochs of them']['verdict'] == 'against'
  kept = found[12, '1000 epochs: 30 of views lose less than a point']
  assert kept['verdict'] == 'shown'
  assert kept['difference'] == pytest.approx(.01)
  lost = found[12, '1000 epochs: 100 of views lose less than a point']
  assert lost['verdict'] == 'against'
  assert lost['difference'] == pytest.approx(-.09)
  assert found[3, 'funmatch, 300 epochs above 100'] is None


def test_leads_are_compared_and_shares_scaled(judged):
  found = judged(
      begun_run_30=dict(begun=.6, random=.3), begun_run_300=dict(
          begun=.65, random=.6), kinds_run_300=dict(
              caltech=.8, dtd=.25, cifar=.1))
  third = found[6, 'a third of that lead above the lead at 300']
  assert third['difference'] == pytest.approx(.1 - .05)
  assert third['verdict'] == 'shown'
  dtd = found[10, 'dtd above a quarter of its own']
  assert dtd['difference'] == pytest.approx(.05)
  assert found[10, 'cifar above a quarter of its own']['verdict'] == 'against'


def test_optimizers_are_compared_at_their_best_rates(judged):
  found = judged(adam_run_300={'adam 0.001': .2, 'adam 0.01': .5},
                 soap_run_300={'soap 0.001': .6, 'soap 0.01': .1})
  soap = found[7, "KL of Adam above Soap's"]
  assert soap['sides'] == pytest.approx([.5, .6])  # KL is the share right here.
  assert soap['verdict'] == 'against'
  assert found[7, "KL of Adam above Muon's"] is None


def test_the_second_twin_is_judged_by_its_own_inequalities(judged):
  names = ('fixed', 'independent', 'same/ic', 'funmatch', 'labels, mixed up')
  found = judged('cifar10', modes_run_30=dict(zip(names, (.5, .5, .5, .3, .5))),
                 modes_run_100=dict(zip(names, (.5, .5, .6, .6, .6))),
                 modes_run_300=dict(zip(names, (.4, .5, .6, .7, .5))))
  assert {words: one['verdict'] for (number, words), one in found.items()
          if number == 1} == {
              'independent above fixed, patient': 'shown',
              'same above independent, patient': 'shown',
              'funmatch above same, patient': 'shown',
              'fixed above funmatch, short': 'shown'}
  assert found[5, 'labels mixed up: 100 epochs above 300'][
      'difference'] == pytest.approx(.1)
  assert found[4, 'funmatch above same/ic, 100 epochs']['verdict'] == 'null'
  assert found[3, 'funmatch, 100 epochs above 30']['verdict'] == 'shown'
  assert found[7, "KL of Adam above Shampoo's"] is None


def test_calibration_is_the_gap_between_confidence_and_accuracy():
  sure = np.repeat([.9, .5], 100)
  right = np.concatenate([np.arange(100) < 70, np.arange(100) < 50])
  assert calibration.error(sure, right) == pytest.approx(.5 * .2)
  assert calibration.error(np.ones(10), np.ones(10)) == 0


def test_errors_alike_are_of_what_the_teacher_calls_wrongly():
  label, teacher = np.zeros(4, int), np.asarray([0, 1, 1, 2])
  guess = np.asarray([[0, 1, 2, 2], [1, 1, 0, 0]])
  share, (low, high) = errors.alike(guess, teacher, label)
  assert share == pytest.approx(.5) and low <= share <= high


def test_classes_count_alike_however_many_images_they_have():
  few, many = errors.thirds(np.asarray([0, 1, 1, 2, 2, 2]), 3)
  assert (few.tolist(), many.tolist()) == ([0], [2])
  agree = np.asarray([[1, 0, 0, 1]])
  assert errors.by_class(agree, np.asarray([0, 1, 1, 1]),
                         np.asarray([0, 1])) == pytest.approx((1 + 1 / 3) / 2)


def test_the_streams_figure_has_the_last_row_of_each_student(tmp_path):
  rows = [dict(stage='stream_run_30', arm=arm, seed=seed, epochs=30, at=at,
               loss=1., val_top1=.1, test_top1=.2 * seed, test_agree=.3,
               test_kl=.4) for arm in ('3 epochs', 'fresh') for seed in (1, 2)
          for at in (15, 30)]
  rows.append(dict(rows[0], stage='patient_run_30', at=30))
  (tmp_path / 'rows.jsonl').write_text('\n'.join(map(json.dumps, rows)))
  found = stream.collect(str(tmp_path))
  assert [(row['period'], row['seed'], row['seeds']) for row in found] == [
      ('3', 1, 1), ('3', 2, 1), ('fresh', 1, 1), ('fresh', 2, 1)]
  stream.draw(found, str(tmp_path / 'figure'))
  assert (tmp_path / 'figure.png').read_bytes()[:4] == b'\x89PNG'


def test_forecasts_are_scored_on_lengths_they_did_not_see(tmp_path):
  law = lambda epochs: .8 - 2 * epochs**-.5
  rows = [dict(stage=f'cooled_run_{epochs}', arm='funmatch', seed=seed,
               tuning=False, epochs=epochs, at=epochs, test_top1=law(epochs),
               test_kl=1 - law(epochs)) for epochs in (30, 100, 300, 1000)
          for seed in (1, 2)]
  rows.append(dict(rows[0], at=15, test_top1=0.))  # Not its end.
  (tmp_path / 'rows.jsonl').write_text('\n'.join(map(json.dumps, rows)))
  made = forecasts.rows(forecasts.curves([str(tmp_path)]))
  assert sorted((row['metric'], row['known'], row['at']) for row in made) == [
      (metric, known, at) for metric in ('test_kl', 'test_top1')
      for known, at in (('30 100', 300), ('30 100', 1000),
                        ('30 100 300', 1000))]
  assert all(row['held'] for row in made)
  assert made[0]['came'] == pytest.approx(law(300))
  lines = forecasts.summary(made)
  assert [line[:4] for line in lines] == [
      ['constant, cooled', metric, known, n]
      for metric in ('test_kl', 'test_top1') for known, n in (('2', '2'),
                                                              ('3', '1'))]


def test_the_page_says_what_the_logs_say():
  docs = pathlib.Path(__file__).parents[1] / 'docs'
  lines = (docs / 'reproduction.md').read_text().splitlines()
  for twin, folder in (('caltech101', 'further'), ('cifar10', 'cifar10')):
    for cells in verdicts.table(claims.Study(docs / 'logs' / folder), twin):
      assert f'| {" | ".join(cells)} |' in lines
  lines = (docs / 'forecast.md').read_text().splitlines()
  made = forecasts.rows(forecasts.curves(
      [str(docs / 'logs' / name) for name in ('reproduction', 'further')]))
  for cells in forecasts.summary(made):
    assert f'| {" | ".join(cells)} |' in lines
