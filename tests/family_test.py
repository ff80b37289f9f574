"""A family beside each other: what its runs left, and what its students take."""

import csv

import pytest

from big_distill import cards
from big_distill import pretrained
from big_distill import runs
from big_distill.tools import family

RESULT = dict(agreement_top1=.8, kl=None, student_params=1234, student_flops=10**6)


def finish(folder, top1, **model):
  """Leaves what a finished run leaves."""
  folder.mkdir()
  made, params = pretrained.create(size=16, num_classes=3, **model)
  pretrained.save(folder / 'student.npz', params,
                  card=cards.of(made, size=16))
  runs.save(folder / 'result.json', {**RESULT, 'student_top1': top1})


def test_a_family_is_a_table_a_csv_and_a_figure(tmp_path, capsys):
  pytest.importorskip('matplotlib', reason='matplotlib is not installed')
  finish(tmp_path / 'small', .25, family='bit', depth=(1,), width=.125)
  finish(tmp_path / 'vit', .5, family='vit', variant='mu/8')
  (tmp_path / 'unfinished').mkdir()
  family.show([str(tmp_path / name) for name in ('small', 'unfinished', 'vit')],
              str(tmp_path / 'family'))
  head, *rows = capsys.readouterr().out.splitlines()
  assert head.split()[:3] == ['student', 'top-1', 'agreement']
  assert [row.split()[:3] for row in rows] == [
      ['small', '25.0%', '80.0%'], ['vit', '50.0%', '80.0%']]
  with open(tmp_path / 'family.csv') as file:
    small, vit = csv.DictReader(file)
  assert small['student_params'] == '1234' and vit['student_top1'] == '0.5'
  assert float(small['ms']) > 0 and small['kl'] == ''
  assert (tmp_path / 'family.png').read_bytes().startswith(b'\x89PNG')


def test_a_family_without_a_result_is_one_line(tmp_path):
  with pytest.raises(ValueError, match='No result is in .*name workdirs'):
    family.show([str(tmp_path)], str(tmp_path / 'family'))
