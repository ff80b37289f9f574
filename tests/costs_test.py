"""What is counted of a program before it runs is what it computes."""

import jax
import jax.numpy as jnp
import pytest

from big_distill import costs
from big_distill import pretrained


@pytest.mark.parametrize('stride', [1, 2])
def test_gradients_of_a_convolution_cost_what_two_of_it_do(stride):
  def convolve(kernel, image):
    return jax.lax.conv_general_dilated(
        image, kernel, (stride, stride), 'SAME',
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'))

  def counted(function):
    return costs.operations(function, jnp.ones((3, 3, 4, 6)),
                            jnp.ones((2, 8, 8, 4)))

  once = 2 * (2 * (8 // stride)**2 * 6) * (3 * 3 * 4)
  assert counted(convolve) == once
  # Of squares, so that the gradient is made of the output, computed once.
  both = jax.grad(lambda *x: jnp.sum(convolve(*x)**2), (0, 1))
  assert counted(both) == 3 * once


@pytest.mark.parametrize('family', [
    dict(family='bit', depth=(1, 1), width=.25),
    dict(family='vit', variant='mu/8'),
    dict(family='mobilenet_v3', variant='small', width=.25)])
def test_a_students_gradient_costs_what_three_forward_passes_do(family):
  model, params = pretrained.shapes_of(size=32, num_classes=10, **family)
  image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)

  def forward(params, image):
    return jnp.sum(model.apply({'params': params}, image)[0])

  once = costs.operations(forward, params, image)
  # On as many devices as there are: a program of training is one of pmap.
  stacked, images = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct((jax.device_count(), *x.shape), x.dtype),
      (params, image))
  learn = costs.operations(jax.pmap(jax.grad(forward)), stacked, images)
  # But for the gradient of the image, which nobody asks for.
  assert 2.5 * once < learn < 3.01 * once
