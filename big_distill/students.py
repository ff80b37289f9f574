"""A student as it starts: with random values, or with those of a checkpoint."""

from collections.abc import Mapping
from typing import Any

from big_distill import params as params_lib
from big_distill import pretrained
from big_distill import registry

HEADS = ('keep', 'drop', 'reshape')  # What becomes of the head of a checkpoint.


def create(section: Mapping[str, Any], size: int,
           num_classes: int | None = None, seed: int = 0) -> pretrained.Made:
  """The model that config.student describes, from a file or with random values.

  `section` has the arguments of pretrained.build. With `init`, a checkpoint, it needs
  none of them: the file tells them all, mean and std of its input included,
  and those that are given must agree with it. `head` says what becomes of the
  file's head (see init_from). A new head has `num_classes`, unless the section
  says another number. Raises ValueError as pretrained.create and pretrained.load.
  """
  section = {**section}
  init, head = section.pop('init', None), section.pop('head', 'keep')
  registry.check("way with a checkpoint's head", head, HEADS)
  if not init or head != 'keep':
    section.setdefault('num_classes', num_classes)
    if not section['num_classes']:
      raise ValueError('Neither data nor teachers tell how many classes the '
                       'student has: set config.student.num_classes.')
  if not init:
    return pretrained.create(size=size, seed=seed, **section)
  described = pretrained.card(init)
  family = section.setdefault('family', described.family)
  if family != described.family:
    raise ValueError(f'init={init} is a {described.family}, not a {family}: '
                     'leave out family, or give another file.')
  model, params = pretrained.create(
      size=size, seed=seed, **{**described.options, **section})
  return model, init_from(params, init, head)


def init_from(params: Any, file: Any, head: str = 'keep') -> Any:
  """The values of a checkpoint, in a tree of the shapes of `params`.

  head='keep' keeps the head of the checkpoint, and needs as many classes;
  'drop' takes that of `params`; 'reshape' keeps it if the numbers of classes
  are equal and drops it otherwise. Raises ValueError where shapes differ.
  """
  registry.check("way with a checkpoint's head", head, HEADS)
  wanted = params_lib.flatten(params)
  family = pretrained.family_of(wanted)
  size = family.at_size(wanted)[1] if family else None
  given = params_lib.flatten(pretrained.load(file, size)[1])
  is_head = {name for name in wanted if name.startswith('head/')}
  differs = any(given[name].shape != wanted[name].shape
                for name in is_head & given.keys())
  if head == 'drop' or (head == 'reshape' and differs):
    given |= {name: wanted[name] for name in is_head}
  params_lib.check_match(given, wanted, f'The checkpoint {file} with '
                         f'head={head!r} (of {", ".join(HEADS)})')
  return params_lib.unflatten({name: given[name].astype(leaf.dtype)
                               for name, leaf in wanted.items()})
