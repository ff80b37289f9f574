"""How students of one program are laid out, and convolved on a GPU."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from big_distill import costs
from big_distill import stacks
from big_distill.ops import layers


@pytest.mark.parametrize('family, optimizer, flops, platform, want', [
    ('bit', 'adam', 1e9, 'gpu', 'vmap'), ('bit', 'adam', 1e9, 'cpu', 'beside'),
    ('bit', 'adam', 3e11, 'gpu', 'beside'), ('vit', 'adam', 1e9, 'gpu', 'beside'),
    ('bit', 'shampoo', 1e9, 'gpu', 'beside')])
def test_only_what_was_measured_faster_stacked_is_stacked(
    family, optimizer, flops, platform, want):
  recipe = stacks.Recipe('', None, {}, family, optimizer, lambda: flops)
  assert stacks.choose(recipe, platform) == want


@pytest.mark.parametrize('k', [3, 5])
@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('same', [False, True])
def test_gathered_windows_convolve_as_xla_does_and_so_do_gradients(
    k, stride, same):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, 9, 8, 3)).astype(np.float32)
  kernels = rng.normal(size=(4, k, k, 3, 5)).astype(np.float32)

  def both(convolve):
    def of(kernel):
      y, pull = jax.vjp(lambda x, kernel: convolve(x, kernel, stride, same=same),
                        x, kernel)
      return y, pull(jnp.cos(y))

    return jax.vmap(of)(kernels)

  got = both(layers.windows_conv)
  want = both(functools.partial(layers.general_conv, groups=1))
  # Sums of up to 75 products, in another order; gradients sum over 144 places.
  jax.tree.map(lambda a, b: np.testing.assert_allclose(
      a, b, rtol=1e-4, atol=1e-4), got, want)


def test_a_widened_kernel_convolves_as_it_did_and_so_do_gradients():
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, 9, 8, 3)).astype(np.float32)
  kernel = rng.normal(size=(7, 7, 3, 24)).astype(np.float32)
  want, other = jax.vjp(lambda *args: layers.general_conv(*args, 2, 1), x, kernel)
  for convolve in (layers.widened_conv, layers.conv):
    got, pull = jax.vjp(lambda *args, f=convolve: f(*args, 2), x, kernel)
    np.testing.assert_allclose(got, want, atol=1e-4)
    for a, b in zip(pull(jnp.cos(want)), other(jnp.cos(want))):
      np.testing.assert_allclose(a, b, atol=1e-4)


def test_a_widened_kernel_is_counted_as_what_it_computes():
  program = jax.make_jaxpr(lambda x, kernel: layers.conv(x, kernel, 2))(
      jnp.ones([1, 16, 16, 3]), jnp.ones([7, 7, 3, 24]))
  assert costs.total(program.jaxpr, costs.flops_of) == 2 * 8 * 8 * 7 * 7 * 3 * 24


def test_stacked_kernels_are_products_on_a_gpu_and_grouped_elsewhere():
  def program(platform, convolve=layers.conv):
    stacked = jax.vmap(convolve, (None, 0))
    return jax.jit(stacked).trace(
        jnp.ones([2, 8, 8, 3]), jnp.ones([4, 3, 3, 3, 5])).lower(
            lowering_platforms=(platform,)).as_text()

  def inside(x, kernel):
    with layers.stacked():
      return layers.conv(x, kernel)

  assert 'stablehlo.convolution' not in program('cuda', inside)
  assert 'stablehlo.convolution' in program('cpu', inside)
  assert 'stablehlo.convolution' in program('cuda')
