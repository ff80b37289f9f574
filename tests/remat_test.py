"""Rematerialised models have the same gradients and keep less for them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from big_distill import parallel
from big_distill import pretrained
from big_distill.models import mobilenet_v3

MODELS = {
    'bit': dict(family='bit', depth=(2, 2), width=.125, size=16),
    'vit': dict(family='vit', variant='mu/8', size=16),
    'gn': dict(family='mobilenet_v3', variant='small', width=.25, size=32),
    'bn': dict(family='mobilenet_v3', variant='small', width=.25, norm='bn',
               size=32),
}


@pytest.mark.parametrize('name', MODELS)
def test_remat_changes_no_gradient_and_keeps_less(name, monkeypatch):
  # Of its eleven blocks, three are as good and compile in time.
  monkeypatch.setitem(mobilenet_v3.VARIANTS, 'small',
                      (mobilenet_v3.VARIANTS['small'][0][:3], 16))
  size = MODELS[name]['size']
  model, params = pretrained.create(num_classes=3, **MODELS[name])
  rng = np.random.default_rng(0)
  params['head']['kernel'] = rng.normal(
      size=params['head']['kernel'].shape).astype(np.float32)
  images = rng.normal(size=(8, size, size, 3)).astype(np.float32)
  kept = []

  def gradient(remat, params, images):
    def loss(params):
      (logits, _), moved = model.clone(remat=remat).apply(
          {'params': params}, images, train=True, mutable=['averages'])
      return jax.nn.log_softmax(logits)[:, 0].mean(), moved

    value, pull, moved = jax.vjp(loss, params, has_aux=True)
    # What a vjp closes over is what lies in memory between the passes.
    kept.append(sum(x.size for x in jax.tree.leaves(pull)))
    grads, = pull(jnp.ones([]))
    return parallel.mean((value, grads)), moved

  plain, remat = (parallel.pmap(lambda *args, remat=remat: gradient(
      remat, *args))(parallel.replicate(params), parallel.split(images))
                  for remat in (False, True))
  # Values are the same, but sums are fused in another order.
  jax.tree.map(lambda a, b: np.testing.assert_allclose(
      a, b, rtol=1e-4, atol=1e-5 * np.abs(b).max() + 1e-7), plain, remat)
  weights = sum(x.size for x in jax.tree.leaves(params))
  assert kept[1] - weights < .7 * (kept[0] - weights), kept
