"""Flowers102 at 128 px: the patience of function matching on 1,020 images.

  python -m big_distill.main --config=configs/flowers102.py:variant=medium \
      --workdir=DIR

Reproduces the Flowers102 rows of the paper's Table 4 (Figs 3, 4 and 9), and with
`mode=` its consistency experiment. The paper's test accuracies, in %: student
77.51, 92.83, 95.54 and 96.93 after 1k, 10k, 100k and 1M epochs; teacher 97.82.
Best from labels alone 66.38, by transfer 97.50: see configs/baselines.py.

Cost: the authors' code says 10k epochs take 1 h 10 min on a TPU v2-8, 1M about
25 h on a v3-32. Not run with this code. Prepare the data with
`tfds build oxford_flowers102`. `mode=fix/ic_ens` needs a recording first:

  python -m big_distill.tools.record \
      --config=configs/flowers102.py:mode=fix/ic_ens,answers=DIR

and the same config then trains from it.
"""

from configs import common

VARIANTS = {'fast': 10_000, 'medium': 100_000, 'long': 1_000_000}
BEST = {  # Epochs: the paper's best setting, chosen on validation (Table 4).
    1_000: dict(t=10, lr=0.003, wd=1e-3),
    10_000: dict(t=10, lr=0.003, wd=3e-4),
    100_000: dict(t=1, lr=0.001, wd=1e-4),
    1_000_000: dict(t=1, lr=0.0003, wd=1e-5),
}
TEACHER = 'BiT-M R152x2 flowers rc128'


def get_config(arg=None):
  return common.small('flowers102', TEACHER, VARIANTS, BEST, arg)


get_sweep = common.sweep
