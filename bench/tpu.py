"""The paper's runs, compiled for TPU slices: bench/tpu.jsonl, docs/tpu.md.

  python -m bench.tpu compile     compiles what the file lacks, one after another
  python -m bench.tpu count       counts the arithmetic of all runs, by shapes
  python -m bench.tpu table       prints the table of docs/tpu.md

A row takes from half a minute to half an hour of a core. It is what
python -m big_distill.tools.compile says of a config, a slice and a dtype; a
program that an earlier row compiled is taken from bench/tpu_programs.jsonl.
"""

import json
import pathlib
import subprocess
import sys
from typing import NamedTuple

from big_distill import slices

HERE = pathlib.Path(__file__).parent
ROWS, PROGRAMS = HERE / 'tpu.jsonl', HERE / 'tpu_programs.jsonl'
COUNTED = HERE / 'tpu_flops.json'
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
FIRST = [('T224', 'v5e-32', 'float32'), ('T224', 'v5e-32', 'bfloat16'),
         ('T224', 'v3-32', 'float32'), ('MobileNetV3 GN', 'v5e-32', 'float32'),
         ('Flowers102, 128 px', 'v5e-32', 'float32'),
         ('T224', 'v4-32', 'float32'), ('T224', 'v6e-8', 'bfloat16'),
         ('Shampoo', 'v5e-32', 'float32'), ('T384', 'v5e-32', 'float32')]


def runs() -> list[Run]:
  """All lines, the most telling ones first."""
  keys = FIRST + [(title, slice_, dtype) for slice_ in ('v5e-32', 'v4-32', 'v6e-8')
                  for dtype in ('float32', 'bfloat16') for title in CONFIGS]
  return [Run(title, CONFIGS[title], slice_, dtype)
          for title, slice_, dtype in dict.fromkeys(keys)]


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
  """All runs, those that were compiled and those that were not."""
  rows, counted = done(), json.loads(COUNTED.read_text())
  lines = ['| run | on | in | GiB held | GB moved | MB given | ms a step: '
           'arithmetic, memory | hours at least | compiled in |',
           '| --- | --- | --- | --- | --- | --- | --- | --- | --- |']
  for run in runs():
    which = slices.parse(run.slice)
    flops, steps = counted[run.title]
    arithmetic = flops / which.chips / which.chip.flops
    cells = [run.title, run.slice, run.dtype]
    if run not in rows:
      cells += ['not compiled', '', '', f'{1e3 * arithmetic:.0f}, ?',
                f'{arithmetic * steps / 3600:.3g}', '']
    else:
      cells += _cells(rows[run], which, arithmetic)
    lines.append('| ' + ' | '.join(cells) + ' |')
  return '\n'.join(lines)


def _cells(row, which, arithmetic):
  held = f'{row["held"] / 2**30:.2f} of {which.chip.free}'
  if not row['fits']:
    return [f'{held}: does not fit; {row["largest"]:,} images would', '', '',
            f'{1e3 * arithmetic:.0f}, ?', '', '']
  programs = row['programs']
  moved = sum(each['moved'] for each in programs)
  given = sum(size for each in programs for _, size in each['given'].values())
  memory = moved / (which.chip.bandwidth / which.chip.devices)
  return [held, f'{moved / 1e9:.1f}', f'{given / 1e6:.1f}',
          f'{1e3 * arithmetic:.0f}, {1e3 * memory:.0f}', f'{row["hours"]:.3g}',
          f'{sum(each["seconds"] for each in programs):.0f} s']


if __name__ == '__main__':
  {'compile': compile_all, 'count': count,
   'table': lambda: print(table())}[sys.argv[1]]()
