"""What a compiled program does, read off its text: XLA's HLO.

Only what runs is counted: the entry computation and the loops, branches and
calls that it makes, a loop as often as it runs, where its condition compares a
count from 0 with a constant. What is fused runs as one instruction, which reads
its operands and writes its results. Of branches the one that moves most counts.
"""

import collections
from collections.abc import Iterable, Iterator
import math
import re
from typing import NamedTuple

BITS = {'pred': 8, 's4': 4, 'u4': 4, 's8': 8, 'u8': 8, 's16': 16, 'u16': 16,
        'bf16': 16, 'f16': 16, 's32': 32, 'u32': 32, 'f32': 32, 's64': 64,
        'u64': 64, 'f64': 64}
COLLECTIVES = ('all-reduce', 'all-gather', 'all-to-all', 'collective-permute',
               'reduce-scatter')
SLICES = ('slice', 'dynamic-slice', 'gather')  # Of their first operand.
# What moves nothing by itself.
FREE = {'parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast',
        'after-all', 'partition-id', 'replica-id', 'while', 'conditional',
        'call', 'optimization-barrier', 'domain'}

_SHAPE = re.compile(r'\b([a-z]+\d*)\[([\d,]*)\](?:\{([^}]*)\})?')
_LINE = re.compile(
    r'\s*(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][a-z\-]*)\((.*)')
_HEAD = re.compile(r'(ENTRY )?%?([\w.\-]+) \(.*\{$')
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


class Shape(NamedTuple):
  """An array: its elements, as they lie in memory; `held` says if in HBM."""
  dtype: str
  dims: tuple[int, ...]
  layout: str = ''

  @property
  def nbytes(self) -> int:
    """Without padding."""
    return math.prod(self.dims) * BITS.get(self.dtype, 0) // 8

  @property
  def padded(self) -> int:
    """Bytes with the padding of tiles: the last axes fill whole tiles."""
    order, _, rest = self.layout.partition(':')
    tile = re.match(r'T\(([\d,]+)\)', rest)
    if not tile or not self.dims:
      return self.nbytes
    sides = [int(x) for x in tile[1].split(',')]
    dims = [self.dims[int(i)] for i in order.split(',')]  # The fastest first.
    for i, side in enumerate(reversed(sides)):
      if i < len(dims):
        dims[i] = -(-dims[i] // side) * side
    return math.prod(dims) * BITS.get(self.dtype, 0) // 8

  @property
  def held(self) -> bool:
    """Whether it lies in HBM, rather than on the chip."""
    return not re.search(r'S\([1-9]\)', self.layout)


class Instruction(NamedTuple):
  """One that runs `times` times: its name, results, operation and operands.

  read, written: bytes that it reads from HBM and writes there, padded; of an
  operand of which it takes slices alone, and of a result that it updates in
  place, those of the slices.
  """
  name: str
  results: tuple[Shape, ...]
  op: str
  operands: tuple[Shape, ...]
  read: int
  written: int
  times: int = 1

  @property
  def moved(self) -> int:
    """Bytes that one run of it reads from HBM or writes there, padded."""
    if self.op in FREE or self.op.endswith('-done'):
      return 0
    return self.read + self.written


def shapes(text: str) -> tuple[Shape, ...]:
  """All arrays that a piece of HLO names, in order."""
  return tuple(Shape(dtype, tuple(int(x) for x in dims.split(',') if x), layout)
               for dtype, dims, layout in _SHAPE.findall(text)
               if dtype in BITS)


def instructions(text: str) -> list[Instruction]:
  """What a program runs, in the order of its text."""
  computations, entry, current = {}, None, None
  for line in text.splitlines():
    if head := _HEAD.match(line):
      current = computations[head[2]] = []
      entry = head[2] if head[1] else entry
    elif current is not None and (found := _LINE.match(line)):
      current.append(found.groups())
  if entry is None:
    raise ValueError('This is no text of a compiled program: it has no ENTRY.')
  return [*_run(computations, entry, 1)]


def _run(computations, name, times) -> Iterator[Instruction]:
  lines = computations[name]
  known = {own: result for own, result, _, _ in lines}
  for own, result, op, rest in lines:
    names = re.findall(r'%([\w.\-]+)', _arguments(rest))
    operands = tuple(shape for operand in names
                     for shape in shapes(known.get(operand, '')))
    results = shapes(result)
    taken = _taken(computations, op, rest, results, operands)
    yield Instruction(own, results, op, operands, sum(
        size for size, x in zip(taken, operands) if x.held),
                      _written(computations, op, rest, results, operands), times)
    if op == 'while':
      yield from _run(computations, _called(rest, 'body'),
                      times * _trips(computations, rest))
    elif op == 'call':
      yield from _run(computations, _called(rest, 'to_apply'), times)
    elif op == 'conditional':
      branches = re.search(r'branch_computations=\{([^}]*)\}', rest)
      names = (branches[1].split(', ') if branches else
               [_called(rest, f'{which}_computation')
                for which in ('true', 'false')])
      yield from max(([*_run(computations, each.lstrip('%'), times)]
                      for each in names), key=moved)


def _trips(computations, rest):
  """How often a loop runs; 1 where nothing says so."""
  if known := _TRIPS.search(rest):
    return int(known[1])
  # libtpu's text does not say it: of a loop that JAX counts, the condition is
  # count < constant.
  condition = computations[_called(rest, 'condition')]
  values = {own: _arguments(value) for own, _, op, value in condition
            if op == 'constant'}
  _, _, op, compared = condition[-1]
  _, last = (re.findall(r'%([\w.\-]+)', _arguments(compared)) + ['', ''])[:2]
  if op == 'compare' and 'direction=LT' in compared and last in values:
    return int(values[last])
  return 1


def _written(computations, op, rest, results, operands):
  """Bytes that an instruction writes to HBM."""
  if op == 'slice-start':  # (The operand, what is sliced, ...)
    results = results[1:2]
  elif op.endswith('-start'):  # (The result, the operand, ...)
    results = results[:1]
  size = sum(x.padded for x in results if x.held)
  if op == 'dynamic-update-slice':
    return min(size, operands[1].padded)
  inside = computations.get(_called(rest, 'calls')) if op == 'fusion' else None
  if inside and inside[-1][2] == 'dynamic-update-slice':
    known = {own: result for own, result, _, _ in inside}
    update = re.findall(r'%([\w.\-]+)', _arguments(inside[-1][3]))[1]
    return min(size, sum(x.padded for x in shapes(known[update])))
  return size


def _taken(computations, op, rest, results, operands):
  """Bytes that an instruction reads of each of its operands."""
  whole = [x.padded for x in operands]
  if op == 'slice-start':
    return [results[1].padded]
  if op in SLICES:
    return [sum(x.padded for x in results), *whole[1:]]
  if op == 'dynamic-update-slice':  # What is around the update stays.
    return [0, *whole[1:]]
  inside = computations.get(_called(rest, 'calls')) if op == 'fusion' else None
  if not inside:
    return whole
  users = collections.defaultdict(list)  # By operand: (operation, bytes).
  for _, result, inner, arguments in inside:
    size = sum(x.padded for x in shapes(result))
    for i, name in enumerate(re.findall(r'%([\w.\-]+)', _arguments(arguments))):
      stays = inner == 'dynamic-update-slice' and not i
      users[name].append(('slice', 0) if stays else (inner, size))
  for own, _, inner, arguments in inside:
    if inner == 'parameter' and users[own] and all(
        user in SLICES for user, _ in users[own]):
      place = int(_arguments(arguments))
      whole[place] = min(whole[place], sum(size for _, size in users[own]))
  return whole


def _called(text, what):
  return re.search(rf'{what}=%?([\w.\-]+)', text)[1]


def _arguments(text):
  """What stands before the parenthesis that closes the operands."""
  depth = 1
  for i, letter in enumerate(text):
    depth += (letter == '(') - (letter == ')')
    if not depth:
      return text[:i]
  return text


def moved(ran: Iterable[Instruction]) -> int:
  """Bytes between HBM and the chip, padding included, by one device."""
  return sum(each.moved * each.times for each in ran)


def collectives(ran: Iterable[Instruction]) -> dict[str, tuple[int, int]]:
  """{kind: (how many messages, bytes that one device gives, or receives)}.

  The more of both: what is gathered is received of all, and given once.
  """
  found = collections.defaultdict(lambda: (0, 0))
  for each in ran:
    kind = each.op.removesuffix('-start')
    if kind in COLLECTIVES:
      count, size = found[kind]
      # Where a gathering starts, its results are the operands and the rest.
      received = each.results[len(each.operands):] or each.results
      found[kind] = (count + each.times, size + each.times * max(
          sum(x.nbytes for x in some) for some in (each.operands, received)))
  return dict(found)
