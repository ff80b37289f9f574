"""python -m big_distill.main --config=configs/quickstart.py --workdir=DIR

Flags, hosts, and the two things that need TensorFlow: images and TensorBoard.
The rest is train.train. A config with `students`, {name: sections of its own},
trains a family of them from one pass of the teachers, each in DIR/NAME.
"""

from collections.abc import Iterator, Mapping
import contextlib
from typing import Any

from absl import flags
import jax

from big_distill import command
from big_distill import hosts
from big_distill import leaving
from big_distill import lock
from big_distill import member
from big_distill import plan
from big_distill import registry
from big_distill import report
from big_distill import runs
from big_distill import stacks
from big_distill import train


class _NoWriter(contextlib.nullcontext):
  """Hosts other than the first keep no record."""
  rewind = write = lambda self, *args: None
  read = lambda self: []
  __enter__ = lambda self: self


def distil(runs_: Mapping[str, tuple[Mapping[str, Any], str]], flag: Any,
           compiled: str) -> dict[str, dict[str, Any]] | None:
  """Trains {name: (config, workdir)} together, and saves their results.

  Returns {name: result}, or None if preempted; ready to leave when told to,
  among the hosts that the flags say. `compiled` is a folder for programs.
  """
  with contextlib.ExitStack() as stack:
    several = stack.enter_context(among_hosts(flag))
    preemption = stack.enter_context(leaving.Preemption(alone=not several))
    first, seats = jax.process_index() == 0, {}
    if first:
      for _, workdir in runs_.values():
        held = lock.Lock(workdir)
        preemption.release.append(held.release)
        stack.enter_context(held)
    _keep_programs(compiled)
    pipeline = command.pipeline()
    from big_distill import writers
    for name, (config, workdir) in runs_.items():
      seats[name] = member.Seat(config, workdir, stack.enter_context(
          writers.Writer(workdir) if first else _NoWriter()))
    results = train.train_class(seats, pipeline, preemption,
                                flag.allow_changes, flag.stack)
    if first and results:
      for name, result in results.items():
        runs.save(f'{runs_[name][1]}/result.json', result)
  return results


@contextlib.contextmanager
def among_hosts(flag: Any) -> Iterator[bool]:
  """Inside a `with`, among the hosts that the flags say; whether several are.
  """
  named = flag.coordinator, flag.processes, flag.process
  several = flag.distributed or named != (None, None, None)
  with hosts.joined(*named) if several else contextlib.nullcontext():
    yield several


def _keep_programs(folder):
  """Has JAX keep compiled programs, for a resumed run, unless told where.

  JAX_COMPILATION_CACHE_DIR says where else, JAX_ENABLE_COMPILATION_CACHE=0 that
  nowhere. A gs:// folder will do.
  """
  if not jax.config.jax_compilation_cache_dir:
    jax.config.update('jax_compilation_cache_dir', folder)


def main(flag):
  command.narrate()
  workdir = runs.folder(flag.workdir)
  config = {**flag.config}
  students = config.pop('students', None)
  if students:
    plan.check_section('students', students)
    together = {name: (overridden(config, name, changes), f'{workdir}/{name}')
                for name, changes in {**students}.items()}
  else:
    together = {'': (flag.config, workdir)}
  results = distil(together, flag, f'{workdir}/compiled')
  if not results or jax.process_index():
    return
  if not students:
    print(report.table(results['']))
    return
  from big_distill.tools import family
  family.show([each for _, each in together.values()], f'{workdir}/family')
  missing = sorted(together.keys() - results.keys())
  if missing:
    raise ValueError(f'Without a result: {", ".join(missing)}; see above.')


def overridden(config: Mapping[str, Any], name: str,
               changes: Mapping[str, Any]) -> dict[str, Any]:
  """A config with the sections that config.students.NAME has for its own.

  What a section says is added to the config's; another family begins anew.
  """
  plan.check_section(f'students.{name}', changes)
  result = dict(config)
  for key, section in {**changes}.items():
    registry.check(f'section of students.{name}', key, plan.OWN)
    if not hasattr(section, 'items'):
      result[key] = section
      continue
    before, section = {**config.get(key, {})}, {**section}
    if section.get('family', before.get('family')) != before.get('family'):
      before = {'size': before['size']} if 'size' in before else {}
    result[key] = {**before, **section}
  return result


def _define_flags():
  flags.DEFINE_string(
      'config', None,
      'A file of configs/, with arguments: FILE.py:name=value,...')
  flags.DEFINE_string(
      'workdir', None,
      'Folder of checkpoints and results; resumes what is there.')
  define_shared_flags()
  flags.mark_flags_as_required(['config', 'workdir'])


def define_shared_flags() -> None:
  """Flags of every program that trains."""
  flags.DEFINE_list(
      'allow_changes', [],
      'Config keys that may differ from the run that the workdir holds.')
  flags.DEFINE_enum(
      'stack', None, [*stacks.LAYOUTS], 'How students that differ in numbers alone '
      'learn together; by default what was fastest for their family and device.')
  define_host_flags()


def define_host_flags() -> None:
  """Flags of every program that several hosts may run together."""
  flags.DEFINE_bool(
      'distributed', False, 'Join the other hosts of a pod or cluster: those '
      'that JAX detects, or those of the three flags below.')
  flags.DEFINE_string('coordinator', None, 'HOST:PORT of process 0.')
  flags.DEFINE_integer('processes', None, 'How many processes there are.')
  flags.DEFINE_integer('process', None, 'The number of this process, from 0.')


if __name__ == '__main__':
  command.program(main, _define_flags)
