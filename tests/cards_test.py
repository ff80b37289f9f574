"""A card travels with the parameters, and decides what model they are."""

import dataclasses
import json
import os
import threading
import zipfile

from absl import logging
import jax
import numpy as np
import pytest

import big_distill
from big_distill import cards
from big_distill import npz_files
from big_distill import params as params_lib
from big_distill import pretrained

CLASSES = ('ant', 'bee', 'Ümläut', 'cat', 'dog')
CARD = cards.Card(
    'bit', dict(num_classes=5, depth=(2, 1), width=.25), size=16,
    view='squash', fraction=.8, classes=CLASSES, mean=(.485, .456, .406),
    std=(.229, .224, .225), trained_by=dict(
        config=dict(lr=1e-3, mode='funmatch'), teachers=['a', None]))


def weights(model, size=16):
  """Random parameters of a model, by shape alone."""
  shapes = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct(
      (1, size, size, 3), np.float32))['params']
  rng = np.random.default_rng(0)
  return jax.tree.map(
      lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)


@pytest.fixture(scope='module')
def params():
  return weights(pretrained.build('bit', **CARD.options))


def warnings(monkeypatch):
  said = []
  monkeypatch.setattr(logging, 'warning', lambda text, *args: said.append(
      text % args))
  return said


def test_a_card_is_what_was_written_and_readers_of_arrays_do_not_see_it(
    params, tmp_path):
  path = tmp_path / 's.npz'
  big_distill.save(path, params, card=CARD)
  assert big_distill.card(path) == CARD == npz_files.load_card(path)
  with np.load(path) as file:
    assert set(file.files) == set(params_lib.flatten(params))
  with zipfile.ZipFile(path) as archive:
    assert archive.testzip() is None
    text = archive.comment.split(maxsplit=3)[-1]
    assert json.loads(text)['classes'] == list(CLASSES)


def test_a_card_decides_over_names(params, tmp_path):
  """Of one file's arrays, two models: a card's depth, mean and deviation."""
  for mean in (cards.layers.HALF, CARD.mean):
    card = dataclasses.replace(CARD, mean=mean, std=mean)
    big_distill.save(tmp_path / 's.npz', params, card=card)
    model, loaded = big_distill.load(tmp_path / 's.npz')
    assert model.mean == mean and cards.of(model).arguments == {
        'num_classes': 5, 'depth': (2, 1), 'width': .25}
    assert params_lib.checksum(params_lib.flatten(loaded)) == (
        params_lib.checksum(params_lib.flatten(params)))
  wrong = dataclasses.replace(CARD, arguments={**CARD.arguments, 'width': .5})
  big_distill.save(tmp_path / 's.npz', params, card=wrong)
  with pytest.raises(ValueError, match='! block1/unit01/conv1/kernel'):
    big_distill.load(tmp_path / 's.npz')


def test_a_file_without_a_card_is_described_by_its_names(params, tmp_path):
  big_distill.save(tmp_path / 's.npz', params)
  assert npz_files.load_card(tmp_path / 's.npz') is None
  assert big_distill.card(tmp_path / 's.npz') == cards.Card(
      'bit', CARD.arguments)


@pytest.mark.parametrize('family, kwargs', [
    ('bit', dict(depth=50, width=2)), ('bit', dict(depth=(1, 1), std=(1, 2, 3))),
    ('mobilenet_v3', dict(variant='small', norm='bn', mean=(0, 0, 0))),
    ('vit', dict(variant='Ti/8', depth=2, pool='tok', rep_size=3))])
def test_a_model_is_made_again_from_its_card(family, kwargs):
  model = pretrained.build(family, num_classes=7, **kwargs)
  # How a model computes is no matter of which function it is.
  card = cards.of(model.clone(dtype=np.float16, folded=True, remat=True),
                  size=32, classes='abcdefg')
  assert (card.size, card.classes) == (32, tuple('abcdefg'))
  comment = cards.from_comment(cards.to_comment(card))
  assert comment == card
  assert pretrained.build(comment.family, **comment.options) == model


def test_names_that_do_not_fit_go_first_and_are_said(monkeypatch):
  said = warnings(monkeypatch)
  many = cards.Card('bit', dict(num_classes=8_000), classes=[
      f'n{i:08d} some synset' for i in range(8_000)])
  comment = cards.to_comment(many)  # By zlib they fit.
  assert cards.from_comment(comment) == many and not said
  assert len(comment) <= cards.LIMIT

  noise = np.random.default_rng(0).bytes(100_000).hex()
  long = dataclasses.replace(CARD, classes=[noise, *CLASSES[1:]])
  got = cards.from_comment(cards.to_comment(long))
  assert got == dataclasses.replace(CARD, classes=())
  assert len(said) == 1 and 'classes' in said[0]
  longer = dataclasses.replace(long, trained_by=dict(noise=noise))
  got = cards.from_comment(cards.to_comment(longer))
  assert got == dataclasses.replace(CARD, classes=(), trained_by={})


def test_a_damaged_card_is_refused_or_intact(tmp_path):
  path = tmp_path / 's.npz'
  npz_files.save(path, {'a': np.zeros(2)}, CARD)
  whole = path.read_bytes()
  start = len(whole) - len(cards.to_comment(CARD))
  for i in range(start, len(whole), 3):
    path.write_bytes(whole[:i] + bytes([whole[i] ^ 5]) + whole[i + 1:])
    if i < start + len(cards.MARK):  # Any comment is allowed.
      assert npz_files.load_card(path) is None
      continue
    with pytest.raises(ValueError, match='card is damaged') as error:
      npz_files.load_card(path)
    assert len(str(error.value).splitlines()) == 1 and str(path) in str(error)
  for size in range(start, len(whole)):
    path.write_bytes(whole[:size])
    with pytest.raises(ValueError, match='not a whole one'):
      npz_files.load_card(path)


@pytest.mark.parametrize('kwargs, message', [
    (dict(mean=(1, 2)), 'mean=.* 3 finite'), (dict(std=(1, 0, 1)), 'above 0'),
    (dict(mean=(0, 0, np.nan)), 'finite'), (dict(classes='abc'), '3 names'),
    (dict(trained_by=dict(x=object())), 'plain values'),
    (dict(view='centra'), 'did you mean central')])
def test_a_bad_card_is_refused_in_one_line(kwargs, message):
  with pytest.raises(ValueError, match=message) as error:
    cards.Card('bit', dict(num_classes=5), **kwargs)
  assert len(str(error.value).splitlines()) == 1


def test_a_model_without_its_family_is_named(params, tmp_path):
  card = dataclasses.replace(CARD, family='bot')
  big_distill.save(tmp_path / 's.npz', params, card=card)
  with pytest.raises(ValueError, match="no model 'bot'; did you mean bit"):
    big_distill.load(tmp_path / 's.npz')


def test_a_checksum_is_of_names_dtypes_shapes_and_values_in_any_order():
  flat = {'a': np.arange(6, dtype=np.float32), 'b': np.float32(1)}
  others = [
      flat | {'a': flat['a'].reshape(2, 3)}, flat | {'a': flat['a'] + 1},
      flat | {'a': np.float64(flat['a'])}, flat | {'b': np.ones(1, np.float32)},
      {'c': flat['a'], 'b': flat['b']}, {'a': flat['a']}]
  sums = [params_lib.checksum(each) for each in (flat, *others)]
  assert len(set(sums)) == len(sums)
  assert sums[0] == params_lib.checksum(
      {'b': jax.numpy.float32(1), 'a': jax.numpy.arange(6.)})
  # It must be the same tomorrow, on another machine.
  assert sums[0] == 'f4f5ce859339b4dd'


def test_two_writers_of_one_file_leave_one_whole_file(tmp_path):
  path, failed = tmp_path / 's.npz', []

  def write(value):
    try:
      for _ in range(30):
        npz_files.save(path, {'a': np.full(20_000, value)})
    except Exception as error:
      failed.append(error)

  threads = [threading.Thread(target=write, args=[i]) for i in (1., 2.)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert not failed
  assert len(set(npz_files.load(path)['a'])) == 1
  assert os.listdir(tmp_path) == ['s.npz']


def test_the_first_host_alone_writes(tmp_path, monkeypatch):
  monkeypatch.setattr(jax, 'process_index', lambda: 1)
  npz_files.save(tmp_path / 's.npz', {'a': np.zeros(1)})
  assert not os.listdir(tmp_path)
