"""SavedModel, a folder, for TensorFlow Serving and everything of TensorFlow.

Its operations are TensorFlow's own, not XLA's. Signatures: `serving_default`
takes `images`, uint8 [batch, size, size, 3]; `encoded` takes `encoded`, strings
[batch] of JPEGs, PNGs, GIFs or BMPs of any size, crops and resizes them as the
card says, and does not look at EXIF. Both return `logits` and `probabilities`,
float32 [batch, classes]. The card is the file assets.extra/card.
"""

import os

from big_distill import cards
from big_distill import served as served_lib
from big_distill import tf_graph
from big_distill import views

SUFFIX = '_savedmodel'
WEIGHTS = ('float32', 'float16', 'int8')
PACKAGES = ('tensorflow',)
CARD = 'assets.extra/card'


def write(served: served_lib.Served, path: str) -> None:
  """Writes a folder."""
  import tensorflow as tf

  from big_distill.input import crops

  logits = tf_graph.function(served)
  card, size = served.card, served.card.size
  view = views.View.parse(card.view).at(size)

  def shown(encoded):
    image = crops.decode(encoded)
    frame, flip = crops.box(view, tf.shape(image), None, card.fraction)
    return crops.resize(crops.cut(image, frame), view, flip)

  def named(images):
    found = logits(images)['logits']
    return {'logits': found, 'probabilities': tf.nn.softmax(found)}

  module = tf.Module()
  module.images = tf.function(named, logits.input_signature, autograph=False)
  module.encoded = tf.function(
      lambda encoded: named(tf.map_fn(
          shown, encoded, fn_output_signature=tf.TensorSpec(
              served.image, tf.uint8))),
      [tf.TensorSpec([None], tf.string, 'encoded')], autograph=False)
  tf.saved_model.save(module, path, signatures={
      'serving_default': module.images, 'encoded': module.encoded})
  os.makedirs(os.path.join(path, os.path.dirname(CARD)))
  with open(os.path.join(path, CARD), 'wb') as file:
    file.write(cards.to_comment(card))


def read(path: str) -> tuple[cards.Card | None, served_lib.Answer]:
  """The card of a folder, if it has one of ours, and its answer."""
  import tensorflow as tf

  call = tf.saved_model.load(path).signatures['serving_default']
  card = None
  if os.path.exists(os.path.join(path, CARD)):
    with open(os.path.join(path, CARD), 'rb') as file:
      card = cards.from_comment(file.read())
  return card, lambda pixels: call(images=tf.constant(pixels))['logits'].numpy()
