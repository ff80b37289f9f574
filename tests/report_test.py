"""The page on a real run: its numbers are the log's, and a browser shows it.

One run is trained; the others are it with another config, less of its files.
"""

import base64
import html
import http.server
import io
import json
import os
import pathlib
import queue
import re
import shutil
import subprocess
import threading

import numpy as np
from PIL import Image
import pytest

from big_distill import runs
from big_distill import train
from big_distill import writers
from big_distill.input import pipeline
from big_distill.page import evidence as evidence_lib
from big_distill.page import pictures
from big_distill.tools import report
from configs import quickstart


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  """A finished run of four steps, with checkpoints."""
  workdir = tmp_path_factory.mktemp('runs') / 'first'
  config = quickstart.get_config('tiny=True')
  config.total_steps = 4
  config.checkpoints = dict(every_steps=2)
  with writers.Writer(str(workdir)) as writer:
    result = train.train(config, str(workdir), pipeline, writer)
  runs.save(workdir / 'result.json', result)
  return workdir


def altered(workdir, name, drop=(), rows=lambda name: True, **changes):
  """A copy of a run, less some files and metrics, with another config."""
  copy = workdir.parent / name
  shutil.copytree(workdir, copy, ignore=shutil.ignore_patterns(
      'answers.npz', 'report.html', *drop))
  config = runs.load(copy / 'config.json')
  runs.save(copy / 'config.json', {**config, **changes})
  kept = [{name: value for name, value in row.items() if rows(name)}
          for row in runs.rows(copy / 'metrics.jsonl')]
  (copy / 'metrics.jsonl').write_text(''.join(
      json.dumps(row) + '\n' for row in kept))
  return copy


def page_of(*folders):
  path = report.report([str(folder) for folder in folders], pipeline)
  return pathlib.Path(path).read_text(encoding='utf-8')


@pytest.fixture(scope='module')
def page(workdir):
  return page_of(workdir)


def images_of(page):
  return [np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
          for data in re.findall('data:image/jpeg;base64,([^"]*)"', page)]


def test_answers_are_those_that_the_log_measured(workdir, page):
  last = runs.read(workdir)
  found = evidence_lib.gather(last, pipeline)
  answers = found.answers
  assert answers.accuracy('student') == pytest.approx(last.last('student/acc@1'))
  assert answers.accuracy('teacher') == pytest.approx(last.last('teacher/acc@1'))
  assert answers.agree.mean() == pytest.approx(last.last('agree/top1'))
  assert answers.kl.mean() == pytest.approx(last.last('agree/kl'), abs=1e-5)
  for name in ('student/acc@1', 'teacher/acc@1', 'agree/top1'):
    assert f'{last.last(name):.1%}'.replace('%', ' %') in page


def test_photographs_are_the_ones_that_were_asked_about(workdir):
  found = evidence_lib.gather(runs.read(workdir), pipeline)
  places = [3, 0, 41]
  shown = pictures.photographs(found.source, places, pipeline)
  batch = next(pipeline.eval_batches(found.source, [
      pictures.CENTRAL.at(pictures.SIZE)], 64, 0, fraction=1.))
  assert (batch['label'][batch['mask'] > 0] == found.answers.label).all()
  for i in places:
    assert (shown[i] == batch['views'][f'central@{pictures.SIZE}'][i]).all()


def test_a_large_split_is_asked_about_evenly(workdir, monkeypatch):
  monkeypatch.setattr(evidence_lib, 'MOST', 8)
  copy = altered(workdir, 'few')
  whole = evidence_lib.gather(runs.read(workdir)._replace(path=str(copy)),
                              pipeline)
  assert whole.whole == 64 and len(whole.answers) == 8
  batch = next(pipeline.eval_batches(
      pipeline.load('caltech12', 'test[:64]'), [pictures.CENTRAL.at(8)], 64, 0))
  assert (whole.answers.label == batch['label'][::8]).all()


def test_the_sheet_is_what_training_saw(workdir):
  found = evidence_lib.gather(runs.read(workdir), pipeline)
  sheet = pictures.sheet(found.lessons, pipeline)
  assert 0 < sheet.share < 1
  photograph, student, teacher = sheet.rows
  assert [row.title for row in sheet.rows] == ['photograph', 'student', 'teacher']
  assert student.view == teacher.view == 'inception#both@16'
  batch = next(pipeline.train_batches(
      found.lessons.source, [found.lessons.room.sees], 32, 0, sheet.step,
      sheet.step + 1))
  raw = batch['views'][student.view][:8].astype(float)
  mixed = sheet.share * raw + (1 - sheet.share) * np.roll(raw, 1, axis=0)
  assert np.abs(np.stack(student.images) - mixed).max() < 1.01  # It is rounded.
  assert np.abs(mixed - raw).mean() > 5  # The mixture is to be seen.
  assert all((a == b).all() for a, b in zip(student.images, teacher.images))
  assert len(sheet.captions) == 8 and any('+' in each for each in sheet.captions)


def test_a_page_is_one_file_that_fetches_nothing(page):
  assert len(page) < 2e6
  assert re.findall(r'(?:src|href)="(?!data:image/jpeg|#)', page) == []
  assert not re.search(r'url\(|@import|https?://(?!www\.w3\.org/2000/svg)', page)
  assert len(images_of(page)) >= 8 * 3 + 12
  assert all(image.std() > 0 for image in images_of(page))
  assert page.count('<h1>') == 1 and 'alt=""' not in page
  assert not re.search(r'<img(?![^>]*alt=)', page)


def test_answers_are_kept_until_the_student_changes(workdir, monkeypatch):
  copy = altered(workdir, 'kept')
  first = evidence_lib.gather(runs.read(copy), pipeline)
  ask = evidence_lib._ask
  monkeypatch.setattr(evidence_lib, '_ask', None)
  again = evidence_lib.gather(runs.read(copy), pipeline)
  assert (again.answers.logits['student'] == first.answers.logits['student']
          ).all()
  monkeypatch.setattr(evidence_lib, '_ask', ask)
  with np.load(copy / 'student.npz') as file:
    arrays = {name: file[name] for name in file.files}
  arrays['head/bias'] = arrays['head/bias'] + np.eye(12, dtype=np.float32)[3] * 99
  np.savez(copy / 'student.npz', **arrays)
  other = evidence_lib.gather(runs.read(copy), pipeline)
  assert (other.answers.choice['student'] == 3).all()
  (copy / 'answers.npz').write_bytes(b'PK cut short')
  evidence_lib.gather(runs.read(copy), pipeline)


def test_a_run_that_is_not_finished_answers_by_its_newest_checkpoint(workdir):
  copy = altered(workdir, 'unfinished', drop=['result.json', 'student.npz'])
  before = sorted(copy.rglob('*'))
  found = evidence_lib.gather(runs.read(copy), pipeline)
  assert found.step == 4
  whole = evidence_lib.gather(runs.read(workdir), pipeline)
  np.testing.assert_allclose(found.answers.logits['student'],
                             whole.answers.logits['student'], atol=1e-4)
  assert sorted({*copy.rglob('*')} - {*before}) == [copy / 'answers.npz']
  assert 'by the student of step 4' in page_of(copy)
  shutil.rmtree(copy / 'checkpoints')
  assert 'no student.npz and no checkpoint yet' in page_of(copy)


def test_without_labels_there_are_agreement_and_kl(workdir):
  config = runs.load(workdir / 'config.json')
  data = {**config['evals']['agree']['data'], 'label': None}
  copy = altered(
      workdir, 'unlabelled', rows=lambda name: 'acc@' not in name,
      data={**config['data'], 'label': None},
      evals={'agree': {**config['evals']['agree'], 'data': data}})
  said = page_of(copy)
  assert 'The photographs have no labels' in said
  assert 'Calibration is measured against labels' in said
  assert 'Agreement with the teacher' in said and 'student right' not in said
  assert 'Student&#x27;s top-1' not in said and 'Agreement' in said
  assert 'departs from its teacher' in said and 'taken for' in said


def test_without_a_teacher_the_student_is_shown_alone(workdir):
  config = runs.load(workdir / 'config.json')
  evals = {'student': config['evals']['student']}
  copy = altered(workdir, 'labels',
                 rows=lambda name: name.split('/')[0] not in ('agree', 'teacher'),
                 teachers={'labels': {'labels': True}}, evals=evals)
  said = page_of(copy)
  assert 'no teacher that looks at images' in said
  assert 'there is no teacher to disagree with' in said
  assert 'student right' in said and 'teacher right' not in said


def test_of_images_that_are_gone_the_page_says_so(workdir):
  config = runs.load(workdir / 'config.json')
  copy = altered(workdir, 'gone', data={
      **config['data'], 'name': 'folder:/srv/my photos/gone'})
  said = page_of(copy)
  assert 'Not shown: ' in said and '/srv' not in said and '…/gone' in said
  assert 'Training loss' in said


def chromium():
  return next((path for name in ('chromium', 'chromium-browser',
                                 'google-chrome') if (path := shutil.which(name))),
              None)


# Frames are as wide as a phone; windows have a least width.
PROBE = '''<script>
window.told = [];
addEventListener('error', event => told.push(event.message));
addEventListener('securitypolicyviolation', event =>
    told.push(event.violatedDirective + ' ' + event.blockedURI));
</script>'''
FRAME = '<iframe style="border:0;height:900px;width:{}px" srcdoc="{}"></iframe>'
LOOK = '''<script>
async function look({contentWindow: frame, contentDocument: inside}) {
  const images = [...inside.images];
  images.forEach(image => image.loading = 'eager');
  const broken = (await Promise.allSettled(images.map(image => image.decode())))
      .filter(({status}) => status !== 'fulfilled').length;
  const svg = inside.querySelector('svg.plot');
  const box = svg.getBoundingClientRect();
  svg.dispatchEvent(new frame.PointerEvent('pointermove', {
      clientX: box.left + box.width * .9, clientY: box.top + 40}));
  const tip = inside.querySelector('.tip');
  return {told: frame.told, images: images.length, broken,
          tip: tip.hidden ? '' : tip.textContent, inner: frame.innerWidth,
          wide: inside.documentElement.scrollWidth};
}
addEventListener('load', async () => {
  const found = [];
  for (const frame of document.querySelectorAll('iframe')) {
    found.push(await look(frame).catch(error => ({told: [`${error}`]})));
  }
  fetch('/', {method: 'POST', body: JSON.stringify(found)});
});
</script>'''


def browse(text, profile):
  """What a page that Chromium opens posts back."""
  posted = queue.Queue()

  class Handler(http.server.BaseHTTPRequestHandler):
    log_message = lambda self, *args: None

    def do_GET(self):
      self.send_response(200)
      self.send_header('Content-Type', 'text/html; charset=utf-8')
      self.end_headers()
      self.wfile.write(text.encode())

    def do_POST(self):
      posted.put(json.loads(self.rfile.read(int(
          self.headers['Content-Length']))))
      self.send_response(204)
      self.end_headers()

  with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    browser = subprocess.Popen(
        [chromium(), '--headless', '--no-sandbox', '--disable-gpu',
         '--disable-quic', '--no-first-run', '--disable-background-networking',
         '--disable-component-update', '--disable-sync', '--no-proxy-server',
         f'--user-data-dir={profile}', '--window-size=1400,1000',
         '--remote-debugging-port=0', f'http://127.0.0.1:{server.server_port}/'],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=os.environ | {'HOME': str(profile)})
    try:
      return posted.get(timeout=120)
    finally:
      browser.terminate()
      browser.wait()
      server.shutdown()


@pytest.mark.skipif(not chromium(), reason='There is no Chromium to open the '
                    'page in: apt-get install chromium.')
def test_a_browser_shows_all_of_it_at_any_width(workdir, page, tmp_path):
  other = altered(workdir, 'a_run_of_a_rather_long_name_as_people_give_them')
  shown = [(width, each.replace('<head>', f'<head>{PROBE}', 1))
           for each in (page, page_of(workdir, other)) for width in (360, 1280)]
  found = browse('<!doctype html>' + LOOK + ''.join(
      FRAME.format(width, html.escape(each)) for width, each in shown),
                 tmp_path)
  for (width, each), seen in zip(shown, found, strict=True):
    assert seen['told'] == [] and seen['broken'] == 0
    assert seen['images'] == len(images_of(each)) > 30
    assert seen['inner'] == width and seen['wide'] <= width
    assert re.match(r'step \d+\D', seen['tip'])
