"""Who learns from whom: the student, what it sees, and its teachers."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax

from big_distill import registry
from big_distill import students
from big_distill import teaching
from big_distill import views

AVERAGES = ('follow', 'keep')


class Classroom(NamedTuple):
  """The models of a run, and the view of each."""
  student: Any  # A linen module.
  params: Any
  size: int  # Of the student's images, in pixels a side.
  sees: views.View
  teachers: Sequence[teaching.Teacher]
  combine: str  # How teachers agree, of teaching.COMBINE.
  averages: str = 'follow'  # Of AVERAGES: what training does to BatchNorm's.

  def answer(self, params: Any, images: jax.Array) -> jax.Array:
    """The student's logits [b, c] for images [b, h, w, 3] in [-1, 1]."""
    return self.student.apply({'params': params}, images)[0]

  def learn(self, params: Any, images: jax.Array) -> tuple[jax.Array, Any]:
    """Logits in training, and the running averages that moved: params' leaves.

    Averages that are kept normalise in training, too, and do not move.
    """
    if self.averages == 'keep':
      return self.answer(params, images), {}
    (logits, _), moved = self.student.apply(
        {'params': params}, images, train=True, mutable=['averages'])
    return logits, moved.get('averages', {})

  @property
  def models(self) -> list[teaching.Teacher]:
    """Teachers that look at images: all but labels."""
    return [teacher for teacher in self.teachers if teacher.size]

  @property
  def by_label(self) -> bool:
    """Whether labels are among the teachers."""
    return len(self.models) < len(self.teachers)

  @property
  def teacher_params(self) -> list[Any]:
    """What the teachers' `answer` functions take, in order."""
    return [teacher.params for teacher in self.teachers]

  def read_teachers(self) -> 'Classroom':
    """The same, teachers' parameters being read where they are shapes."""
    return self._replace(teachers=[
        teacher._replace(params=teacher.read())
        if any(isinstance(leaf, jax.ShapeDtypeStruct)
               for leaf in jax.tree.leaves(teacher.params)) else teacher
        for teacher in self.teachers])

  @property
  def num_classes(self) -> int:
    return self.student.num_classes

  @property
  def teachers_names(self) -> list[tuple[str, ...]]:
    """What each teacher calls its classes, nothing where it does not say."""
    return [teacher.classes for teacher in self.teachers]

  def named(self, *known: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the classes: the first ones that are as many, or none."""
    return next((each for each in known if len(each) == self.num_classes), ())


def load(config: Mapping[str, Any], mode: views.Mode, source: Any,
         seed: int = 0, read: bool = True) -> Classroom:
  """Loads the teachers of a config, then makes a student of as many classes.

  `source` says how many classes the data has, if any. Without `read`, teachers'
  parameters are shapes, to be read when needed. Raises ValueError where the
  teachers cannot teach this student.
  """
  classes = (config['student'].get('num_classes') or len(source.classes)
             or None)
  teachers = [
      registry.bind(teaching.load, **teacher)(
          name, num_classes=classes, read=read)
      for name, teacher in config.get('teachers', {}).items()]
  views_of = views.assign(mode, None, [each.size for each in teachers])[1]
  teachers = [teacher._replace(sees=view) if teacher.size else teacher
              for teacher, view in zip(teachers, views_of)]
  return join(config, mode, source, teachers, seed)


def join(config: Mapping[str, Any], mode: views.Mode, source: Any,
         teachers: Sequence[teaching.Teacher], seed: int = 0) -> Classroom:
  """The Classroom of a config whose teachers are there already."""
  section = {**config['student']}
  size, seed = section.pop('size', None), section.pop('seed', seed)
  if size is None:
    raise ValueError('The student does not say the size of its images: set '
                     'config.student.size.')
  averages = section.pop('averages', 'follow')
  registry.check('way with running averages', averages, AVERAGES)
  known = [teacher.num_classes for teacher in teachers if teacher.num_classes]
  classes = section.get('num_classes') or len(source.classes) or None
  student, params = students.create(
      section, size, (known or [classes])[0], seed)
  combine = config.get('combine', 'logits')
  teaching.check(teachers, combine, student.num_classes, source)
  return Classroom(student, params, size, mode.student.at(size), teachers,
                   combine, averages)
