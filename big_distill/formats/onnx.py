"""ONNX, for onnxruntime and whatever else reads it.

One input, `images`, uint8 [batch, size, size, 3], and one output, `logits`,
float32 [batch, classes]; opset 18, which onnxruntime has since 1.14. The card is
in the file's metadata.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from big_distill import cards
from big_distill import served as served_lib
from big_distill import targets
from big_distill import translate

SUFFIX = '.onnx'
WEIGHTS = ('float32', 'float16', 'int8')
PACKAGES = ('onnx', 'onnxruntime')
OPSET, IR = 18, 8
METADATA = cards.MARK.decode()

_NAMES = {'add': 'Add', 'sub': 'Sub', 'mul': 'Mul', 'div': 'Div', 'max': 'Max',
          'min': 'Min', 'neg': 'Neg', 'exp': 'Exp', 'log': 'Log',
          'tanh': 'Tanh', 'sqrt': 'Sqrt', 'logistic': 'Sigmoid', 'erf': 'Erf',
          'abs': 'Abs'}


def write(served: served_lib.Served, path: str) -> None:
  """Writes a file. Raises ValueError for a model that ONNX cannot say."""
  import onnx

  graph = Graph()
  logits = translate.translate(served.logits, served.kept, served.image, graph,
                               'images')
  graph.node('Identity', logits, out='logits')
  model = proto(graph, served.image, served.model.num_classes)
  entry = model.metadata_props.add()
  entry.key, entry.value = METADATA, cards.to_comment(served.card).decode()
  onnx.checker.check_model(model, full_check=True)
  onnx.save(model, path)


def proto(graph: 'Graph', image: Sequence[int], classes: int) -> Any:
  """The model of a graph from `images` to `logits`."""
  import onnx

  helper, kinds = onnx.helper, onnx.TensorProto
  nodes, constants = graph.used()
  return helper.make_model(
      helper.make_graph(
          nodes, 'big_distill',
          [helper.make_tensor_value_info('images', kinds.UINT8,
                                         ['batch', *image])],
          [helper.make_tensor_value_info('logits', kinds.FLOAT,
                                         ['batch', classes])],
          [onnx.numpy_helper.from_array(np.ascontiguousarray(value), name)
           for name, value in constants.items()]),
      producer_name='big_distill', ir_version=IR,
      opset_imports=[helper.make_opsetid('', OPSET)])


def read(path: str) -> tuple[cards.Card | None, served_lib.Answer]:
  """The card of a file, if it has one of ours, and its answer."""
  import onnxruntime

  session = onnxruntime.InferenceSession(
      path, providers=['CPUExecutionProvider'])
  inside = session.get_modelmeta().custom_metadata_map.get(METADATA, '')
  name = session.get_inputs()[0].name
  return cards.from_comment(inside.encode()), (
      lambda pixels: session.run(None, {name: pixels})[0])


class Graph:
  """A targets.Target that collects ONNX's nodes; handles are names."""

  def __init__(self):
    self._nodes, self._constants, self._batch = [], {}, None

  def used(self) -> tuple[list[Any], dict[str, np.ndarray]]:
    """Its nodes, and those constants alone that they use."""
    names = {name for node in self._nodes for name in node.input}
    return self._nodes, {name: value for name, value in self._constants.items()
                         if name in names}

  def node(self, kind: str, *inputs: str, out: str = '', **attributes: Any
           ) -> str:
    """Adds a node, and returns the name of its output."""
    import onnx

    out = out or f'{kind.lower()}_{len(self._nodes)}'
    self._nodes.append(onnx.helper.make_node(
        kind, inputs, [out], name=out, **attributes))
    return out

  def constant(self, value: np.ndarray | np.generic) -> str:
    """See targets.Target, as for all below."""
    name = f'constant_{len(self._constants)}'
    self._constants[name] = np.asarray(value)
    return name

  def _integers(self, values):
    return self.constant(np.asarray(values, np.int64))

  def elementwise(self, name: str, *args: str) -> str:
    if name == 'rsqrt':
      return self.node('Reciprocal', self.node('Sqrt', *args))
    return self.node(_NAMES[name], *args)

  def cast(self, x: str, dtype: np.dtype) -> str:
    import onnx

    return self.node('Cast', x,
                     to=onnx.helper.np_dtype_to_tensor_dtype(dtype))

  def reshape(self, x: str, dims: targets.Dims) -> str:
    return self.node('Reshape', x, self._integers(
        [-1 if n is None else n for n in dims]))

  def expand(self, x: str, dims: targets.Dims) -> str:
    if None not in dims:
      return self.node('Expand', x, self._integers(dims))
    self._batch = self._batch or self.node('Shape', 'images', start=0, end=1)
    at = dims.index(None)
    return self.node('Expand', x, self.node(
        'Concat', self._integers(dims[:at]), self._batch,
        self._integers(dims[at + 1:]), axis=0))

  def transpose(self, x: str, order: Sequence[int]) -> str:
    return self.node('Transpose', x, perm=[*order])

  def slice(self, x: str, axis: int, start: int, stop: int, step: int) -> str:
    return self.node('Slice', x, *(self._integers([n]) for n in (
        start, stop, axis, step)))

  def pad(self, x: str, pads: Sequence[tuple[int, int]], value: float) -> str:
    return self.node('Pad', x, self._integers(np.transpose(pads).ravel()),
                     self.constant(np.asarray(value, np.float32)))

  def concatenate(self, parts: Sequence[str], axis: int) -> str:
    return self.node('Concat', *parts, axis=axis)

  def reduce(self, kind: str, x: str, axes: Sequence[int]) -> str:
    return self.node(f'Reduce{kind.title()}', x, self._integers([*axes]),
                     keepdims=0)

  def matmul(self, x: str, y: str) -> str:
    return self.node('MatMul', x, y)

  def conv(self, x: str, kernel: str, strides: Sequence[int],
           pads: Sequence[tuple[int, int]], groups: int) -> str:
    # Runtimes cancel the transposes of neighbours.
    order = (3, 2, 0, 1)
    kernel = (self.constant(self._constants[kernel].transpose(order))
              if kernel in self._constants else self.transpose(kernel, order))
    y = self.node('Conv', self.transpose(x, (0, 3, 1, 2)), kernel,
                  strides=[*strides], group=groups,
                  pads=[n for side in zip(*pads) for n in side])
    return self.transpose(y, (0, 2, 3, 1))
