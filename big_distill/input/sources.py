"""Where images come from: TFDS datasets, folders, lists, tables, mixtures.

A source answers `fetch(index)` inside a tf.data graph, in any order, so that
the pipeline can start anywhere. What it keeps in memory is its `cache`:
'encoded' bytes, 'decoded' pixels, or 'none', which reads each example from
disk when it is asked for.
"""

from collections.abc import Mapping, Sequence
import os
from typing import Any

import numpy as np
import tensorflow as tf

from big_distill import contracts
from big_distill import registry
from big_distill.contracts import Source
from big_distill.input import caches
from big_distill.input import files
from big_distill.input import folders
from big_distill.input import lists
from big_distill.input import prepared
from big_distill.input import reading
from big_distill.input import tables

CACHES = tuple(caches.KEEP)
ON_CORRUPT = ('stop', 'skip')
ARCHIVES = {'.zip': 'unzip -q {0} -d {0}.d', **dict.fromkeys(
    ('.tar', '.tgz', '.gz', '.bz2', '.xz', '.zst'),
    'mkdir {0}.d && tar -xf {0} -C {0}.d')}


def load(name: str | None = None, split: str = 'train',
         data_dir: str | None = None, cache: str = 'encoded',
         corrupt: str = 'stop', image: str | None = None,
         label: str | None = 'label',
         classes: str | Sequence[str] | None = None,
         as_shown: bool | None = None,
         parts: Mapping[str, Mapping[str, Any]] | None = None,
         resident: bool = False) -> Source:
  """Opens `name` ('caltech12', 'folder:PATH') and keeps what `cache` says.

  PATH is a folder of images, a CSV or TSV list of them or Parquet files.

  image: the feature that images are in; None finds the only one.
  label: the feature that labels are in; None leaves them out, since they mean
    nothing to a student of other classes.
  classes: in which order classes of a PATH are numbered: None as texts,
    'numeric' as numbers, or a list of their names.
  as_shown: decodes images as a viewer shows them, see input/images.py. None
    does for a PATH and not for sets that TFDS prepared, whose published
    results are of images as TensorFlow decodes them.
  parts: in place of a name, a mixture {any: {'name': ..., 'weight': a whole
    number, and so on}}. Its images are decoded `as_shown` if any part is a
    PATH.
  resident: training renders on devices that hold all images; the cache then
    serves whoever fetches, so that 'none' is best.

  Raises ValueError for what is not there, empty, or cannot be read.
  """
  if bool(name) == bool(parts):
    raise ValueError('Data is either one name or several parts; given: '
                     f'name={name!r}, parts={sorted(parts or {})}.')
  for key, part in (parts or {}).items():
    if not hasattr(part, 'items') or not part.get('name'):
      raise ValueError(f'data.parts.{key} names no data: it should be like '
                       "dict(name='caltech12', weight=1).")
  if parts:
    if as_shown is None:
      as_shown = any(_by_path(part['name']) for part in parts.values())
    if classes or label not in (None, 'label'):
      raise ValueError('A mixture has no labels: leave data.label and '
                       'data.classes out.')
    common = dict(split=split, data_dir=data_dir, cache=cache, corrupt=corrupt,
                  image=image, as_shown=as_shown)
    return _mix([{**common, **part} for part in parts.values()])._replace(
        resident=resident)
  registry.check('cache', cache, CACHES)
  registry.check("answer to 'corrupt'", corrupt, ON_CORRUPT)
  if _by_path(name):
    source = _at_path(name.removeprefix('folder:'), split, corrupt == 'skip',
                      image=image, label=label, classes=classes)
  elif classes:
    raise ValueError(f'data.classes orders folders; TFDS has numbered those of '
                     f'{name}. Leave it out.')
  else:
    source = prepared.source(name, split, data_dir, image, label)
  if not source.num_examples:
    raise ValueError(f'The split {source.title} is empty: it has no images; '
                     'docs/images.md has formats and layouts.')
  source = source._replace(
      resident=resident,
      as_shown=_by_path(name) if as_shown is None else as_shown)
  if corrupt == 'skip':
    source = reading.without_corrupt(source)
  return caches.KEEP[cache](source)


def _by_path(name):
  return name.startswith('folder:')


def _at_path(path, split, skip, *, image, label, classes):
  """A folder of images, a list or a table of them."""
  place = os.path.expanduser(path)
  ending = os.path.splitext(place)[1].lower()
  if tf.io.gfile.exists(place) and not files.is_folder(place):
    if ending in ARCHIVES:
      raise ValueError(f'folder:{path} is an archive; unpack it and name the '
                       f'folder: {ARCHIVES[ending].format(path)}.')
    if ending in ('.csv', '.tsv'):
      return lists.source(path, split, image, label, classes, skip)
    if ending != '.parquet':
      raise ValueError(f'folder:{path} is no folder, .csv, .tsv or .parquet '
                       'file: name the folder of the images.')
  if ending == '.parquet' or (files.is_folder(place) and tables.find(place)):
    return tables.source(path, split, image, label, classes)
  if image or label not in (None, 'label'):
    raise ValueError(
        f'folder:{path} has labels by folders, no columns: leave data.image '
        'and data.label out, or set data.label=None.')
  return folders.source(path, split, bool(label), classes, skip)


def _mix(sections):
  """One source of several, whose weights say how often each one is seen."""
  weights = [section.pop('weight', 1) for section in sections]
  if not all(isinstance(weight, int) and weight > 0 for weight in weights):
    raise ValueError(f'Weights of data.parts are whole numbers from 1; given: '
                     f'{weights}.')
  sources = [registry.bind(load, **section)() for section in sections]
  if len({source.as_shown for source in sources}) > 1:
    raise ValueError('Parts of a mixture are decoded alike: set data.as_shown, '
                     'not that of single parts.')
  sizes = [source.num_examples for source in sources]
  firsts = np.cumsum([0, *sizes[:-1]])

  def fetch(index):
    part = tf.searchsorted(firsts, [index], side='right')[0] - 1
    image, _ = tf.switch_case(part, [
        lambda source=source, first=first: source.fetch(index - first)
        for source, first in zip(sources, firsts)])
    return image, tf.constant(-1)

  def name(index):
    part = np.searchsorted(firsts, index, side='right') - 1
    return sources[part].name(index - firsts[part])

  title = ' + '.join(f'{weight} x {source.title}' if weight > 1
                     else source.title
                     for weight, source in zip(weights, sources))
  return Source(title, sum(sizes), (), fetch, name, tuple(zip(sizes, weights)),
                contracts.fingerprint([
                    [source.fingerprint, weight]
                    for source, weight in zip(sources, weights)]),
                as_shown=sources[0].as_shown)
