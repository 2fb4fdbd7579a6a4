"""A small network under construction, whose odd channels are exactly dead."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

ODD = slice(1, None, 2)
NONE = slice(0, 0)
Dead = slice | np.ndarray

PATTERNS: dict[str, "Pattern"] = {}


@dataclass(frozen=True)
class Pattern:
    """A coupling pattern at width 1 (`build(1)`) or twice that, with every second channel dead."""

    build: Callable[["Net", int], str | Sequence[str]]
    shape: tuple[int | str, ...]
    run: tuple[int, ...]
    opset: int
    kind: int
    full: bool  # whether all that is dead can go

    def model(self, width: int) -> onnx.ModelProto:
        net = Net(opset=self.opset)
        out = self.build(net, width)
        return net.model(self.shape, [out] if isinstance(out, str) else list(out), self.kind, self.run)


def pattern(
    name: str,
    *shape: int | str,
    opset: int = 17,
    run: tuple[int, ...] = (),
    kind: int = TensorProto.FLOAT,
    full: bool = True,
) -> Callable:
    """Register a network with one input "x" of this shape; symbolic sizes need the shape to `run` it with."""

    def register(fn: Callable[["Net", int], str | Sequence[str]]) -> Callable:
        assert name not in PATTERNS, name
        PATTERNS[name] = Pattern(fn, shape, run or tuple(int(n) for n in shape), opset, kind, full)
        return fn

    return register


@dataclass
class Net:
    """Nodes and weights so far.  Every layer takes names and gives the name of its output."""

    opset: int = 17
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[TensorProto] = field(default_factory=list)
    count: int = 0
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(7))

    def model(
        self, shape: Sequence[int | str], outputs: Sequence[str], kind: int, run: tuple[int, ...]
    ) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "pattern",
            [helper.make_tensor_value_info("x", kind, shape)],
            [helper.make_empty_tensor_value_info(name) for name in outputs],
            self.weights,
        )
        imports = [helper.make_opsetid("", self.opset)]
        if any(node.domain for node in self.nodes):
            imports.append(helper.make_opsetid("com.microsoft", 1))
        model = helper.make_model(graph, opset_imports=imports, ir_version=10 if self.opset > 20 else 8)
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
        del model.graph.value_info[:]
        if all(v.type.tensor_type.HasField("shape") for v in model.graph.output):
            return model
        feed = {
            "x": np.zeros(run, helper.tensor_dtype_to_np_dtype(kind))
        }  # operators that onnx's inference does not know
        shapes = [y.shape for y in ort.InferenceSession(model.SerializeToString()).run(None, feed)]
        del model.graph.output[:]
        model.graph.output.extend(helper.make_tensor_value_info(n, 1, s) for n, s in zip(outputs, shapes, strict=True))
        return model

    # --- parts ---------------------------------------------------------------

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        stem, self.count = f"{kind.split(':')[-1].lower()}{self.count}", self.count + 1
        names = [f"{stem}_{k}" for k in range(outputs)] if outputs > 1 else [stem]
        domain, _, op_type = kind.rpartition(":")
        self.nodes.append(helper.make_node(op_type, inputs, names, name=names[0], domain=domain, **attributes))
        return names if outputs > 1 else names[0]

    def tensor(self, array: np.ndarray, name: str = "const") -> str:
        self.weights.append(numpy_helper.from_array(array, f"{name}.{len(self.weights)}"))
        return self.weights[-1].name

    def ints(self, *values: int) -> str:
        return self.tensor(np.array(values, np.int64), "ints")

    def weight(
        self, *shape: int, dead: Sequence[tuple[int, Dead]] = (), low: float | None = None, name: str = "w"
    ) -> str:
        """Random weights that are zero at the dead positions of the named axes; uniform from `low` where given."""
        fan = max(1, int(np.prod(shape[1:])))
        array = self.rng.standard_normal(shape) / np.sqrt(fan) if low is None else self.rng.uniform(low, low + 1, shape)
        for axis, positions in dead:
            array[(slice(None),) * axis + (positions,)] = 0
        return self.tensor(array.astype(np.float32), name)

    # --- layers --------------------------------------------------------------

    def conv(
        self,
        x: str,
        cin: int,
        cout: int,
        k: int = 3,
        *,
        group: int = 1,
        dead: Dead = ODD,
        bias: bool = True,
        rank: int = 2,
        **attributes: Any,
    ) -> str:
        w = self.weight(cout, cin // group, *[k] * rank, dead=[(0, dead)], name="conv")
        b = [self.weight(cout, dead=[(0, dead)], low=-0.5, name="bias")] if bias else []
        pads = attributes.pop("pads", [k // 2] * 2 * rank)
        return self.op("Conv", x, w, *b, group=group, pads=pads, **attributes)

    def linear(self, x: str, cin: int, cout: int, *, dead: Dead = ODD, transposed: bool = True) -> str:
        """Gemm, with weights (out, in) as PyTorch writes them."""
        w = self.weight(cout, cin, dead=[(0, dead)]) if transposed else self.weight(cin, cout, dead=[(1, dead)])
        return self.op("Gemm", x, w, self.weight(cout, dead=[(0, dead)], low=-0.5), transB=int(transposed))

    def project(self, x: str, cin: int, cout: int, *, dead: Dead = ODD, bias: bool = True) -> str:
        """MatMul and Add over the last axis of a sequence."""
        y = self.op("MatMul", x, self.weight(cin, cout, dead=[(1, dead)]))
        return self.op("Add", y, self.weight(cout, dead=[(0, dead)], low=-0.5)) if bias else y

    def norm(self, x: str, c: int, dead: Dead = ODD) -> str:
        """BatchNormalization whose dead channels are shifted to zero."""
        scale, shift = self.weight(c, dead=[(0, dead)], low=0.5), self.weight(c, dead=[(0, dead)], low=-0.5)
        return self.op("BatchNormalization", x, scale, shift, self.weight(c, low=-0.5), self.weight(c, low=0.5))

    def relu(self, x: str) -> str:
        return self.op("Relu", x)

    def cbr(
        self, x: str, cin: int, cout: int, k: int = 3, *, group: int = 1, dead: Dead = ODD, **attributes: Any
    ) -> str:
        return self.relu(self.conv(x, cin, cout, k, group=group, dead=dead, **attributes))

    def head(self, x: str, c: int, classes: int = 3) -> str:
        """Global average pool and a classifier, none of whose outputs is dead."""
        y = self.op("Flatten", self.op("GlobalAveragePool", x))
        return self.linear(y, c, classes, dead=NONE)

    def reshape(self, x: str, *shape: int) -> str:
        return self.op("Reshape", x, self.ints(*shape))

    def transpose(self, x: str, *perm: int) -> str:
        return self.op("Transpose", x, perm=perm)

    def slice(self, x: str, start: int, end: int, axis: int, step: int = 1) -> str:
        return self.op("Slice", x, self.ints(start), self.ints(end), self.ints(axis), self.ints(step))
