"""Packs splits of a dataset into one npz, for machines without TensorFlow.

  python -m big_distill.tools.pack --name=caltech101 --data_dir=TFDS \
      --splits=train,test --short=128 --out=caltech101.npz

There, train.train(config, workdir, packed.Data('caltech101.npz'), writer)
trains without TensorFlow, clu's writers and input/. Images whose shorter side
is longer than `short` are made smaller, then each is encoded as WebP, since
such a machine is often fed through a narrow door.
"""

import io

from absl import flags
import numpy as np

from big_distill import command
from big_distill import npz_files
from big_distill import render


def encode(image: np.ndarray, short: int, quality: int) -> bytes:
  """uint8 [h, w, 3] -> WebP, its shorter side at most `short` pixels."""
  from PIL import Image  # pylint: disable=g-import-not-at-top
  image = Image.fromarray(image)
  scale = short / min(image.size)
  if scale < 1:
    image = image.resize([max(round(scale * n), short) for n in image.size],
                         Image.Resampling.LANCZOS)
  file = io.BytesIO()
  image.save(file, 'WEBP', quality=quality)
  return file.getvalue()


def pack(held: tuple[render.Images, np.ndarray], split: str, short: int,
         quality: int) -> dict[str, np.ndarray]:
  """What pipeline.hold returns of a split -> 'SPLIT/bytes', /ends, /labels."""
  images, labels = held
  encoded = [encode(images.pixels[start:start + 3 * h * w].reshape(h, w, 3),
                    short, quality)
             for start, (h, w) in zip(images.starts, images.sizes)]
  return {f'{split}/bytes': np.frombuffer(b''.join(encoded), np.uint8),
          f'{split}/ends': np.cumsum([*map(len, encoded)]),
          f'{split}/labels': np.asarray(labels, np.int32)}


def main(flag: flags.FlagValues) -> None:
  data = command.pipeline()
  arrays = {'classes': np.asarray(())}
  for split in flag.splits:
    source = data.load(flag.name, split, flag.data_dir, 'none')
    known = tuple(arrays['classes'])
    if known and source.classes and known != tuple(source.classes):
      raise ValueError(f'{flag.name} has other classes in {split} than in the '
                       'splits before it: pack it apart.')
    arrays['classes'] = np.asarray(known or source.classes)
    arrays |= pack(data.hold(source), split, flag.short, flag.quality)
    print(f'{split}: {len(arrays[f"{split}/ends"])} images, '
          f'{arrays[f"{split}/bytes"].nbytes / 1e6:.1f} MB')
  npz_files.save(flag.out, arrays)


def _define_flags() -> None:
  flags.DEFINE_string('name', None, 'A TFDS dataset, or folder:PATH.',
                      required=True)
  flags.DEFINE_string('data_dir', '', 'Where TFDS keeps it.')
  flags.DEFINE_list('splits', ['train', 'test'], 'Splits to pack; they are named '
                    'so in the file.')
  flags.DEFINE_integer('short', 128, 'Pixels of the shorter side.', 1)
  flags.DEFINE_integer('quality', 80, 'Of WebP.', 1, 100)
  flags.DEFINE_string('out', None, 'The npz file to write.', required=True)


if __name__ == '__main__':
  command.program(main, _define_flags)
