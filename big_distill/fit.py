"""Whether compiled programs fit a TPU slice, and how long a step takes at least."""

from collections.abc import Mapping
import math
import re
import time
from typing import Any, NamedTuple

import jax

from big_distill import hlo
from big_distill import plan as plan_lib
from big_distill import programs as programs_lib
from big_distill import registry
from big_distill import slices

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
      fits=all(each.fits and each.held <= limit for each in compiled),
      held=max(each.held for each in compiled), limit=int(limit),
      largest=max(int(largest // unit * unit), 0) * which.devices,
      step_seconds=seconds if len(least) == len(step) else None,
      bound=[max(times, key=times.get) for times in least],
      hours=plan.total * seconds / 3600 if len(least) == len(step) else None)


def remedies(found: dict[str, Any], plan: plan_lib.Plan,
             config: Mapping[str, Any], which: slices.Slice) -> list[str]:
  """What would fit, of a run that does not; estimates, but for another slice's.
  """
  b, most = plan.batch_size // which.devices, found['largest'] // which.devices
  said = []
  if most:
    said.append(f'--config.batch_size={found["largest"]}')
    groups = b // plan.group
    parts = next((k for k in range(plan.accumulate + 1, groups + 1)
                  if groups % k == 0 and b // k * plan.accumulate <= most), 0)
    if parts:
      said.append(f'--config.accumulate={parts}')
  student = {**config['student']}
  family = student.get('family')
  if family and not student.get('remat') and 'remat' in (
      registry.load('models', family).Model.__dataclass_fields__):
    said.append('--config.student.remat=True')
  if student.get('dtype', 'float32') == 'float32':
    said.append('--config.student.dtype=bfloat16')
  for slice_ in which.larger:
    share = plan.batch_size / slice_.devices
    if share <= most and share % (plan.group * plan.accumulate) == 0:
      return [*said, f'--slice={slice_}']
  return said


def sentence(found: dict[str, Any], plan: plan_lib.Plan,
             config: Mapping[str, Any], which: slices.Slice) -> str:
  """What `judge` found, in words; of a run that does not fit, what would."""
  held = f'{found["held"] / GIB:.2f} of {which.chip.free:.2f} GiB on a device'
  if not found['fits']:
    return (f'{which} does not hold this run, {held}. What would fit, by an '
            f'estimate: {"; ".join(remedies(found, plan, config, which))}.')
  return (f'{which} holds this run, {held}. The largest batch is about '
          f'{found["largest"]:,}, by a line through this one. A step takes '
          f'{1e3 * found["step_seconds"]:.3g} ms at least, bound by '
          f'{" and ".join(found["bound"])}: {found["hours"]:.3g} h for '
          f'{plan.total:,} steps.')
