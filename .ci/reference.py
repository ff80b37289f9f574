"""Two pages of the docs, read off the code when the site is built.

tools.md has each program's own words and its flags, api.md what is public in
the modules of API. Nothing is imported, so this takes no time and no packages.
"""

import ast
import inspect
import pathlib

from mkdocs.structure import files as mkdocs_files

ROOT = pathlib.Path(__file__).parent.parent
API = ['__init__', 'train', 'views', 'losses', 'optim', 'steps', 'teaching',
       'pretrained', 'cards', 'packed', 'runs', 'store', 'contracts']


def on_files(files, config):
  """Called by MkDocs: adds the pages to those that are files."""
  for name, text in (('tools.md', tools()), ('api.md', api())):
    files.append(mkdocs_files.File.generated(config, name, content=text))
  return files


def tools():
  """A section for each program: its docstring, then its flags."""
  programs = [ROOT / 'big_distill/main.py', *(
      file for file in sorted((ROOT / 'big_distill/tools').glob('*.py'))
      if "\nif __name__ == '__main__':" in file.read_text())]
  parts = ['# Programs\n\nWhat `--help` says. `big-distill` is `python -m '
           'big_distill.main`, `big-distill-NAME` is `python -m '
           'big_distill.tools.NAME`.\n']
  for file in programs:
    tree = ast.parse(file.read_text())
    name = ('big-distill' if file.stem == 'main' else f'big-distill-{file.stem}')
    parts.append(f'## {name}\n\n```text\n{ast.get_docstring(tree)}\n```\n')
    rows = sorted(flags(tree))
    if rows:
      parts.append('| flag | default | |\n|---|---|---|')
      parts.append('\n'.join(f'| `--{flag}` | {default} | {text} |'
                             for flag, default, text in rows) + '\n')
  return '\n'.join(parts)


def flags(tree):
  """(name, default, help) of each flag that a module defines."""
  for node in ast.walk(tree):
    if isinstance(node, ast.Call) and ast.unparse(node.func).startswith((
        'flags.DEFINE_', 'config_flags.DEFINE_')):
      name, default, *rest = node.args
      name, default = (each.value if isinstance(each, ast.Constant)
                       else ast.unparse(each) for each in (name, default))
      text = next((each.value for each in rest if isinstance(each, ast.Constant)
                   and isinstance(each.value, str)), '')
      shown = '' if default in (None, False, '', '[]') else f'`{default}`'
      yield name, shown, text.replace('|', '\\|')


def api():
  """A section for each module of API: public functions and classes."""
  parts = ['# API\n\nWhat a notebook or a program of one\'s own would call. '
           'Arguments of annotations in letters: b batch, d devices, h w image, '
           'c classes, k teachers, f features.\n']
  for name in API:
    tree = ast.parse((ROOT / f'big_distill/{name}.py').read_text())
    title = 'big_distill' if name == '__init__' else f'big_distill.{name}'
    parts.append(f'## {title}\n\n{_words(ast.get_docstring(tree))}\n')
    for node in tree.body:
      if isinstance(node, ast.FunctionDef | ast.ClassDef) and (
          not node.name.startswith('_')):
        parts += _entry(node, node.name)
        if isinstance(node, ast.ClassDef):
          for inner in node.body:
            if isinstance(inner, ast.FunctionDef) and (
                not inner.name.startswith('_') and ast.get_docstring(inner)):
              parts += _entry(inner, f'{node.name}.{inner.name}')
  return '\n'.join(parts)


def _entry(node, name):
  """A heading, the signature and the docstring; nothing without docstring."""
  text = ast.get_docstring(node)
  if not text:
    return []
  signature = ''
  if isinstance(node, ast.FunctionDef):
    back = f' -> {ast.unparse(node.returns)}' if node.returns else ''
    signature = f'```python\n{name}({ast.unparse(node.args)}){back}\n```\n\n'
  return [f'### {name}\n\n{signature}{_words(text)}\n']


def _words(text):
  """A docstring, kept as its author has laid it out."""
  return f'```text\n{inspect.cleandoc(text or "")}\n```'
