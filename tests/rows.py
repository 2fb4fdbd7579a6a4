"""Rows for the law *cut commutes*: one node, its inputs, and how many channels its rule leaves free."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import ModelProto, helper


@dataclass(frozen=True)
class X:
    """An input from another operator, random, with labels on every axis unless it is an integer."""

    shape: tuple[int, ...]
    dtype: str = "f4"
    low: float = -2.0
    high: float = 2.0
    zero: int = 0  # what a dead position holds where it is zeroed
    weight: bool = False

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        if np.dtype(self.dtype).kind in "iu":
            return rng.integers(int(self.low), int(self.high), self.shape).astype(self.dtype)
        if np.dtype(self.dtype).kind == "b":
            return rng.random(self.shape) < 0.5
        return rng.uniform(self.low, self.high, self.shape).astype(self.dtype)


def W(*shape: int, dtype: str = "f4", low: float = -2.0, high: float = 2.0) -> X:
    """A weight: a random tensor of the file."""
    return X(shape, dtype, low, high, weight=True)


def P(*shape: int, dtype: str = "f4") -> X:
    """A weight that is positive, such as a variance or a divisor."""
    return X(shape, dtype, 0.5, 2.0, weight=True)


def I(*values: int, dtype: str = "i8") -> np.ndarray:  # noqa: E743
    """Integers that stand in the file."""
    return np.array(values, dtype)


Spec = X | np.ndarray | np.generic | tuple[int, ...] | None


@dataclass(frozen=True)
class Row:
    op: str
    inputs: tuple[Spec, ...]
    attributes: dict[str, Any]
    free: int
    opset: int = 17
    outputs: int = 1
    refused: str = ""  # part of the reason, where the operator freezes all it touches
    zeroed: bool = True  # with zeros where the inputs are dead
    garbage: bool = True  # with garbage there
    heads: bool = True  # attention loses whole heads
    tolerance: float = 1e-4

    @property
    def kind(self) -> str:
        return self.op.partition(":")[2] or self.op

    @property
    def domain(self) -> str:
        return self.op.partition(":")[0] if ":" in self.op else ""

    def __str__(self) -> str:
        told = [f"{k}={_short(v)}" for k, v in self.attributes.items()]
        shapes = [_shape(s) for s in self.inputs]
        return " ".join([f"{self.op}-{self.opset}", *shapes, *told])

    def build(self, seed: int) -> tuple[ModelProto, dict[str, np.ndarray], dict[str, np.ndarray]]:
        """The model with all inputs as graph inputs, the data among them, and the tensors of the file."""
        rng = np.random.default_rng(seed)
        specs = [X(s) if isinstance(s, tuple) else s for s in self.inputs]
        names = ["" if s is None else f"x{k}" for k, s in enumerate(specs)]
        data = {n: s.draw(rng) for n, s in zip(names, specs, strict=True) if isinstance(s, X) and not s.weight}
        weights = {n: s.draw(rng) for n, s in zip(names, specs, strict=True) if isinstance(s, X) and s.weight}
        weights |= {n: s for n, s in zip(names, specs, strict=True) if isinstance(s, np.ndarray)}
        outputs = [f"y{k}" for k in range(self.outputs)]
        node = helper.make_node(self.kind, names, outputs, name="node", domain=self.domain, **self.attributes)
        arrays = {**data, **weights}
        infos = [_info(n, arrays[n]) for n in names if n]
        graph = helper.make_graph([node], "row", infos, [helper.make_empty_tensor_value_info(n) for n in outputs])
        imports = [helper.make_opsetid("", self.opset)]
        imports += [helper.make_opsetid(self.domain, 1)] if self.domain else []
        return helper.make_model(graph, opset_imports=imports, ir_version=8), data, weights

    def zeros(self) -> dict[str, int]:
        """What stands for nothing in each integer input."""
        return {f"x{k}": s.zero for k, s in enumerate(self.inputs) if isinstance(s, X)}


def _info(name: str, array: np.ndarray) -> Any:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)


def _short(value: Any) -> str:
    text = str(list(value)) if isinstance(value, Sequence) and not isinstance(value, str) else str(value)
    return text.replace(" ", "").replace("\n", "")[:40]


def _shape(spec: Spec) -> str:
    if spec is None:
        return "-"
    if isinstance(spec, np.ndarray):
        return _short(spec.tolist())
    shape, mark = (spec, "") if isinstance(spec, tuple) else (spec.shape, "w" if spec.weight else "")
    return mark + "x".join(map(str, shape)) if shape else f"{mark}scalar"


def row(op: str, *inputs: Spec, free: int, opset: int = 17, outputs: int = 1, **attributes: Any) -> Row:
    """A row; arguments that begin with an underscore are fields of the row, the others attributes of the node."""
    fields = {k[1:]: attributes.pop(k) for k in list(attributes) if k.startswith("_")}
    attributes |= fields.pop("attributes", {})
    specs = tuple(np.asarray(s) if isinstance(s, np.generic) else s for s in inputs)
    return Row(op, specs, attributes, free, opset, outputs, **fields)
