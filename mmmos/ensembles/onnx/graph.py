"""ONNX graphs written as arithmetic: what is asked for twice is computed once; the same calls give the same bytes."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray
from onnx import ModelProto, NodeProto, TensorProto, checker, helper, numpy_helper

from mmmos.errors import SetupError

# Versions of the standard operators, of ai.onnx.ml, and of the file's format.
OPSET, TREES_OPSET, IR = 17, 3, 8
TREES = "TreeEnsembleRegressor"
# Bytes of a graph, somewhat below what a file of protocol buffers can hold.
MOST = 2 * 10**9
# Operators that must name more than one result.
RESULTS = {"TopK": 2}

Shape = Sequence[int | str]
Operand: TypeAlias = "Value | NDArray[Any] | float"


class Graph:
    """Nodes in the order of their making, each computed once; results are ``Value``s."""

    def __init__(self) -> None:
        self._nodes: list[NodeProto] = []
        self._tensors: list[TensorProto] = []
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._made: dict[bytes, str] = {}
        self._bytes = 0

    def input(self, name: str, shape: Shape) -> "Value":
        """A float32 input; text in a shape names a dimension of any size."""
        self._inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return Value(self, name, np.dtype(np.float32))

    def output(self, name: str, value: "Value", shape: Shape) -> None:
        """Give a value out as float32."""
        self._nodes.append(helper.make_node("Identity", [value.cast(np.float32).name], [name]))
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    def constant(self, array: NDArray[Any]) -> "Value":
        """An array of the file. Raises ``SetupError`` where the file would be too large, as ``node`` does."""
        tensor = numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape))
        key = _digest(tensor)
        if key not in self._made:
            self._count(tensor)
            tensor.name = self._made[key] = f"/constant/{len(self._tensors)}"
            self._tensors.append(tensor)
        return Value(self, self._made[key], array.dtype)

    def node(self, kind: str, inputs: Sequence[str], attributes: Mapping[str, Any]) -> str:
        """The name of an operator's first result; more of them have a number behind it."""
        domain = "ai.onnx.ml" if kind == TREES else ""
        node = helper.make_node(kind, inputs, [], domain=domain, **attributes)
        key = _digest(node)
        if key not in self._made:
            self._count(node)
            self._made[key] = f"/{kind}/{len(self._nodes)}"
            node.output.extend([self._made[key], *(f"{self._made[key]}/{n}" for n in range(1, RESULTS.get(kind, 1)))])
            self._nodes.append(node)
        return self._made[key]

    def _count(self, message: NodeProto | TensorProto) -> None:
        self._bytes += message.ByteSize()
        if self._bytes > MOST:
            raise SetupError(
                "The graph takes more than the 2 GB that an ONNX file can hold. Choose fewer members; kernel machines"
                " and neighbours hold all their training clips."
            )

    def model(self, name: str, text: str, metadata: Mapping[str, str], version: str) -> ModelProto:
        """The graph as a model, checked by ``onnx.checker``."""
        graph = helper.make_graph(self._nodes, name, self._inputs, self._outputs, self._tensors, doc_string=text)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", TREES_OPSET)]
        model = helper.make_model(
            graph, opset_imports=opsets, ir_version=IR, producer_name="mmmos", producer_version=version
        )
        helper.set_model_props(model, dict(metadata))
        checker.check_model(model, full_check=True)
        return model


@dataclass(frozen=True)
class Value:
    """A tensor in a graph. In arithmetic, numbers and arrays become constants, floating ones of this value's dtype."""

    graph: Graph
    name: str
    dtype: np.dtype[Any]

    def op(self, kind: str, *others: Operand, dtype: DTypeLike | None = None, **attributes: Any) -> "Value":
        """An operator applied to this value and others; ``dtype`` of the result, by default this value's."""
        inputs = [self.name, *(self._operand(other).name for other in others)]
        return Value(self.graph, self.graph.node(kind, inputs, attributes), np.dtype(dtype or self.dtype))

    def _operand(self, other: Any) -> "Value":
        if isinstance(other, Value):
            return other
        array = np.asarray(other)
        return self.graph.constant(array.astype(self.dtype if array.dtype.kind == "f" else np.int64))

    def __add__(self, other: Operand) -> "Value":
        return self.op("Add", other)

    def __sub__(self, other: Operand) -> "Value":
        return self.op("Sub", other)

    def __mul__(self, other: Operand) -> "Value":
        return self.op("Mul", other)

    def __neg__(self) -> "Value":
        return self.op("Neg")

    def __truediv__(self, other: Operand) -> "Value":
        return self.op("Div", other)

    def __matmul__(self, other: Operand) -> "Value":
        return self.op("MatMul", other)

    def clip(self, low: Operand, high: Operand) -> "Value":
        """Numbers below ``low`` moved there, then those above ``high``."""
        return self.op("Max", low).op("Min", high)

    def sum(self, axis: int, *, keep: bool = False) -> "Value":
        """The sum over an axis."""
        return self.op("ReduceSum", np.array([axis]), keepdims=int(keep))

    def reshape(self, *shape: int) -> "Value":
        """Another shape: 0 keeps a dimension of that place, −1 takes what is left."""
        return self.op("Reshape", np.array(shape))

    def transpose(self, *axes: int) -> "Value":
        """The axes in another order."""
        return self.op("Transpose", perm=axes)

    def at(self, positions: Sequence[int], axis: int) -> "Value":
        """Some positions of an axis."""
        return self.op("Gather", np.array(positions), axis=axis)

    def cast(self, dtype: DTypeLike) -> "Value":
        """In another dtype."""
        wanted = np.dtype(dtype)
        if wanted == self.dtype:
            return self
        return self.op("Cast", dtype=wanted, to=helper.np_dtype_to_tensor_dtype(wanted))


def _digest(message: NodeProto | TensorProto) -> bytes:
    return hashlib.sha256(message.SerializeToString(deterministic=True)).digest()


def joined(values: Sequence[Value], axis: int) -> Value:
    """Values side by side."""
    first, *others = values
    return first.op("Concat", *others, axis=axis) if others else first


def total(values: Sequence[Value]) -> Value:
    """The sum of values, from the first to the last."""
    first, *others = values
    return first.op("Sum", *others) if others else first
