"""Types as annotations have them: what fits one, and how it is called."""

from collections.abc import Mapping, Sequence
import numbers
import types
import typing
from typing import Any

WORDS = {'int': 'a whole number', 'float': 'a number', 'bool': 'True or False',
         'str': 'text', 'list': 'a list', 'section': 'a section',
         'none': 'None'}


def forms(kind: Any) -> dict[str, Any]:
  """{'int', 'float', 'bool', 'str', 'list', 'section' or 'none': the kinds inside}.

  Empty where anything will do.
  """
  origin = typing.get_origin(kind)
  if origin in (typing.Union, types.UnionType):
    return {name: inner for each in typing.get_args(kind)
            for name, inner in forms(each).items()}
  if kind in (None, type(None)):
    return {'none': ()}
  if kind in (int, float, bool, str):
    return {kind.__name__: ()}
  kind = origin or kind
  if isinstance(kind, type) and issubclass(kind, Mapping):
    return {'section': ()}
  if isinstance(kind, type) and issubclass(kind, Sequence):
    return {'list': tuple(each for each in typing.get_args(kind)
                          if each is not Ellipsis)}
  return {}


def says(kind: Any) -> str:
  """A type in words."""
  return ' or '.join(WORDS[name] for name in forms(kind)) or 'any value'


def fits(kind: Any, value: Any) -> bool:
  """Whether a value is of a type; an int will do for a float, not vice versa."""
  known = forms(kind)
  if not known or type(value).__module__.startswith('jax'):
    return True
  if isinstance(value, bool):
    return 'bool' in known
  if isinstance(value, str):
    return 'str' in known
  if isinstance(value, (list, tuple)):
    return 'list' in known
  if isinstance(value, Mapping) or hasattr(value, 'items'):
    return 'section' in known
  if value is None:
    return 'none' in known
  if isinstance(value, numbers.Integral):
    return 'int' in known or 'float' in known
  return isinstance(value, numbers.Real) and 'float' in known
