"""Whether compiled programs fit a TPU slice, and how long a step takes at least."""

from collections.abc import Mapping
import math
import re
import time
from typing import Any, NamedTuple

import jax

from big_distill import hlo
from big_distill import programs as programs_lib
from big_distill import registry
from big_distill import slices

GIB = 2**30
# What is left of temporaries, in student and teacher of T224 (docs/tpu.md) and,
# where they are computed anew, in a R50x1 on a GPU (docs/speed.md): .52, .50, .37.
BFLOAT16, REMAT = .55, .45
# What lies on the chip, at most, and would not with more images: of v5e and v6e,
# where most maps of so many images of 224 px do (docs/tpu.md).
ON_CHIP, FEW = 2**27, 16


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
        # What is summed is sent about once and, as the sum, received once.
        links=sum(size * (1 + (kind == 'all-reduce'))
                  for kind, (_, size) in self.given.items()) / (chip.link / n))


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
      said = ' '.join(str(error).split())[:300]
      raise ValueError(f'libtpu does not compile {program.name}: {said}. Try '
                       'another batch_size or slice.') from error
    return Compiled(program.name, needed + program.beside,
                    max(needed - program.taken, 0), 0, program.flops(), 0, {},
                    time.monotonic() - began, fits=False), ''
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
  taken to grow with the images, and what may lie on the chip. hours: of all
  that a run calls.
  """
  plan, chip = programs.plan, which.chip
  limit, b = chip.free * GIB, plan.batch_size // which.devices
  pairs = [*zip(compiled, programs.all, strict=True)]
  grow = [(each.held, each.temporary + program.batches + ON_CHIP * each.fits)
          for each, program in pairs]
  largest = b + min(b * (limit - held) / grows for held, grows in grow)
  unit = plan.accumulate * plan.group
  known = all(each.fits for each in compiled)
  least = [(program, each.least(chip)) for each, program in pairs]
  step = [(program, times) for program, times in least if program.trains]
  seconds, all_seconds = (sum(program.runs * max(times.values())
                              for program, times in some)
                          for some in (step, least))
  return dict(
      fits=known and all(each.held <= limit for each in compiled),
      held=max(each.held for each in compiled), limit=int(limit),
      largest=max(int(largest // unit * unit), 0) * which.devices,
      step_seconds=seconds / plan.total if known else None,
      bound=[max(times, key=times.get) for _, times in step],
      hours=all_seconds / 3600 if known else None)


def remedies(found: dict[str, Any], compiled: list[Compiled],
             programs: programs_lib.Programs, config: Mapping[str, Any],
             which: slices.Slice) -> list[str]:
  """Flags with which a run would fit that does not: each alone, or one of all.

  Estimates, of what they leave of programs' temporaries.
  """
  plan, limit = programs.plan, found['limit']
  b, most = plan.batch_size // which.devices, found['largest'] // which.devices

  def fit(*shrunk):
    """Whether all would, with so much left of those that `of` says."""
    return all(each.held - each.temporary * (1 - math.prod(
        left for left, of in shrunk if of(program))) <= limit
               for each, program in zip(compiled, programs.all))

  said = [f'--config.batch_size={found["largest"]}'] if most else []
  groups = b // plan.group
  said += [f'--config.accumulate={k}'
           for k in range(plan.accumulate + 1, groups + 1) if groups % k == 0
           and fit((plan.accumulate / k, lambda program: program.trains))][:1]
  changes = _changes(config)
  said += [flag for flag, *change in changes if fit(change)]
  if not said and fit(*(change for _, *change in changes)):
    said.append(' '.join(flag for flag, *_ in changes))
  for slice_ in which.larger:
    share = plan.batch_size / slice_.devices
    if share <= most and share % (plan.group * plan.accumulate) == 0:
      return [*said, f'--slice={slice_}']
  return said


def lighter(found: dict[str, Any], programs: programs_lib.Programs,
            config: Mapping[str, Any], which: slices.Slice) -> list[str]:
  """Flags with which a step would move fewer bytes, where these bind it."""
  if 'memory' not in found['bound']:
    return []
  plan, said = programs.plan, []
  b = plan.batch_size // which.devices
  if which.family in ('v5e', 'v6e') and b // plan.accumulate > FEW:
    said = [f'--config.accumulate={k}'
            for k in range(plan.accumulate + 1, b // plan.group + 1)
            if b // plan.group % k == 0 and b // k <= FEW][:1]
  return said + [flag for flag, *_ in _changes(config) if 'dtype' in flag]


def _changes(config):
  """(flag, what it leaves of temporaries, program -> whether of this one's)."""
  student, changes = {**config['student']}, []
  family = student.get('family')
  if family and not student.get('remat') and 'remat' in (
      registry.load('models', family).Model.__dataclass_fields__):
    changes.append(('--config.student.remat=True', REMAT, lambda program: (
        program.trains and program.whose == 'student')))
  if student.get('dtype', 'float32') == 'float32':
    changes.append(('--config.student.dtype=bfloat16', BFLOAT16,
                    lambda program: program.whose == 'student'))
  flags = [f'--config.teachers.{name}.dtype=bfloat16'
           for name, teacher in {**config['teachers']}.items()
           if teacher.get('size') and not teacher.get('python')
           and teacher.get('dtype', 'float32') == 'float32']
  if flags:
    changes.append((' '.join(flags), BFLOAT16,
                    lambda program: program.whose == 'teachers'))
  return changes


def sentence(found: dict[str, Any], compiled: list[Compiled],
             programs: programs_lib.Programs, config: Mapping[str, Any],
             which: slices.Slice) -> str:
  """What `judge` found, in words; of a run that does not fit, what would."""
  plan, limit = programs.plan, found['limit']
  held = f'{found["held"] / GIB:.2f} of {which.chip.free:.2f} GiB on a device'
  if not found['fits']:
    over = [each.name for each in compiled
            if not each.fits or each.held > limit]
    would = '; '.join(remedies(found, compiled, programs, config, which))
    return (f'{which} does not hold this run, {held}, by its '
            f'{", ".join(over)}. What would fit, by an estimate: '
            f'{would or "a smaller model, or smaller images"}.')
  evaluated = '' if all(each.trains for each in programs.all) else (
      ' and evaluations')
  larger = (f'A batch of {found["largest"]:,} would fit, too, by a line through '
            'this one.' if found['largest'] > plan.batch_size else
            'No larger batch would fit, by a line through this one.')
  fewer = '; '.join(lighter(found, programs, config, which))
  return (f'{which} holds this run, {held}. {larger} A step takes '
          f'{1e3 * found["step_seconds"]:.3g} ms at least, bound by '
          f'{" and ".join(dict.fromkeys(found["bound"]))}: {found["hours"]:.3g} h '
          f'for {plan.total:,} steps{evaluated}.'
          + (f' What may move fewer bytes: {fewer}.' if fewer else ''))
