"""TPU slices by the cloud's names: their chips, hosts and published peaks.

libtpu describes slices that are not there, and compiles for them on any Linux
machine. A name counts chips (v5e-64, v6e-8), or for the families before and
for v5p TensorCores, of which a chip has two (v4-32 is 16 chips on 4 hosts).
"""

import importlib.util
import os
import re
from typing import Any, NamedTuple

from big_distill import registry

INSTALL = 'pip install "jax[tpu]"'

# Of all links of a chip together, in one direction: where Google publishes both
# directions, half of it. v2 and v3: Jouppi et al., "A Domain-Specific
# Supercomputer for Training Deep Neural Networks" (CACM 2020), 4 links of 496 and
# 656 Gbit/s; v4: Jouppi et al. (arXiv 2304.01433), 6 links of 50 GB/s.
_V2, _V3, _V4 = 4 * 496e9 / 8, 4 * 656e9 / 8, 6 * 50e9

TWO_AXES = {1: '1x1', 4: '2x2', 8: '2x4', 16: '4x4', 32: '4x8', 64: '8x8',
            128: '8x16', 256: '16x16', 512: '16x32', 1024: '32x32'}
THREE_AXES = {4: '2x2x1', 8: '2x2x2', 16: '2x2x4', 32: '2x4x4', 64: '4x4x4',
              128: '4x4x8', 256: '4x8x8', 512: '8x8x8', 1024: '8x8x16',
              2048: '8x16x16', 4096: '16x16x16'}


class Chip(NamedTuple):
  """A kind of TPU. Amounts are of a chip, as `source` publishes them.

  cores: TensorCores that a name counts for a chip; 1 where it counts chips.
  devices: what JAX sees of a chip.
  hbm: GiB in name; `free`: GiB of it that libtpu 0.0.42 lets the programs of a
    device have, by its own refusals.
  flops: bfloat16 operations, bandwidth and link: bytes; a second.
  sizes: chips -> topology, of the slices that the cloud has.
  """
  cores: int
  devices: int
  hbm: int
  free: float
  flops: float
  bandwidth: float
  link: float
  sizes: dict[int, str]
  source: str


_DOCS = 'https://cloud.google.com/tpu/docs/'


def _of(sizes, *chips):
  return {n: sizes[n] for n in chips}


_FLAT = _of(TWO_AXES, 1, 4, 8, 16, 32, 64, 128, 256)
CHIPS = {
    'v2': Chip(2, 2, 16, 7.48, 45e12, 700e9, _V2,
               _of(TWO_AXES, 4, 16, 64, 128, 256), _DOCS + 'v2'),
    'v3': Chip(2, 2, 32, 15.48, 123e12, 900e9, _V3,
               _of(TWO_AXES, 4, 16, 32, 64, 128, 256, 512, 1024), _DOCS + 'v3'),
    'v4': Chip(2, 1, 32, 30.75, 275e12, 1200e9, _V4, THREE_AXES, _DOCS + 'v4'),
    'v5e': Chip(1, 1, 16, 15.75, 197e12, 819e9, 200e9, _FLAT, _DOCS + 'v5e'),
    'v5p': Chip(2, 1, 95, 95.74, 459e12, 2765e9, 600e9,
                {**THREE_AXES, 6144: '16x16x24'}, _DOCS + 'v5p'),
    'v6e': Chip(1, 1, 32, 31.25, 918e12, 1638e9, 400e9, _FLAT, _DOCS + 'v6e'),
}
ALIASES = {'v5litepod': 'v5e'}


class Slice(NamedTuple):
  """Chips of one family that are connected."""
  family: str
  chips: int

  @property
  def chip(self) -> Chip:
    return CHIPS[self.family]

  @property
  def topology(self) -> str:
    """As libtpu names it."""
    return f'{self.family}:{self.chip.sizes[self.chips]}'

  @property
  def devices(self) -> int:
    """What JAX sees: cores of v2 and v3, chips of the others."""
    return self.chips * self.chip.devices

  @property
  def larger(self) -> list['Slice']:
    """The slices of this family that have more chips, the next one first."""
    return [Slice(self.family, n) for n in self.chip.sizes if n > self.chips]

  def __str__(self) -> str:
    return f'{self.family}-{self.chips * self.chip.cores}'


def parse(name: str) -> Slice:
  """The slice of a name such as v4-32, v5litepod-16, v5e-64 or v6e-8.

  Raises ValueError for a family or a size that there is not.
  """
  match = re.fullmatch(r'(\w+)-(\d+)', name.lower())
  if not match:
    raise ValueError(f'slice={name}: allowed is FAMILY-SIZE, such as v4-32, '
                     f'with a family of {", ".join([*CHIPS, *ALIASES])}.')
  family = ALIASES.get(match[1], match[1])
  registry.check('family of TPUs', family, CHIPS)
  chip = CHIPS[family]
  sizes = [n * chip.cores for n in chip.sizes]
  if int(match[2]) not in sizes:
    counted = 'TensorCores' if chip.cores > 1 else 'chips'
    raise ValueError(f'slice={name}: {family} has slices of '
                     f'{", ".join(map(str, sizes))} {counted}.')
  return Slice(family, int(match[2]) // chip.cores)


def devices(which: Slice) -> list[Any]:
  """JAX's devices of a slice that need not be there, to compile for.

  Raises ValueError where there is no libtpu.
  """
  if not importlib.util.find_spec('libtpu'):
    raise ValueError(f'There is no libtpu here, which compiles for TPUs, with '
                     f'or without one: {INSTALL} on a Linux machine.')
  # Without these libtpu asks the cloud which TPU this is, and waits for long.
  os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')
  os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')
  # And without these it complains of a host that it does not know.
  os.environ.setdefault('TPU_ACCELERATOR_TYPE', 'v5litepod-4')
  os.environ.setdefault('TPU_WORKER_HOSTNAMES', 'localhost')
  from jax.experimental import topologies
  options: dict[str, Any] = {}
  if which.family == 'v4':
    options['chip_config_name'] = 'megacore'  # As in the cloud: 1 device a chip.
  if which.chip.cores == 1 and which.chips in (1, 8):  # All of them on one host.
    options['chips_per_host_bounds'] = {1: (1, 1, 1), 8: (2, 4, 1)}[which.chips]
  return topologies.get_topology_desc(
      platform='tpu', topology_name=which.topology, **options).devices
