"""The paper's runs, compiled for TPU slices: bench/tpu.jsonl, docs/tpu.md.

  python -m bench.tpu compile     compiles what the file lacks, one after another
  python -m bench.tpu count       counts the arithmetic of all runs, by shapes
  python -m bench.tpu table       writes the table into docs/tpu.md

A row takes from half a minute to half an hour of a core. It is what
python -m big_distill.tools.compile says of a config, a slice and a dtype; a
program that an earlier row compiled is taken from bench/tpu_programs.jsonl.
"""

import json
import pathlib
import re
import subprocess
import sys
from typing import NamedTuple

from big_distill import slices

HERE = pathlib.Path(__file__).parent
ROWS, PROGRAMS = HERE / 'tpu.jsonl', HERE / 'tpu_programs.jsonl'
COUNTED = HERE / 'tpu_flops.json'
PAGE = HERE.parent / 'docs/tpu.md'
IMAGENET = 'configs/imagenet.py:epochs=300'


class Run(NamedTuple):
  """A line of the table: a config, on a slice, in a dtype."""
  title: str
  config: str
  slice: str
  dtype: str = 'float32'
  flags: tuple[str, ...] = ()

  @property
  def words(self) -> list[str]:
    return [f'--config={self.config}', f'--slice={self.slice}',
            f'--dtype={self.dtype}', *self.flags, '--noevals']


CONFIGS = {
    'T224': IMAGENET,
    'MobileNetV3 GN': f'{IMAGENET},student=mobilenet_v3_large',
    'Flowers102, 128 px': 'configs/flowers102.py',
    'T384': f'{IMAGENET},teacher=T384',
    'Shampoo': f'{IMAGENET},optim=shampoo',
    'S160': f'{IMAGENET},size=160',
    'MobileNetV3 BN': f'{IMAGENET},student=mobilenet_v3_large_bn',
    'Muon': f'{IMAGENET},optim=muon',
    'SOAP': f'{IMAGENET},optim=soap',
    'T384+T224': f'{IMAGENET},teacher=T384+T224',
    'Pets, 128 px': 'configs/pets.py',
    'Food101, 128 px': 'configs/food101.py',
    'Sun397, 128 px': 'configs/sun397.py',
}
# T224 in parts of 16 images a device, most of whose maps stay on the chip.
PARTS = {'v5e-32': 8, 'v6e-8': 32}
FIRST = [('T224', 'v5e-32', 'float32'), ('T224', 'v5e-32', 'bfloat16'),
         ('T224', 'v3-32', 'float32'), ('MobileNetV3 GN', 'v5e-32', 'float32'),
         ('Flowers102, 128 px', 'v5e-32', 'float32'),
         ('T224', 'v4-32', 'float32'), ('T224', 'v6e-8', 'bfloat16'),
         ('Shampoo', 'v5e-32', 'float32'), ('T384', 'v5e-32', 'float32')]


def runs() -> list[Run]:
  """All lines, the most telling ones first."""
  keys = FIRST + [(title, slice_, dtype) for slice_ in ('v5e-32', 'v4-32', 'v6e-8')
                  for dtype in ('float32', 'bfloat16') for title in CONFIGS]
  whole = [Run(title, CONFIGS[title], slice_, dtype)
           for title, slice_, dtype in dict.fromkeys(keys)]
  parts = [Run('T224', CONFIGS['T224'], slice_, dtype,
               (f'--config.accumulate={n}',))
           for slice_, n in PARTS.items() for dtype in ('float32', 'bfloat16')]
  return whole + parts


def done() -> dict[Run, dict]:
  """{Run: what it came to}."""
  lines = ROWS.read_text().splitlines() if ROWS.exists() else []
  rows = [json.loads(line) for line in lines]
  return {Run(**{**row['run'], 'flags': tuple(row['run']['flags'])}): row
          for row in rows}


def compile_all() -> None:
  for run in runs():
    if run in done():
      continue
    print(run.title, *run.words, flush=True)
    ran = subprocess.run(
        [sys.executable, '-m', 'big_distill.tools.compile', *run.words,
         f'--results={PROGRAMS}'], capture_output=True, text=True)
    found = [line.removeprefix('RESULT ') for line in ran.stdout.splitlines()
             if line.startswith('RESULT ')]
    print(ran.stdout, ran.stderr[-2000:], flush=True)
    if found:
      with ROWS.open('a') as file:
        file.write(json.dumps({'run': run._asdict(), **json.loads(found[0])})
                   + '\n')


def count() -> None:
  """Keeps {title: [FLOP of a step on all chips, steps]}, without compiling."""
  import jax

  from big_distill import command
  from big_distill import parallel
  from big_distill import programs
  jax.config.update('jax_platforms', 'cpu')
  counted = json.loads(COUNTED.read_text()) if COUNTED.exists() else {}
  for title, words in CONFIGS.items():
    if title not in counted:
      config = command.resolve([f'--config={words}'])
      with parallel.planned_for(slices.devices(slices.parse('v5e-32'))):
        made = programs.make(config, evals=False)
        counted[title] = [32 * sum(each.flops() for each in made.all),
                          made.plan.total]
      COUNTED.write_text(json.dumps(counted, indent=1) + '\n')


def table() -> str:
  """What was compiled, line by line; then all runs, by their arithmetic."""
  rows = done()
  lines = ['| run | on | activations | GiB held | GB moved | MB given | ms of '
           'arithmetic, memory | hours at least | compiled in |', '| --- ' * 9 + '|']
  lines += [_line(' '.join((run.title, *(f'`{flag}`' for flag in run.flags))),
                  run.slice, run.dtype, *_cells(rows[run], run))
            for run in runs() if run in rows]
  names = ['v3-32', 'v4-32', 'v5e-32', 'v6e-8']
  lines += ['', _line('run', 'TFLOP a step', *names), '| --- ' * 6 + '|']
  for title, (flops, steps) in json.loads(COUNTED.read_text()).items():
    lines.append(_line(title, f'{flops / 1e12:,.0f}', *(
        _hours(flops * steps, slices.parse(name), dict.fromkeys(
            run.dtype for run in rows if (run.title, run.slice) == (title, name)))
        for name in names)))
  return '\n'.join(lines)


def _line(*cells):
  return '| ' + ' | '.join(cells) + ' |'


def _hours(flops, which, compiled):
  hours = flops / which.chips / which.chip.flops / 3600
  return f'{hours:.2g} h, ' + (
      f'compiled in {" and ".join(compiled)}' if compiled else 'not compiled')


def _cells(row, run):
  which, programs = slices.parse(run.slice), row['programs']
  chip = which.chip
  held = f'{row["held"] / 2**30:.2f} of {chip.free}'
  if not row['fits']:
    return [f'{held}: does not fit, a batch of {row["largest"]:,} would', '', '',
            '', '', '']
  flops, _ = json.loads(COUNTED.read_text())[run.title]
  moved = sum(each['moved'] for each in programs)
  given = sum(size for each in programs for _, size in each['given'].values())
  return [held, f'{moved / 1e9:.1f}', f'{given / 1e6:.1f}',
          f'{1e3 * flops / which.chips / chip.flops:.0f}, '
          f'{1e3 * moved * chip.devices / chip.bandwidth:.0f}',
          f'{row["hours"]:.3g}',
          f'{sum(each["seconds"] for each in programs):.0f} s']


def replaced(page: str) -> str:
  """The page with its table made anew."""
  return re.sub(r'(<!-- tpu -->\n).*(<!-- /tpu -->)',
                lambda found: f'{found[1]}{table()}\n{found[2]}', page,
                flags=re.DOTALL)


if __name__ == '__main__':
  {'compile': compile_all, 'count': count,
   'table': lambda: PAGE.write_text(replaced(PAGE.read_text()))}[sys.argv[1]]()
