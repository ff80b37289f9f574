"""Names of metrics, as logs, results, rankings and figures spell them.

'train/...' and 'time/...' come from the loop. The others are 'EVALUATION/...':
a config names the evaluation, its evaluator what it measures, see ACC1 and so on.
"""

LOSS = 'train/loss'
LR = 'train/lr'
L2_PARAMS = 'train/l2_params'
SKIPPED = 'train/skipped'  # Steps in all that were not finite.
SKIPPED_IN_A_ROW = 'train/skipped_in_a_row'  # Steps; see state.State.
EPOCH = 'train/epoch'
SEEN, SEEN_FROM = 'train/seen_crc32', 'train/seen_from'  # See ledger.py.
RATE = 'time/img_per_sec'
RATE_CORE = 'time/img_per_sec_core'
ETA = 'time/eta_sec'

# What evaluators measure.
ACC1, ACC5, XENT = 'acc@1', 'acc@5', 'loss'
KL, EUCLIDEAN, TOP1, TOP5 = 'kl', 'euclidean', 'top1', 'top5'
ECE, NLL = 'ece', 'nll'
LOWER = (KL, XENT, EUCLIDEAN, ECE, NLL)  # Less of these is better.

# Of the evaluations that configs/common.py names.
VAL, TEST, STUDENT, TEACHER = (
    f'{name}/{ACC1}' for name in ('val', 'test', 'student', 'teacher'))
AGREEMENT, AGREE_KL = f'agree/{TOP1}', f'agree/{KL}'

RANKING = (VAL, STUDENT, AGREEMENT)  # Runs are ranked by the first they have.
SHOWN = (VAL, TEST, STUDENT, AGREEMENT, AGREE_KL)  # In a table of runs.
ACCURACY = (TEST, STUDENT)  # Figures show the first that all runs have.
TITLES = {LOSS: 'Training loss (nats)', TEST: 'Test accuracy (%)',
          STUDENT: 'Student accuracy (%)', AGREE_KL: 'KL to the teacher (nats)'}


def less_is_better(name: str) -> bool:
  """Whether less of a metric, 'EVALUATION/METRIC', is better."""
  return name.rpartition('/')[2] in LOWER
