"""Answers that a teacher gave beforehand, as files: written once, then read.

A recording is a folder: manifest.json says whose answers to what these are,
answers-00000.npy and so on hold float16 [SHARD, c], the mean probabilities of
SHARD examples each, in the order of the source. tools/record.py writes it; a
run that names it must agree with its manifest, field by field.
"""

import hashlib
import io
import json

from etils import epath
import jax
import numpy as np

from big_distill import params as params_lib
from big_distill import views

SHARD = 1024


def manifest(teacher, source, mode, seed, fraction=views.FRACTION,
             reduced=False):
  """What decides a teacher's answers in a mode: a dict that JSON can hold."""
  return {
      'teacher': checksum(teacher.params),
      'dtype': np.dtype(teacher.model.dtype).name,
      'data': source.title,
      'examples': source.num_examples,
      'fingerprint': source.fingerprint,
      'view': str(mode.teacher.at(teacher.size)),
      'fraction': fraction,
      'reduced': reduced,
      'votes': mode.votes,
      'seed': seed,
      'classes': teacher.num_classes,
  }


def checksum(params):
  """A number of names, shapes and values, as hexadecimal digits."""
  digest = hashlib.sha256()
  for name, leaf in sorted(params_lib.flatten(params).items()):
    leaf = np.ascontiguousarray(jax.device_get(leaf))
    digest.update(f'{name} {leaf.dtype} {leaf.shape}'.encode())
    digest.update(leaf.tobytes())
  return digest.hexdigest()[:16]


def check(folder, wanted):
  """Raises ValueError naming the first field that is not as wanted."""
  path = epath.Path(folder) / 'manifest.json'
  if not path.exists():
    raise ValueError(f'There is no recording in {folder}; make one with '
                     'python -m big_distill.tools.record.')
  written = json.loads(path.read_text())
  for field, want in wanted.items():
    if written.get(field) != want:
      raise ValueError(f'The recording {folder} has {field}='
                       f'{written.get(field)!r}, this config {field}={want!r}: '
                       'record again, into another folder.')


def begin(folder, wanted):
  """Writes the manifest, or checks the one that is there."""
  folder = epath.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  if not (folder / 'manifest.json').exists():
    _write(folder / 'manifest.json', json.dumps(wanted, indent=2).encode())
  check(folder, wanted)


def shards(num_examples):
  """[(first, last)] of the examples in each shard."""
  return [(first, min(first + SHARD, num_examples))
          for first in range(0, num_examples, SHARD)]


def path_of(folder, shard):
  return epath.Path(folder) / f'answers-{shard:05d}.npy'


def write(folder, shard, answers):
  """Keeps one shard, whole or not at all."""
  buffer = io.BytesIO()
  np.save(buffer, answers.astype(np.float16))
  _write(path_of(folder, shard), buffer.getvalue())


def _write(path, content):
  partial = path.with_name(path.name + '.partial')
  partial.write_bytes(content)
  partial.replace(path)


def read(folder, wanted):
  """All answers, float16 [n, c], of a recording that agrees with `wanted`."""
  check(folder, wanted)
  spans = shards(wanted['examples'])
  missing = [shard for shard in range(len(spans))
             if not path_of(folder, shard).exists()]
  if missing:
    raise ValueError(f'The recording {folder} lacks {len(missing)} of '
                     f'{len(spans)} shards, the first being {missing[0]}: run '
                     'the command that records it again.')
  answers = np.concatenate([
      np.load(io.BytesIO(path_of(folder, shard).read_bytes()))
      for shard in range(len(spans))])
  want = (wanted['examples'], wanted['classes'])
  if answers.shape != want:
    raise ValueError(f'The recording {folder} has answers of shape '
                     f'{answers.shape} in place of {want}: record it anew.')
  return answers


def attach(batches, recordings):
  """Adds 'answers' to batches: {name: [b, c]}, by the examples' indices."""
  for batch in batches:
    answers = {name: answers[batch['index']]
               for name, answers in recordings.items()}
    yield {**batch, 'answers': answers}
