"""How long to train, in what steps: between what the paper did, by size.

The paper tuned function matching on datasets of 1,020 to 1,255,544 images. For
other numbers of images, epochs, rate and decay are interpolated between its
best settings, all on logarithmic scales; beyond its datasets they are those of
the nearest.
"""

import math
from typing import Any

import numpy as np

from big_distill import bounds
from big_distill import registry

# The paper's best settings of function matching (Table 4; ImageNet: Listing 1):
# images, epochs, batch, lr, wd, t.
PAPER = {
    'fast': ((1_020, 10_000, 512, .003, 3e-4, 10),
             (3_312, 1_000, 512, .01, 1e-3, 5),
             (68_175, 100, 512, .01, 1e-3, 10),
             (76_128, 100, 512, .01, 1e-3, 10),
             (1_255_544, 300, 4096, .03, 3e-4, 1)),
    'medium': ((1_020, 100_000, 512, .001, 1e-4, 1),
               (3_312, 3_000, 512, .003, 3e-4, 10),
               (68_175, 1_000, 512, .001, 3e-4, 10),
               (76_128, 1_000, 512, .003, 1e-4, 10),
               (1_255_544, 1_200, 4096, .03, 3e-4, 1)),
    'long': ((1_020, 1_000_000, 512, .0003, 1e-5, 1),
             (3_312, 30_000, 512, .003, 1e-5, 2),
             (68_175, 3_000, 512, .01, 1e-4, 5),
             (76_128, 3_000, 512, .01, 3e-5, 10),
             (1_255_544, 9_600, 4096, .03, 3e-4, 1)),
}
LEAST_BATCH = 64  # Divides over eight devices, mixup groups of 8 included.
LEAST_STEPS = 2_000  # The paper's shortest run: 1,000 epochs of Flowers102.


def settings(n: int, variant: str = 'fast', epochs: int = 0
             ) -> tuple[dict[str, Any], tuple[str, ...]]:
  """({epochs, batch_size, loss, optim}, the reasons), for n images.

  variant: how patient, of PAPER; `epochs`, if not 0, are taken in its place.
  Raises ValueError for another variant, or epochs that are below 0.
  """
  registry.check('variant', variant, PAPER)
  bounds.check('epochs', epochs, least=0)
  rows = PAPER[variant]
  sizes = [row[0] for row in rows]

  def between(column):
    return math.exp(np.interp(math.log(n), np.log(sizes),
                              [math.log(row[column]) for row in rows]))

  nearest = min(rows, key=lambda row: abs(math.log(row[0] / n)))
  full = 2 ** round(math.log2(between(2)))
  # About two steps an epoch or more, as the paper has on its smallest set, and
  # a short run of its own as many steps as the paper's shortest.
  least = min(n / 2, epochs * n / LEAST_STEPS) if epochs else n / 2
  batch = min(full, max(2 ** round(math.log2(max(least, 1))), LEAST_BATCH))
  lr, wd = (float(f'{between(column) * math.sqrt(batch / full):.2g}')
            for column in (3, 4))
  paper = (f'for {n:,} images, between those of the paper' if
           sizes[0] <= n <= sizes[-1] else
           f'for {n:,} images, as for {nearest[0]:,} in the paper')
  reason = f'{paper}; variant= and epochs= change it'
  if epochs:
    reason = 'as epochs= says'
  epochs = epochs or int(float(f'{between(1):.2g}'))
  return dict(
      epochs=epochs, batch_size=batch,
      loss=dict(name='kl', t=float(nearest[5]), t2=True),
      optim=dict(name='adam', lr=lr, wd=wd, clip=1., warmup_steps=1500)), (
          f'Epochs: {epochs:,}, {reason}.',
          f'Batch: {batch}, of at most {full}, so that an epoch has about two '
          f'steps or more, and a run {LEAST_STEPS:,} if it can.',
          f'Rate: lr {lr:g}, wd {wd:g}, {paper}' + (
              '.' if batch == full else
              f', times the root of {batch} / {full}, the batches.'),
          f'Temperature: {nearest[5]}, as for {nearest[0]:,} images there.')
