"""Small random networks of branches and loops inside each other, with weights that leave channels dead and alike."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

WIDE = 8
FLOAT, INT, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
UNARY = ("Relu", "Tanh", "Sigmoid", "Neg", "Identity", "Abs", "LeakyRelu", "Softplus")


@dataclass
class Scope:
    """A graph under way: its nodes, and the values of (N, 8) that it can take."""

    nodes: list[NodeProto]
    values: list[str]
    depth: int


@dataclass
class Bodies:
    """A network under way.  It takes x (N, 8), the number of rounds m, and a flag."""

    draw: Callable[[Any], Any]
    rng: np.random.Generator
    tensors: list[TensorProto] = field(default_factory=list)
    count: int = 0

    def name(self, what: str) -> str:
        self.count += 1
        return f"{what}{self.count}"

    def tensor(self, array: np.ndarray) -> str:
        self.tensors.append(numpy_helper.from_array(np.asarray(array), self.name("t")))
        return self.tensors[-1].name

    def node(self, scope: Scope, op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        names = [self.name(op.lower()) for _ in range(outputs)]
        scope.nodes.append(helper.make_node(op, list(inputs), names, **attributes))
        return names if outputs > 1 else names[0]

    # --- weights ---------------------------------------------------------------

    def matrix(self, inputs: int) -> str:
        """Weights (inputs, 8): some outputs are zero, equal to or twice another one, some inputs are not read."""
        w = self.rng.normal(size=(inputs, WIDE)).astype(np.float32) / 4
        kind = self.draw(st.integers(0, 15))
        if kind & 1:
            w[:, [0, 1]] = 0
        if kind & 2:
            w[:, 3] = w[:, 2]
            w[:, 4] = 2 * w[:, 2]
        if kind & 4:
            w[5::WIDE] = 0
        if kind & 8:
            w[:, 6] = np.abs(w[:, 6])
            w[:, 7] = w[:, 6]
        return self.tensor(w)

    def vector(self) -> str:
        """Eight numbers, of which the first two may be zero and others alike."""
        v = self.rng.normal(size=WIDE).astype(np.float32)
        kind = self.draw(st.integers(0, 7))
        if kind & 1:
            v[:2] = 0
        if kind & 2:
            v[2:5] = v[2] * np.float32([1, 1, 2])
        if kind & 4:
            v[6] = v[7]
        return self.tensor(v)

    # --- nodes -------------------------------------------------------------------

    def step(self, scope: Scope) -> None:
        pick = lambda: self.draw(st.sampled_from(scope.values[-5:]))  # noqa: E731
        kinds = ["dense", "dense", "unary", "shift", "scale", "add", "mul", "join"]
        kinds += ["If", "Loop", "Scan"] * (2 if scope.depth == 0 else 1) if scope.depth < 2 else []
        match kind := self.draw(st.sampled_from(kinds)):
            case "dense":
                bias = [self.vector()] if self.draw(st.booleans()) else []
                y = self.node(scope, "Gemm" if bias else "MatMul", pick(), self.matrix(WIDE), *bias)
            case "unary":
                y = self.node(scope, self.draw(st.sampled_from(UNARY)), pick())
            case "shift" | "scale":
                y = self.node(scope, "Add" if kind == "shift" else "Mul", pick(), self.vector())
            case "add" | "mul":
                y = self.node(scope, kind.title(), pick(), pick())
            case "join":
                y = self.node(scope, "MatMul", self.node(scope, "Concat", pick(), pick(), axis=1), self.matrix(16))
            case _:
                for given in getattr(self, kind.lower() + "_node")(scope, pick):
                    scope.values.append(self.node(scope, "Tanh", given) if self.draw(st.booleans()) else given)
                return
        scope.values.append(y)

    def body(
        self, scope: Scope, inputs: list[tuple[str, int]], states: list[str], lead: list[str], outputs: int, told: bool
    ) -> GraphProto:
        """A body that gives `lead` and then some of its values."""
        inner = Scope([], [*scope.values[-3:], *states], scope.depth + 1)
        for _ in range(self.draw(st.integers(1, 4))):
            self.step(inner)
        given = [self.node(inner, "Identity", self.draw(st.sampled_from(inner.values[-4:]))) for _ in range(outputs)]
        for name in lead:
            self.going(inner, name, states)
        shape = ["rows", WIDE] if told else None
        infos = [helper.make_tensor_value_info(n, k, [] if k != FLOAT else shape) for n, k in inputs]
        made = [helper.make_tensor_value_info(n, BOOL, []) for n in lead]
        made += [helper.make_tensor_value_info(n, FLOAT, shape) for n in given]
        return helper.make_graph(inner.nodes, self.name("body"), infos, made)

    def going(self, scope: Scope, name: str, states: list[str]) -> None:
        """Whether a loop goes on: always, as before, or for as long as a state is small."""
        before = name.removesuffix(" on")
        if not states or self.draw(st.booleans()):
            scope.nodes.append(helper.make_node("Identity", [before], [name]))
            return
        total = self.node(scope, "ReduceMax", states[0], keepdims=0)
        scope.nodes.append(helper.make_node("Less", [total, self.tensor(np.float32(2))], [name]))

    def start(self, scope: Scope, pick: Callable[[], str]) -> str:
        """What a state is before the first round: a value, or constants that have its shape."""
        if self.draw(st.booleans()):
            return pick()
        zero = self.node(scope, "Mul", pick(), self.tensor(np.zeros(WIDE, np.float32)))
        return zero if self.draw(st.booleans()) else self.node(scope, "Add", zero, self.vector())

    def if_node(self, scope: Scope, pick: Callable[[], str]) -> list[str]:
        outputs = self.draw(st.integers(1, 2))
        condition = "flag"
        if self.draw(st.booleans()):
            condition = self.node(
                scope, "Less", self.node(scope, "ReduceMax", pick(), keepdims=0), self.tensor(np.float32(0.5))
            )
        bodies = {f"{k}_branch": self.body(scope, [], [], [], outputs, False) for k in ("then", "else")}
        found = self.node(scope, "If", condition, outputs=outputs, **bodies)
        return found if outputs > 1 else [found]

    def loop_node(self, scope: Scope, pick: Callable[[], str]) -> list[str]:
        states, stacks = self.draw(st.integers(0, 3)), self.draw(st.integers(0, 2))
        states = max(states, 1 - min(stacks, 1))
        most = self.tensor(np.array(self.draw(st.sampled_from([0, 1, 3])))) if self.draw(st.booleans()) else "m"
        begins = self.draw(st.sampled_from(["", "flag", self.tensor(np.array(True))]))
        if stacks:  # of no rounds, they would be of any shape
            most, begins = self.node(scope, "Max", most, self.tensor(np.array(1))), begins.replace("flag", "")
        starts = [self.start(scope, pick) for _ in range(states)]
        number, go, own = self.name("i"), self.name("go"), [self.name("state") for _ in starts]
        inputs = [(number, INT), (go, BOOL), *((n, FLOAT) for n in own)]
        body = self.body(scope, inputs, own, [f"{go} on"], states + stacks, self.draw(st.booleans()))
        found = self.node(scope, "Loop", most, begins, *starts, outputs=states + stacks, body=body)
        found = found if states + stacks > 1 else [found]
        return [*found[:states], *(self.flat(scope, n, 0) for n in found[states:])]

    def scan_node(self, scope: Scope, pick: Callable[[], str]) -> list[str]:
        states, stacks, through = (self.draw(st.integers(a, 2)) for a in (0, 1, 1))
        axis, back = self.draw(st.integers(0, 1)), [self.draw(st.integers(0, 1)) for _ in range(through)]
        rows = [self.draw(st.lists(st.sampled_from(scope.values[-4:]), min_size=2, max_size=2)) for _ in range(through)]
        lists = [[self.node(scope, "Unsqueeze", n, self.tensor(np.array([axis]))) for n in row] for row in rows]
        slices = [self.node(scope, "Concat", *row, axis=axis) for row in lists]
        starts = [self.start(scope, pick) for _ in range(states)]
        own, parts = [self.name("state") for _ in starts], [self.name("slice") for _ in slices]
        inputs = [(n, FLOAT) for n in (*own, *parts)]
        body = self.body(scope, inputs, [*own, *parts], [], states + stacks, True)
        out, turned = self.draw(st.integers(0, 1)), [self.draw(st.integers(0, 1)) for _ in range(stacks)]
        found = self.node(
            scope, "Scan", *starts, *slices, outputs=states + stacks, body=body, num_scan_inputs=through,
            scan_input_axes=[axis] * through, scan_input_directions=back, scan_output_axes=[out] * stacks,
            scan_output_directions=turned,
        )  # fmt: skip
        found = found if states + stacks > 1 else [found]
        return [*found[:states], *(self.flat(scope, n, out) for n in found[states:])]

    def flat(self, scope: Scope, stacked: str, axis: int) -> str:
        """What all rounds give, in one."""
        op = self.draw(st.sampled_from(["ReduceSum", "ReduceMean", "Slice"]))
        if op == "Slice":  # the first round, where there is one
            part = self.node(scope, op, stacked, *(self.tensor(np.array([n])) for n in (0, 1, axis)))
            return self.node(scope, "ReduceSum", part, self.tensor(np.array([axis])), keepdims=0)
        if op == "ReduceMean":
            return self.node(
                scope, "ReduceSum", self.node(scope, "Relu", stacked), self.tensor(np.array([axis])), keepdims=0
            )
        return self.node(scope, op, stacked, self.tensor(np.array([axis])), keepdims=0)


@st.composite
def bodies(draw: Callable[[Any], Any]) -> ModelProto:
    """A random network of opset 17 with the inputs x (N, 8), m () and flag ()."""
    made = Bodies(draw, np.random.default_rng(draw(st.integers(0, 2**16))))
    top = Scope([], [made.node(scope := Scope([], [], 0), "Gemm", "x", made.matrix(WIDE), made.vector())], 0)
    top.nodes += scope.nodes
    for _ in range(draw(st.integers(2, 7))):
        made.step(top)
    ends = [made.node(top, "MatMul", n, made.matrix(WIDE)) for n in top.values[-3:]]
    infos = [("x", FLOAT, ["N", WIDE]), ("m", INT, []), ("flag", BOOL, [])]
    graph = helper.make_graph(
        top.nodes, "g", [helper.make_tensor_value_info(*info) for info in infos],
        [helper.make_tensor_value_info(n, FLOAT, ["N", WIDE]) for n in ends], made.tensors,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
