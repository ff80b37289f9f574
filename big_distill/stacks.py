"""Students that differ in numbers alone learn by one program.

What differs is given to it as arguments: rate, decay, clip, warmup, temperature.
So it is compiled once, for any number of students and of runs. There are three
layouts. `beside`: the program is called for one student after another, so that
each learns to the bit as it does alone. `map` and `vmap`: their states are one
stacked state [d, n, ...], on which jax.lax.map works in turn and jax.vmap at once.
Convolutions of stacked kernels are grouped ones, which are slow on CPUs and fast
for small students on GPUs.
"""

from collections.abc import Callable, Mapping
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from big_distill import feed as feed_lib
from big_distill import parallel
from big_distill import registry
from big_distill import steps
from big_distill.ops import layers
from big_distill.pupil import Pupil


def _mapped(step):
  return lambda states, numbers, call: jax.lax.map(
      lambda each: step(*each, call), (states, numbers))


def _at_once(step):
  def run(states, numbers, call):
    with layers.stacked():
      return jax.vmap(step, (0, 0, None))(states, numbers, call)

  return run


LAYOUTS = {'beside': lambda step: step, 'map': _mapped, 'vmap': _at_once}
# Families of which many small students were faster by vmap on a GPU: 8 of the
# quickstart's, batch 64, at 62,700 images/s on an H100, by lax.map at 43,500.
STACKED = {('gpu', 'bit')}
# Shampoo's and SOAP's roots are computed when due, under jax.vmap at every step.
OPTIMIZERS = {'adam', 'sgd'}
# That many operations of a forward pass of a device's batch count as small. The
# quickstart's student has 1e9; a ResNet-50 at 128 px and batch 128 has 3e11, and
# is not measured stacked.
SMALL = 1e10


def choose(recipe: 'Recipe', platform: str) -> str:
  """The layout for students of a recipe on this kind of device."""
  fast = ((platform, recipe.family) in STACKED
          and recipe.optimizer in OPTIMIZERS and recipe.flops() <= SMALL)
  return 'vmap' if fast else 'beside'


class Recipe(NamedTuple):
  """How a student learns, its numbers apart.

  alike: students of which this is equal learn by one program. make: numbers ->
    Pupil; they may be tracers. flops: of a forward pass of a device's batch.
  """
  alike: str
  make: Callable[[Mapping[str, Any]], Pupil]
  numbers: Mapping[str, np.ndarray | np.generic]
  family: str
  optimizer: str
  flops: Callable[[], float]


class Row:
  """A student's part of what is stacked, [d, n, ...], as long as that is there.
  """

  def __init__(self, stack: 'Stack', part: str, place: int) -> None:
    self.stack, self._part, self._place = stack, part, place

  def cut(self) -> Any:
    """[d, ...] of the newest call."""
    return self.stack.cut(self._part, self._place)

  def block_until_ready(self) -> 'Row':
    """Waits for the newest call, as jax.block_until_ready has arrays do."""
    self.stack.wait()
    return self


def cut(x: Any) -> Any:
  """A tree [d, ...], cut out where it is a Row."""
  return x.cut() if isinstance(x, Row) else x


class Stack:
  """Students by name, whose states are one; see Learners."""

  def __init__(self, states: Mapping[str, Any], numbers: Mapping[str, Any]
               ) -> None:
    self.names = (*states,)
    join = parallel.pmap(lambda *x: jax.tree.map(lambda *y: jnp.stack(y), *x))
    self._parts = {'state': join(*map(cut, states.values()))}
    self._numbers = join(*(numbers[name] for name in self.names))
    self._places = [parallel.replicate(np.int32(i))
                    for i in range(len(self.names))]
    self._cut = parallel.pmap(lambda tree, i: jax.tree.map(
        lambda x: x[i], tree))

  def step(self, program: Callable, call: Any) -> dict[str, tuple[Row, Row]]:
    """{name: (State, scalars)}, to be cut out by who looks at them."""
    self._parts['state'], self._parts['scalars'] = program(
        self._parts['state'], self._numbers, call)
    return {name: (Row(self, 'state', i), Row(self, 'scalars', i))
            for i, name in enumerate(self.names)}

  def cut(self, part: str, place: int) -> Any:
    return self._cut(self._parts[part], self._places[place])

  def wait(self) -> None:
    jax.block_until_ready(self._parts)


class Learners:
  """Students of one program, in a layout; None chooses one."""

  def __init__(self, lesson: steps.Lesson, feed: feed_lib.Feed, sees: Any,
               recipes: Mapping[str, Recipe], layout: str | None = None
               ) -> None:
    if layout is not None:
      registry.check('layout of students', layout, LAYOUTS)
    recipe, *_ = recipes.values()
    if len(recipes) == 1:
      layout = 'beside'
    self.layout = layout or choose(recipe, jax.default_backend())
    self._lesson, self._make = lesson, recipe.make
    self._stack: Stack | None = None
    self._recipes = recipes
    # (State, numbers, call with answers) -> State, scalars.
    self.program = feed.compile(LAYOUTS[self.layout](self._step), [sees])

  @functools.cached_property
  def numbers(self) -> dict[str, Any]:
    """{name: what `program` takes}, on the devices."""
    with jax.transfer_guard('allow'):  # Once, inside the loop.
      return {name: parallel.replicate(dict(recipe.numbers))
              for name, recipe in self._recipes.items()}

  def _step(self, state, numbers, call):
    return self._lesson.step(self._make(numbers), state, [], call)

  def step(self, states: Mapping[str, Any], call: Any
           ) -> dict[str, tuple[Any, Any]]:
    """{name: State or Row} -> {name: (State, scalars)}, or Rows of them."""
    if self.layout == 'beside':
      return {name: self.program(state, self.numbers[name], call)
              for name, state in states.items()}
    if not (self._stack and self._stack.names == (*states,) and all(
        isinstance(state, Row) and state.stack is self._stack
        for state in states.values())):
      with jax.transfer_guard('allow'):  # At first, and when somebody leaves.
        self._stack = Stack(states, self.numbers)
    return self._stack.step(self.program, call)


def learners(lesson: steps.Lesson, feed: feed_lib.Feed, sees: Mapping[str, Any],
             recipes: Mapping[str, Recipe], layout: str | None = None
             ) -> dict[str, Learners]:
  """{name: the Learners that a student is among}."""
  alike: dict[str, list[str]] = {}
  for name, recipe in recipes.items():
    alike.setdefault(recipe.alike, []).append(name)
  made = {}
  for names in alike.values():
    group = Learners(lesson, feed, sees[names[0]],
                     {name: recipes[name] for name in names}, layout)
    made |= dict.fromkeys(names, group)
  return made
