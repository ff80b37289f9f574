"""The study of many students measures what single runs would."""

import json
import pathlib
import re

import jax
import numpy as np
import pytest

from bench import claims
from bench import probe
from bench import reproduce
from bench import school
from bench import study
from big_distill import npz_files
from big_distill import optim
from big_distill import packed
from big_distill import params as params_lib
from big_distill import pretrained
from big_distill import teaching
from big_distill import train
from big_distill.tools import figures
from configs import quickstart
from configs import study as study_config

CLASSES = 12


@pytest.fixture(scope='module')
def teacher():
  return teaching.load('teacher', size=16, num_classes=CLASSES, random=dict(
      family='bit', depth=(1,), width=.125))


def setting(*arms):
  return study.Setting(dict(family='bit', depth=(1,), width=.125), 8, arms,
                       CLASSES, batch_size=32, votes=3, per_call=3)


def test_the_schedule_is_that_of_single_runs():
  for total, warmup in ((10, 0), (40, 4), (7, 1)):
    want = optim.make_schedule(total, warmup)
    cooled = optim.make_schedule(total, warmup, 'wsd')
    cooldown = max(round(optim.COOLDOWN * total), 1)
    for step in range(total):
      got = study.schedule(step, total, warmup)
      np.testing.assert_allclose(got, want(step), atol=1e-6)
      got = study.schedule(step, total, warmup, cooldown)
      np.testing.assert_allclose(got, cooled(step), atol=1e-6)


class Rows(list):
  """A writer that keeps metrics in memory."""
  write = lambda self, step, row: self.append({'step': step, **row})
  read = lambda self: self
  rewind = lambda self, step: None


def test_a_student_of_a_class_is_that_of_a_run_of_its_own(
    random_pack, teacher, tmp_path):
  """Same photographs, boxes, mixtures, rates: the same student."""
  data = packed.Data(random_pack)
  one = school.School(data, 'train', setting('same/ic', 'funmatch'), teacher,
                      seed=3)
  lr = np.asarray([[.01, .02], [.03, .005]])
  for _, _, got in one.run([5, 3], lr, 1e-3, epochs=8):
    pass
  config = quickstart.get_config('tiny=True')
  with config.unlocked():
    config.update(seed=3, total_steps=8, batch_size=32)
    config.evals = dict(student=dict(type='classification'))
    config.data.update(split='train', resident=True)
    config.mode = 'funmatch'
    config.student = dict(family='bit', depth=(1,), width=.125, size=8)
    config.teachers = dict(teacher=dict(size=16, random=dict(
        family='bit', depth=(1,), width=.125)))
    config.optim = dict(name='adam', lr=.005, wd=1e-3, clip=1., warmup_steps=0)
  train.train(config, str(tmp_path), data, Rows())
  want = npz_files.load(tmp_path / 'student.npz')
  _, start = pretrained.create(size=8, seed=3, num_classes=CLASSES,
                               family='bit', depth=(1,), width=.125)
  begun = params_lib.flatten(start)

  def distance(a, b):
    assert a.keys() == b.keys()
    return np.sqrt(sum(np.square(a[name] - b[name]).sum() for name in a))

  def student(arm, seed):
    return params_lib.flatten(jax.tree.map(lambda x: x[arm, seed], got))

  # Adam divides by the size of gradients, where rounding shows first.
  moved = distance(want, begun)
  assert distance(student(1, 1), want) < .1 * moved
  for other in ((0, 1), (1, 0)):
    assert distance(student(*other), want) > .5 * moved


def test_answers_of_fixed_teachers_are_means_over_their_views(random_pack, teacher):
  data = packed.Data(random_pack)
  held = data.hold(data.load())
  tables = study.record(held, setting(*study.ARMS), teacher, seed=0)
  assert tables.keys() == {'fix/rs', 'fix/cc', 'fix/ic_ens'}
  for table in tables.values():
    np.testing.assert_allclose(table.sum(axis=1), 1, rtol=1e-5)
  pixels = school.pixels_of(data, 'train', 'central@16')
  want = np.exp(school.ask(teacher, pixels))
  np.testing.assert_allclose(tables['fix/cc'], want, atol=1e-5)
  assert abs(tables['fix/ic_ens'] - want).max() > 1e-3


def test_every_arm_sees_its_mode(teacher):
  seen = study.see(setting(*study.ARMS), teacher)
  words = {name: [str(view) for view in pair] for name, pair in seen.items()}
  assert words['ind/rc'] == ['random#student@8', 'random#teacher@16']
  assert words['same/ic'] == words['funmatch'] == [
      'inception#both@8', 'inception#both@16']
  assert words['labels'] == words['labels, mixed up'] == [
      'inception#both@8', 'None']
  # A recorded teacher's own views are not rendered in lessons.
  shown = {*map(str, study.shown_views(setting('fix/rs', 'fix/cc'), teacher))}
  assert shown == {'squash@8', 'random#student@8'}


def test_an_exam_asks_every_student_every_image(random_pack, teacher):
  data = packed.Data(random_pack)
  one = school.School(data, 'train', setting('funmatch'), teacher)
  *_, (_, loss, params) = one.run([0, 1], np.full((1, 2), .01), 0., 2)
  images = {'a': school.pixels_of(data, 'train[:5]', 'central@8'),
            'b': school.pixels_of(data, 'train[5:]', 'central@8')}
  answers = school.make_exam(one.model, images)(params)
  assert answers['a'].shape == (1, 2, 5, CLASSES) and loss.shape == (1, 2)
  alone = jax.tree.map(lambda x: x[0, 1], params)
  for name, pixels in images.items():
    logits, _ = one.model.apply(
        {'params': alone}, np.float32(pixels) / 127.5 - 1)
    np.testing.assert_allclose(answers[name][0, 1],
                               jax.nn.log_softmax(logits), atol=1e-4)


def test_measures_are_the_formulas():
  rng = np.random.default_rng(0)
  answers, told = (np.log(rng.dirichlet(np.ones(4), shape))
                   for shape in ((2, 3, 5), (5,)))
  labels = rng.integers(0, 4, 5)
  got = reproduce.measure(answers, told, labels)
  for a, s in np.ndindex(2, 3):
    mine = answers[a, s]
    hits = [mine[i].argmax() == labels[i] for i in range(5)]
    same = [mine[i].argmax() == told[i].argmax() for i in range(5)]
    kl = [sum(np.exp(told[i]) * (told[i] - mine[i])) for i in range(5)]
    for key, each in (('top1', hits), ('agree', same), ('kl', kl)):
      assert got[key][a, s] == pytest.approx(np.mean(each))


def rows_of(stage, **changes):
  return [dict(stage=stage.name, arm=arm, tuning=stage.tuning, seed=0, lr=lr,
               epochs=stage.epochs, at=stage.epochs, loss=1., val_top1=top1,
               **changes)
          for arm in reproduce.SCHOOLS[stage.school]
          for lr, top1 in ((.003, .5), (.01, .7), (.03, .6))]


def test_rates_are_chosen_on_validation_and_taken_on_when_longer():
  stage = reproduce.Stage('all', 100, tuning=True)
  rows = rows_of(stage)
  rows[0]['val_top1'] = .9  # fix/rs at .003.
  rows += [dict(row, stage='grid_tune_100', val_top1=1.) for row in rows]
  early = dict(rows[1], val_top1=1., at=75.)  # Not the end of a run.
  for epochs in (100, 1000):
    got = reproduce.best_rates(rows + [early], ('fix/rs', 'funmatch'), epochs)
    assert got.tolist() == [[.003], [.01]]
  with pytest.raises(ValueError, match="'funmatch' at 30 epochs are not tuned"):
    reproduce.best_rates(rows, ('funmatch',), 30)


def test_what_is_finished_is_not_left():
  first, second, *_ = reproduce.PLAN
  rows = rows_of(first)
  assert reproduce.left([]) == [*reproduce.PLAN]
  assert reproduce.left(rows) == [*reproduce.PLAN[1:]]
  half = [dict(row, at=row['epochs'] / 2) for row in rows_of(second)]
  assert second in reproduce.left(rows + half)


def write(folder, epochs, right, loss):
  """A stage where each arm is right on some images; all agree with no one."""
  arms = [*study.ARMS]
  guess = np.ones((len(arms), 3, 400), np.uint8)
  for i, arm in enumerate(arms):
    guess[i, :, :right(arm)] = 0
  np.savez(folder / f'all_run_{epochs}.npz', arms=arms, guess=guess,
           kl=np.zeros(guess.shape), label=np.zeros(400, np.uint8),
           teacher=np.full(400, 2, np.uint8))
  with (folder / 'rows.jsonl').open('a') as file:
    for arm in arms:
      for seed in (1, 2, 3):
        file.write(json.dumps(dict(
            stage=f'all_run_{epochs}', arm=arm, seed=seed, at=epochs,
            epochs=epochs, tuning=False, loss=loss(arm) + .01 * seed,
            test_top1=right(arm) / 400, test_kl=1.)) + '\n')


def test_verdicts_follow_the_interval_of_paired_images(tmp_path):
  write(tmp_path, 30, lambda arm: 100, lambda arm: 1.)
  write(tmp_path, 1000, lambda arm: 300 if arm == 'funmatch' else 200,
        lambda arm: .5 if arm.startswith('fix') else 1.)
  judged = {(claim.number, claim.words, claim.metric): claims.judge(
      claim, claims.Study(tmp_path)) for claim in claims.CLAIMS}
  above = judged[1, 'funmatch above same, patient', 'top1']
  assert above['verdict'] == 'shown' and above['difference'] == .25
  low, high = above['interval']  # 1.96 (p (1 - p) / n)^.5 either way.
  assert low == pytest.approx(.25 - 1.96 * .0217, abs=.004)
  assert high == pytest.approx(.25 + 1.96 * .0217, abs=.004)
  assert judged[1, 'same above independent, patient', 'top1'][
      'verdict'] == 'null'
  loss = judged[2, "funmatch's training loss above fixed's", 'loss']
  assert loss['verdict'] == 'shown' and loss['difference'] == pytest.approx(.5)
  assert judged[3, 'funmatch, 300 epochs above 100', 'top1'] is None
  other = claims.Claim(0, 'the reverse', 'top1', claims.Side(('labels',), 30),
                       claims.Side(('funmatch',), 1000))
  assert claims.judge(other, claims.Study(tmp_path))['verdict'] == 'against'


def test_the_page_says_what_the_logs_say():
  docs = pathlib.Path(__file__).parents[1] / 'docs'
  lines = (docs / 'reproduction.md').read_text().splitlines()
  for cells in claims.table(claims.Study(docs / 'logs' / 'reproduction')):
    assert f'| {" | ".join(cells)} |' in lines


def test_the_grids_verdict_is_about_its_best_tenth(tmp_path):
  def fill(best):  # {epochs: (rate, temperature) that is best}
    lines = [json.dumps(dict(
        stage=f'grid_tune_{epochs}', at=epochs, epochs=epochs, lr=lr, wd=wd,
        t=t, val_top1=1 - abs(np.log(lr / point[0])) - abs(np.log(t / point[1]))
        - wd)) for epochs, point in best.items()
             for lr, wd, t in reproduce.POINTS['grid']]
    (tmp_path / 'rows.jsonl').write_text('\n'.join(lines))
    return claims.grid(claims.Study(tmp_path))

  means, verdict = fill({30: (.01, 10.), 100: (.001, 1.)})
  assert verdict == 'shown' and means[30]['lr'] > means[100]['lr']
  assert fill({30: (.001, 1.), 100: (.01, 10.)})[1] == 'against'
  assert fill({30: (.001, 10.), 100: (.01, 1.)})[1] == 'null'
  assert fill({30: (.001, 1.), 100: (.001, 1.)})[1] == 'null'
  assert fill({30: (.001, 1.)})[1] == 'not run'


def test_the_figure_has_each_arm_at_each_length(tmp_path):
  for epochs in (1000, 30):
    write(tmp_path, epochs, lambda arm: 100, lambda arm: 1.)
  found = claims.Study(tmp_path)
  accuracy, longest, loss = claims.panels(found.rows, found.teacher())
  *points, teacher = accuracy.points
  assert teacher.style == 'teacher' and teacher.y == 0
  assert [(point.label, point.x) for point in points] == [
      (arm, epochs) for arm in sorted(study.ARMS) for epochs in (30, 1000)]
  assert all((point.y, point.n) == (.25, 3) for point in points)
  assert sorted((point.label, point.x) for point in longest.points) == [
      (arm, 1000) for arm in sorted(study.ARMS)]
  low, mean, high = (getattr(loss.points[0], key) for key in ('low', 'y', 'high'))
  assert (low, high) == (1.01, 1.03) and mean == pytest.approx(1.02)

  further = [dict(stage=f'long_run_{epochs}', arm='funmatch', epochs=epochs, at=at,
                  tuning=False, test_top1=.6, loss=.4)
             for epochs, at in ((10_000, 10_000), (10_000, 5000), (300, 300))]
  longer, short, _ = claims.panels(claims.joined(found, further),
                                   found.teacher(), 30)
  assert {point.x for point in short.points} == {30}
  assert [point for point in longer.points if point not in accuracy.points] == [
      figures.Point('total epochs', accuracy.y, 'dots', 'funmatch',
                    'long_run_10000', 10_000, .6, .6, .6, 1)]


def test_a_head_is_fitted_to_what_can_be_told_apart():
  rng = np.random.default_rng(0)
  labels = rng.integers(0, 3, 300)
  features = np.eye(3)[labels] @ rng.normal(size=(3, 8)) * 3
  features = np.float32(features + .1 * rng.normal(size=features.shape))
  head = probe.fit(features[:200], labels[:200], 3, 1e-4)
  assert probe.score(head, features[200:], labels[200:]) == 1


@pytest.mark.parametrize('twin', study_config.TWINS.values(),
                         ids=study_config.TWINS)
def test_rates_are_chosen_on_images_that_no_model_learns_from(twin):
  def images(split):
    name, first, last = re.fullmatch(r'(\w+)\[(\d*):(\d*)\]', split).groups()
    return {(name, i) for i in range(int(first or 0), int(last or 50_000))}

  train, taught, val, test = (images(twin[split]) for split in (
      'train', 'taught', 'val', 'test'))
  assert len(train) == twin['n'] and train < taught
  assert not val & taught and not test & (taught | val)
