"""Folders of images as datasets: which files, of which classes, in which split.

PATH/train, PATH/test and so on are splits; a folder without them is one split,
named train. Sub-folders of a split are classes, if all its images are in one,
and are numbered in every split as they are in train.
"""

import hashlib
import os
import re
from typing import NamedTuple

from absl import logging
import tensorflow as tf
import tensorflow_datasets as tfds

from big_distill import contracts
from big_distill.contracts import Source

EXTENSIONS = ('.jpg', '.jpeg', '.png', '.gif', '.bmp')


class Listing(NamedTuple):
  """Paths of images, their labels, -1 where unknown, and names of classes."""
  files: list[str]
  labels: list[int]
  classes: tuple[str, ...]


def source(path: str, split: str) -> Source:
  """A split of a folder of images."""
  found = find(path, split)
  files = tf.constant(found.files, tf.string)
  labels = tf.constant(found.labels, tf.int32)
  n = len(found.files)
  return Source(
      f'folder:{path} {split}', n, found.classes,
      lambda i: (tf.io.read_file(files[i]), labels[i]),
      lambda i: found.files[i], ((n, 1),),
      contracts.fingerprint([os.path.relpath(file, os.path.expanduser(path))
                             for file in found.files]))


def find(path: str, split: str) -> Listing:
  """The Listing of a split as TFDS writes it: train[:90%], train+test[:50]."""
  path = os.path.expanduser(path)
  if not tf.io.gfile.isdir(path):
    raise ValueError(f'folder:{path} is not a folder.')
  names = re.findall(r'(?:^|\+)\s*([\w-]+)', split) or ['train']
  home = ('train' if tf.io.gfile.isdir(os.path.join(path, 'train'))
          else names[0])
  roots = {name: _root(path, name) for name in {*names, home}}
  images = {name: _images(root) for name, root in roots.items()}
  chosen = [(name, file) for name, some in _select(split, images)
            for file in images[name][some]]
  files = [os.path.join(roots[name], file) for name, file in chosen]

  classes = {_folder(file) for file in images[home]}
  if None in classes and len(classes) > 1:
    stray = next(file for file in images[home] if not _folder(file))
    logging.warning('%s: sub-folders are not taken for classes, since %s is in '
                    'none.', roots[home], stray)
  used = {_folder(file) for _, file in chosen}
  if None in classes | used:
    return Listing(files, [-1] * len(files), ())
  if used - classes:
    raise ValueError(f'folder:{path} has images of {min(used - classes)} in '
                     f'{split}, which is not a class of {home}.')
  classes = tuple(sorted(classes))
  number = {name: i for i, name in enumerate(classes)}
  return Listing(files, [number[_folder(file)] for _, file in chosen], classes)


def _root(path, name):
  """The folder of a split."""
  if tf.io.gfile.isdir(os.path.join(path, name)):
    return os.path.join(path, name)
  if name != 'train':
    raise ValueError(f'folder:{path} has no split {name!r}: without a '
                     'sub-folder of that name its images are all in train.')
  return path


def _images(root):
  """Images below a folder, relative to it, scattered over its classes.

  The order never changes, so that train[:90%] is one and the same fair sample.
  """
  found = [os.path.relpath(os.path.join(folder, file), root)
           for folder, _, files in tf.io.gfile.walk(root) for file in files
           if file.lower().endswith(EXTENSIONS)]
  # What starts with a dot was put there by a file manager, not by a person.
  found = [file for file in found
           if not any(part.startswith('.') for part in file.split(os.sep))]
  return sorted(found, key=lambda file: hashlib.md5(file.encode()).hexdigest())


def _folder(file):
  """The outermost folder that a file is in, or None."""
  return file.split(os.sep)[0] if os.sep in file else None


def _select(split, images):
  """[(name, slice)] that a TFDS split expression selects."""
  infos = {name: tfds.core.SplitInfo(name=name, shard_lengths=[len(files)],
                                     num_bytes=0)
           for name, files in images.items()}
  try:
    parts = tfds.core.ReadInstruction.from_spec(split).to_absolute(infos)
  except (ValueError, KeyError, AssertionError) as error:
    known = [f'{name} ({len(files)})' for name, files in images.items()]
    raise ValueError(f'The split {split!r} is not of the form train[:90%] or '
                     'train[:500]+train[600:], or not within the images of '
                     f'{", ".join(known)}.') from error
  return [(part.splitname, slice(part.from_, part.to)) for part in parts]
