"""Small graphs whose shape arithmetic means one thing at the size that the analysis sees and another elsewhere.

The texts in tests/sizes are graphs in onnx's own syntax, one under each heading, behind a convolution to 8 channels:

    # Slice ends at H
    p = Slice(r, v0, hv, v1)
    y = ReduceSum(p, v1)

What a name stands for: `w8_3_3_3` random weights, `b8` random biases, `f0p5` the float 0.5, `i2` an int64, `v1_m1` the
vector [1, -1], and the names of `PROLOGUE`.  Options behind a heading: `at` and `sizes` are N.H.W.K (batch, height,
width, and the length of a second input), `inputs` further inputs, and `wrong` where the law does not hold yet.
"""

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, helper, numpy_helper, parser

Size = Mapping[str, int]

PROLOGUE = """
c = Conv<pads=[1,1,1,1]>(x, w8_3_3_3, b8)
r = Relu(c)
xs = Shape(x)
rs = Shape(r)
n = Gather(xs, i0)
h = Gather(xs, i2)
w = Gather(xs, i3)
ch = Gather(rs, i1)
nv = Gather(xs, v0)
hv = Gather(xs, v2)
wv = Gather(xs, v3)
cv = Gather(rs, v1)
"""
DEAD = (1, 4, 6)  # channels of the first convolution that a planted graph does without; the last two are constants
TENSOR = re.compile(r"\b(?:(?P<weight>[wb]\d[\d_]*)|[fiv](?P<number>m?[\dp]+(?:_m?[\dp]+)*))\b")


def size(text: str) -> Size:
    return dict(zip("NHWK", map(int, text.split(".")), strict=True))


@dataclass(frozen=True)
class Case:
    """A graph, the size that it is analysed at, and others."""

    name: str
    body: str
    at: Size
    sizes: tuple[Size, ...]
    inputs: str
    wrong: str  # the budgets under which the law does not hold yet

    def model(self, planted: bool = False) -> ModelProto:
        """The graph; `planted`, some filters of its first convolution are zero."""
        lines = [*needed(self.body), *self.body.strip().splitlines()]
        inputs = ", ".join(filter(None, ["float[N,3,H,W] x", self.inputs]))
        graph = parser.parse_graph(f"g ({inputs}) => (float y) {{ {' '.join(lines)} }}")
        forget_shapes(graph)
        made = {name for line in lines for name in line.partition(" =")[0].split(", ")}
        names = {m[0]: m for line in lines for m in TENSOR.finditer(line.partition(" =")[2]) if m[0] not in made}
        rng = np.random.default_rng(7)
        graph.initializer.extend(tensor(m, rng, planted) for m in names.values())
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def forget_shapes(graph: GraphProto) -> None:
    """Leave shapes open that the text does not give: the syntax takes a mere `float` for a scalar."""
    for value in (*graph.input, *graph.output):
        tensor = value.type.tensor_type
        if tensor.elem_type == TensorProto.FLOAT and not tensor.shape.dim:
            tensor.ClearField("shape")
    for node in graph.node:
        for a in node.attribute:
            if a.type == AttributeProto.GRAPH:
                forget_shapes(a.g)


def needed(body: str) -> Iterator[str]:
    """Lines of the prologue whose values are read, by the graph or by each other."""
    read, lines = body, []
    for line in reversed(PROLOGUE.strip().splitlines()):
        if re.search(rf"\b{line.partition(' =')[0]}\b", read):
            lines.append(line)
            read += line.partition("=")[2]
    return reversed(lines)


def tensor(m: re.Match[str], rng: np.random.Generator, planted: bool) -> TensorProto:
    """The tensor that a name stands for."""
    if m["weight"]:
        shape = tuple(map(int, m[0][1:].split("_")))
        array = rng.standard_normal(shape).astype(np.float32) / np.float32(np.sqrt(np.prod(shape[1:])))
        if planted and m[0] in ("w8_3_3_3", "b8"):
            array[list(DEAD)] = 0 if m[0] != "b8" else [0, 0.7, 0.4]
    else:
        numbers = [float(k) for k in m["number"].replace("m", "-").replace("p", ".").split("_")]
        vector = m[0][0] == "v" or len(numbers) > 1
        array = np.array(numbers if vector else numbers[0], np.float32 if m[0][0] == "f" else np.int64)
    return numpy_helper.from_array(array, m[0])


def read(path: Path) -> Iterator[Case]:
    for text in re.split(r"^# ", path.read_text(encoding="utf-8"), flags=re.M)[1:]:
        heading, _, body = text.partition("\n")
        name, _, options = heading.partition(" | ")
        given = dict(option.split("=", 1) for option in options.split())
        sizes = tuple(map(size, given.get("sizes", "2.9.12.6,3.5.7.3,1.16.11.5").split(",")))
        inputs = given.get("inputs", "").replace(":", " ")
        yield Case(name, body, size(given.get("at", "1.8.8.4")), sizes, inputs, given.get("wrong", ""))


CASES = {c.name: c for c in itertools.chain.from_iterable(map(read, sorted(Path(__file__).parent.glob("sizes/*.txt"))))}
