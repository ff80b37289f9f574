"""Choices by name: plug-in files, table rows, keys; errors name neighbours."""

import difflib
import functools
import importlib
import inspect
import numbers
import pkgutil
import types
import typing

PLAIN = {  # Annotation: (what fits it, how it is called).
    str: (str, 'text'), int: (numbers.Integral, 'a whole number'),
    float: (numbers.Real, 'a number'), bool: (bool, 'True or False'),
    type(None): (type(None), 'None')}


def check(kind, name, known):
  """Raises ValueError unless `name` is among `known`; offers the nearest."""
  known = [str(each) for each in known]
  if str(name) in known:
    return
  near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
  hint = (f'did you mean {" or ".join(near)}?' if near
          else f'known: {", ".join(known)}.')
  raise ValueError(f'There is no {kind} {name!r}; {hint}')


def load(folder, name):
  """load('models', 'bit') -> the module big_distill.models.bit."""
  package = importlib.import_module(f'big_distill.{folder}')
  files = [module.name for module in pkgutil.iter_modules(package.__path__)]
  check(folder.removesuffix('s'), name, files)
  return importlib.import_module(f'big_distill.{folder}.{name}')


def bind(function, **options):
  """partial(function, **options), refusing options it does not have.

  So are values of another type than the function is annotated with, where that
  is a plain one: text, a number, True or False.
  """
  takes = inspect.signature(function).parameters
  if not any(p.kind == p.VAR_KEYWORD for p in takes.values()):
    for option in options:
      check(f'option of {function.__name__}', option, takes)
  for option, value in options.items():
    if option in takes:
      _check_type(function.__name__, option, value, takes[option].annotation)
  return functools.partial(function, **options)


def _check_type(function, option, value, annotation):
  """Raises ValueError unless a value fits a plain type, or a union of those."""
  union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
  kinds = typing.get_args(annotation) if union else (annotation,)
  if not all(kind in PLAIN for kind in kinds):
    return
  fits = {type(value)} & {*kinds} if isinstance(value, bool) else isinstance(
      value, tuple(PLAIN[kind][0] for kind in kinds))
  if not fits:
    raise ValueError(f'The option {option}={value!r} of {function} should be '
                     f'{" or ".join(PLAIN[kind][1] for kind in kinds)}.')
