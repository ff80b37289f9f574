"""Compiles what a config runs for a TPU slice that need not be there.

  python -m big_distill.tools.compile --config=configs/imagenet.py --slice=v5e-32

Any Linux machine will do, after pip install "jax[tpu]" where big_distill is
installed: libtpu compiles without a TPU. Weights and images are not read. One
program after another, teachers, student, evaluations, it prints what a device
holds, computes, moves and gives to others, and at the end whether the run fits
the slice, the largest batch that does, and the least time that the published
peaks of the chip allow. A line of JSON follows each, with the word RESULT.

Exits with 1 and one line where the run does not fit, which says what would. A
compilation takes from seconds to a quarter of an hour, by the model's depth.
"""

import hashlib
from importlib import metadata
import json
import math
import pathlib
import re
import time
from typing import Any, NamedTuple

from absl import flags
from absl import logging
import jax

from big_distill import command
from big_distill import hlo
from big_distill import parallel
from big_distill import plan as plan_lib
from big_distill import programs as programs_lib
from big_distill import slices
from big_distill import unread

GIB = 2**30


class Compiled(NamedTuple):
  """A program as compiled; amounts are of one device and one call.

  held: bytes while it runs, its own and what waits beside. donated: bytes of
  arguments that its results are written over. flops: of products and
  convolutions. moved: bytes between HBM and the chip. given: {collective:
  (messages, bytes)}. seconds: of compiling.
  """
  name: str
  held: int
  temporary: int
  donated: int
  flops: int
  moved: int
  given: dict[str, tuple[int, int]]
  seconds: float
  fits: bool = True

  def least(self, chip: slices.Chip) -> dict[str, float]:
    """Seconds that arithmetic, memory and links take at least, each alone."""
    n = chip.devices
    return dict(
        arithmetic=self.flops / (chip.flops / n),
        memory=self.moved / (chip.bandwidth / n),
        # What is summed or gathered is sent about once and received once.
        links=2 * sum(size for _, size in self.given.values()) / (
            chip.link / n))


def build(program: programs_lib.Program, lowered: Any
          ) -> tuple[Compiled, str]:
  """(what a program comes to, the text of its HLO).

  Where its own arrays do not fit a device, libtpu says how large they are.
  """
  began = time.monotonic()
  try:
    compiled = lowered.compile()
  except jax.errors.JaxRuntimeError as error:
    if not (needed := over(str(error))):
      raise
    return Compiled(program.name, needed + program.beside, needed, 0,
                    program.flops(), 0, {}, time.monotonic() - began,
                    fits=False), ''
  seconds, text = time.monotonic() - began, compiled.as_text()
  used, ran = compiled.memory_analysis(), hlo.instructions(text)
  own = (used.argument_size_in_bytes + used.output_size_in_bytes
         - used.alias_size_in_bytes + used.temp_size_in_bytes
         + used.generated_code_size_in_bytes)
  return Compiled(
      program.name, own + program.beside, used.temp_size_in_bytes,
      used.alias_size_in_bytes, program.flops(), hlo.moved(ran),
      hlo.collectives(ran), seconds), text


def over(message: str) -> int:
  """Bytes that a program needs, of libtpu's refusal to compile it; else 0."""
  if 'RESOURCE_EXHAUSTED' not in message:
    return 0
  found = re.search(r'\(([\d.]+)([KMGT])\) exceeds available HBM|'
                    r'Used ([\d.]+)([KMGT]) of [\d.]+[KMGT] hbm', message)
  if not found:
    return 0
  size, unit = found[1] or found[3], found[2] or found[4]
  return int(float(size) * 1024 ** ('KMGT'.index(unit) + 1))


def judge(compiled: list[Compiled], programs: programs_lib.Programs,
          which: slices.Slice) -> dict[str, Any]:
  """What programs come to: memory, the largest batch, a step's least time.

  The batch is found along a line: what a program holds beside its arguments is
  taken to grow with the images, which is a little too careful.
  """
  plan, chip = programs.plan, which.chip
  limit, b = chip.free * GIB, plan.batch_size // which.devices
  largest = math.inf
  for each in compiled:
    waiting = (1 + programs_lib.AHEAD) * programs.batch_bytes
    grows = (each.temporary + waiting) / b
    fixed = each.held - grows * b
    largest = min(largest, (limit - fixed) / grows)
  unit = plan.accumulate * plan.group
  step = [each for each in compiled if each.name in ('teach', 'learn')]
  least = [each.least(chip) for each in step if each.fits]
  seconds = sum(max(times.values()) for times in least)
  return dict(
      held=max(each.held for each in compiled), limit=int(limit),
      largest=max(int(largest // unit * unit), 0) * which.devices,
      step_seconds=seconds if len(least) == len(step) else None,
      bound=[max(times, key=times.get) for times in least],
      hours=plan.total * seconds / 3600 if len(least) == len(step) else None)


def remedies(found: dict[str, Any], plan: plan_lib.Plan,
             config: dict[str, Any], which: slices.Slice) -> list[str]:
  """What would fit, of a run that does not; estimates, but for another slice's.
  """
  b, most = plan.batch_size // which.devices, found['largest'] // which.devices
  said = []
  if most:
    said.append(f'batch_size={found["largest"]:,}')
    groups = b // plan.group
    parts = next((k for k in range(plan.accumulate + 1, groups + 1)
                  if groups % k == 0 and b // k * plan.accumulate <= most), 0)
    if parts:
      said.append(f'accumulate={parts}')
  student = {**config['student']}
  if student.get('family') == 'bit' and not student.get('remat'):
    said.append('student.remat=True')
  if student.get('dtype', 'float32') == 'float32':
    said.append('--dtype=bfloat16')
  for slice_ in which.larger:
    share = plan.batch_size / slice_.devices
    if share <= most and share % (plan.group * plan.accumulate) == 0:
      return [*said, f'--slice={slice_}']
  return said


def amount(x: float, unit: str) -> str:
  """A number with a prefix: amount(93.1e9, 'B') is '93.1 GB'."""
  for prefix in ('', 'k', 'M', 'G', 'T'):
    if x < 1000 or prefix == 'T':
      return f'{x:.3g} {prefix}{unit}'
    x /= 1000
  raise AssertionError(x)


def report(each: Compiled, which: slices.Slice) -> str:
  """A program, for a terminal."""
  chip, n = which.chip, which.chip.devices
  place = 'a chip' if n == 1 else 'a core'
  if not each.fits:
    return (f'{each.name}: does not compile, it needs {each.held / GIB:.2f} GiB '
            f'of {chip.free:.2f} on {place}')
  ms = {what: f'{1e3 * seconds:.3g} ms'
        for what, seconds in each.least(chip).items()}
  given = ', '.join(f'{count} {kind} of {amount(size, "B")}'
                    for kind, (count, size) in each.given.items())
  return '\n'.join([
      f'{each.name}: compiled in {each.seconds:,.0f} s; on {place}:',
      f'  holds     {each.held / GIB:.2f} of {chip.free:.2f} GiB, '
      f'{each.temporary / GIB:.2f} of them its own',
      f'  reuses    {amount(each.donated, "B")} of arguments for its results',
      f'  computes  {amount(each.flops, "FLOP")}: {ms["arithmetic"]} at '
      f'{amount(chip.flops / n, "FLOP/s")}',
      f'  moves     {amount(each.moved, "B")} of its memory: {ms["memory"]} at '
      f'{amount(chip.bandwidth / n, "B/s")}',
      f'  gives     {given or "nothing"}: {ms["links"]} at '
      f'{amount(chip.link / n, "B/s")}'])


def _compiled(program, which, results):
  """`build`, or what a file of results has of the same program already."""
  lowered = program.lower()
  key = hashlib.sha256(f'{which} {metadata.version("libtpu")} {program.beside} '
                       f'{lowered.as_text()}'.encode()).hexdigest()[:16]
  path = pathlib.Path(results) if results else None
  if path and path.exists():
    for line in path.read_text().splitlines():
      row = json.loads(line)
      if row.pop('key') == key:
        return Compiled(**row)
  each, _ = build(program, lowered)
  if path:
    with path.open('a') as file:
      file.write(json.dumps({'key': key, **each._asdict()}) + '\n')
  return each


def main(flag):
  logging.set_verbosity(logging.WARNING)
  jax.config.update('jax_platforms', 'cpu')  # libtpu would look for a TPU.
  which = slices.parse(flag.slice)
  devices = slices.devices(which)
  config = unread.config_of(flag.config, flag.dtype or '')
  with parallel.planned_for(devices):
    programs = programs_lib.make(config, flag.examples, flag.classes,
                                 flag.evals)
    hosts = parallel.host_count()
    print(f'{which}: {which.chips} chips, {hosts} hosts, {which.devices} '
          f'devices; {programs.plan.batch_size // hosts} images of a batch from '
          f'each host, {programs.plan.batch_size // which.devices} on each '
          f'device. Peaks: {which.chip.source}.', flush=True)
    compiled = []
    for program in programs.all:
      compiled.append(_compiled(program, which, flag.results))
      print(report(compiled[-1], which), flush=True)
      if not compiled[-1].fits:
        break
  found = judge(compiled, programs, which)
  print('RESULT ' + json.dumps(dict(
      slice=str(which), batch=programs.plan.batch_size,
      steps=programs.plan.total, **found,
      programs=[each._asdict() for each in compiled])))
  if found['held'] > found['limit']:
    raise ValueError(
        f'{which} does not hold this run: {found["held"] / GIB:.2f} GiB of '
        f'{which.chip.free:.2f} on a device. What would fit, by an estimate: '
        f'{"; ".join(remedies(found, programs.plan, config, which))}.')
  print(f'Fits: {found["held"] / GIB:.2f} of {which.chip.free:.2f} GiB. The '
        f'largest batch is about {found["largest"]:,}, by a line through this '
        f'one.\nA step takes {1e3 * found["step_seconds"]:.3g} ms at least, bound '
        f'by {" and ".join(found["bound"])}: {found["hours"]:.3g} h for '
        f'{programs.plan.total:,} steps.')


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
