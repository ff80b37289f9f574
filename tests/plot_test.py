"""A figure shows what metrics.jsonl says, and says what it cannot show."""

import csv
import json

import pytest

from big_distill import runs
from big_distill.tools import figures
from big_distill.tools import plot

TOTAL = 4  # Steps per epoch of every run here, and evaluations of each.


@pytest.fixture
def make(tmp_path):
  """-> the workdir of a run that was of this kind and ended at `final`."""
  def write(name, final=.5, epochs=10, mode='funmatch', optim='adam', init=None,
            images='food', seed=0, lr=.1, labels=False, finished=True,
            config=True, val=None, drop=()):
    path = tmp_path / name
    path.mkdir(parents=True)
    teacher = {'labels': True} if labels else {'init': 'x'}
    if config:
      runs.save(path / 'config.json', {
          'seed': seed, 'total_epochs': epochs, 'mode': mode,
          'data': {'name': images}, 'student': {'init': init} if init else {},
          'teachers': {'t': teacher}, 'optim': {'name': optim, 'lr': lr}})
    rows = [{'step': 0, 'test/acc@1': .01}]
    for i in range(1, TOTAL + 1):
      step = i * epochs
      rows.append({'step': step, 'train/loss': 1 / (i + final),
                   'train/epoch': step / TOTAL})
      rows.append({'step': step, 'test/acc@1': final * i / TOTAL,
                   'val/acc@1': (val or final) * i / TOTAL})
    rows[-1]['teacher/acc@1'] = .9
    rows = [{name: value for name, value in row.items() if name not in drop}
            for row in rows]
    (path / 'metrics.jsonl').write_text(
        ''.join(json.dumps(row) + '\n' for row in rows) + '{"step": 9')
    if finished:
      runs.save(path / 'result.json', {'steps': TOTAL * epochs})
    return str(path)
  return write


def measured(path, metric):
  """[(step, value)], read without the code under test."""
  with open(f'{path}/metrics.jsonl') as file:
    rows = [json.loads(line) for line in file.readlines()[:-1]]
  return [(row['step'], row[metric]) for row in rows if metric in row]


def draw(tmp_path, words, kind):
  """The rows of the CSV; figures are looked at by people."""
  png, pdf, table = plot.plot(words, kind, str(tmp_path / 'new' / 'fig.png'))
  assert open(png, 'rb').read(8) == b'\x89PNG\r\n\x1a\n'
  assert open(pdf, 'rb').read(5) == b'%PDF-'
  with open(table) as file:
    rows = list(csv.DictReader(file))
  assert rows
  return rows


def test_curves_are_what_the_rows_say(make, tmp_path):
  workdirs = {'fix/rs': make('a', .3, mode='fix/rs'), 'funmatch': make('b', .6)}
  rows = draw(tmp_path, workdirs.values(), 'consistency')
  for metric in ('train/loss', 'test/acc@1'):
    for mode, path in workdirs.items():
      got = [(float(row['x']), float(row['y'])) for row in rows
             if row['y_of'] == metric and row['label'] == mode]
      assert got == [(step / TOTAL, y) for step, y in measured(path, metric)]
  assert {row['x_of'] for row in rows} == {'epochs'}


def test_runs_without_epochs_are_drawn_against_steps(make, tmp_path):
  path = make('a', drop=['train/epoch'])
  rows = draw(tmp_path, [path], 'consistency')
  assert {row['x_of'] for row in rows} == {'steps'}
  assert [(int(row['x']), float(row['y'])) for row in rows
          if row['y_of'] == 'train/loss'] == measured(path, 'train/loss')


def test_seeds_are_drawn_as_mean_and_range(make, tmp_path):
  words = [make(str(seed), .4 + .1 * seed, seed=seed) for seed in range(3)]
  rows = draw(tmp_path, words, 'consistency')
  last = [row for row in rows if row['y_of'] == 'test/acc@1'][-1]
  assert last['n'] == '3' and last['run'] == '0 1 2'
  assert [float(last[key]) for key in ('low', 'y', 'high')] == pytest.approx(
      [.4, .5, .6])


def test_a_seed_that_is_not_finished_is_in_the_mean_up_to_its_last_step(tmp_path):
  """Steps of a batch of 512 of 3,312 images are no decimal numbers of epochs."""
  for seed, last in ((0, 6400), (1, 6200)):
    path = tmp_path / f'seed{seed}'
    path.mkdir()
    runs.save(path / 'config.json', {'seed': seed, 'mode': 'funmatch'})
    (path / 'metrics.jsonl').write_text(''.join(json.dumps({
        'step': step, 'train/loss': 1., 'train/epoch': step * 512 / 3312,
        'test/acc@1': step / 1e4}) + '\n' for step in range(100, last + 1, 100)))
  rows = draw(tmp_path, [f'{tmp_path}/seed{i}' for i in (0, 1)], 'consistency')
  got = [float(row['x']) for row in rows if row['y_of'] == 'test/acc@1']
  assert got == pytest.approx([step * 512 / 3312 for step in range(100, 6201, 100)])


def test_runs_that_differ_in_more_than_seed_are_not_averaged(make, tmp_path):
  a, b = make('a', lr=.1), make('b', lr=.2)
  for kind in ('consistency', 'patience', 'ood'):
    with pytest.raises(ValueError, match='differ in optim.lr: name them'):
      plot.plot([a, b], kind, str(tmp_path / 'fig'))
  rows = draw(tmp_path, [f'{a}=low', f'{b}=high'], 'consistency')
  assert list(dict.fromkeys(row['label'] for row in rows)) == ['low', 'high']


def test_a_sweep_highlights_the_best_by_validation(make, tmp_path):
  words = [make('a', .5, lr=.1, val=.8), make('b', .7, lr=.2, val=.6),
           make('c', .6, lr=.3, val=.99, finished=False)]
  rows = draw(tmp_path, words, 'sweep')
  assert {(row['run'], row['style']) for row in rows} == {
      ('a', 'line'), ('b', 'faint'), ('c', 'faint')}
  assert [float(row['y']) for row in rows if row['run'] == 'b'
          and row['y_of'] == 'test/acc@1'] == [
              y for _, y in measured(words[1], 'test/acc@1')]


def test_patience_ends_at_the_final_accuracy_of_each_length(make, tmp_path):
  words = [make('c', .8, 300), make('a', .6, 10), make('b', .7, 100),
           make('l', .3, 100, labels=True),
           make('t', .5, 100, labels=True, init='gs://x/BiT.npz')]
  rows = draw(tmp_path, words, 'patience')
  assert [(row['label'], row['x'], float(row['y'])) for row in rows] == [
      ('funmatch', '10', .6), ('funmatch', '100', .7), ('funmatch', '300', .8),
      ('labels', '100', .3), ('labels, initialised', '100', .5),
      ('teacher', '', .9)]


def test_optimizers_against_steps_and_against_length(make, tmp_path):
  words = [make('a', .5, optim='adam'), make('s', .6, optim='shampoo')]
  rows = draw(tmp_path, words, 'optimizers')
  assert [(int(row['x']), float(row['y'])) for row in rows
          if row['x_of'] == 'steps' and row['label'] == 'shampoo'
         ] == measured(words[1], 'test/acc@1')
  assert [(row['label'], row['x'], float(row['y'])) for row in rows
          if row['x_of'] == 'total epochs'] == [
              ('adam', '10', .5), ('shampoo', '10', .6), ('teacher', '', .9)]


def test_a_metric_that_is_given_is_drawn_in_every_kind(make, tmp_path):
  a, b = make('a', .5, 10), make('b', .25, 100)
  for kind in plot.KINDS:
    *_, table = plot.plot([a, b], kind, str(tmp_path / kind), 'val/acc@1')
    with open(table) as file:
      rows = [row for row in csv.DictReader(file)
              if row['y_of'] != 'train/loss']
    # A line across for the teacher's accuracy belongs to test accuracy alone.
    assert {(row['y_of'], row['style'] == 'teacher') for row in rows} == {
        ('val/acc@1', False)}
    assert {.5, .25} <= {float(row['y']) for row in rows}
  with pytest.raises(ValueError, match='has no agree/kl; it has'):
    plot.plot([a], 'optimizers', str(tmp_path / 'fig'), 'agree/kl')


def test_shares_are_percent_and_wide_ranges_logarithmic(tmp_path, monkeypatch):
  from matplotlib import pyplot as plt
  monkeypatch.setattr(plt, 'close', lambda figure: None)
  def axis(metric, *values):
    points = [figures.Point('steps', metric, 'line', 'a', 'a', i, y, y, y, 1)
              for i, y in enumerate(values)]
    figures.draw([figures.Panel('steps', metric, points)],
                 str(tmp_path / 'fig'))
    axes = plt.gca()
    return axes.get_yscale(), axes.yaxis.get_major_formatter()(.5, None)
  assert axis('student/acc@1', .01, .9) == ('linear', '50')
  assert axis('agree/kl', .1, 1.) == ('log', '0.5')
  assert axis('agree/kl', .4, .5)[0] == 'linear'
  assert axis('agree/kl', 0., .5)[0] == 'linear'
  monkeypatch.undo()
  plt.close('all')


def test_ranks_stand_best_above_and_are_read_across(tmp_path, monkeypatch):
  from matplotlib import pyplot as plt
  monkeypatch.setattr(plt, 'close', lambda figure: None)
  points = [figures.Point(figures.RANK, 'student/acc@1', 'ranked', label, label,
                          9, y, y - .01, y + .01, 3)
            for label, y in (('a', .2), ('b', .527), ('c', .1))]
  lines = figures.Panel('steps', 'student/acc@1', [figures.Point(
      'steps', 'student/acc@1', 'line', 'a', 'a', 0, .5, .5, .5, 1)])
  figures.draw([lines, figures.Panel(figures.RANK, 'student/acc@1', points)],
               str(tmp_path / 'fig'))
  axes = plt.gcf().axes[1]
  at = {text.get_text(): y for y, text in zip(
      axes.get_yticks(), axes.get_yticklabels())}
  assert at['c'] < at['a'] < at['b']
  assert [text.get_text() for text in axes.texts] == ['10.0', '20.0', '52.7']
  assert axes.get_xlabel() == 'Student accuracy (%)' and not axes.get_ylabel()
  assert axes.xaxis.get_major_formatter()(.5, None) == '50'
  monkeypatch.undo()
  plt.close('all')


def test_of_a_distance_the_smallest_stands_above(tmp_path, monkeypatch):
  from matplotlib import pyplot as plt
  monkeypatch.setattr(plt, 'close', lambda figure: None)
  lines, ranks = (figures.Panel(x, 'agree/kl', [
      figures.Point(x, 'agree/kl', style, label, label, 9, y, y, y, 1)
      for label, y in (('a', .2), ('b', .5), ('c', .1))])
                  for x, style in (('steps', 'line'), (figures.RANK, 'ranked')))
  figures.draw([lines, ranks], str(tmp_path / 'fig'))
  labels = plt.gcf().axes[1].get_yticklabels()
  assert [text.get_text() for text in labels] == ['b', 'a', 'c']  # From below.
  monkeypatch.undo()
  plt.close('all')


def test_a_student_from_a_checkpoint_is_told_from_one_from_scratch(
    make, tmp_path):
  words = [make('a'), make('b', init='gs://models/BiT-M-R50x1.npz')]
  labels = [row['label'] for row in draw(tmp_path, words, 'init')]
  assert labels == ['from scratch', 'from BiT-M-R50x1.npz', 'teacher']


def test_images_of_other_domains_are_bars_by_source_and_length(make, tmp_path):
  words = [make('a', .5, 100), make('b', .4, 10), make('c', .3, 10, images='a'),
           make('d', .2, 10, images='folder:/path/to/birds/')]
  rows = draw(tmp_path, words, 'ood')
  assert [(row['x'], row['label'], float(row['y'])) for row in rows[:-1]] == [
      ('food', '40 steps', .4), ('food', '400 steps', .5),
      ('a', '40 steps', .3), ('birds', '40 steps', .2)]


@pytest.mark.parametrize('kind', plot.KINDS)
def test_a_run_that_left_no_config_is_called_by_its_folder(
    kind, make, tmp_path):
  rows = draw(tmp_path, [make('lone_lr=0.1', config=False)], kind)
  assert 'lone_lr=0.1' in [row[key] for row in rows for key in ('label', 'x')]


def test_folders_of_one_name_are_not_one_run(make, tmp_path):
  lost = [make(f'{i}/x', .1 * i, config=False) for i in (1, 2)]
  rows = draw(tmp_path, lost, 'consistency')
  assert {(row['run'], row['label'], row['n']) for row in rows} == {
      ('1/x', '1/x', '1'), ('2/x', '2/x', '1')}
  known = [make(f'{i}/y', .1 * i, epochs=i) for i in (1, 2)]
  rows = draw(tmp_path, known, 'optimizers')
  assert len({row['run'] for row in rows if row['x_of'] == 'steps'}) == 2


@pytest.mark.parametrize('kind, options, message', [
    ('patience', {'finished': False}, 'has no result.json'),
    ('consistency', {'drop': ['train/loss']}, 'has no train/loss; it has'),
    ('consistency', {'drop': ['test/acc@1']}, 'neither of test/acc@1 and stud'),
    ('sweep', {'drop': ['val/acc@1']}, 'none of val/acc@1'),
    ('patience', {'config': False, 'drop': ['train/epoch']}, 'no train/epoch'),
    ('patients', {}, "no kind of figure 'patients'; did you mean patience")])
def test_what_is_missing_is_one_clear_line(
    kind, options, message, make, tmp_path):
  with pytest.raises(ValueError, match=message):
    plot.plot([make('a', **options)], kind, str(tmp_path / 'fig'))


def test_a_folder_that_is_no_run_is_one_clear_line(tmp_path):
  with pytest.raises(ValueError, match='There is no folder /nowhere'):
    plot.plot(['/nowhere=x'], 'sweep', str(tmp_path / 'fig'))
  with pytest.raises(ValueError, match='has no metrics.jsonl'):
    plot.plot([str(tmp_path)], 'sweep', str(tmp_path / 'fig'))


def test_modes_of_a_family_share_a_colour_in_every_figure():
  alone = figures._looks(['same/ic'])['same/ic']
  looks = figures._looks(['labels', 'fix/cc', 'same/rc', 'same/ic'])
  assert looks['same/ic'] == alone
  assert looks['same/rc'][0] == alone[0] and looks['same/rc'] != alone
  assert len({colour for colour, _ in looks.values()}) == 3
  many = figures._looks([str(i) for i in range(21)])
  assert len(set(many.values())) == 21
