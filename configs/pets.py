"""Oxford-IIIT Pets at 128 px, function matching.

  python -m big_distill.main --config=configs/pets.py:variant=fast --workdir=DIR

Reproduces the Pets rows of the paper's Table 4 (Figs 4 and 10), and with `mode=`
its consistency experiment. The paper's test accuracies, in %: student 82.75,
88.01, 90.08, 90.98 and 91.06 after 300, 1k, 3k, 10k and 30k epochs; teacher
91.03. Best from labels alone 74.24, by transfer 88.20: configs/baselines.py.

Cost: the authors' code says 1k epochs take 28 min on a TPU v2-8, 30k about 11 h.
Not run with this code. Prepare the data with `tfds build oxford_iiit_pet`.

Out-of-domain distillation (Fig 6): `images=food101`, `images=imagenet`, several
with weights, `images=food101*3+imagenet`, or `images=folder:PATH` teach in place
of pets, for as many steps. The paper says: related images come close with
patience, and pets are learned from food alone to roughly 30 %.
"""

from configs import common

VARIANTS = {'fast': 1_000, 'medium': 3_000, 'long': 30_000}
BEST = {  # Epochs: the paper's best setting, chosen on validation (Table 4).
    300: dict(t=2, lr=0.01, wd=1e-5),
    1_000: dict(t=5, lr=0.01, wd=1e-3),
    3_000: dict(t=10, lr=0.003, wd=3e-4),
    10_000: dict(t=2, lr=0.001, wd=1e-4),
    30_000: dict(t=2, lr=0.003, wd=1e-5),
}
TEACHER = 'BiT-M R152x2 pet rc128'


def get_config(arg=None):
  return common.small('pets', TEACHER, VARIANTS, BEST, arg)


get_sweep = common.sweep
