"""Images in one npz file, for machines that have no TensorFlow.

tools/pack.py writes it where TensorFlow is. Elsewhere `Data(file)` takes the
place of input/pipeline.py in train.train: images are decoded by Pillow and held
by the devices (data.resident=True), which render all views. A batch is a
function of (seed, step) here too, and boxes follow the laws of input/crops.py;
but numpy draws them, so they are other boxes than TensorFlow's.

The file holds `classes`, and of each split NAME: `NAME/bytes`, encoded images
one after another; `NAME/ends` [n], where each one ends; `NAME/labels` [n].
"""

from collections.abc import Iterator, Sequence
import concurrent.futures
import functools
import io
import re
from typing import Any, NamedTuple

import jax
import numpy as np

from big_distill import contracts
from big_distill import npz_files
from big_distill import registry
from big_distill import render
from big_distill import views as views_lib

# As input/crops.py has them, which imports TensorFlow.
AREA, ASPECT = (0.05, 1.0), (0.75, 1.33)
TRIES = 100  # As the TensorFlow op: then the whole image is the box.


class Source(NamedTuple):
  """A split of the file, or a range of one."""
  title: str
  num_examples: int
  classes: tuple[str, ...]
  split: str
  first: int
  resident: bool
  fingerprint: str  # As that of a contracts.Source, by lengths and labels.
  as_shown: bool = False  # Images are pixels, decoded when they were packed.


class Data:
  """Has the functions of input/pipeline.py that training from devices needs.

  Raises ValueError where the file is not one of tools/pack.py.
  """

  def __init__(self, file: str):
    self._file, self._arrays = file, npz_files.load(file)
    if 'classes' not in self._arrays:
      raise ValueError(f'{file} holds no packed images: make it with python -m '
                       'big_distill.tools.pack.')
    self._views = {}  # Of whole splits, for evaluation.

  def load(self, name: str | None = None, split: str = 'train',
           data_dir: str | None = None, cache: str = 'decoded',
           corrupt: str = 'stop', label: str | None = 'label',
           resident: bool = False) -> Source:
    """Opens a packed split, 'train', or a range of its examples, 'train[:9]'.

    `name` is said in messages; the keys after `split` are for pipeline.load.
    """
    del data_dir, cache, corrupt
    match = re.fullmatch(r'(.+?)(?:\[(\d*):(\d*)\])?', split)
    own, first, last = ((split, '', '') if f'{split}/ends' in self._arrays
                        else match.groups(default=''))
    known = [key.removesuffix('/ends') for key in self._arrays
             if key.endswith('/ends')]
    registry.check(f'split in {self._file}', own, known)
    indices = range(len(self._arrays[f'{own}/ends']))[
        slice(int(first or 0), int(last) if last else None)]
    if not indices:
      raise ValueError(f'The split {split} of {self._file} is empty.')
    classes = tuple(map(str, self._arrays['classes'])) if label else ()
    span = slice(indices[0], indices[-1] + 1)
    return Source(
        f'{name or self._file} {split}', len(indices), classes, own, indices[0],
        resident, contracts.fingerprint(*(
            self._arrays[f'{own}/{key}'][span].tolist()
            for key in ('ends', 'labels'))))

  def hold(self, source: Source) -> tuple[render.Images, np.ndarray]:
    """All images of a split, decoded, and their labels, int32 [n]."""
    span = slice(source.first, source.first + source.num_examples)
    ends = self._arrays[f'{source.split}/ends']
    starts = np.concatenate([[0], ends[:-1]])
    content = self._arrays[f'{source.split}/bytes']
    with concurrent.futures.ThreadPoolExecutor() as pool:
      images = list(pool.map(
          lambda ends: _decode(content[ends[0]:ends[1]].tobytes()),
          zip(starts[span], ends[span])))
    return render.pack(images), self._arrays[f'{source.split}/labels'][span]

  def train_batches(self, source: Source, *args: Any, **kwargs: Any) -> None:
    """Raises ValueError: only devices render packed images."""
    raise ValueError(f'{source.title} is packed: set data.resident=True.')

  def train_boxes(
      self, source: Source, views: Sequence[views_lib.View], batch_size: int,
      seed: int, start: int, stop: int, *, held: tuple, period: int = 0,
      fraction: float = views_lib.FRACTION, reduced: bool = False,
      host: tuple[int, int] = (0, 1)) -> Iterator[dict]:
    """Yields host batches of steps start ... stop - 1, see pipeline.train_boxes.

    {'label': int32 [b], 'index': int64 [b], 'boxes': {region: int32 [b, 5]}},
    each of its step modulo `period`, unless that is 0.
    """
    del reduced
    images, labels = held
    share = batch_size // host[1]
    mine = slice(host[0] * share, (host[0] + 1) * share)
    order = functools.lru_cache(2)(lambda epoch: np.random.default_rng(
        [seed, epoch]).permutation(source.num_examples))
    regions = sorted({view.region for view in views}, key=str)
    for step in range(start, stop):
      step = step % period if period else step
      epochs, places = np.divmod(
          np.arange(step * batch_size, (step + 1) * batch_size),
          source.num_examples)
      index = np.asarray([order(epoch)[place]
                          for epoch, place in zip(epochs, places)])
      yield {'label': labels[index[mine]], 'index': index[mine], 'boxes': {
          str(region): boxes(region, images.sizes[index], fraction,
                             np.random.default_rng(
                                 [seed, step, region.die or 0]))[mine]
          for region in regions}}

  def indices(
      self, source: Source, batch_size: int, seed: int, start: int, stop: int,
      *, period: int = 0, host: tuple[int, int] = (0, 1)
      ) -> Iterator[np.ndarray]:
    """Yields the 'index' of each of train_boxes, int64 [b]."""
    labels = self._arrays[f'{source.split}/labels'][source.first:]
    return (batch['index'] for batch in self.train_boxes(
        source, [], batch_size, seed, start, stop, held=(None, labels),
        period=period, host=host))

  def eval_batches(
      self, source: Source, views: Sequence[views_lib.View], batch_size: int,
      seed: int, *, fraction: float = views_lib.FRACTION, reduced: bool = False,
      host: tuple[int, int] = (0, 1)) -> Iterator[dict]:
    """Yields host batches of a split in order, see pipeline.eval_batches.

    Rendered views stay in memory, for the next evaluation.
    """
    del reduced
    n, share = source.num_examples, batch_size // host[1]
    shown = {str(view): self._rendered(source, view, seed, fraction)
             for view in views}
    labels = self._arrays[f'{source.split}/labels'][source.first:]
    for start in range(0, n, batch_size):
      numbers = start + host[0] * share + np.arange(share)
      index = np.minimum(numbers, n - 1)
      yield {'label': labels[index], 'index': index,
             'mask': (numbers < n).astype(np.float32),
             'views': {key: pixels[index] for key, pixels in shown.items()}}

  def _rendered(self, source, view, seed, fraction):
    """uint8 [n, s, s, 3], by a view without a die or with one alike."""
    key = (source.split, source.first, source.num_examples, str(view), seed,
           fraction)
    if key not in self._views:
      images, _ = self.hold(source)
      rng = np.random.default_rng([seed, 0, view.die or 0])
      frames = boxes(view.region, images.sizes, fraction, rng)
      step = jax.jit(functools.partial(render.render, view=view))
      images = jax.device_put(images)
      parts = np.array_split(np.arange(source.num_examples),
                             -(-source.num_examples // 256))
      self._views[key] = np.concatenate([
          step(images, part, frames[part]) for part in parts])
    return self._views[key]


def _decode(content):
  """Any image Pillow knows -> uint8 [h, w, 3]."""
  from PIL import Image  # pylint: disable=g-import-not-at-top
  with Image.open(io.BytesIO(content)) as image:
    return np.asarray(image.convert('RGB'))


def boxes(region: views_lib.View, sizes: np.ndarray, fraction: float,
          rng: np.random.Generator) -> np.ndarray:
  """Boxes of images of sizes [b, 2], int32 [b, 5]; see input/crops.boxes."""
  sizes = np.asarray(sizes)
  if region.crop == 'inception':
    sides = _inception(sizes, rng)
  elif region.crop == 'squash':
    sides = sizes
  else:
    whole = (sizes if region.crop == 'window'
             else np.repeat(sizes.min(axis=1, keepdims=True), 2, axis=1))
    sides = np.maximum(np.round(whole * np.float32(fraction)), 1)
  room = (sizes - sides).astype(np.int64)
  if region.die is None:
    corner, flip = room // 2, np.zeros(len(sizes))
  else:
    corner = rng.integers(0, room + 1)
    flip = rng.integers(0, 2, len(sizes))
  return np.column_stack([corner, sides, flip]).astype(np.int32)


def _inception(sizes, rng):
  """Sides [b, 2] of boxes as TensorFlow's sample_distorted_bounding_box draws.

  The aspect is uniform; so is the height, where that keeps the area in range
  and the box in the image.
  """
  height, width = sizes.T
  area = sizes.prod(axis=1)
  chosen, waits = sizes.copy(), np.ones(len(sizes), bool)
  for _ in range(TRIES):
    aspect = rng.uniform(*ASPECT, len(sizes))  # Width over height.
    low, high = (np.rint(np.sqrt(share * area / aspect)) for share in AREA)
    high = np.minimum(np.minimum(high, np.floor((width + .5 - 1e-7) / aspect)),
                      height)
    low = np.minimum(low, high)
    h = rng.integers(low.astype(int), high.astype(int) + 1)
    # Rounded, the area may be out of range by one row.
    small, large = (h * np.rint(h * aspect) < AREA[0] * area,
                    h * np.rint(h * aspect) > AREA[1] * area)
    h = h + small - large
    w = np.rint(h * aspect).astype(int)
    fits = (waits & (h <= height) & (w <= width) & (h >= 1) & (w >= 1)
            & (h * w >= AREA[0] * area) & (h * w <= AREA[1] * area))
    chosen[fits] = np.column_stack([h, w])[fits]
    waits &= ~fits
    if not waits.any():
      break
  return chosen
