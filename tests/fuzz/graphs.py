"""Random networks whose shapes mostly fit, over the operators that carry channels, and random calls of any operator."""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from random import Random

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fuzz.damage import random_attribute

UNARY = tuple(
    "Relu Sigmoid Tanh LeakyRelu Elu HardSwish Abs Neg Exp Erf Softplus Identity Dropout Floor HardSigmoid Not".split()
)
BINARY = tuple("Add Sub Mul Div Max Min Pow Mean Sum PRelu Greater".split())
Shape = tuple[int, ...]


@dataclass
class Net:
    """A network under construction: `values` are what nodes may take, with their shapes."""

    draw: Random
    opset: int = 17
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[TensorProto] = field(default_factory=list)
    values: list[tuple[str, Shape]] = field(default_factory=list)
    dtype: int = TensorProto.FLOAT
    names: int = 0

    def name(self, stem: str) -> str:
        self.names += 1
        return f"{stem}{self.names}"

    def weight(self, *shape: int) -> str:
        """A weight of this shape: a new one, one that is there already, or one that a node makes."""
        draw = self.draw
        same = [t.name for t in self.weights if tuple(t.dims) == shape and t.data_type == self.dtype]
        if same and draw.random() < 0.15:
            return draw.choice(same)
        dtype = helper.tensor_dtype_to_np_dtype(self.dtype)
        array = np.random.default_rng(draw.randrange(2**32)).standard_normal(shape).astype(dtype)
        name = self.name("w")
        tensor = numpy_helper.from_array(array, name)
        form = draw.random()
        if form < 0.08:
            self.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        elif form < 0.12:
            tensor.name = f"{name}.raw"
            self.weights.append(tensor)
            self.nodes.append(helper.make_node("Identity", [tensor.name], [name]))
        elif form < 0.15:
            fill = helper.make_tensor("value", self.dtype, [1], np.array([0.5], dtype).tobytes(), raw=True)
            self.nodes.append(helper.make_node("ConstantOfShape", [self.ints(*shape)], [name], value=fill))
        else:
            self.weights.append(tensor)
        return name

    def ints(self, *values: int) -> str:
        """Integers as a weight of their own."""
        name = self.name("i")
        self.weights.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def add(
        self, op: str, inputs: list[str], shape: Shape, outputs: int = 1, domain: str = "", **attributes: object
    ) -> None:
        """A node, and its first output among the values."""
        made = [self.name("v") for _ in range(outputs)]
        self.nodes.append(
            helper.make_node(
                op, inputs, made, domain=domain, name=self.name("n") * (self.draw.random() < 0.7), **attributes
            )
        )
        self.values.append((made[0], shape))


Part = Callable[[Net, str, Shape], None]
PARTS: list[Part] = []


def part(fn: Part) -> Part:
    """Register what may be put behind a value; it does nothing where the shape does not suit it."""
    PARTS.append(fn)
    return fn


@part
def conv(net: Net, x: str, s: Shape) -> None:
    if len(s) not in (3, 4, 5) or not all(s):
        return
    draw, kernel = net.draw, net.draw.choice((1, 1, 3))
    group = draw.choice([1, 1, 1, s[1], *(g for g in (2, 4) if s[1] % g == 0)])
    out = group * draw.choice((1, 2, 3, 4))
    space = [kernel] * (len(s) - 2)
    inputs = [x, net.weight(out, s[1] // group, *space)] + [net.weight(out)] * (draw.random() < 0.6)
    net.add("Conv", inputs, (s[0], out, *s[2:]), group=group, kernel_shape=space, pads=[kernel // 2] * 2 * len(space))


@part
def conv_transpose(net: Net, x: str, s: Shape) -> None:
    if len(s) == 4 and all(s) and max(s[2:]) <= 16:
        out = net.draw.choice((2, 4, 6))
        net.add("ConvTranspose", [x, net.weight(s[1], out, 2, 2)], (s[0], out, 2 * s[2], 2 * s[3]), strides=[2, 2])


@part
def dense(net: Net, x: str, s: Shape) -> None:
    out = net.draw.choice((2, 3, 8))
    if len(s) == 2 and net.draw.random() < 0.6:
        flip = net.draw.randrange(2)
        w = net.weight(out, s[1]) if flip else net.weight(s[1], out)
        net.add("Gemm", [x, w, net.weight(out)], (s[0], out), transB=flip)
    elif len(s) >= 2:
        net.add("MatMul", [x, net.weight(s[-1], out)], (*s[:-1], out))


@part
def norm(net: Net, x: str, s: Shape) -> None:
    if len(s) < 2:
        return
    c, kind = s[1], net.draw.randrange(5)
    if kind == 0 or kind == 1:
        net.add("BatchNormalization", [x, *(net.weight(c) for _ in range(4))], s)
    elif kind == 2 and len(s) > 2:
        net.add("InstanceNormalization", [x, net.weight(c), net.weight(c)], s)
    elif kind == 3:
        net.add("LayerNormalization", [x, net.weight(s[-1]), net.weight(s[-1])], s, axis=-1)
    elif kind == 4 and len(s) > 2:
        groups = net.draw.choice([g for g in (1, 2, 3) if c % g == 0])
        rows = c if net.opset >= 21 else groups
        net.add("GroupNormalization", [x, net.weight(rows), net.weight(rows)], s, num_groups=groups)


@part
def unary(net: Net, x: str, s: Shape) -> None:
    net.add(net.draw.choice(UNARY), [x], s)


@part
def softmax(net: Net, x: str, s: Shape) -> None:
    if s:
        net.add(
            net.draw.choice(("Softmax", "LogSoftmax", "LpNormalization")),
            [x],
            s,
            axis=net.draw.randrange(-len(s), len(s)),
        )


@part
def binary(net: Net, x: str, s: Shape) -> None:
    draw = net.draw
    same = [n for n, t in net.values if t == s]
    other = draw.choice(same)
    if draw.random() < 0.4:
        shape = [d if draw.random() < 0.6 else 1 for d in s][draw.randrange(len(s) + 1) :]
        other = net.weight(*shape)
    net.add(draw.choice(BINARY), [x, other], s)


@part
def concat(net: Net, x: str, s: Shape) -> None:
    if not s:
        return
    axis = net.draw.randrange(len(s))
    fits = [
        (n, t) for n, t in net.values if len(t) == len(s) and t[:axis] == s[:axis] and t[axis + 1 :] == s[axis + 1 :]
    ]
    chosen = [(x, s), *(net.draw.choice(fits) for _ in range(net.draw.randrange(1, 3)))]
    total = sum(t[axis] for _, t in chosen)
    if total <= 64:
        net.add("Concat", [n for n, _ in chosen], (*s[:axis], total, *s[axis + 1 :]), axis=axis)


@part
def split(net: Net, x: str, s: Shape) -> None:
    axis = net.draw.randrange(len(s)) if s else 0
    if s and s[axis] > 1:
        first = net.draw.randrange(1, s[axis])
        names = [net.name("v"), net.name("v")]
        net.nodes.append(helper.make_node("Split", [x, net.ints(first, s[axis] - first)], names, axis=axis))
        for name, size in zip(names, (first, s[axis] - first), strict=True):
            net.values.append((name, (*s[:axis], size, *s[axis + 1 :])))


@part
def take(net: Net, x: str, s: Shape) -> None:
    if not s or not all(s):
        return
    axis, draw = net.draw.randrange(len(s)), net.draw
    if draw.random() < 0.5:
        a, b = sorted((draw.randrange(s[axis] + 1), draw.randrange(s[axis] + 1)))
        step = draw.choice((1, 1, 2))
        size = len(range(a, b, step))
        inputs = [x, net.ints(a), net.ints(b), net.ints(axis), net.ints(step)]
        net.add("Slice", inputs, (*s[:axis], size, *s[axis + 1 :]))
    else:
        picks = [draw.randrange(-s[axis], s[axis]) for _ in range(draw.randrange(1, 6))]
        net.add("Gather", [x, net.ints(*picks)], (*s[:axis], len(picks), *s[axis + 1 :]), axis=axis)


@part
def pad(net: Net, x: str, s: Shape) -> None:
    pads = [net.draw.choice((0, 0, 1)) for _ in range(2 * len(s))]
    sizes = tuple(d + pads[k] + pads[k + len(s)] for k, d in enumerate(s))
    if s:
        net.add("Pad", [x, net.ints(*pads)], sizes, mode=net.draw.choice(("constant", "reflect", "edge")))


@part
def pool(net: Net, x: str, s: Shape) -> None:
    if len(s) == 4 and min(s[2:]) >= 2:
        half = (*s[:2], s[2] // 2, s[3] // 2)
        net.add(net.draw.choice(("MaxPool", "AveragePool", "LpPool")), [x], half, kernel_shape=[2, 2], strides=[2, 2])


@part
def global_pool(net: Net, x: str, s: Shape) -> None:
    if len(s) == 4:
        net.add(net.draw.choice(("GlobalAveragePool", "GlobalMaxPool")), [x], (*s[:2], 1, 1))


@part
def flatten(net: Net, x: str, s: Shape) -> None:
    if len(s) > 1:
        axis = net.draw.randrange(len(s))
        net.add("Flatten", [x], (prod(s[:axis]), prod(s[axis:])), axis=axis)


@part
def reshape(net: Net, x: str, s: Shape) -> None:
    """Axes joined, split, or told by a Shape."""
    if len(s) < 2:
        return
    draw, new = net.draw, list(s)
    k = draw.randrange(len(s) - 1)
    if draw.random() < 0.5:
        new[k : k + 2] = [new[k] * new[k + 1]]
    else:
        divisor = draw.choice([d for d in range(1, new[k] + 1) if new[k] % d == 0] or [1])
        new[k : k + 1] = [divisor, new[k] // divisor] if new[k] else [0, 1]
    told = [*new]
    if draw.random() < 0.4:
        told[draw.randrange(len(told))] = -1
    if draw.random() < 0.2:
        whole, first = net.name("v"), net.name("v")
        net.nodes.append(helper.make_node("Shape", [x], [whole]))
        net.nodes.append(helper.make_node("Gather", [whole, net.ints(0)], [first]))
        rest = net.ints(*told[1:])
        shape = net.name("v")
        net.nodes.append(helper.make_node("Concat", [first, rest], [shape], axis=0))
        net.add("Reshape", [x, shape], tuple(new))
    else:
        net.add("Reshape", [x, net.ints(*told)], tuple(new))


@part
def transpose(net: Net, x: str, s: Shape) -> None:
    perm = list(range(len(s)))
    net.draw.shuffle(perm)
    net.add("Transpose", [x], tuple(s[p] for p in perm), **({"perm": perm} if perm else {}))


@part
def shuffle(net: Net, x: str, s: Shape) -> None:
    if len(s) == 4 and s[1] % 2 == 0 and s[1]:
        net.add("Reshape", [x, net.ints(s[0], 2, s[1] // 2, *s[2:])], (s[0], 2, s[1] // 2, *s[2:]))
        net.add("Transpose", [net.values[-1][0]], (s[0], s[1] // 2, 2, *s[2:]), perm=[0, 2, 1, 3, 4])
        net.add("Reshape", [net.values[-1][0], net.ints(*s)], s)


@part
def reduce(net: Net, x: str, s: Shape) -> None:
    if s:
        axis, keep = net.draw.randrange(len(s)), net.draw.randrange(2)
        shape = (*s[:axis], *([1] if keep else []), *s[axis + 1 :])
        op = net.draw.choice(("ReduceMean", "ReduceSum", "ReduceMax", "ReduceL2"))
        if op == "ReduceSum" or net.opset >= 18:
            net.add(op, [x, net.ints(axis)], shape, keepdims=keep)
        else:
            net.add(op, [x], shape, keepdims=keep, axes=[axis])


@part
def resize(net: Net, x: str, s: Shape) -> None:
    if len(s) == 4 and max(s[2:], default=0) <= 16:
        scales = net.name("s")
        net.weights.append(numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), scales))
        net.add("Resize", [x, "", scales], (*s[:2], 2 * s[2], 2 * s[3]), mode="nearest")


@part
def rearrange(net: Net, x: str, s: Shape) -> None:
    if len(s) == 4 and s[1] % 4 == 0:
        mode = net.draw.choice(("DCR", "CRD"))
        net.add("DepthToSpace", [x], (s[0], s[1] // 4, 2 * s[2], 2 * s[3]), blocksize=2, mode=mode)
    elif len(s) == 4 and s[2] % 2 == s[3] % 2 == 0:
        net.add("SpaceToDepth", [x], (s[0], s[1] * 4, s[2] // 2, s[3] // 2), blocksize=2)


@part
def ranks(net: Net, x: str, s: Shape) -> None:
    if 1 in s and net.draw.random() < 0.5:
        net.add("Squeeze", [x, net.ints(s.index(1))], s[: s.index(1)] + s[s.index(1) + 1 :])
    elif len(s) < 5:
        axis = net.draw.randrange(len(s) + 1)
        net.add("Unsqueeze", [x, net.ints(axis)], (*s[:axis], 1, *s[axis:]))


@part
def attend(net: Net, x: str, s: Shape) -> None:
    if len(s) == 3 and s[2] % 2 == 0 and all(s):
        d, heads = s[2], []
        for turn in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]):
            net.add("MatMul", [x, net.weight(d, d)], s)
            net.add("Reshape", [net.values[-1][0], net.ints(s[0], s[1], 2, d // 2)], (s[0], s[1], 2, d // 2))
            net.add("Transpose", [net.values[-1][0]], (s[0], 2, s[1], d // 2), perm=turn)
            heads.append(net.values[-1][0])
        net.add("MatMul", heads[:2], (s[0], 2, s[1], s[1]))
        net.add("Softmax", [net.values[-1][0]], (s[0], 2, s[1], s[1]), axis=-1)
        net.add("MatMul", [net.values[-1][0], heads[2]], (s[0], 2, s[1], d // 2))
        net.add("Transpose", [net.values[-1][0]], (s[0], s[1], 2, d // 2), perm=[0, 2, 1, 3])
        net.add("Reshape", [net.values[-1][0], net.ints(*s)], s)


@part
def recur(net: Net, x: str, s: Shape) -> None:
    if len(s) == 3 and all(s):
        op, gates = net.draw.choice((("LSTM", 4), ("GRU", 3), ("RNN", 1)))
        inputs = [x, net.weight(1, gates * 3, s[2]), net.weight(1, gates * 3, 3)]
        net.add(op, inputs, (s[0], 1, s[1], 3), hidden_size=3)


@part
def quantize(net: Net, x: str, s: Shape) -> None:
    scale, zero = net.name("q"), net.name("q")
    net.weights.append(numpy_helper.from_array(np.float32(0.1), scale))
    net.weights.append(numpy_helper.from_array(np.int8(0), zero))
    net.add("QuantizeLinear", [x, scale, zero], s)
    net.add("DequantizeLinear", [net.values.pop()[0], scale, zero], s)


@part
def branch(net: Net, x: str, s: Shape) -> None:
    """An If whose branches take a value from outside."""
    bodies = []
    for op in ("Relu", "Neg"):
        out = net.name("b")
        body = [helper.make_node(op, [x], [out])]
        bodies.append(helper.make_graph(body, op, [], [helper.make_tensor_value_info(out, net.dtype, s)]))
    condition = net.name("c")
    net.weights.append(numpy_helper.from_array(np.array(net.draw.random() < 0.5), condition))
    net.add("If", [condition], s, then_branch=bodies[0], else_branch=bodies[1])


@part
def spread(net: Net, x: str, s: Shape) -> None:
    kind = net.draw.randrange(4)
    if kind == 0:
        net.add("Expand", [x, net.ints(*s)], s)
    elif kind == 1 and prod(s) < 4096 and s:
        net.add("Tile", [x, net.ints(*[1] * (len(s) - 1), 2)], (*s[:-1], 2 * s[-1]))
    elif kind == 2:
        net.add("Cast", [x], s, to=net.draw.choice((1, 1, 7, 10, 11)))
    else:
        net.add("Clip", [x, net.weight(), ""], s)


@part
def wild(net: Net, x: str, s: Shape) -> None:
    """Any operator that onnx has, with inputs and attributes that need not suit it."""
    if net.draw.random() > 0.15:
        return
    draw, schema = net.draw, net.draw.choice(SCHEMAS)
    least, most = schema.min_input, min(schema.max_input, schema.min_input + 3)
    inputs = [
        draw.choice((x, *(n for n, _ in net.values[-6:]), "")) for _ in range(draw.randint(least, max(least, most)))
    ]
    node = helper.make_node(
        schema.name, inputs, [net.name("v") for _ in range(max(1, schema.min_output))], domain=schema.domain
    )
    for name, wanted in schema.attributes.items():
        if wanted.required or draw.random() < 0.3:
            known = draw.random() < 0.9 and int(wanted.type) if int(wanted.type) in (1, 2, 3, 4, 6, 7) else None
            node.attribute.append(random_attribute(draw, name, known or None))
    net.nodes.append(node)
    net.values.append((node.output[0], s))


SCHEMAS = [
    schema for schema in onnx.defs.get_all_schemas() if not schema.deprecated and "training" not in schema.domain
]


def network(draw: Random, length: int | None = None) -> onnx.ModelProto:
    """A random network."""
    opset = draw.choice((13, 15, 17, 17, 18, 20, 21, 23))
    net = Net(draw, opset, dtype=draw.choice((1, 1, 1, 1, 1, 1, 10, 11, 16)))
    shape = draw.choice(((1, 3, 8, 8), (2, 4, 6, 6), (1, 6), (2, 5, 8), (1, 4, 10), (4, 8), (1, 2, 4, 4, 4)))
    net.values.append(("x", shape))
    for _ in range(draw.randint(2, 14) if length is None else length):
        recent = net.values[-1] if draw.random() < 0.7 else draw.choice(net.values)
        draw.choice(PARTS if draw.random() < 0.7 else PARTS[:4])(net, *recent)
    used = {name for node in net.nodes for name in node.input}
    ends = [(n, s) for n, s in net.values if n not in used and n != "x"] or net.values[-1:]
    outputs = [helper.make_tensor_value_info(n, net.dtype, s if draw.random() < 0.8 else None) for n, s in ends[-3:]]
    sizes: list[int | str] = ["N" if k == 0 and draw.random() < 0.3 else n for k, n in enumerate(shape)]
    graph = helper.make_graph(
        net.nodes, "random", [helper.make_tensor_value_info("x", net.dtype, sizes)], outputs, net.weights
    )
    domains = sorted({node.domain for node in net.nodes} - {""})
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)
