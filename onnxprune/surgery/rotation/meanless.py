"""Norms that take the mean of their channels away, made into such as do not: for a width that is made without one."""

from collections.abc import Collection
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxprune.model.fresh_names import all_names, fresh_name
from onnxprune.model.graphs import refill
from onnxprune.model.static import attributes_of, opset_of
from onnxprune.operators.registry import Trait, has

BY_NODE = 23  # opset from which there is an operator for it
AXES_GIVEN = 18  # opset from which ReduceMean takes its axes as an input


def without_means(model: onnx.ModelProto, level: Collection[str]) -> None:
    """Let the nodes that give these values take no mean away; the model is changed."""
    out, edit = list[onnx.NodeProto](), _Edit(model)
    for node in model.graph.node:
        if not node.output or node.output[0] not in level:
            out.append(node)
        elif has(node, Trait.CENTRES):
            out += edit.norm(node)
        else:
            edit.renamed[node.output[0]] = node.input[0]  # a value less its mean
    for node in out:
        for k, name in enumerate(node.input):
            while name in edit.renamed:  # of a mean that is taken away twice
                name = edit.renamed[name]
            node.input[k] = name
    taken = {v.name for v in model.graph.output} | {name for node in out for name in node.input}
    idle = {name for node in model.graph.node for name in node.input if name not in taken}
    refill(model.graph.node, [node for node in out if not idle.issuperset(node.output)])


class _Edit:
    """New nodes and tensors of a model."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model, self.opset = model, opset_of(model)
        self.names = all_names(model)
        self.types = {t.name: t.data_type for t in model.graph.initializer}
        self.renamed: dict[str, str] = {}
        self.constants: dict[tuple[bytes, str], str] = {}

    def norm(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """x / √(mean of x² + ε) · scale + shift, of (x, scale, shift)."""
        x, scale, *shift = [name for name in node.input if name]
        epsilon, y = attributes_of(node).get("epsilon", 1e-5), node.output[0]
        last = fresh_name(f"{y}.scaled", self.names) if shift else y
        if self.opset >= BY_NODE:
            made = [helper.make_node("RMSNormalization", [x, scale], [last], axis=-1, epsilon=epsilon)]
        else:
            made = self._written_out(x, scale, epsilon, last, y)
        if shift:
            made.append(helper.make_node("Add", [last, *shift], [y]))
        for k, new in enumerate(made):
            new.name = node.name and (node.name if k == len(made) - 1 else f"{node.name}.{new.op_type}")
        return made

    def _written_out(self, x: str, scale: str, epsilon: float, last: str, y: str) -> list[onnx.NodeProto]:
        """As runtimes look for it when they make one kernel of it."""
        kind = helper.tensor_dtype_to_np_dtype(self.types.get(scale, onnx.TensorProto.FLOAT))
        parts = (fresh_name(f"{y}.{part}", self.names) for part in ("square", "mean", "sum", "root", "unit"))
        square, mean, sum_, root, unit = parts
        told: dict[str, Any] = {} if self.opset >= AXES_GIVEN else {"axes": [-1]}
        axes = [] if told else [self._constant(np.array([-1]))]
        return [
            helper.make_node("Pow", [x, self._constant(np.asarray(2, kind))], [square]),
            helper.make_node("ReduceMean", [square, *axes], [mean], keepdims=1, **told),
            helper.make_node("Add", [mean, self._constant(np.asarray(epsilon, kind))], [sum_]),
            helper.make_node("Sqrt", [sum_], [root]),
            helper.make_node("Div", [x, root], [unit]),
            helper.make_node("Mul", [unit, scale], [last]),
        ]

    def _constant(self, array: np.ndarray) -> str:
        key = array.tobytes(), str(array.dtype)
        if key not in self.constants:
            self.constants[key] = fresh_name(f"onnxprune.norm.{array.dtype}.{len(self.constants)}", self.names)
            self.model.graph.initializer.append(numpy_helper.from_array(array, self.constants[key]))
        return self.constants[key]
