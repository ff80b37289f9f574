"""A batch is a pure function of (config, step)."""

import itertools

import hypothesis
from hypothesis import strategies
import jax
import numpy as np
import pytest
import tensorflow as tf

from big_distill import parallel
from big_distill.input import crops
from big_distill.input import pipeline
from big_distill.input import sources
from big_distill.views import View

N = 20
VIEWS = [View.parse(text) for text in (
    'inception#student@8', 'inception#teacher@8', 'inception#student@6')]


@pytest.fixture(scope='module')
def source():
  return sources.load('caltech12', f'train[:{N}]', cache='decoded')


def batches(source, start, stop, size=8, seed=0, **kwargs):
  return list(pipeline.train_batches(source, VIEWS, size, seed, start, stop,
                                     **kwargs))


def assert_equal(a, b):
  tf.nest.map_structure(np.testing.assert_array_equal, a, b)


def test_any_step_can_be_the_first(source):
  whole = batches(source, 0, 7)
  for start in (1, 5):
    assert_equal(batches(source, start, 7), whole[start:])


def test_a_run_may_start_at_any_epoch_at_once(source):
  far = 10**10  # Its example numbers and epochs do not fit in 32 bits.
  stream = pipeline.train_batches(source, VIEWS, 8, 0, far, far + 10**6)
  first = list(itertools.islice(stream, 2))
  assert_equal(batches(source, far + 1, far + 2), first[1:])


@pytest.mark.parametrize('size', [8, 24])  # Steps that hold an epoch's end.
def test_an_epoch_visits_every_example_once_in_an_order_of_its_own(source, size):
  steps = batches(source, 0, 120 // size, size)
  epochs = np.concatenate([batch['index'] for batch in steps]).reshape(6, N)
  assert all(sorted(epoch) == list(range(N)) for epoch in epochs)
  assert len({tuple(epoch) for epoch in epochs}) == 6


@hypothesis.settings(max_examples=10, deadline=None, derandomize=True)
@hypothesis.given(
    strategies.lists(strategies.tuples(strategies.integers(1, 12),
                                       strategies.integers(1, 3)),
                     min_size=1, max_size=3),
    strategies.integers(0, 2**31 - 1), strategies.integers(0, 10**9))
def test_any_mixture_visits_each_example_once_an_epoch(parts, seed, epoch):
  weights = sum(weight for _, weight in parts)
  example = tf.function(lambda number: pipeline.example_of(number, parts, seed))
  first = 0
  for i, (n, weight) in enumerate(parts):
    # Numbers of the i-th part: `own` counts its examples over all epochs.
    before = sum(weight for _, weight in parts[:i])
    own = epoch * n + np.arange(n)
    numbers = own // weight * weights + before + own % weight
    epochs, indices = zip(*[example(tf.constant(x, tf.int64))
                            for x in numbers])
    assert {int(e) for e in epochs} == {epoch}
    assert sorted(int(x) - first for x in indices) == list(range(n))
    first += n


@pytest.mark.parametrize('n', [1, 2, 3, 1000])
def test_the_order_is_a_permutation_of_any_number(n):
  numbers = tf.range(n, dtype=tf.int64)
  _, index = tf.map_fn(lambda i: pipeline.example_of(i, ((n, 1),), 5), numbers,
                       fn_output_signature=(tf.int64, tf.int64))
  assert sorted(index.numpy()) == list(range(n))


def test_orders_of_a_thousand_epochs_and_of_many_seeds_differ():
  def order(number, seed):
    order_of = tf.function(
        lambda i: pipeline.example_of(i, ((N, 1),), seed)[1])
    return tuple(int(order_of(tf.constant(i, tf.int64)))
                 for i in range(number, number + N))
  patient = {order(N * epoch, 0) for epoch in (0, 1, 256, 257, 512, 2**16, 2**32)}
  assert len(patient) == 7
  seeds = (0, 1, 256, 2**16, 2**31, 2**32)
  assert len({order(0, seed) for seed in seeds}) == 6


def test_over_many_epochs_every_example_neighbours_every_other():
  """Neighbours are what mixup blends: pairs come evenly, wherever they are."""
  n, epochs = 16, 2400
  @tf.function
  def pair(epoch, place):
    first = pipeline.example_of(epoch * n + place, ((n, 1),), 0)[1]
    return first, pipeline.example_of(
        epoch * n + place + 1, ((n, 1),), 0)[1]
  for place in (0, 7):
    places = tf.constant(place, tf.int64)
    pairs = [pair(epoch, places) for epoch in tf.range(epochs, dtype=tf.int64)]
    codes = [int(first) * n + int(second) for first, second in pairs]
    counts = np.bincount(codes, minlength=n * n).reshape(n, n)
    assert (np.diag(counts) == 0).all()
    expected, freedom = epochs / (n * (n - 1)), n * (n - 1) - 1
    chi2 = ((counts - expected)**2 / expected)[~np.eye(n, dtype=bool)].sum()
    assert abs(chi2 - freedom) < 5 * (2 * freedom)**.5


@pytest.mark.parametrize('hosts', [2, 4])
def test_hosts_share_the_same_global_batch(source, hosts):
  whole = batches(source, 2, 4)
  parts = [batches(source, 2, 4, host=(i, hosts)) for i in range(hosts)]
  for step, want in enumerate(whole):
    got = tf.nest.map_structure(lambda *x: np.concatenate(x),
                                *[part[step] for part in parts])
    assert_equal(got, want)


def test_the_seed_decides_order_and_views(source):
  one, other = batches(source, 0, 3), batches(source, 0, 3, seed=1)
  assert any((a['index'] != b['index']).any() for a, b in zip(one, other))
  same = sources.load('caltech12', 'train[:1]')
  a, b = (batches(same, 0, 1, seed=seed)[0]['views'] for seed in (0, 2**40))
  assert all((a[str(view)] != b[str(view)]).any() for view in VIEWS)


def test_a_batch_has_every_view_as_uint8(source):
  batch, = batches(source, 0, 1)
  for view in VIEWS:
    pixels = batch['views'][str(view)]
    assert pixels.dtype == np.uint8
    assert pixels.shape == (8, view.size, view.size, 3)
  student, teacher = (batch['views'][str(view)] for view in VIEWS[:2])
  assert (student != teacher).any(axis=(1, 2, 3)).all()
  assert batch['label'].dtype == np.int32


def test_an_example_is_seen_differently_in_every_epoch():
  source = sources.load('caltech12', 'train[:1]')
  pixels = [batch['views']['inception#student@8'].tobytes()
            for batch in batches(source, 0, 3, size=1)]
  assert len(set(pixels)) == 3


def test_labels_belong_to_their_images(source):
  batch, = batches(source, 0, 1)
  for index, label in zip(batch['index'], batch['label']):
    assert source.fetch(tf.constant(index))[1] == label


@pytest.mark.parametrize('size, hosts', [(8, 1), (8, 2), (24, 4), (20, 1)])
def test_evaluation_sees_a_split_once_and_masks_the_rest(source, size, hosts):
  view = View.parse('central@8')
  parts = [list(pipeline.eval_batches(source, [view], size, 0, host=(i, hosts)))
           for i in range(hosts)]
  assert {len(part) for part in parts} == {-(-N // size)}
  seen = [index for part in parts for batch in part
          for index, mask in zip(batch['index'], batch['mask']) if mask]
  assert sorted(seen) == list(range(N))
  assert all(batch['views'][str(view)].shape[0] == size // hosts
             for part in parts for batch in part)
  joined = [tf.nest.map_structure(lambda *x: np.concatenate(x), *batch)
            for batch in zip(*parts)]
  alone = list(pipeline.eval_batches(source, [view], size, 0))
  assert_equal(joined, alone)
  assert [*np.concatenate([batch['index'] for batch in alone])[:N]] == [*range(N)]


def test_a_batch_that_hosts_cannot_share_is_an_error(source):
  for make in (lambda **host: batches(source, 0, 1, **host),
               lambda **host: pipeline.eval_batches(source, VIEWS, 8, 0, **host)):
    with pytest.raises(ValueError, match='8 does not divide among 3 hosts'):
      make(host=(0, 3))


def test_pixels_of_a_batch_are_the_views_of_its_examples(source):
  batch, = batches(source, 4, 5)  # Numbers 32 ... 39: the second epoch.
  for row, index in enumerate(batch['index']):
    image, _ = source.fetch(tf.constant(index))
    want = crops.render(image, VIEWS, 0, tf.constant(1, tf.int64),
                        tf.constant(index))
    for view, pixels in batch['views'].items():
      assert (pixels[row] == want[view].numpy()).all()


def test_the_fraction_decides_the_central_crop(source):
  view = View.parse('central@8')
  a, b = (next(pipeline.eval_batches(source, [view], 8, 0, fraction=fraction))
          for fraction in (.5, 1.))
  assert (a['views'][str(view)] != b['views'][str(view)]).any()


def test_training_alone_is_reduced():
  source = sources.load('caltech12', f'train[:{N}]')
  view = View.parse('random#a@16')  # Of 96 px or more, as far as 1/4.
  def differ(make, *args):
    a, b = (next(make(source, *args, reduced=reduced))['views'][str(view)]
            for reduced in (False, True))
    return (a != b).any()
  assert differ(pipeline.train_batches, [view], 8, 0, 0, 1)
  # What votes teaches, and has to see what a student sees.
  assert differ(pipeline.vote_batches, [view], 8, 0, 0, 4, 2)
  assert not differ(pipeline.eval_batches, [view], 8, 0)


def test_views_reach_the_devices_as_uint8_without_a_copy_on_the_host(source):
  """On CPU the arrays of the devices are the memory that tf.data filled."""
  share = 8 * jax.local_device_count()
  batch, = batches(source, 0, 1, share)
  arrays = parallel.split(batch)['views']
  for view in VIEWS[:2]:  # Shares of 8 x 8 x 8 x 3 bytes: at multiples of 64.
    pixels, array = batch['views'][str(view)], arrays[str(view)]
    assert array.dtype == np.uint8 and pixels.dtype == np.uint8
    for shard in array.addressable_shards:
      place = shard.data.unsafe_buffer_pointer() - pixels.ctypes.data
      assert place == shard.index[0].start * pixels.nbytes // array.shape[0]


def test_a_mixture_shows_its_parts_by_weight_and_each_in_whole_epochs():
  parts, seed = ((5, 3), (4, 1)), 7  # 3 of 4 numbers are of the first part.
  numbers = tf.range(4 * 5 * 4, dtype=tf.int64)
  epochs, indices = tf.map_fn(
      lambda i: pipeline.example_of(i, parts, seed), numbers,
      fn_output_signature=(tf.int64, tf.int64))
  seen = list(zip(epochs.numpy(), indices.numpy()))
  blocks = np.asarray([index for _, index in seen]).reshape(-1, 4)
  assert ((blocks < 5).sum(axis=1) == 3).all()
  for want, rounds in ((range(5), 12), (range(5, 9), 5)):
    for epoch in range(rounds):
      assert sorted(i for e, i in seen if e == epoch and i in want) == list(want)


def test_a_mixture_has_the_images_of_its_parts_and_no_labels():
  cups = dict(name='caltech12', split='train[:3]', weight=2)
  mixed = sources.load(cache='decoded', parts=dict(
      a=cups, b=dict(name='caltech12', split='test[:4]')))
  assert mixed.num_examples == 7 and not mixed.classes
  batch, = batches(mixed, 0, 1, size=24)
  view = str(VIEWS[0])
  alone = sources.load('caltech12', 'test[:4]', cache='decoded')
  fetch = tf.function(mixed.fetch)
  for i in range(7):
    image, label = fetch(tf.constant(i, tf.int64))
    assert label == -1
    if i >= 3:
      want, _ = alone.fetch(tf.constant(i - 3, tf.int64))
      assert (image == want).numpy().all()
  assert (batch['label'] == -1).all() and len(batch['views'][view]) == 24
  assert 'test' in mixed.title and mixed.name(5).startswith('caltech12-test')


def test_a_mixture_of_nothing_or_by_halves_is_refused():
  for options, message in (
      ({}, 'either one name or several parts'),
      ({'name': 'caltech12', 'parts': {'a': {}}}, 'either one name'),
      ({'parts': {'a': {'name': 'caltech12', 'weight': .5}}}, 'whole numbers')):
    with pytest.raises(ValueError, match=message):
      sources.load(**options)
