"""What decided the results in a workdir, so that a run never mixes two recipes.

DIR/identity.json keeps the config's values that decide results, the facts
behind them (how many examples, who the teachers are) and the versions of
what makes pixels. A run that would go on with others is refused, key by key,
unless --allow_changes names the keys; what was allowed stays in the file.
Logging, evaluations, checkpoints and caches may change; so may the length of a
run and the versions, which is said.
"""

from collections.abc import Iterable
import datetime
import fnmatch
import json
from typing import Any

from absl import logging
from etils import epath
import flax.traverse_util
import jax

from big_distill import answers
from big_distill import checkpoint
from big_distill import course as course_lib
from big_distill import registry
from big_distill import runs

# Keys that change no result, or are compared by what they come to: total_* by
# the number of steps, data_dir by the examples that are found there.
FREE = ('log_*', 'evals', 'evals.*', 'checkpoints', 'checkpoints.*', 'total_*',
        'steps_per_call', 'layout', 'notes', 'on_nonfinite', 'data.cache', 'data.*.cache',
        'data.data_dir', 'data.*.data_dir', 'answers.store',
        'answers.audit_percent')


class Identity:
  """Compares a run with what its workdir holds; `record` then writes it there.

  Making one compares the config, before anything is loaded; `confirm` compares
  what is known later. Both raise ValueError, in one line, and write nothing.
  """

  def __init__(self, workdir: str, config: dict[str, Any],
               allow: Iterable[str] = ()) -> None:
    self._workdir, self._allow = workdir, tuple(allow)
    self._config = runs.plain(config)
    self._before = _read(workdir) if _begun(workdir) else {}
    self._now: dict[str, Any] = {'config': decisive(self._config)}
    self._changes: dict[str, Any] = {}
    self._compare('config')

  def confirm(self, total: int, step: int, facts: dict[str, Any]) -> None:
    """Compares steps in total and taken, and facts such as 'data.examples'."""
    self._now |= {'facts': facts, 'steps': total, 'versions': answers.versions()}
    known = {key for part in (self._before, self._now)
             for kind in ('config', 'facts') for key in part.get(kind, ())}
    for key in self._allow:
      registry.check('key that decides results', key, known)
    self._compare('facts')
    if total < step:
      raise ValueError(
          f'{self._workdir} has taken {step} steps already, more than the '
          f'{total} of this config. Choose another --workdir for a shorter run, '
          f'or a total of {step} steps or more.')
    self._step = step
    if (steps := self._before.get('steps', total)) != total:
      logging.warning('This run was begun for %d steps and now ends at %d: from '
                      'step %d on, the learning rate is that of the new length.',
                      steps, total, step)
      self._changes['steps'] = [steps, total]
    for name, version in self._before.get('versions', {}).items():
      if (now := self._now['versions'].get(name)) != version:
        logging.warning('This run was begun with %s %s and goes on with %s: '
                        'pixels and sums may differ.', name, version, now)
        self._changes[name] = [version, now]

  def record(self) -> None:
    """Writes identity.json and config.json, if this run takes any step.

    Of several hosts, the first one writes.
    """
    if self._step == self._now['steps'] or jax.process_index():
      return
    changes = self._before.get('changes', [])
    if self._changes:
      when = datetime.datetime.now(datetime.timezone.utc)
      changes = [*changes, {'when': when.isoformat(timespec='seconds'),
                            'step': self._step, 'from_to': self._changes}]
    if runs.finished(self._workdir):  # That result is of a shorter run.
      result = epath.Path(self._workdir, 'result.json')
      result.replace(result.with_name(f'result_{self._step}.json'))
    runs.save(f'{self._workdir}/config.json', self._config)
    runs.save(f'{self._workdir}/identity.json',
              {**self._now, 'changes': changes})

  def _compare(self, kind):
    """Raises ValueError if anything differs that was not allowed to."""
    if kind not in self._before:
      return
    before, now = self._before[kind], self._now[kind]
    changed = {key: [before.get(key), now.get(key)]
               for key in runs.differences(before, now)}
    refused = [key for key in changed if key not in self._allow]
    if refused:
      lines = '; '.join(f'{key} {_text(before, key)} there, {_text(now, key)} '
                        'here' for key in refused)
      allow = ','.join(dict.fromkeys([*self._allow, *refused]))
      raise ValueError(
          f'{self._workdir} holds a run with other values: {lines}. Choose '
          f'another --workdir, or go on with --allow_changes={allow}.')
    self._changes |= changed


def decisive(config: dict[str, Any]) -> dict[str, Any]:
  """The flat part of a config that decides results."""
  flat = runs.flat(config)
  kept = {key: value for key, value in flat.items()
          if not any(fnmatch.fnmatchcase(key, free) for free in FREE)}
  # Answers that are kept are rounded. Where they are kept changes nothing.
  return kept | ({'answers.store': True} if flat.get('answers.store') else {})


def configs(workdir: str, config: dict[str, Any]
            ) -> list[tuple[int, dict[str, Any]]]:
  """The configs that a run has had: [(from which step on, config)], newest first.

  `config` is that of config.json; what was allowed to change is set back.
  """
  known, found = runs.load(f'{workdir}/identity.json') or {}, []
  others = {'steps', *known.get('facts', ()), *known.get('versions', ())}
  for change in reversed(known.get('changes', [])):
    found.append((change['step'], config))
    flat = runs.flat(config)
    for key, (before, _) in change['from_to'].items():
      if key not in others:
        flat[key] = before
    config = flax.traverse_util.unflatten_dict(
        {key: value for key, value in flat.items() if value is not None},
        sep='.')
  return [*found, (0, config)]


def facts(course: course_lib.Course) -> dict[str, Any]:
  """What is behind the names in a config: the examples, and the teachers."""
  return {'data.examples': course.source.num_examples,
          'data.fingerprint': course.source.fingerprint,
          **{f'teachers.{teacher.name}.identity': teacher.identity
             for teacher in course.room.models}}


def _begun(workdir):
  """Whether a workdir has anything that another recipe would spoil."""
  return epath.Path(workdir, 'result.json').exists() or bool(
      checkpoint.steps(f'{workdir}/checkpoints'))


def _read(workdir):
  """identity.json, or what config.json says where a run is older than that."""
  if (known := runs.load(f'{workdir}/identity.json')) is not None:
    return known
  config = runs.load(f'{workdir}/config.json')
  return {} if config is None else {'config': decisive(config)}


def _text(values, key):
  return json.dumps(values[key]) if key in values else 'not set'
