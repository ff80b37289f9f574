"""Photographs inside a page: JPEGs as data URIs, and what models were shown."""

import base64
from collections.abc import Sequence
import io
from typing import Any, NamedTuple

from jaxtyping import UInt8
import numpy as np
from PIL import Image

from big_distill import contracts
from big_distill import registry
from big_distill import teaching
from big_distill import views as views_lib
from big_distill.lessons import Lessons

SIZE = 112  # Pixels a side of a photograph in the page.
COLUMNS = 8  # Photographs on a sheet of views.
STEPS = 64  # Steps among which one is looked for that mixes well.
QUALITY = 80
CENTRAL = views_lib.View('central')


class Row(NamedTuple):
  """What a model saw: a title, its view, an image for each column."""
  title: str
  view: str
  images: list[np.ndarray]


class Sheet(NamedTuple):
  """What models saw of one step (0 is the first): rows of images, captions.

  share: of each photograph in its own column where photographs were mixed.
  """
  step: int
  share: float | None
  rows: list[Row]
  captions: list[str]


def uri(pixels: UInt8[np.ndarray, 'h w 3']) -> str:
  """A JPEG inside an address."""
  buffer = io.BytesIO()
  Image.fromarray(pixels).save(buffer, 'jpeg', quality=QUALITY)
  return f'data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}'


def photographs(source: contracts.Source, places: Sequence[int], data: Any,
                view: views_lib.View = CENTRAL,
                fraction: float = 1., size: int = SIZE,
                ) -> dict[int, np.ndarray]:
  """{place: uint8 [size, size, 3]} of examples, as a view frames them."""
  places, view = sorted({*places}), view.at(size)
  if not places:
    return {}
  batch, = data.eval_batches(data.only(source, np.asarray(places)), [view],
                             len(places), 0, fraction=fraction)
  return dict(zip(places, batch['views'][str(view)]))


def sheet(lessons: Lessons, data: Any) -> Sheet:
  """What student and teachers are shown in a step of training, mixed as it is.

  Of a run that mixes, a step that mixes nearly half and half.
  """
  plan, lesson, room = lessons.plan, lessons.lesson, lessons.room
  step, share = _step(lesson, plan)
  shown = {'student': room.sees, **{
      f'teacher {teacher.name}' if len(room.models) > 1 else 'teacher':
      teacher.sees for teacher in room.models}}
  # The first photographs of the batch, whole groups of them.
  count = next(n for n in range(plan.group, plan.batch_size + 1, plan.group)
               if plan.batch_size % n == 0
               and (n >= COLUMNS or n == plan.batch_size))
  batches = registry.bind(data.train_batches, **{
      **lessons.crops, 'host': (0, plan.batch_size // count)})
  batch = next(iter(batches(
      lessons.source, sorted({*shown.values()}, key=str), plan.batch_size,
      plan.seed, step, step + 1, period=plan.period)))
  seen = lesson.see(np.int32(step), batch)
  whole = photographs(lessons.source, [*map(int, batch['index'])], data)
  rows = [Row('photograph', '', [whole[int(i)] for i in batch['index']])]
  rows += [Row(who, str(view), list(_pixels(seen[str(view)])))
           for who, view in shown.items()]
  return Sheet(step, share, [
      row._replace(images=row.images[:COLUMNS]) for row in rows],
               _captions(lessons, seen)[:COLUMNS])


def _pixels(images):
  """Images in [-1, 1] -> uint8."""
  return np.clip(np.rint((np.asarray(images) + 1) * 127.5), 0, 255).astype(
      np.uint8)


def _step(lesson, plan):
  """(a step, the share of each photograph in its mixture there)."""
  if not lesson.mix:
    return 0, None
  shares = [_share(lesson, plan, step)
            for step in range(min(STEPS, plan.total))]
  step = int(np.argmin(np.abs(np.asarray(shares) - .6)))
  return step, shares[step]


def _share(lesson, plan, step):
  """How much of an example is its own in the mixture of a step."""
  own = np.zeros([plan.group, 1, 1, 3], np.uint8)
  own[0] = 255
  mixed = lesson.see(np.int32(step), {
      'views': {'own': own}, 'label': np.full(plan.group, -1, np.int32)})
  return float((np.asarray(mixed['own'])[0, 0, 0, 0] + 1) / 2)


def _captions(lessons, seen):
  """Labels of photographs, as labels that teach would be mixed."""
  shares, classes = np.asarray(seen[teaching.LABELS]), lessons.source.classes
  if not lessons.lesson.labelled:
    return [''] * len(shares)
  return [' + '.join(
      classes[c] if share[c] > .995 else f'{share[c]:.0%} {classes[c]}'
      for c in np.argsort(-share) if share[c] > .005) for share in shares]


