"""TFLite (LiteRT), for phones and small boards.

One input, uint8 [batch, size, size, 3], made with a batch of 1 that
`resize_tensor_input` changes; one output, float32 logits [batch, classes]. With
float16, weights are float16 and computed with in float32. With int8 the
converter chooses: kernels are int8, and so is what is multiplied with them,
scaled anew for each image. The card is behind the model, as the comment of an
empty zip archive, which no runtime looks at.
"""

import numpy as np

from big_distill import cards
from big_distill import npz_files
from big_distill import served as served_lib
from big_distill import tf_graph

SUFFIX = '.tflite'
WEIGHTS = ('float32', 'float16', 'int8')
PACKAGES = ('tensorflow', 'ai_edge_litert')
# All numbers become float16; products are of int8 alone.
TOLERANCE = {'float16': .03, 'int8': 1.}


def write(served: served_lib.Served, path: str) -> None:
  """Writes a file, by TensorFlow's converter."""
  import tensorflow as tf

  # The converter chooses how it keeps weights.
  whole = served_lib.load(served.file, size=served.card.size)
  function = tf_graph.function(whole)
  converter = tf.lite.TFLiteConverter.from_concrete_functions(
      [function.get_concrete_function()], function)
  if served.weights != 'float32':
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
  if served.weights == 'float16':
    converter.target_spec.supported_types = [tf.float16]
  with open(path, 'wb') as file:
    file.write(converter.convert() + cards.to_end(served.card))


def read(path: str) -> tuple[cards.Card | None, served_lib.Answer]:
  """The card of a file, if it has one of ours, and its answer."""
  from ai_edge_litert import interpreter

  runtime = interpreter.Interpreter(model_path=path)
  images, = runtime.get_input_details()
  logits, = runtime.get_output_details()
  batch = None

  def answer(pixels: np.ndarray) -> np.ndarray:
    nonlocal batch
    if batch != len(pixels):
      runtime.resize_tensor_input(images['index'], pixels.shape)
      runtime.allocate_tensors()
      batch = len(pixels)
    runtime.set_tensor(images['index'], pixels)
    runtime.invoke()
    return runtime.get_tensor(logits['index'])

  return npz_files.load_card(path), answer
