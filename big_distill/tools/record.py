r"""Records what teachers answer, before any student learns from it.

  python -m big_distill.tools.record --config=configs/quickstart.py \
      --config.answers.period_epochs=10 --config.answers.store=DIR
  python -m big_distill.tools.record \
      --config=configs/flowers102.py:mode=fix/ic_ens,answers=DIR

The config says the rest: data, views, mixup, teachers, seed. A run records what
it is the first to ask for by itself; this command does so without a student,
perhaps on another machine. In a mode whose answers are a mean of votes, such as
fix/ic_ens, it comes first: answers then are log-probs of the mean probability
over that many views of each example, which cost as many forward passes: 1,024
for the paper's fix/ic_ens.

What a killed command had finished stays, and the same command goes on. Of
several hosts (--distributed, or --coordinator as main has it) each answers its
share of every batch.
"""

from collections.abc import Callable, Iterator, Mapping
import time
from typing import Any

from absl import flags
from absl import logging
import jax
import numpy as np

from big_distill import command
from big_distill import faculty as faculty_lib
from big_distill import feed as feed_lib
from big_distill import lessons as lessons_lib
from big_distill import main as main_lib
from big_distill import parallel
from big_distill import steps
from big_distill import store as store_lib

SAY = 10.  # Seconds between lines on progress.


def record(config: Mapping[str, Any], data: Any) -> int:
  """Writes what the store of a config lacks; see train for `data`.

  Returns the number of blocks that this host wrote.
  """
  lessons = lessons_lib.prepare(config, data)
  store = lessons_lib.open_store(lessons, config)
  if store is None:
    raise ValueError('The config does not say where to keep answers: set '
                     'answers.store=FOLDER.')
  if parallel.everywhere(store.known).all():
    return 0
  store.claim()
  try:
    return _record(lessons, store, data)
  finally:
    store.release()


def _record(lessons: lessons_lib.Lessons, store: store_lib.Store,
            data: Any) -> int:
  """As `record`, of a store that is this program's to write."""
  missing = np.flatnonzero(~parallel.everywhere(store.known))
  faculty = faculty_lib.Faculty(lessons.room)
  ask = (_voting(lessons, faculty, data) if lessons.mode.votes
         else _asking(lessons, faculty, data))
  began = said = time.monotonic()
  for i, block in enumerate(missing, 1):
    for part in ask(int(block)):
      if isinstance(part, float):  # How much of this block is answered.
        now, done = time.monotonic(), (i - 1 + part) / len(missing)
        if now - said > SAY:
          said = now
          logging.info('%.1f %% of %d blocks are answered; %.0f s to go.',
                       100 * done, len(missing),
                       (now - began) * (1 / done - 1))
      else:
        store.write(int(block), part)
  return len(missing)


def _asking(lessons: lessons_lib.Lessons, faculty: faculty_lib.Faculty,
            data: Any) -> Callable[[int], Iterator]:
  """-> block -> what teachers answer to the batch of that step."""
  feed = feed_lib.Feed(data, lessons.source, lessons.plan, lambda start: [],
                       **lessons.crops)
  asker = faculty_lib.Asker(lessons.lesson, feed, faculty)

  def ask(block):
    yield asker.ask(block)[1]
    yield 1.

  return ask


def _voting(lessons: lessons_lib.Lessons, faculty: faculty_lib.Faculty,
            data: Any) -> Callable[[int], Iterator]:
  """-> block -> each model's mean of votes on this host's examples of it."""
  lesson, plan, crops = lessons.lesson, lessons.plan, {**lessons.crops}
  place, hosts = crops.pop('host')
  n, votes = lessons.source.num_examples, lessons.mode.votes
  share = -(-lessons_lib.BLOCK // hosts)
  batch_size = plan.batch_size // hosts
  models = [(i, teacher) for i, teacher in enumerate(lesson.teachers)
            if teacher.size]

  @parallel.pmap
  def answer(params, batch):
    answers = []
    for i, teacher in models:
      images = steps.scale(batch['views'][str(teacher.sees)])
      answers.append(jax.nn.softmax(teacher.answer(params[i], images).astype(
          np.float32)))
    return answers

  pack = parallel.pmap(lambda x: lesson.form.pack(lesson.condense(x)))

  def ask(block):
    numbers = block * share * hosts + place * share + np.arange(share)
    # All hosts answer equally much: the last ones, perhaps, what others do.
    first = min(numbers[0], max(n - share, 0))
    last = min(first + share, n)
    sums = [np.zeros([last - first, lesson.num_classes]) for _ in models]
    batches = data.vote_batches(
        lessons.source, [teacher.sees for _, teacher in models], batch_size,
        plan.seed, first, last, votes, **crops)
    count = -(-(last - first) * votes // batch_size)
    for done, batch in enumerate(batches, 1):
      probs = parallel.join(answer(faculty(), parallel.split(batch)))
      for total, x in zip(sums, probs):
        np.add.at(total, batch['index'] - first, x * batch['mask'][:, None])
      yield done / count
    means = [np.log(np.float32(total / votes)) for total in sums]
    rows = np.minimum(numbers, last - 1) - first
    yield parallel.join(pack(parallel.split([x[rows] for x in means])))

  return ask


def main(flag):
  command.narrate()
  with main_lib.among_hosts(flag):
    written = record(flag.config, command.pipeline())
  print(f'{written} blocks written to {flag.config.answers.store}.')


def _define_flags():
  flags.DEFINE_string('config', None, 'A file of configs/.')
  main_lib.define_host_flags()
  flags.mark_flags_as_required(['config'])


if __name__ == '__main__':
  command.program(main, _define_flags)
