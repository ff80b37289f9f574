"""What labels alone teach a R50x1: from scratch, and by transfer from BiT-M.

  python -m big_distill.main \
      --config=configs/baselines.py:dataset=pets,init=BiT-M-R50x1 --workdir=DIR

Reproduces the baselines of the paper's Table 4 and Fig 4: the distillation setup
at 128 px with labels in the place of a teacher, learning rate and decay from the
same grid (get_sweep), mixup swept too (`mode=same/ic` is without). The paper's
test accuracies, in %, and what it prints of their settings:

               from scratch                     transfer, init=BiT-M-R50x1
  Flowers102   66.38   10k epochs, lr .01       97.50   10k, lr .01, no mixup
  Pets         74.24   10k, lr .01              88.20   10k, lr .001
  Food101      74.56    1k, lr .01              85.05    1k, lr .001
  SUN397       60.63    1k, lr .01              71.61    1k, lr .001

Their decay is not printed: 1e-4 here, in the middle of the grid. ImageNet's
baselines are configs/imagenet.py:teacher=labels. Not run with this code.
"""

from configs import common

SETTINGS = {  # Dataset: epochs, and lr from scratch and by transfer.
    'flowers102': (10_000, 0.01, 0.01),
    'pets': (10_000, 0.01, 0.001),
    'food101': (1_000, 0.01, 0.001),
    'sun397': (1_000, 0.01, 0.001),
}


def get_config(arg=None):
  arg = common.parse(arg, dataset='pets', epochs=0, **common.ARGUMENTS)
  epochs, scratch, transfer = common.choose('dataset', arg.dataset, SETTINGS)
  return common.recipe(
      arg, arg.dataset, arg.epochs or epochs, dict(labels=dict(labels=True)),
      t=1, lr=transfer if arg.init else scratch, wd=1e-4)


def get_sweep(arg=None):
  del arg
  return common.grid({'mode': ['funmatch', 'same/ic'], **common.RATES})
