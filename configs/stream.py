"""What a stream of views that repeats costs a student, in quality.

  python -m big_distill.main --config=configs/stream.py:period=10 --workdir=DIR

The quickstart for 60 epochs, its views repeating after `period` epochs (0:
never), for three seeds of the student in one class: they see the same batches
and learn from the same answers. Not measured yet.
"""

from configs import common
from configs import quickstart


def get_config(arg=None):
  arg = common.parse(arg, period=10, epochs=60, mode='funmatch', answers='',
                     seeds=3, tiny=False)
  c = quickstart.get_config(
      f'epochs={arg.epochs},mode={arg.mode},tiny={arg.tiny}')
  with c.unlocked():
    c.log_percent = 10
    c.answers = dict(common.answers(arg.answers), period_epochs=arg.period,
                     audit_percent=0.0)
    c.evals.student.every_percent = c.evals.agree.every_percent = 50
    c.students = {f'seed{i}': dict(student=dict(seed=i))
                  for i in range(arg.seeds)}
  return c
