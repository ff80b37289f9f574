"""Cutting tensors into blocks loses nothing, and turns leave nobody out."""

import hypothesis
from hypothesis import strategies
import jax.numpy as jnp
import numpy as np
import pytest

from big_distill.ops import blocks


@pytest.mark.parametrize('shape, merged', [
    ((3, 3, 128, 128), (9, 128, 128)), ((7, 7, 3, 64), (49, 3, 64)),
    ((1, 1, 64, 256), (64, 256)), ((1, 1, 1, 2048), (2048,)),
    ((3, 3, 1, 16), (9, 16)), ((8, 8), (64,)), ((2048, 1000), (2048, 1000)),
    ((1, 1), ()), ((), ())])
def test_small_neighbours_merge_as_published(shape, merged):
  assert blocks.merge(shape, 128) == merged


@pytest.mark.parametrize('shape', [
    (1000,), (147, 1), (3, 3, 5, 18), (8, 8), (17, 9), (2, 7, 1, 10)])
def test_blocks_are_slices_and_join_to_the_whole(shape):
  x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
  cut = blocks.Cut(shape, 8)
  got = cut.split(jnp.asarray(x))
  assert (cut.join(got) == x).all()
  assert max(cut.block) <= 8

  merged = x.reshape(cut.merged)
  for block, place in zip(np.asarray(got), np.ndindex(*cut.grid)):
    want = merged[tuple(slice(i * side, i * side + side)
                        for i, side in zip(place, cut.block))]
    inside = tuple(map(slice, want.shape))
    assert (block[inside] == want).all()
    block = block.copy()
    block[inside] = 0
    assert (block == 0).all()


@hypothesis.settings(max_examples=25, deadline=None, derandomize=True)
@hypothesis.given(
    strategies.lists(strategies.integers(1, 9), min_size=1, max_size=4).filter(
        lambda shape: max(shape) > 1), strategies.integers(1, 12))
def test_any_cut_joins_to_the_whole(shape, limit):
  x = np.arange(1., 1 + np.prod(shape)).reshape(shape).astype(np.float32)
  cut = blocks.Cut(tuple(shape), limit)
  got = np.asarray(cut.split(x))
  assert got.shape == (np.prod(cut.grid), *cut.block)
  assert max(cut.block, default=0) <= limit
  assert (np.asarray(cut.join(got)) == x).all()
  # Each entry lies in one block, and nothing else does.
  assert (np.sort(got[got > 0]) == x.ravel()).all() and (got >= 0).all()


def test_piles_hold_the_blocks_of_all_tensors_that_are_cut():
  shapes = [(5,), (6, 8), (), (1, 1, 1, 9), (8, 4), (3, 3, 2, 4)]
  tensors = [jnp.asarray(np.random.default_rng(i).normal(size=shape))
             for i, shape in enumerate(shapes)]
  piles = blocks.Piles(shapes, 4)
  gathered = piles.gather(tensors)
  assert {pile: x.shape for pile, x in gathered.items()} == piles.shapes == {
      '4x4': (6, 4, 4), '3x3x2x4': (1, 3, 3, 2, 4)}
  back = piles.scatter(gathered)
  assert sorted(back) == [1, 4, 5]
  for i, x in back.items():
    assert (x == tensors[i]).all()
  with_vectors = blocks.Piles(shapes, 4, min_rank=1)
  assert sorted(with_vectors.scatter(with_vectors.gather(tensors))) == [
      0, 1, 3, 4, 5]


def test_products_along_axes_are_those_of_numpy():
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, 3, 4, 5))
  matrices = [rng.normal(size=(2, d, d)) for d in x.shape[1:]]
  got = blocks.contract(x, matrices)
  want = np.einsum('nabc,nai,nbj,nck->nijk', x, *matrices)
  # Sums of up to 60 products of size 1 to 30, rounded to 6e-8 each.
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
  for got, axes in zip(blocks.covariances(jnp.asarray(x)),
                       ('nabc,nibc->nai', 'nabc,naic->nbi', 'nabc,nabi->nci')):
    np.testing.assert_allclose(got, np.einsum(axes, x, x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('every', [1, 2, 3, 10])
def test_every_block_has_its_turn_once_in_an_interval(every):
  shapes = {f'pile{n}': (n, 2, 2) for n in (1, 2, 3, 7, 9, 10, 11, 25, 100)}
  when = {pile: [[] for _ in range(n)] for pile, (n, *_) in shapes.items()}
  busy = []
  for count in range(3 * every):
    turns = blocks.turns(shapes, every, jnp.int32(count))
    busy.append(sum(int(turn.due) for turn in turns.values()))
    for pile, turn in turns.items():
      assert turn.size == -(-shapes[pile][0] // every)
      for i in range(int(turn.start), int(turn.start) + turn.size):
        if turn.due:
          when[pile][i].append(count)
  for pile, visits in when.items():
    for i, counts in enumerate(visits):
      # The last part may overlap the one before it.
      assert 3 <= len(counts) <= 6, (pile, i)
      assert counts[0] < every and (np.diff(counts) <= every).all(), (pile, i)
  # No step does it all, where there is more than one.
  assert every == 1 or max(busy) - min(busy) <= 2


def test_a_turn_takes_and_puts_the_same_part():
  stack = jnp.arange(7.)
  for count in range(6):
    turn, = blocks.turns({'a': (7,)}, 3, jnp.int32(count)).values()
    put = turn.put(stack, turn.take(stack) + 10)
    assert (put != stack).sum() == turn.size == 3
    assert (turn.work(lambda: turn.take(stack), jnp.zeros(3))
            == (turn.take(stack) if turn.due else 0)).all()
