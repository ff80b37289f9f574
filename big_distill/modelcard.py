"""A model card: what someone who gets exported files must know about them.

card.json has the facts, README.md says them. Of a run, its workdir tells what
taught the model, on what data, and how well it did; a checkpoint alone tells what
its own card does. What no file can know, such as licences, is left to fill in.
"""

from collections.abc import Mapping, Sequence
import os
import pathlib
import re
from typing import Any

import jax

from big_distill import exported
from big_distill import params as params_lib
from big_distill import runs
from big_distill import served as served_lib
from big_distill.formats import stablehlo

TO_FILL_IN = ('licence of the model', 'licence of the training images',
              'licence of the teacher', 'intended use', 'known limits')
OPEN = 'TO FILL IN'
# Beginnings of what metrics.jsonl measures, other than the course of training.
COURSE = ('train/', 'time/', 'step')


def facts(served: served_lib.Served, run: runs.Run | None,
          rows: Sequence[exported.Row]) -> dict[str, Any]:
  """All that is known, in values that JSON can hold."""
  card = served.card
  config = (run.config if run and run.config
            else card.trained_by.get('config', {}))
  # Of a model that was not distilled, it may be the name of a file.
  sections = config if isinstance(config, Mapping) else {}
  last = {name: run.last(name) for name in sorted(run.metrics)
          if not name.startswith(COURSE)} if run else {}
  return {
      'model': {
          'family': card.family, 'arguments': dict(card.arguments),
          'parameters': sum(leaf.size for leaf in jax.tree.leaves(served.kept)),
          'classes': list(card.classes)},
      'input': {
          'size': card.size, 'view': card.view, 'fraction': card.fraction,
          'values': 'uint8, red green blue, [batch, height, width, 3]',
          'normalised inside the file by': {'mean': list(card.mean),
                                            'std': list(card.std)}},
      'taught by': sections.get('teachers', {}),
      'identity of teachers': card.trained_by.get('teachers', {}),
      'data': sections.get('data', {}),
      'measured': last,
      'result': (run.result or {}) if run else {},
      'files': [row._replace(file=os.path.basename(row.file))._asdict()
                for row in rows],
      'python': {name: exported.load(name).lines(card, name)
                 for name in sorted({row.format for row in rows})
                 if hasattr(exported.load(name), 'lines')},
      'checksum of the parameters': params_lib.checksum(
          params_lib.flatten(served.kept)),
      'config': config,
      **dict.fromkeys(TO_FILL_IN, OPEN),
  }


def text(found: Mapping[str, Any], rows: Sequence[exported.Row]) -> str:
  """The facts in Markdown."""
  model, image = found['model'], found['input']
  arguments = ', '.join(f'{name}={value}' for name, value
                        in model['arguments'].items())
  lines = [
      f'# {model["family"]} for {image["size"]} px', '',
      f'{model["family"]}({arguments}), {model["parameters"]:,} parameters.', '',
      '## Use', '',
      f'Input: {image["values"]}, {image["size"]} px a side, cropped as '
      f'`{image["view"]}` (of a central square, {image["fraction"]:.3g} of a '
      'side) and resized by area. Values are normalised inside, but for PyTorch. '
      'Output: logits '
      'in the order of `model.classes` in card.json.', '',
      exported.table(rows), '',
      'Milliseconds are of one image at a time on the CPU that exported. '
      '"Largest difference" is of logits from the model in JAX with the same '
      'weights, beside the standard deviation of logits.', '']
  if any(row.format == 'stablehlo' for row in rows):
    lines += [f'StableHLO was written by JAX {jax.__version__}, and is promised '
              f'to be read for {stablehlo.MONTHS} months: keep the npz.', '']
  for name, python in found['python'].items():
    lines += [f'## {name}', '', 'Its model wants float32 [batch, 3, height, '
              'width], (pixels / 255 - mean) / std.', '', '```python',
              python.rstrip(), '```', '']
  for title in ('taught by', 'data', 'measured', 'result'):
    if found[title]:
      lines += [f'## {title.capitalize()}', '', '| | |', '|---|---|']
      lines += [f'| {name} | {_short(value)} |'
                for name, value in runs.flat(found[title]).items()]
      lines.append('')
  lines += ['## To fill in', '', '| | |', '|---|---|']
  lines += [f'| {name} | {found[name]} |' for name in TO_FILL_IN]
  return '\n'.join([*lines, ''])


def _short(value):
  return f'{value:.5g}' if isinstance(value, float) else str(value)


def _filled_in(folder, before):
  """{name: what people wrote}, of README.md and of `before`, its card.json.

  Where they differ, the file that was written to last has it.
  """
  said = {name: before.get(name, OPEN) for name in TO_FILL_IN}
  readme = pathlib.Path(folder, 'README.md')
  if readme.exists():
    card = readme.with_name('card.json')
    newer = not before or readme.stat().st_mtime >= card.stat().st_mtime
    for name, value in re.findall(r'^\| ([^|]+) \| (.+) \|$', readme.read_text(),
                                  re.MULTILINE):
      if name in said and value != OPEN and (newer or said[name] == OPEN):
        said[name] = value
  return said


def write(folder: str, served: served_lib.Served, run: runs.Run | None,
          rows: Sequence[exported.Row]) -> None:
  """Writes README.md and card.json.

  What was filled in before, in either, stays, and so do rows of other files that
  are there.
  """
  before = runs.load(f'{folder}/card.json') or {}
  new = {os.path.basename(row.file) for row in rows}
  rows = [*(exported.Row(**row) for row in before.get('files', [])
            if row['file'] not in new
            and os.path.exists(f'{folder}/{row["file"]}')), *rows]
  found = facts(served, run, rows)
  found |= _filled_in(folder, before)
  runs.save(f'{folder}/card.json', found)
  runs.write(f'{folder}/README.md', text(found, rows))
