"""What is kept for students of one size, and the recording of it."""

from collections.abc import Callable
import concurrent.futures
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bench import agenda
from bench import alone as alone_lib
from bench import kept as kept_lib
from bench import study
from big_distill import packed
from big_distill import render
from big_distill import teaching

CHUNK = 80  # Rows of one call.
CENTRAL = 'fix/cc'  # The mode of a teacher that sees an image once, centrally.


class Room(NamedTuple):
  """What streams are made of, whatever the size of the student."""
  setting: kept_lib.Setting
  data: dict[str, packed.Data]  # By the names of packs, as are the next two.
  held: dict[str, tuple]
  images: dict[str, render.Images]  # On the device.
  teachers: dict[str, teaching.Teacher]
  params: dict[str, Any]  # Teachers', on the device.
  steps: Callable[[float], int]  # Of so many epochs.
  splits: dict[str, str]  # Of streams.
  first: str  # The teacher by whose program views are kept for labels.
  alone: bool = False  # Rows are made one after another (bench/alone.py).


def packs(images: list[render.Images]) -> list[render.Images]:
  """Images of several packs, padded, so that one program renders all."""
  pixels, n = (max(len(getattr(each, key)) for each in images)
               for key in ('pixels', 'starts'))
  tallest, widest = (max(getattr(each, key) for each in images)
                     for key in ('tallest', 'widest'))
  return [render.Images(
      np.pad(each.pixels, (0, pixels - len(each.pixels))),
      np.pad(each.starts, (0, n - len(each.starts))),
      np.pad(each.sizes, ((0, n - len(each.sizes)), (0, 0)),
             constant_values=1), tallest, widest) for each in images]


def shape(tree: Any) -> Any:
  """Shapes and types in place of arrays."""
  return jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype), tree)


def teachers_of(source: agenda.Source) -> list[str]:
  """Names of the models that answer: none for labels, two for both."""
  return {agenda.LABELS: [], agenda.BOTH: ['lite0', 'lite1']}.get(
      source.teacher, [source.teacher])


def looks(source: agenda.Source) -> bool:
  """Whether a teacher looks at each view: labels and fixed teachers do not."""
  return bool(teachers_of(source)) and source.shown != agenda.FIXED.shown


class Shelf:
  """Rows of views and answers, written as they are asked for."""

  def __init__(self, size: int, sources: dict[agenda.Source, int], room: Room,
               pool: concurrent.futures.Executor):
    self.size, self._room, self._pool = size, room, pool
    self.rows = {source: -(-room.steps(epochs) // CHUNK) * CHUNK
                 for source, epochs in sources.items()}
    views: dict[str, int] = {}
    for source, rows in self.rows.items():
      views[source.stream] = max(rows, views.get(source.stream, 0))
    self.view, self.answer = _places(views), _places(self.rows)
    self.kept = kept_lib.empty(room.setting, size, sum(views.values()),
                               sum(self.rows.values()))
    self._views = views
    self._done, self._seen = dict.fromkeys(sources, 0), dict.fromkeys(views, 0)
    self._streams: dict[str, concurrent.futures.Future] = {}
    self._programs: dict[tuple, concurrent.futures.Future] = {}

  def stream(self, name: str) -> concurrent.futures.Future:
    """A Stream, being drawn."""
    if name not in self._streams:
      pack, split = agenda.STREAMS[name][0], self._room.splits[name]
      regions = {str(kept_lib.VIEW)} | {
          source.shown for source in self.rows if source.stream == name}
      self._streams[name] = self._pool.submit(
          kept_lib.draw, self._room.data[pack], split, self._room.held[pack],
          self._room.setting, self._views[name], sorted(regions))
    return self._streams[name]

  def program(self, stream: str, who: str) -> concurrent.futures.Future:
    """What records a teacher's answers to a stream, being compiled.

    Packs that are padded alike share it.
    """
    room, pack = self._room, agenda.STREAMS[stream][0]
    key = who, len(room.images[pack].starts)
    if key not in self._programs:
      b = room.setting.batch_size
      one = np.int32(0)
      args = shape((self.kept, room.images[pack], room.params[who],
                    np.zeros(CHUNK, np.int32), np.zeros([CHUNK, b], np.int32),
                    np.zeros([CHUNK, b, 5], np.int32),
                    np.zeros([CHUNK, b, 5], np.int32), one, one,
                    np.bool_(True)))
      way = alone_lib if room.alone else kept_lib
      record = way.make_record(room.setting, self.size, room.teachers[who])
      self._programs[key] = self._pool.submit(
          lambda: record if room.alone else  # The first row compiles it.
          jax.jit(record, donate_argnums=0).lower(*args).compile())
    return self._programs[key]

  def prepare(self, source: agenda.Source) -> None:
    """Begins to draw and to compile what a source needs."""
    self.stream(source.stream)
    for who in teachers_of(source) or [self._room.first]:
      self.program(source.stream, who)

  def wait(self, source: agenda.Source) -> None:
    """Returns when the programs that record a source are compiled."""
    for who in teachers_of(source) or [self._room.first]:
      self.program(source.stream, who).result()

  def lacks(self, source: agenda.Source, steps: int) -> int:
    """How many rows a teacher is to be asked for, for so many steps."""
    if not looks(source):
      return 0
    return max(steps - self._done[source], 0)

  def record(self, source: agenda.Source, steps: int) -> int:
    """Has at least so many steps of a source; how many rows that took."""
    first, taken = self._done[source], 0
    last = -(-steps // CHUNK) * CHUNK
    if last <= first:
      return 0
    if source.teacher == agenda.BOTH:
      both = [source._replace(teacher=who) for who in teachers_of(source)]
      taken = sum(self.record(one, steps) for one in both)
      self._write(source, first, last, lambda start: jnp.mean(jnp.stack([
          self._answers(one, start) for one in both]), axis=0))
    elif looks(source):
      self._look(source, source.teacher, first, last)
      taken = last - first
    else:
      if self._seen[source.stream] < last:
        self._look(source, self._room.first, first, last)  # For the views.
        taken = last - first
      told = self._told(source)
      self._write(source, first, last,
                  lambda start: told(np.arange(start, start + CHUNK)))
    self._done[source] = last
    return taken

  def _told(self, source):
    """Numbers of steps [k] -> log-probs, of labels or of a fixed teacher."""
    room, stream = self._room, self.stream(source.stream).result()
    if source.teacher == agenda.LABELS:
      log_probs = jax.jit(functools.partial(
          kept_lib.of_labels, room.setting, mixed=source.mixed))
      return lambda numbers: log_probs(stream.labels[numbers], numbers)
    table = jnp.log(study.record(
        room.held[agenda.STREAMS[source.stream][0]], study.Setting(
            {}, self.size, (CENTRAL,), room.setting.num_classes),
        room.teachers[source.teacher], room.setting.seed)[CENTRAL])
    return lambda numbers: table[stream.index[numbers]]

  def _answers(self, source, start):
    return jax.lax.dynamic_slice_in_dim(
        self.kept.answers, self.answer[source] + start, CHUNK)

  def _write(self, source, first, last, answers):
    insert = jax.jit(kept_lib.insert, donate_argnums=0)
    for start in range(first, last, CHUNK):
      self.kept = self.kept.replace(answers=insert(
          self.kept.answers, answers(start), np.int32(
              self.answer[source] + start)))

  def _look(self, source, who, first, last):
    pack = agenda.STREAMS[source.stream][0]
    stream = self.stream(source.stream).result()
    run = self.program(source.stream, who).result()
    for start in range(first, last, CHUNK):
      part = slice(start, start + CHUNK)
      self.kept = run(
          self.kept, self._room.images[pack], self._room.params[who],
          np.arange(start, start + CHUNK, dtype=np.int32), stream.index[part],
          stream.boxes[str(kept_lib.VIEW)][part],
          stream.boxes[source.shown][part],
          np.int32(self.view[source.stream] + start),
          np.int32(self.answer[source] + start), np.bool_(source.mixed))
    self._seen[source.stream] = max(last, self._seen[source.stream])


def _places(rows):
  """{key: number of rows} -> {key: its first row}."""
  return dict(zip(rows, np.cumsum([0, *rows.values()]).tolist()))
