"""Compiles what a config runs for a TPU slice that need not be there.

  python -m big_distill.tools.compile --config=configs/imagenet.py --slice=v5e-32

Any Linux machine will do, after pip install "jax[tpu]" where big_distill is
installed: libtpu compiles without a TPU. Weights and images are not read. One
program after another, teachers, student, evaluations, it prints what a device
holds, computes, moves and gives to others, and at the end whether the run fits
the slice, a larger batch that would, and the least time that the published
peaks of the chip allow. A line that begins with RESULT has all of it as JSON.

Exits with 1 and one line where the run does not fit, which says what would. A
compilation takes from seconds to half an hour of a core, by the model's depth.
"""

from collections.abc import Callable, Mapping
import hashlib
from importlib import metadata
import json
import os
import pathlib
from typing import Any

from absl import flags
from absl import logging
import jax

from big_distill import command
from big_distill import fit
from big_distill import parallel
from big_distill import programs as programs_lib
from big_distill import slices
from big_distill import unread

OPTIONS = ('LIBTPU_INIT_ARGS', 'XLA_FLAGS')  # Of compilers, in the environment.


def amount(x: float, unit: str) -> str:
  """A number with a prefix: amount(93.1e9, 'B') is '93.1 GB'."""
  for prefix in ('', 'k', 'M', 'G', 'T'):
    if x < 1000 or prefix == 'T':
      return f'{x:.3g} {prefix}{unit}'
    x /= 1000
  raise AssertionError(x)


def report(each: fit.Compiled, which: slices.Slice) -> str:
  """A program, for a terminal."""
  chip, n = which.chip, which.chip.devices
  place = 'a chip' if n == 1 else 'a core'
  if not each.fits:
    return (f'{each.name}: does not compile, it needs {each.held / fit.GIB:.2f} GiB '
            f'of {chip.free:.2f} on {place}')
  ms = {what: f'{1e3 * seconds:.3g} ms'
        for what, seconds in each.least(chip).items()}
  given = ', '.join(f'{count} {kind} of {amount(size, "B")}'
                    for kind, (count, size) in each.given.items())
  return '\n'.join([
      f'{each.name}: compiled in {each.seconds:,.0f} s; on {place}:',
      f'  holds     {each.held / fit.GIB:.2f} of {chip.free:.2f} GiB, '
      f'{each.temporary / fit.GIB:.2f} of them its own',
      f'  reuses    {amount(each.donated, "B")} of arguments for its results',
      f'  computes  {amount(each.flops, "FLOP")}: {ms["arithmetic"]} at '
      f'{amount(chip.flops / n, "FLOP/s")}',
      f'  moves     {amount(each.moved, "B")} of its memory: {ms["memory"]} at '
      f'{amount(chip.bandwidth / n, "B/s")}',
      f'  gives     {given or "nothing"}: {ms["links"]} at '
      f'{amount(chip.link / n, "B/s")}'])


def _compiled(program, which, kept, results):
  """`build`, or what is kept of the same program already."""
  lowered = program.lower()
  options = ''.join(os.environ.get(name, '') for name in OPTIONS)
  key = hashlib.sha256(f'{which} {metadata.version("libtpu")} '
                       f'{lowered.as_text()}{options}'.encode()).hexdigest()[:16]
  if row := kept.get(key):
    return fit.Compiled(**{**row, 'flops': program.flops(),
                           'held': row['held'] + program.beside})
  each, _ = fit.build(program, lowered)
  if results:
    with results.open('a') as file:
      # What waits beside a program is not its own: another run has other.
      file.write(json.dumps({'key': key, **each._asdict(),
                             'held': each.held - program.beside}) + '\n')
  return each


def _read(results):
  """{key: what a program came to} of a file, which is made if it is not there.

  Raises ValueError where a line is not one of these.
  """
  found = {}
  with results.open('a+') as file:  # Minutes before a result is to be written.
    file.seek(0)
    lines = file.read().splitlines()
  for i, line in enumerate(lines, 1):
    try:
      row = json.loads(line)
      found[row.pop('key')] = row
      fit.Compiled(**row)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
      raise ValueError(f'{results}, line {i}, is no result of this program. '
                       'Delete that line, or name another file.') from error
  return found


def examine(config: Mapping[str, Any], which: slices.Slice,
            examples: int | None = None, classes: int | None = None,
            evals: bool = True, results: str | None = None,
            say: Callable[[str], None] = lambda text: None
            ) -> tuple[dict[str, Any], str]:
  """(what the programs of a config come to on a slice, in one sentence).

  See fit.judge for the first. Raises ValueError where there is no libtpu.
  """
  path = pathlib.Path(results) if results else None
  kept = _read(path) if path else {}
  with parallel.planned_for(slices.devices(which)):
    programs = programs_lib.make(config, examples, classes, evals)
    plan, hosts = programs.plan, parallel.host_count()
    counts = ', '.join(f'{n} {what}{"s" * (n > 1)}' for n, what in (
        (which.chips, 'chip'), (hosts, 'host'), (which.devices, 'device')))
    say(f'{which}: {counts}; {plan.batch_size // hosts} images of a batch from '
        f'each host, {plan.batch_size // which.devices} on each device. Peaks: '
        f'{which.chip.source}.')
    compiled: list[fit.Compiled] = []
    for program in programs.all:
      compiled.append(_compiled(program, which, kept, path))
      say(report(compiled[-1], which))
  found = fit.judge(compiled, programs, which)
  found |= dict(slice=str(which), batch=plan.batch_size, steps=plan.total,
                programs=[each._asdict() for each in compiled])
  return found, fit.sentence(found, compiled, programs, config, which)


def main(flag):
  logging.set_verbosity(logging.WARNING)
  jax.config.update('jax_platforms', 'cpu')  # libtpu would look for a TPU.
  found, said = examine(
      unread.config_of(flag.config, flag.dtype or ''), slices.parse(flag.slice),
      flag.examples, flag.classes, flag.evals, flag.results,
      lambda text: print(text, flush=True))
  print('RESULT ' + json.dumps(found))
  if not found['fits']:
    raise ValueError(said)
  print(said)


def _define_flags():
  flags.DEFINE_string('config', None, 'A file of configs/.')
  flags.DEFINE_string('slice', None, 'FAMILY-SIZE, such as v4-32 or v5e-64.')
  flags.DEFINE_enum('dtype', None, ['float32', 'bfloat16'],
                    'What all models compute in, if not what the config says.')
  flags.DEFINE_bool('evals', True, 'Compile evaluations, too.')
  flags.DEFINE_integer('examples', None, 'Of training data that is not read.', 1)
  flags.DEFINE_integer('classes', None, 'Of data that is not read.', 1)
  flags.DEFINE_string(
      'results', None, 'File of what programs came to: one that is in it is not '
      'compiled again, others are added.')
  flags.mark_flags_as_required(['config', 'slice'])


if __name__ == '__main__':
  command.program(main, _define_flags)
