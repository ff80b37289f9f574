"""Names of slices count chips or cores; peaks are those of the chip."""

import importlib.util
import math

import pytest

from big_distill import slices


@pytest.mark.parametrize('name, chips, topology, devices', [
    ('v2-8', 4, 'v2:2x2', 8),  # What JAX sees of v2 and v3 are cores.
    ('v3-32', 16, 'v3:4x4', 32),
    ('v4-32', 16, 'v4:2x2x4', 16),
    ('v5p-128', 64, 'v5p:4x4x4', 64),
    ('v5litepod-64', 64, 'v5e:8x8', 64),
    ('v5e-8', 8, 'v5e:2x4', 8),
    ('V6E-256', 256, 'v6e:16x16', 256),
    ('v5p-12288', 6144, 'v5p:16x16x24', 6144)])
def test_a_name_of_the_cloud_tells_chips_topology_and_devices(
    name, chips, topology, devices):
  found = slices.parse(name)
  assert (found.chips, found.topology, found.devices) == (
      chips, topology, devices)
  assert slices.parse(str(found)) == found


@pytest.mark.parametrize('name, says', [
    ('v5e', 'allowed is FAMILY-SIZE'), ('v7-8', 'did you mean|v6e'),
    ('v4-4', '8, 16, 32'), ('v5e-5', '1, 4, 8, 16'), ('v6e-512', '256 chips'),
    ('v2-16', '8, 32, 128'), ('v3-16', '8, 32, 64'), ('v4-', 'v4-32'),
    ('v4--8', 'v4-32'), ('4-8', 'v4'), ('v4-12288', '8192 TensorCores')])
def test_what_the_cloud_does_not_have_is_refused(name, says):
  with pytest.raises(ValueError, match=says):
    slices.parse(name)


@pytest.mark.parametrize('family', slices.CHIPS)
def test_topologies_have_as_many_chips_as_they_say(family):
  for chips, topology in slices.CHIPS[family].sizes.items():
    assert math.prod(map(int, topology.split('x'))) == chips


@pytest.mark.parametrize('family', slices.CHIPS)
def test_programs_get_less_memory_than_the_chip_has(family):
  chip = slices.CHIPS[family]
  assert .9 * chip.hbm < chip.free * chip.devices < 1.01 * chip.hbm


def test_without_libtpu_one_line_says_how_to_get_it(monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(ValueError, match=r'pip install "jax\[tpu\]"'):
    slices.devices(slices.parse('v5e-4'))


@pytest.mark.skipif(not importlib.util.find_spec('libtpu'),
                    reason='no libtpu here')
@pytest.mark.parametrize('name, hosts', [
    ('v4-32', 4), ('v3-32', 4), ('v5e-8', 1), ('v5e-32', 8), ('v6e-1', 1),
    ('v6e-8', 1), ('v6e-16', 4), ('v2-8', 1), ('v5p-12288', 1536)])
def test_libtpu_knows_the_devices_and_hosts_of_a_slice(name, hosts):
  which = slices.parse(name)
  devices = slices.devices(which)
  assert len(devices) == which.devices
  assert len({device.process_index for device in devices}) == hosts
