"""bench/ compares like with like, and docs/ say what it measured."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bench import curves
from bench import images as images_bench
from bench import plain_flax
from bench import report
from bench import scaling
from bench import topk as topk_bench
from bench import tpu
from big_distill import command
from big_distill import params as params_lib
from big_distill import slices
from big_distill.input import crops
from big_distill.models import bit


def test_plain_flax_and_ours_are_one_function_and_gradient():
  ours = bit.Model(5, depth=(1, 2))
  plain = plain_flax.Model(5, units=(1, 2))
  rng = np.random.default_rng(0)
  images = rng.uniform(-1, 1, (2, 32, 32, 3)).astype(np.float32)
  shapes = jax.eval_shape(plain.init, jax.random.key(0), images)['params']
  given = {name: np.float32(.1 * rng.normal(size=leaf.shape)
                            + name.endswith('scale'))
           for name, leaf in params_lib.flatten(shapes).items()}

  def name(plain):  # 'Unit_2/GroupNorm_0/scale' -> ours.
    layer, *rest = plain.split('/')
    if layer == 'Unit_0' or layer.startswith('Unit_'):
      i = int(layer.removeprefix('Unit_'))
      block, unit = ((1, 1), (2, 1), (2, 2))[i]
      kind, _, j = rest[0].partition('_')
      convs = ['conv1', 'conv2', 'conv3']
      if unit == 1:
        convs = ['conv_proj', *convs]
      inner = f'gn{int(j) + 1}' if kind == 'GroupNorm' else convs[int(j)]
      return f'block{block}/unit{unit:02d}/{inner}/{rest[1]}'
    return {'StdConv_0': 'root_block/conv_root', 'Dense_0': 'head',
            'GroupNorm_0': 'norm-pre-head'}[layer] + '/' + rest[0]

  shaped = params_lib.flatten(
      jax.eval_shape(ours.init, jax.random.key(0), images)['params'])
  matched = {name(key): value.reshape(shaped[name(key)].shape)
             for key, value in given.items()}
  assert matched.keys() == shaped.keys()

  def run(apply, flat):
    return jax.jit(jax.value_and_grad(lambda params: jnp.sum(
        jnp.sin(apply({'params': params}, images)))))(
            params_lib.unflatten(flat))

  value, grads = run(plain.apply, given)
  our_value, our_grads = run(lambda *args: ours.apply(*args)[0], matched)
  # Sums in another order through a whole model, forward and backward: 7 digits
  # less three.
  np.testing.assert_allclose(our_value, value, rtol=1e-4)
  our_grads = params_lib.flatten(our_grads)
  for key, grad in params_lib.flatten(grads).items():
    np.testing.assert_allclose(
        our_grads[name(key)].reshape(grad.shape), grad, rtol=0,
        atol=2e-4 * float(jnp.abs(grad).max()), err_msg=key)


def test_the_formulas_are_what_layers_compute():
  model = bit.Model(5, depth=(1,), width=1)
  rng = np.random.default_rng(0)
  images = rng.uniform(-1, 1, (2, 32, 32, 3)).astype(np.float32)
  params = jax.jit(model.init)(jax.random.key(0), images)['params']
  params['head']['kernel'] = rng.normal(size=(256, 5)).astype(np.float32)

  def run():
    def gradient(params):  # A new one each time, which nobody has traced.
      return jax.value_and_grad(lambda params: jnp.sum(jnp.sin(
          model.apply({'params': params}, images)[0])))(params)

    traced = jax.jit(gradient).trace(params)
    return traced.lower().compile()(params), str(traced.jaxpr)

  ours, program = run()
  with curves.formulas():
    plain, other = run()
  assert 'platform_index' in program and 'platform_index' not in other
  # The formulas of norms subtract what is alike, and lose a digit more.
  jax.tree.map(lambda a, b: np.testing.assert_allclose(
      a, b, rtol=0, atol=2e-3 * np.abs(b).max() + 1e-6), ours, plain)


def test_all_input_pipelines_show_the_same_of_the_same_images(tmp_path):
  images_bench.mosaics(tmp_path, count=4)
  files = sorted(tmp_path.iterdir())
  shapes = {crops.decode(file.read_bytes()).shape for file in files}
  assert len(files) == 4 and shapes == {(384, 480, 3)}
  makers = images_bench.contenders(f'folder:{tmp_path}')
  for shown in images_bench.cases(16).values():
    sizes = sorted(size for _, size in shown)
    for code, make in makers.items():
      batch = next(make(shown, 8))
      views = batch if code == 'plain' else [*batch['views'].values()]
      assert sorted(view.shape for view in views) == [
          (8, size, size, 3) for size in sizes], code
      dtype = np.float32 if code == 'plain' else np.uint8
      assert all(view.dtype == dtype for view in views)
      # The mean of a view is that of photographs, not of what was scaled.
      assert all(60 < view.mean() < 180 for view in views)
  rows = images_bench.measure(makers, [16], batch=4, steps=1, repeats=1)
  assert len(rows) == 3 * len(makers)
  assert {row['times_plain'] for row in rows if row['code'] == 'plain'} == {1}


def test_scaling_is_told_in_rates_of_one_device(monkeypatch):
  def run(layout):
    slow = len(ran) == 4  # Once: medians do not mind.
    ran.append(layout)
    return [.5 * layout[0] * layout[1] * (10 if slow else 1), 7]

  ran = []
  monkeypatch.setattr(scaling, 'run', run)
  rows = scaling.measure(per_device=8, rounds=3)
  assert ran == 3 * [*scaling.LAYOUTS]
  for row, (processes, devices) in zip(rows, scaling.LAYOUTS, strict=True):
    assert row['batch'] == 8 * processes * devices
    assert row['images_per_s'] == 16 and row['of_one_device'] == 1
    assert row['exchanged_bytes'] == 7


@pytest.mark.parametrize('page', report.PAGES)
def test_pages_say_what_was_measured(page):
  with open(page) as file:
    text = file.read()
  assert report.replaced(text) == text, 'Run python -m bench.report.'
  assert text.count('<!-- bench ') == len(report.PLACE.findall(text)) > 0


def test_every_table_is_on_a_page():
  text = ''.join(open(page).read() for page in report.PAGES)
  assert {name for _, name, _ in report.PLACE.findall(text)} == {*report.TABLES}


@pytest.mark.float16
def test_errors_of_kept_logits_are_of_the_buckets_and_of_nothing_else():
  rng = np.random.default_rng(0)
  teacher, student = rng.normal(size=(2, 4, 50)) * 2
  kept = {k: {name: float(x) for name, x in topk_bench.measure(
      jnp.asarray(teacher, jnp.float32), student, k, 2.).items()}
          for k in (8, 50, None)}
  # float16 is 2^-11 off relatively; gradients are smaller than what they are of.
  assert max(row['stored_error'] for row in kept.values()) < .005
  assert kept[8]['gradient_error'] > .05 and kept[8]['kl_error'] > .05
  for all_of_them in (kept[50], kept[None]):
    assert all_of_them['gradient_error'] < .005 > all_of_them['kl_error']
    assert all_of_them['renormalised_error'] == pytest.approx(0, abs=1e-9)
  # The tail's classes get no gradient, the others too much.
  assert kept[8]['renormalised_error'] > kept[8]['gradient_error']


def test_page_on_tpus_has_the_table_of_what_was_compiled():
  page = tpu.PAGE.read_text()
  assert page.count('<!-- tpu -->') == 1
  assert tpu.replaced(page) == page, 'Run python -m bench.tpu table.'


def test_runs_of_the_table_are_configs_and_slices_that_there_are():
  for run in tpu.runs():
    command.resolve(run.words[:1])
    slices.parse(run.slice)
  assert len(set(tpu.runs())) == len(tpu.runs())
