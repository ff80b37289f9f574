"""Config files: the user's own, or those that come with the package.

In a checkout these are configs/, beside big_distill; an installation has them
inside big_distill.
"""

import os
import pathlib
import sys
import types

from big_distill import registry


def folder() -> pathlib.Path:
  """Of the configs that come with the package."""
  package = pathlib.Path(__file__).parent
  inside = package / 'configs'
  return inside if inside.is_dir() else package.parent / 'configs'


def find(name: str) -> str:
  """The path of a config file: as it is given if there is one, else of ours.

  Ours are called FILE.py or configs/FILE.py; '.py' may be left out. Raises
  ValueError, with what is near, if there is neither.
  """
  if os.path.isfile(name):
    return name
  place = os.path.dirname(name)
  beside = pathlib.Path(place).glob('*.py')
  known = {os.path.join(place, path.name): str(path) for path in beside}
  if place in ('', 'configs'):
    known = {os.path.join(place, path.name): str(path)
             for path in sorted(folder().glob('*.py'))} | known
  name = f'{name}.py' if f'{name}.py' in known else name
  registry.check('config file', name, known)
  return known[name]


def importable(path: str) -> None:
  """Has a config file's `from configs import NAME` find NAME.

  Beside the file, if its folder is called configs, then among ours.
  """
  beside = os.path.dirname(os.path.abspath(path))
  own = [beside] if os.path.basename(beside) == 'configs' else []
  package = sys.modules.setdefault('configs', types.ModuleType('configs'))
  package.__path__ = [*dict.fromkeys([*own, str(folder())])]
