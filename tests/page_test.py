"""A page says what the numbers say, and shows no text as anything but text."""

import json
import math
import re

import numpy as np
import pytest

from big_distill import doctor
from big_distill import runs
from big_distill.evaluators import agreement
from big_distill.evaluators import calibration
from big_distill.page import charts
from big_distill.page import html
from big_distill.page import measures
from big_distill.tools import report

HOSTILE = '<img src=x onerror="alert(1)"> & \'"🦋'


def test_text_is_escaped_and_html_is_not():
  inner = html.tag('b', HOSTILE, title=HOSTILE)
  assert html.tag('p', inner) == f'<p>{inner}</p>'
  assert '<img' not in inner and '&lt;img src=x' in inner and '🦋' in inner
  assert inner.count('"') == 2  # Those of the attribute.
  assert html.tag('img', src='a', alt='') == '<img src="a" alt="">'


@pytest.mark.parametrize('said, shown', [
    ('cannot read /home/me/photos/a.jpg: gone.', 'cannot read …/a.jpg: gone.'),
    ('folder:/data/x y/photos', 'folder:…/photos'),
    ('gs://bucket/runs/a, at 7 images/s', 'gs://bucket/runs/a, at 7 images/s'),
    ("'/tmp/a/b'", "'…/b'")])
def test_folders_of_the_machine_are_left_out(said, shown):
  assert html.nameless(said, ['/data/x y/photos']) == shown


@pytest.fixture(scope='module')
def answers():
  rng = np.random.default_rng(0)
  student, teacher = rng.normal(size=(2, 200, 5)) * 2
  teacher += student
  label = rng.integers(-1, 5, 200)
  return measures.Answers(student, teacher, label, tuple('abcde'))


def test_classes_and_calibration_are_those_of_the_evaluators(answers):
  logits = answers.logits
  want = agreement.Evaluator().measure(logits, answers.label, tuple('abcde'))
  rows = measures.by_class(answers)
  assert {f'class/{answers.name(c)}': row['agree'] for c, row in rows.items()
          } == {name: value for name, value in want.items() if '/' in name}
  for who in logits:
    ece, bins = measures.reliability(answers, who)
    assert ece == calibration.Evaluator(who).measure(
        logits, answers.label, ())['ece']
    n = sum(each.size for each in bins)
    assert n == (answers.label >= 0).sum()
    assert ece == pytest.approx(sum(
        each.size * abs(each.accuracy - each.confidence) for each in bins) / n)


def test_outcomes_and_confusions_count_each_labelled_photograph_once(answers):
  label = answers.label
  student, teacher = (answers.logits[who].argmax(-1) for who in (
      'student', 'teacher'))
  found = measures.outcomes(answers)
  assert sum(found.values()) == (label >= 0).sum()
  assert found['student'] == sum((student == label) & (teacher != label))
  own = (label >= 0) & (teacher == label) & (student != label)
  pairs = measures.confusions(answers)
  assert sorted(i for pair in pairs for i in pair.places) == [
      *np.flatnonzero(own)]
  for pair in pairs:
    assert {(label[i], student[i]) for i in pair.places} == {
        (pair.truth, pair.said)}
  counts = [len(pair.places) for pair in pairs]
  assert counts == sorted(counts, reverse=True) and counts[0] > 1


def test_without_labels_the_teachers_choice_is_the_truth(answers):
  blind = measures.Answers(answers.logits['student'], answers.logits['teacher'],
                           np.full(200, -1))
  assert not blind.labelled
  places = [i for pair in measures.confusions(blind) for i in pair.places]
  assert sorted(places) == [*np.flatnonzero(~answers.agree)]
  assert all('images' not in row for row in measures.by_class(blind).values())


def test_the_greatest_kl_comes_first(answers):
  p, q = (np.exp(x) / np.exp(x).sum(-1, keepdims=True) for x in (
      answers.logits['teacher'], answers.logits['student']))
  kl = (p * np.log(p / q)).sum(-1)
  found = measures.disagreements(answers, 7)
  assert kl[found] == pytest.approx(np.sort(kl)[::-1][:7])


def test_wilsons_interval_is_the_published_one():
  # Newcombe, Statistics in Medicine 17 (1998), Table I: 81 of 263.
  low, high = measures.interval(81 / 263, 263)
  assert (round(low, 4), round(high, 4)) == (.2553, .3662)
  assert measures.interval(0., 10)[0] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize('low, high', [(0, 1), (.1, 1.1), (3e-9, 8e-9),
                                       (0, 1.2e6), (-3, 7), (.84, .86)])
def test_ticks_are_round_and_inside(low, high):
  ticks = charts.Scale(low, high, 0, 100).ticks()
  assert 2 <= len(ticks) <= 6
  assert all(low - 1e-12 <= tick <= high * (1 + 1e-9) for tick in ticks)
  assert all(len(f'{tick:.3g}'.strip('0')) < 10 for tick in ticks)


def points_of(svg):
  text = re.search('data-points="(.*?)"', svg).group(1)
  return json.loads(text.replace('&quot;', '"'))


def test_a_line_tells_the_values_of_the_log():
  said = charts.lines('Loss', [charts.Series('student', 'a', [
      (10, 4.), (20, math.nan), (30, math.inf), (40, 2.)])],
                      lambda value: f'{value:.2f}')
  (series,) = points_of(said)
  assert [point[2:] for point in series['p']] == [['10', '4.00'], ['40', '2.00']]
  assert 'NaN' not in said and 'nan' not in said and 'inf' not in said
  (_, high, *_), (_, low, *_) = series['p']
  assert high < low  # Pixels go down.
  empty = charts.lines('Loss', [charts.Series('s', 'a', [(1, math.nan)])], str)
  assert 'Nothing of it is finite' in empty


def test_a_long_line_is_the_mean_of_its_rows():
  rows = [(step, float(step % 2)) for step in range(10_000)]
  points, width = charts.thin(rows)
  assert len(points) <= charts.POINTS and points[-1][0] == 9_999
  assert width == 42 and {value for _, value in points} == {.5}


def write(folder, rows=(), config=None, **files):
  folder.mkdir(parents=True, exist_ok=True)
  (folder / 'metrics.jsonl').write_text(''.join(
      json.dumps(row) + '\n' for row in rows))
  if config is not None:
    runs.save(folder / 'config.json', config)
  for name, value in files.items():
    runs.save(folder / f'{name}.json', value)
  return folder


CONFIG = {'mode': 'funmatch', 'batch_size': 8, 'data': {
    'name': 'folder:/home/me/secret place/photos'}, 'evals': {},
          'optim': {'name': 'adam', 'lr': .01}}


def page_of(*folders):
  path = report.report([str(folder) for folder in folders], None,
                       'there are no images here.')
  return open(path, encoding='utf-8').read()


def test_a_run_that_is_going_on_says_how_far_it_is(tmp_path):
  run = write(tmp_path / 'run', [{'step': 5, 'train/loss': 2.5}], CONFIG,
              identity={'steps': 40})
  said = page_of(run)
  assert 'Not finished: 5 of 40 steps' in said
  assert 'Not in the logs: Accuracy, Agreement with the teacher' in said
  assert said.count('Not shown: there are no images here.') >= 4
  assert 'no doctor.json' in said
  assert str(tmp_path) not in said and '/home/me' not in said
  assert '…/photos' in said


def test_a_run_that_logged_nothing_has_a_page(tmp_path):
  said = page_of(write(tmp_path / 'run', config=CONFIG))
  assert 'Nothing was logged yet.' in said and '<svg' not in said


def test_a_run_that_diverged_names_the_step_and_the_remedy(tmp_path):
  run = write(tmp_path / 'run', [{'step': 5, 'train/loss': math.inf}], CONFIG)
  (run / 'nan' / 'state' / '6').mkdir(parents=True)
  said = page_of(run)
  assert 'Stopped after step 6: the loss or its gradient was not finite' in said
  assert 'big_distill.tools.replay run/nan' in said
  assert 'Nothing of it is finite' in said


def test_the_doctors_findings_are_kept_and_shown(tmp_path):
  run = write(tmp_path / 'run', config=CONFIG)
  findings = [doctor.Finding(doctor.LOOK, HOSTILE, 'read /home/me/x/teacher.npz')]
  doctor.keep(findings, str(run))
  assert doctor.read(str(run)) == findings
  said = page_of(run)
  assert html.text(HOSTILE) in said and HOSTILE not in said
  assert 'read …/teacher.npz' in said


def test_of_two_runs_the_config_is_what_differs(tmp_path):
  other = {**CONFIG, 'optim': {'name': 'adam', 'lr': .5}, 'seed': 1}
  rows = [[{'step': 10 * i, 'train/loss': loss / i, 'train/lr': .1}
           for i in (1, 2)] for loss in (4., 8.)]
  a = write(tmp_path / 'a' / HOSTILE.replace('/', ''), rows[0], CONFIG)
  b = write(tmp_path / 'b' / 'second', rows[1], other)
  said = page_of(a, b)
  assert HOSTILE not in said and html.text(HOSTILE.replace('/', '')) in said
  table = said[said.index('id="config"'):]
  table = table[:table.index('</section>')]
  assert re.findall('scope="row"><code>(.*?)</code>', table) == [
      'optim.lr', 'seed']
  loss, *_ = re.findall(r'<svg.*?</svg>', said)
  assert [[point[3] for point in series['p']] for series in points_of(loss)] == [
      ['4', '2'], ['8', '4']]
  assert not (b / 'report.html').exists()


def test_runs_of_one_name_are_told_apart(tmp_path):
  a, b = (write(tmp_path / each / 'out', config=CONFIG) for each in 'ab')
  said = page_of(a, b)
  assert 'out (1) and out (2)' in said and 'The two configs are equal.' in said


def test_a_folder_of_runs_shows_their_points(tmp_path):
  result = {'student_top1': .8, 'agreement_top1': .9, 'kl': .1,
            'student_params': 2_000_000, 'student_flops': 3e9}
  write(tmp_path / 'all' / 'small', config=CONFIG, result=result)
  write(tmp_path / 'all' / 'unlabelled', config=CONFIG,
        result={**result, 'student_top1': None})
  write(tmp_path / 'all' / 'going on', config=CONFIG)
  said = page_of(tmp_path / 'all')
  assert '3 runs, 2 of them finished.' in said and said.count('<svg') == 4
  assert 'small 80.0 % at 2 M' in said
  with pytest.raises(ValueError, match='Name two runs'):
    page_of(tmp_path / 'all' / 'small', tmp_path / 'all')


def test_what_is_no_workdir_is_refused_in_a_line(tmp_path):
  with pytest.raises(ValueError, match='holds no run.*--workdir'):
    page_of(tmp_path)
  with pytest.raises(ValueError, match='There is no folder'):
    page_of(tmp_path / 'none')
