"""Small random convolutional networks, put together from the pieces that exporters leave behind."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper


@dataclass(frozen=True)
class Map:
    """A feature map; its height is also its width."""

    name: str
    channels: int
    size: int


@dataclass
class Builder:
    """A network under way, with the operator set and the ways in which it holds its weights."""

    draw: Callable[[Any], Any]
    opset: int
    weights_as: str  # "initializer", "input", "constant", "identity" or "transpose"
    dynamic: bool  # height and width are symbolic
    rng: np.random.Generator
    nodes: list[NodeProto] = field(default_factory=list)
    tensors: list[TensorProto] = field(default_factory=list)
    maps: list[Map] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    filters: dict[tuple[int, ...], str] = field(default_factory=dict)  # weights that may be used again
    biases: dict[int, str] = field(default_factory=dict)

    # --- pieces of graphs ----------------------------------------------------

    def node(self, op: str, inputs: list[str], outputs: int = 1, **attributes: Any) -> Any:
        names = [f"{op.lower()}_{len(self.nodes)}_{k}" for k in range(outputs)]
        self.nodes.append(helper.make_node(op, inputs, names, name=f"n{len(self.nodes)}", **attributes))
        return names if outputs > 1 else names[0]

    def tensor(self, array: np.ndarray) -> str:
        name = f"t{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def ints(self, *values: int) -> str:
        """Small integers: a Constant node, or a tensor of the file."""
        if self.draw(st.booleans()):
            return self.node("Constant", [], value=numpy_helper.from_array(np.array(values, np.int64)))
        return self.tensor(np.array(values, np.int64))

    def weight(self, *shape: int, scale: float = 1.0, shift: float = 0.0) -> str:
        array = (self.rng.standard_normal(shape) * scale + shift).astype(np.float32)
        if self.weights_as == "constant":
            return self.node("Constant", [], value=numpy_helper.from_array(array))
        if self.weights_as == "identity":
            return self.node("Identity", [self.tensor(array)])
        if self.weights_as == "transpose" and len(shape) == 4:
            return self.node("Transpose", [self.tensor(array.transpose(2, 3, 1, 0).copy())], perm=[3, 2, 0, 1])
        return self.tensor(array)

    def filter(self, *shape: int) -> str:
        """Convolution weights: sometimes those that another layer uses."""
        if shape in self.filters and self.draw(st.integers(0, 3)) == 0:
            return self.filters[shape]
        self.filters[shape] = self.weight(*shape, scale=float(np.prod(shape[1:])) ** -0.5)
        return self.filters[shape]

    def bias(self, size: int) -> str:
        """A bias: exporters make one tensor of equal ones."""
        if size not in self.biases or self.draw(st.booleans()):
            self.biases[size] = self.weight(size, scale=0.5)
        return self.biases[size]

    def listed(self, op: str, x: str, attribute: str, values: list[int], **attributes: Any) -> Any:
        """A node that takes integers as an attribute before opset 13 and as an input since."""
        if self.opset < 13:
            return self.node(op, [x], **{attribute: values}, **attributes)
        return self.node(op, [x, self.ints(*values)], **attributes)

    def reshape(self, x: str, like: str, *channels: int) -> str:
        """To (batch, *channels, height, width), the latter two as in `like`."""
        shape = self.node("Shape", [like])
        batch = self.node("Gather", [shape, self.ints(0)], axis=0)
        sides = [self.node("Gather", [shape, self.ints(k)], axis=0) for k in (2, 3)]
        return self.node("Reshape", [x, self.node("Concat", [batch, self.ints(*channels), *sides], axis=0)])

    # --- layers --------------------------------------------------------------

    def pick(self, want: Callable[[Map], bool] = lambda m: True) -> Map | None:
        found = [m for m in self.maps if want(m)]
        return self.draw(st.sampled_from(found[-4:])) if found else None

    def add(self, name: str, channels: int, size: int) -> Map:
        self.maps.append(Map(name, channels, size))
        return self.maps[-1]

    def conv(self, m: Map) -> None:
        kind = self.draw(st.sampled_from(["plain", "plain", "pointwise", "depthwise", "grouped", "strided"]))
        group = {"depthwise": m.channels, "grouped": 2 if m.channels % 2 == 0 else 1}.get(kind, 1)
        out = self.draw(st.sampled_from([4, 6, 8]))
        out = m.channels * self.draw(st.integers(1, 2)) if kind == "depthwise" else out
        k = 1 if kind == "pointwise" else 3
        stride = 2 if kind == "strided" and m.size > 4 else 1
        w = self.filter(out, m.channels // group, k, k)
        inputs = [m.name, w, self.bias(out)] if self.draw(st.booleans()) else [m.name, w]
        pads = [k // 2] * 4
        y = self.node("Conv", inputs, kernel_shape=[k, k], group=group, pads=pads, strides=[stride] * 2)
        self.add(self.after(y, out), out, (m.size + stride - 1) // stride)

    def after(self, x: str, channels: int) -> str:
        """Perhaps a normalisation, perhaps an activation."""
        if self.draw(st.booleans()):
            scale, shift, mean = (self.weight(channels, scale=0.3, shift=s) for s in (1, 0, 0))
            variance = self.weight(channels, scale=0.01, shift=1)
            x = self.node("BatchNormalization", [x, scale, shift, mean, variance])
        op = self.draw(st.sampled_from(["", "Relu", "Relu", "Sigmoid", "LeakyRelu", "PRelu", "Clip", "Swish"]))
        if op == "PRelu":
            return self.node(op, [x, self.weight(channels, 1, 1)])
        if op == "Swish":
            return self.node("Mul", [x, self.node("Sigmoid", [x])])
        if op == "Clip":
            limits = [self.tensor(np.float32(0)), self.tensor(np.float32(6))]
            return self.node(op, [x, *limits]) if self.opset >= 11 else self.node(op, [x], min=0.0, max=6.0)
        return self.node(op, [x]) if op else x

    def residual(self, m: Map) -> None:
        other = self.pick(lambda o: o != m and (o.channels, o.size) == (m.channels, m.size)) or m
        self.add(self.node(self.draw(st.sampled_from(["Add", "Sum", "Mul"])), [m.name, other.name]), m.channels, m.size)

    def concat(self, m: Map) -> None:
        others = [o for o in self.maps if o.size == m.size][-2:]
        total = m.channels + sum(o.channels for o in others)
        self.add(self.node("Concat", [m.name, *(o.name for o in others)], axis=1), total, m.size)

    def split(self, m: Map) -> None:
        first = self.draw(st.integers(1, m.channels - 1))
        sizes = [first, m.channels - first]
        if self.draw(st.booleans()):
            for start, size in ((0, first), (first, sizes[1])):
                self.add(self.slice(m.name, start, start + size), size, m.size)
            return
        told = {"axis": 1, "outputs": 2}
        for name, size in zip(self.listed("Split", m.name, "split", sizes, **told), sizes, strict=True):
            self.add(name, size, m.size)

    def slice(self, x: str, start: int, end: int, step: int = 1) -> str:
        if self.opset < 10:
            return self.node("Slice", [x], starts=[start], ends=[end], axes=[1])
        return self.node("Slice", [x, self.ints(start), self.ints(end), self.ints(1), self.ints(step)])

    def every_other(self, m: Map) -> None:
        if self.opset >= 10:
            start = self.draw(st.integers(0, 1))
            self.add(self.slice(m.name, start, m.channels, 2), (m.channels - start + 1) // 2, m.size)
        else:
            order = self.draw(st.permutations(range(m.channels)))
            self.add(self.node("Gather", [m.name, self.ints(*order)], axis=1), m.channels, m.size)

    def shuffle(self, m: Map) -> None:
        groups = 2 if m.channels % 2 == 0 else 1
        split = self.reshape(m.name, m.name, groups, m.channels // groups)
        moved = self.node("Transpose", [split], perm=[0, 2, 1, 3, 4])
        self.add(self.reshape(moved, m.name, m.channels), m.channels, m.size)

    def gate(self, m: Map) -> None:
        squeezed = self.node("GlobalAveragePool", [m.name])
        inner = self.node("Relu", [self.node("Conv", [squeezed, self.filter(4, m.channels, 1, 1), self.bias(4)])])
        gate = self.node("Sigmoid", [self.node("Conv", [inner, self.filter(m.channels, 4, 1, 1)])])
        self.add(self.node("Mul", [m.name, gate]), m.channels, m.size)

    def pool(self, m: Map) -> None:
        op = self.draw(st.sampled_from(["MaxPool", "AveragePool"]))
        y = self.node(op, [m.name], kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 1])
        self.add(y, m.channels, m.size)

    def pad(self, m: Map) -> None:
        before, after = self.draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
        pads = [0, before, 0, 0, 0, after, 0, 0]
        y = self.node("Pad", [m.name], pads=pads) if self.opset < 11 else self.node("Pad", [m.name, self.ints(*pads)])
        self.add(y, m.channels + before + after, m.size)

    def upconv(self, m: Map) -> None:
        w, out = self.filter(m.channels, 6, 2, 2), 6
        self.add(
            self.after(self.node("ConvTranspose", [m.name, w, self.bias(out)], strides=[2, 2]), out), out, 2 * m.size
        )

    def pixel_shuffle(self, m: Map) -> None:
        if m.channels % 4 == 0:
            self.add(self.node("DepthToSpace", [m.name], blocksize=2), m.channels // 4, 2 * m.size)

    def upsample(self, m: Map) -> None:
        scales = [1.0, 1.0, 2.0, 2.0]
        if self.opset < 9:
            y = self.node("Upsample", [m.name], scales=scales)
        elif self.opset < 11:
            y = self.node("Upsample", [m.name, self.tensor(np.array(scales, np.float32))])
        else:
            y = self.node(
                "Resize", [m.name, self.tensor(np.zeros(0, np.float32)), self.tensor(np.array(scales, np.float32))]
            )
        self.add(y, m.channels, 2 * m.size)

    def channels_last(self, m: Map) -> None:
        moved = self.node("Transpose", [m.name], perm=[0, 2, 3, 1])
        op = self.draw(st.sampled_from(["Add", "Mul", "Sub"]))
        changed = self.node(op, [moved, self.weight(m.channels)])
        self.add(self.node("Transpose", [changed], perm=[0, 3, 1, 2]), m.channels, m.size)

    def instance_norm(self, m: Map) -> None:
        parameters = [self.weight(m.channels, shift=1), self.weight(m.channels)]
        self.add(self.node("InstanceNormalization", [m.name, *parameters]), m.channels, m.size)

    def mean(self, m: Map) -> None:
        """A gate by the mean over positions, which goes away and comes back as axes of length 1."""
        axes = [2, 3]
        flat = (
            self.node("ReduceMean", [m.name], axes=axes, keepdims=0)
            if self.opset < 18
            else self.node("ReduceMean", [m.name, self.ints(*axes)], keepdims=0)
        )
        gate = self.node("Sigmoid", [self.node("MatMul", [flat, self.weight(m.channels, m.channels)])])
        self.add(self.node("Mul", [m.name, self.listed("Unsqueeze", gate, "axes", axes)]), m.channels, m.size)

    # --- the end -------------------------------------------------------------

    def head(self, m: Map) -> None:
        """Logits of the mean of every channel, or of all positions."""
        if self.dynamic or self.draw(st.booleans()):
            features, width = self.node("GlobalAveragePool", [m.name]), m.channels
        else:
            features, width = m.name, m.channels * m.size * m.size
        if self.draw(st.booleans()):
            flat = self.node("Flatten", [features])
        else:
            flat = self.node("Reshape", [features, self.ints(0, -1)])
        if self.draw(st.booleans()):
            self.outputs.append(self.node("Gemm", [flat, self.weight(5, width), self.bias(5)], transB=1))
        else:
            self.outputs.append(self.node("Add", [self.node("MatMul", [flat, self.weight(width, 5)]), self.bias(5)]))

    def model(self, side: int) -> ModelProto:
        sides = ["H", "W"] if self.dynamic else [side, side]
        inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, *sides])]
        if self.weights_as == "input":
            inputs += [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in self.tensors]
        outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 5]) for name in self.outputs]
        graph = helper.make_graph(self.nodes, "random", inputs, outputs, self.tensors)
        ir = 3 if self.weights_as == "input" else 8
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=ir)


LAYERS = ["conv"] * 4 + (
    "residual concat split every_other shuffle gate pool pad upconv pixel_shuffle upsample channels_last instance_norm "
    "mean".split()
)


@st.composite
def networks(draw: Callable[[Any], Any], side: int = 8) -> ModelProto:
    """A model with the input `x` (batch, 3, height, width) and one or two outputs."""
    b = Builder(
        draw,
        draw(st.sampled_from([7, 9, 11, 13, 17, 21])),
        draw(st.sampled_from(["initializer", "initializer", "input", "constant", "identity", "transpose"])),
        draw(st.booleans()),
        np.random.default_rng(draw(st.integers(0, 99))),
    )
    b.conv(Map("x", 3, side))
    b.conv(b.maps[0])
    for layer in draw(st.lists(st.sampled_from(LAYERS), min_size=2, max_size=7)):
        m = b.pick(lambda m: 1 < m.channels <= 32 and m.size <= 2 * side)
        if m is not None:
            getattr(b, layer)(m)
    b.conv(b.maps[-1])
    b.head(b.maps[-1])
    if draw(st.booleans()) and (m := b.pick()) is not None:
        b.head(m)
    return b.model(side)
