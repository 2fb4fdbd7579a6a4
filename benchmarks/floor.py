"""The least that full coupling leaves of a network's multiply-accumulates at half of the channels: for `coverage.py`.

Counted from the file alone by onnx and onnxruntime, without onnxprune.  Every layer with weights keeps half of what it
reads and half of what it writes, rounded up; but not of the network's inputs, nor of what reaches an output with no
other layer between.  A depthwise layer keeps half, a product of two activations half of its heads or of its width.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, helper, numpy_helper
from other_sizes import run

CONVOLUTIONS = ("Conv", "ConvTranspose")
PRODUCTS = ("Gemm", "MatMul")
RECURRENT = ("RNN", "GRU", "LSTM")
SIZES = ("Shape", "Size")
SAMPLERS = ("RoiAlign", "GridSample")  # whose second input says where


def half(n: int) -> int:
    return n - n // 2


class Floor:
    """A network at one size.

    Attributes:
        total, least: multiply-accumulates before and after.
    """

    def __init__(self, model: ModelProto, inputs: Mapping[str, Sequence[int]]) -> None:
        graph = model.graph
        self.inputs = {v.name: v.type.tensor_type.elem_type for v in graph.input if v.name in inputs}
        self.outputs = {v.name for v in graph.output}
        self.makers = {name: n for n in graph.node for name in n.output}
        self.readers: dict[str, list[NodeProto]] = defaultdict(list)
        for node in graph.node:
            for name in node.input:
                self.readers[name].append(node)
        self.constant = {t.name: True for t in graph.initializer}
        self.values = {t.name: numpy_helper.to_array(t) for t in graph.initializer} | self._run(model, inputs)
        self.total, self.least = 0, 0.0
        for node in graph.node:
            full, share = self.cost(node)
            self.total += full
            self.least += full * share

    def _run(self, model: ModelProto, inputs: Mapping[str, Sequence[int]]) -> dict[str, np.ndarray]:
        """Every value of the network, for small integers and random numbers."""
        rng, feeds, whole = np.random.default_rng(0), {}, ModelProto()
        whole.CopyFrom(model)
        for name, kind in self.inputs.items():
            dtype, shape = helper.tensor_dtype_to_np_dtype(kind), inputs[name]
            feeds[name] = (rng.integers(0, 3, shape) if dtype.kind in "iu" else rng.normal(size=shape)).astype(dtype)
        more = [name for name in self.makers if name and name not in self.outputs]
        whole.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in more)
        names = [v.name for v in whole.graph.output]
        return feeds | dict(zip(names, run(whole, feeds), strict=True))

    def fixed(self, name: str) -> bool:
        """Whether a value is made of weights alone."""
        if name not in self.constant:
            node = self.makers.get(name)
            self.constant[name] = node is not None and all(self.fixed(k) for k in node.input if k)
        return self.constant[name]

    def weight(self, node: NodeProto) -> int | None:
        """Which input of a layer holds its weights; None for other nodes."""
        if node.op_type not in CONVOLUTIONS + PRODUCTS:
            return None
        first, second = map(self.fixed, node.input[:2])
        return None if first == second else int(second)

    def stops(self, node: NodeProto) -> bool:
        """Whether a node makes channels of its own."""
        product = node.op_type in (*PRODUCTS, *RECURRENT) or (node.op_type == "Einsum" and len(node.input) > 1)
        return (self.weight(node) is not None and not self.depthwise(node)) or product or node.op_type in SIZES

    def depthwise(self, node: NodeProto) -> bool:
        return node.op_type == "Conv" and group_of(node) > 1 and self.values[node.input[1]].shape[1] == 1

    def reaches(self, start: str, onward: Callable[[str], list[NodeProto]], names: Callable[[NodeProto], Any]) -> bool:
        """Whether a way from a value that no layer stops ends at one of floats that is an input or output."""
        seen, waiting = set[str](), [start]
        while waiting:
            name = waiting.pop()
            if name in seen or not name or self.fixed(name) or self.values[name].dtype.kind != "f":
                continue
            seen.add(name)
            if name in self.inputs or name in self.outputs:
                return True
            waiting += [k for node in onward(name) if not self.stops(node) for k in names(node)]
        return False

    def written(self, node: NodeProto, n: int) -> float:
        """The share of n channels that a layer writes."""
        ends = self.reaches(node.output[0], lambda name: self.readers[name], lambda reader: reader.output)
        return 1.0 if ends else half(n) / n

    def read(self, name: str, n: int) -> float:
        """The share of n channels that a layer reads."""

        def taken(maker: NodeProto) -> Sequence[str]:
            return maker.input[:1] if maker.op_type in SAMPLERS else maker.input

        starts = self.reaches(name, lambda k: [self.makers[k]] if k in self.makers else [], taken)
        return 1.0 if starts else half(n) / n

    def cost(self, node: NodeProto) -> tuple[int, float]:
        """Multiply-accumulates of a node, and the share of them that stays."""
        if node.op_type in RECURRENT:
            return self._recurrent(node)
        at = self.weight(node)
        if at is None:
            if node.op_type not in ("MatMul", "Einsum") or len(node.input) < 2 or any(map(self.fixed, node.input)):
                return 0, 1.0
            return math.prod(self.values[node.output[0]].shape) * self._summed(node), 0.5
        data, w = node.input[1 - at], self.values[node.input[at]].shape
        made = math.prod(self.values[node.output[0]].shape)
        if node.op_type == "ConvTranspose":
            group = group_of(node)
            share = self.read(data, w[0] // group) * self.written(node, w[1])
            return math.prod(self.values[data].shape) * math.prod(w[1:]), share
        if node.op_type == "Conv":
            group = 1 if self.depthwise(node) else group_of(node)
            share = self.written(node, w[0] // group) * self.read(data, w[1])
            return made * math.prod(w[1:]), share if share == 1 or group == 1 else min(share, half(group) / group)
        transposed = node.op_type == "Gemm" and any(a.name == "transB" and a.i for a in node.attribute)
        if len(w) == 1:
            return made * w[0], self.read(data, w[0])
        rows, columns = (w[-1], w[-2]) if transposed != (at == 0) else (w[-2], w[-1])
        return made * rows, self.read(data, rows) * self.written(node, columns)

    def _recurrent(self, node: NodeProto) -> tuple[int, float]:
        """Of a recurrent layer: its gates read its inputs and, all of them, what it wrote before."""
        x, w, r = (self.values[name].shape for name in node.input[:3])
        read, again = (math.prod(x[:2]) * math.prod(shape) for shape in (w, r))
        out = self.written(node, r[-1])
        return read + again, (read * self.read(node.input[0], x[-1]) * out + again * out**2) / (read + again)

    def _summed(self, node: NodeProto) -> int:
        """Over how many positions a product of activations adds up."""
        if node.op_type == "MatMul":
            return self.values[node.input[0]].shape[-1]
        equation = next(a.s.decode() for a in node.attribute if a.name == "equation").replace(" ", "")
        taken, _, given = equation.partition("->")
        sizes = dict[str, int]()
        for labels, name in zip(taken.split(","), node.input, strict=True):
            sizes |= dict(zip(labels[::-1].partition("...")[0], self.values[name].shape[::-1], strict=False))
        return math.prod(n for label, n in sizes.items() if label not in given)


def group_of(node: NodeProto) -> int:
    return next((a.i for a in node.attribute if a.name == "group"), 1)
