"""Choices by name: plug-in files, table rows, keys; errors name neighbours."""

import difflib
import functools
import importlib
import inspect
import pkgutil

from big_distill import kinds


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

  So are values of another type than the function is annotated with.
  """
  takes = inspect.signature(function).parameters
  if not any(p.kind == p.VAR_KEYWORD for p in takes.values()):
    for option in options:
      check(f'option of {function.__name__}', option, takes)
  for option, value in options.items():
    if option in takes and not kinds.fits(takes[option].annotation, value):
      raise ValueError(
          f'The option {option}={value!r} of {function.__name__} should be '
          f'{kinds.says(takes[option].annotation)}.')
  return functools.partial(function, **options)
