"""Examples by name, class and split: which are chosen, and their labels.

Folders, lists and tables find names of examples; what a split expression
selects of them, and how classes are numbered, is the same for all.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
import hashlib
import os
import re
from typing import Any, NamedTuple

from absl import logging

SPLITS = {  # Usual names, in any case, of what TFDS calls by the first.
    'train': ('train', 'training', 'trainset'),
    'validation': ('validation', 'valid', 'val', 'dev', 'valset'),
    'test': ('test', 'testing', 'testset'),
}
NAMES = {alias: name for name, some in SPLITS.items() for alias in some}
FILLERS = {'image', 'images', 'img', 'imgs', 'photos', 'pictures', 'jpg',
           'data', 'dataset', 'set', 'split'}  # As in train_images, Test-Set.


class Example(NamedTuple):
  """name: its path or number; label: the name of its class, or None."""
  name: Any
  label: str | None


class Listing(NamedTuple):
  """Names of examples, their labels, -1 where unknown, and names of classes.

  `splits` are all that the dataset has, whatever was chosen.
  """
  names: list[Any]
  labels: list[int]
  classes: tuple[str, ...]
  splits: tuple[str, ...] = ()


def scatter(examples: Iterable[Example]) -> list[Example]:
  """Examples in an order that depends on their names alone.

  It never changes, so that train[:90%] is one and the same fair sample.
  """
  return sorted(examples, key=lambda example: hashlib.md5(
      os.fsencode(example.name)).hexdigest())


def usual(name: str) -> str | None:
  """What TFDS calls a split of a usual name, as Train or val2017; else None."""
  words = re.findall('[a-z]+', name.casefold())
  words = [word for word in words if word not in FILLERS]
  return NAMES.get(words[0]) if len(words) == 1 else None


def resolve(name: str, known: Iterable[str]) -> str | None:
  """The known split that is asked for by its own or a usual name, or None.

  Raises ValueError if several have that usual name.
  """
  known = list(known)
  for equal in (lambda each: each == name,
                lambda each: each.casefold() == name.casefold(),
                lambda each: usual(each) and usual(each) == usual(name)):
    found = [each for each in known if equal(each)]
    if len(found) > 1:
      raise ValueError(f'The split {name!r} may be each of {", ".join(found)}: '
                       'ask for one by its own name.')
    if found:
      return found[0]
  return None


def choose(title: str, split: str, known: Iterable[str],
           find: Callable[[str], list[Example]], labelled: bool = True,
           classes: str | Sequence[str] | None = None) -> Listing:
  """What a split expression as TFDS writes it selects: train[:90%], all.

  known: names of splits; `find` gives the examples of one.
  labelled: False leaves labels out, and needs no classes.
  classes: 'numeric' or the names in order, see `number`.
  Raises ValueError for a split or a class that is not there.
  """
  known = list(known)
  asked = re.findall(r'(?:^|\+)\s*([\w-]+)', split) or ['train']
  homes = {name: resolve(name, known) for name in asked}
  if split == 'all' and not homes[split]:
    homes = {name: name for name in known}
  for name, home in homes.items():
    if not home:
      raise ValueError(f'{title} has no split {name!r}; its splits are '
                       f'{", ".join(known)}.')
  found = {home: find(home) for home in homes.values()}
  chosen = [example for name, some in _select(split, {
      name: found[home] for name, home in homes.items()})
            for example in found[homes[name]][some]]
  names = [example.name for example in chosen]
  used = {example.label for example in chosen}
  if labelled and None in used and len(used) > 1:
    logging.warning('%s: labels of %s are left out, since %d of its %d images '
                    'have none.', title, split,
                    sum(example.label is None for example in chosen),
                    len(names))
  if not labelled or None in used:
    return Listing(names, [-1] * len(names), (), tuple(known))
  home = resolve('train', known) or homes[asked[0]]
  trained = {example.label for example in
             (found[home] if home in found else find(home))}
  if None in trained:  # Then labels of this split are numbered by themselves.
    trained = used
  if classes in (None, 'numeric'):
    extra = sorted(used - trained)
    if extra:
      raise ValueError(
          f'{title} has images of {extra[0]} in {split}, which is not a class '
          f'of {home}: its classes are {_few(sorted(trained))}. Rename the one '
          'or the other, or leave labels out by data.label=None.')
  names_of = number(title, trained | used, classes)
  numbers = {name: i for i, name in enumerate(names_of)}
  return Listing(names, [numbers[example.label] for example in chosen],
                 names_of, tuple(known))


def number(title: str, found: set[str],
           classes: str | Sequence[str] | None) -> tuple[str, ...]:
  """Names of classes in the order of their labels.

  By the alphabet, unless `classes` is 'numeric' or a list of them, which may
  have more. Raises ValueError for classes that do not fit.
  """
  digits = all(re.fullmatch(r'\d+', name) for name in found)
  numeric = sorted(found, key=lambda name: (int(name), name)) if digits else []
  if classes == 'numeric':
    if not digits:
      word = min(name for name in found if not name.isdigit())
      raise ValueError(f"{title}: classes='numeric' orders names that are "
                       f'numbers, but a class is called {word}. Leave it out, '
                       'or give a list of the names.')
    return tuple(numeric)
  if classes and isinstance(classes, str):
    raise ValueError(f'data.classes is numeric or a list of names; given: '
                     f'{classes!r}.')
  if classes:
    missing = sorted(found - set(classes))
    if missing or len(set(classes)) < len(classes):
      raise ValueError(
          f'{title}: data.classes lists each class once, all of '
          f'{_few(sorted(found))}; '
          + (f'{_few(missing)} are not in it.' if missing
             else 'a name is in it twice.'))
    return tuple(classes)
  names = sorted(found)
  if digits and names != numeric:
    logging.info(
        '%s: classes are in the order %s, as texts, as torchvision has them; '
        "data.classes='numeric' orders them as numbers.", title, _few(names))
  return tuple(names)


def _few(names: Sequence[str], most: int = 8) -> str:
  more = len(names) - most
  return ', '.join(names[:most]) + (f' and {more} more' if more > 0 else '')


def _select(split: str, found: Mapping[str, Sequence]
            ) -> list[tuple[str, slice]]:
  """[(name, slice)] that a TFDS split expression selects."""
  import tensorflow_datasets as tfds  # What names mean is known without it.
  infos = {name: tfds.core.SplitInfo(name=name, shard_lengths=[len(some)],
                                     num_bytes=0)
           for name, some in found.items()}
  try:
    parts = tfds.core.ReadInstruction.from_spec(split).to_absolute(infos)
  except (ValueError, KeyError, AssertionError, NotImplementedError) as error:
    known = [f'{name} ({len(some)})' for name, some in found.items()]
    raise ValueError(f'The split {split!r} is not of the form train[:90%], '
                     'train[:500]+train[600:] or all, or not within the images '
                     f'of {", ".join(known)}.') from error
  return [(part.splitname, slice(part.from_, part.to)) for part in parts]
