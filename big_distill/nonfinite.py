"""When a loss is not finite: who was it, and what is needed to see it again.

A step whose loss or gradient is not finite changes nothing (steps.py), so that
the State from before it is still there when the host looks at a log row. Then
the step is run once more, part by part, and kept in DIR/nan for
tools/replay.
"""

from collections.abc import Callable, Mapping
import functools
import io
import math
from typing import Any, NamedTuple

from etils import epath
import jax
import jax.numpy as jnp
import numpy as np

from big_distill import checkpoint
from big_distill import course as course_lib
from big_distill import losses
from big_distill import metrics
from big_distill import parallel
from big_distill import runs
from big_distill.state import State

ADVICE = {  # By the first word of a part's name.
    'batch': 'Look at the images and recorded answers of this batch.',
    'teacher': "Check the teacher's checkpoint and its dtype.",
}
OTHERWISE = ('Try a lower lr, a longer warmup or clip=1; on_nonfinite=skip '
             'leaves such steps out.')


class Part(NamedTuple):
  """A tensor of a step: numbers that are not finite, and all others."""
  name: str
  bad: int
  good: int
  rms: float  # Root of the mean square of those that are finite.


def check(step: int, row: Mapping[str, float], state: Any,
          course: course_lib.Course, config: Mapping[str, Any], workdir: str,
          checkpoints: checkpoint.Checkpoints) -> None:
  """Raises ValueError where training has met too much that is not finite.

  `row` are the scalars of `step`, `state` the replicated State after it. What
  is needed to run the failing step again is left in workdir/nan.
  """
  norm, halted = row[metrics.L2_PARAMS], (
      row[metrics.SKIPPED_IN_A_ROW] >= course.lesson.skips)
  if math.isfinite(norm) and not halted:
    return
  # Waits for what is being saved: at once, two savers among hosts would take
  # each other's barriers for their own.
  last = checkpoints.last
  with jax.transfer_guard('allow'):
    state = parallel.first(state)
    failed = int(state.step)
    batch = batch_of(course, failed)
    keep(f'{workdir}/nan', config, state, batch)
    why = (verdict(inspect(course, state, batch)) if halted else
           f'the norm of the student is {norm}. {OTHERWISE}')
  where = (f'the last good checkpoint is {last}' if last else
           'no checkpoint was written before it')
  raise ValueError(
      f'Step {failed + halted}: {why} Training stops; {where}. To run that step '
      f'again, part by part: python -m big_distill.tools.replay {workdir}/nan')


def verdict(parts: list[Part]) -> str:
  """Who was not finite first, and what to try, in a sentence or two."""
  first = next((part for part in parts if part.bad), None)
  if first is None:
    return 'Run again, every part of this step is finite.'
  who = first.name.split(':')[0]
  return (f'the {who} is the first that is not finite: {first.bad} of '
          f'{first.bad + first.good} numbers of {first.name!r}. '
          f'{ADVICE.get(who.split()[0], OTHERWISE)}')


def batch_of(course: course_lib.Course, step: int) -> dict[str, Any]:
  """This host's batch of a single step (0 is the first), with kept answers."""
  kept = course.steps.kept(step)
  batch = next(course.feed.single(course.shown, step, step + 1))
  return batch if kept is None else {**batch, 'answers': kept}


def keep(folder: str, config: Mapping[str, Any], state: State,
         batch: dict[str, Any]) -> None:
  """Writes config.json, a checkpoint and this host's batch; replaces others."""
  path = epath.Path(folder)
  parallel.meet('before a step that is not finite is kept')
  if jax.process_index() == 0:
    with runs.writing(folder):
      if path.exists():
        path.rmtree()
      path.mkdir(parents=True)
    runs.save(path / 'config.json', runs.plain(config))
  parallel.meet('after its folder is made')
  buffer = io.BytesIO()
  np.savez(buffer, **{f'{i:03}': leaf
                      for i, leaf in enumerate(jax.tree.leaves(batch))})
  with runs.writing(folder):
    (path / f'batch_{jax.process_index():05}.npz').write_bytes(
        buffer.getbuffer())
  checkpoints = checkpoint.Checkpoints(f'{folder}/state')
  checkpoints.save(parallel.replicate(state), int(state.step))
  checkpoints.close()


def restore(folder: str, course: course_lib.Course
            ) -> tuple[State, dict[str, Any]]:
  """(State, batch of all hosts) of a folder that `keep` wrote."""
  checkpoints = checkpoint.Checkpoints(f'{folder}/state')
  state, found = checkpoints.restore_or(course.state)
  checkpoints.close()
  files = sorted(epath.Path(folder).glob('batch_*.npz'))
  if not found or not files:
    raise ValueError(f'{folder} is no folder that a loss which was not finite '
                     'left: give DIR/nan of such a run.')
  parts = []
  for file in files:
    with np.load(io.BytesIO(file.read_bytes())) as content:
      parts.append([content[name] for name in sorted(content.files)])
  like = batch_of(course, int(state.step))
  return state, jax.tree.unflatten(
      jax.tree.structure(like), [np.concatenate(x) for x in zip(*parts)])


def inspect(course: course_lib.Course, state: State,
            batch: dict[str, Any]) -> list[Part]:
  """The Parts of one step, in the order they are computed.

  Takes a host State and a host batch; runs on all devices of all hosts.
  """
  names: list[str] = []
  look = course.feed.compile(
      functools.partial(_look, course.lesson, course.pupil, names),
      course.shown, calls=False, donate=False)
  teachers = [] if 'answers' in batch else course.faculty()
  measured = parallel.first(look(parallel.replicate(state), teachers,
                                 parallel.split(batch)))
  return [Part(name, int(bad), int(good), float(np.sqrt(square / max(good, 1))))
          for name, (bad, good, square) in zip(names, measured)]


def _look(lesson, pupil, names, state, teacher_params, batch):
  """Measures each part; appends to `names` what they are called."""
  found = []
  names.clear()

  def note(name, tree, add: Callable = parallel.total, floor=False):
    """Floor: where minus infinity is the logarithm of 0, and right."""
    for path, x in jax.tree_util.tree_leaves_with_path(tree):
      if jnp.issubdtype(x.dtype, jnp.floating):
        x = x.astype(jnp.float32)
        bad = (jnp.isnan(x) | (x == jnp.inf)) if floor else ~jnp.isfinite(x)
        good = jnp.isfinite(x)
        leaf = jax.tree_util.keystr(path, simple=True, separator='/')
        names.append(f'{name} {leaf}'.strip())
        found.append(add(jnp.stack([
            bad.sum(dtype=jnp.float32), good.sum(dtype=jnp.float32),
            jnp.square(jnp.where(good, x, 0.)).sum()])))

  # Replicas are equal: their mean is each of them.
  same = functools.partial(note, add=parallel.mean)
  seen = lesson.see(state.step, batch)
  note('batch:', seen)
  kept = batch.get('answers')
  if kept is None:
    for teacher, params in zip(lesson.teachers, teacher_params):
      if teacher.size:
        same(f'teacher {teacher.name}: parameters', params)
        note(f'teacher {teacher.name}: logits',
             teacher.answer(params, seen[str(teacher.sees)]), floor=True)
    kept = lesson.form.pack(lesson.answer(teacher_params, seen))
  else:
    note('batch: recorded answers', kept, floor=True)
  target = lesson.agree(lesson.form.unpack(kept), seen,
                        losses.temperature(pupil.loss))
  note('teachers: what they agree on', target, floor=True)
  same('student: parameters', state.params)
  (loss, (logits, averages)), grads = pupil.learn(state.params, target, seen)
  note('student: logits', logits)
  note('student: running averages', averages, add=parallel.mean)
  note('loss:', loss)
  grads = parallel.mean(grads)
  same('gradient:', grads)
  same('optimizer: update', pupil.update(state, grads, averages)[1])
  return found
