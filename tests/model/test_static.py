"""Static shapes, small constants, and where computed sizes come from."""

import numpy as np
import onnx
import pytest
from model_files import node
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from onnxprune.channels.arithmetic import Arithmetic
from onnxprune.channels.dependencies import Node
from onnxprune.model.evaluate import evaluate
from onnxprune.model.inference import Inference
from onnxprune.model.static import attributes_of, infer
from onnxprune.operators.registry import LARGEST_VALUE as LARGEST
from onnxprune.operators.registry import OPERATORS


def parsed(text: str, opset: int = 17) -> ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}]> {text}')


# --- shapes ------------------------------------------------------------------


def test_symbolic_sizes_are_sampled() -> None:
    statics = infer(parsed("g (float[n,3,h,w] x) => (float y) { y = Relu(x) }"))
    assert statics.shapes["y"] == (1, 3, 224, 224)


@pytest.mark.parametrize("domains", [("ai.onnx", ""), ("", "ai.onnx")])
def test_nodes_of_other_domains_are_asked_for_apart(domains: tuple[str, str]) -> None:
    """The checker knows the operators of the default domain by its empty name alone."""
    model, ask = parsed("g (float[2,3] x) => (float[2,3] y) { y = Relu(x) }"), Inference().of_node
    answers = []
    for domain in domains:
        model.graph.node[0].domain = domain
        answers.append(bool(ask(model.graph.node[0], 17, {"x": (TensorProto.FLOAT, (2, 3))}, {})))
    assert answers == [not domain for domain in domains]


@pytest.mark.parametrize("bounds", ["three, yes", "three,", ", yes"])
def test_loops_may_leave_out_their_number_of_rounds_or_their_condition(bounds: str) -> None:
    text = f"""g (float[2,3] x, int64 three, bool yes) => (float[2,3] y) {{
        y = Loop ({bounds if bounds[0] != "," else '""' + bounds}{'""' if bounds[-1] == "," else ""}, x)
            <body = b (int64 k, bool on, float[2,3] s) => (bool go, float[2,3] t) {{
                go = Not (on)
                t = Relu (s)
            }}>
    }}"""
    assert infer(parsed(text)).shapes["y.body/t"] == (2, 3)


def test_shapes_may_be_given() -> None:
    statics = infer(parsed("g (float[n,3,h,w] x) => (float y) { y = Relu(x) }"), {"x": (2, 3, 8, 9)})
    assert statics.shapes["y"] == (2, 3, 8, 9)


def test_channels_are_read_off_the_weights() -> None:
    model = parsed("g (float[n,c,h,w] x) => (float y) <float[4,6,1,1] k> { y = Conv<group=2>(x, k) }")
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((4, 6, 1, 1), np.float32), "k"))
    assert infer(model).shapes["x"] == (1, 12, 224, 224)


def test_recorded_shapes_may_be_stale() -> None:
    model = parsed("g (float[1,8] x) => (float[7,7] y) <float[5,5] r> { r = Relu(x)  y = Relu(r) }")
    assert infer(model).shapes["r"] == (1, 8)
    assert infer(model).shapes["y"] == (1, 8)


def test_sizes_beyond_a_table_are_none_that_a_network_takes_whatever_the_file_records() -> None:
    """Learned positions for eight tokens at most; a dynamo export records the shape of the sum for any number."""
    model = parsed("""
        g (float[n,t,4] x) => (float y) <int64[1] zero = {0}, int64[1] one = {1}, float[n,t,4] z> {
            t = Shape<start=1, end=2>(x)
            p = Slice(table, zero, t, one)
            z = Add(x, p)
            y = Relu(z)
        }
    """)
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((1, 8, 4), np.float32), "table"))
    statics = infer(model, {"x": (1, 6, 4)})
    assert statics.accepted_sizes
    assert all(other.shapes["x"][1] <= 8 for other in statics.accepted_sizes)


def test_small_sizes_that_are_looked_at_know_what_is_open() -> None:
    """A Squeeze that is not told its axes has the network looked at for one sample, too."""
    text = "g (float[n,3,h,w] x) => (float y) { z = GlobalAveragePool(x)  y = Squeeze(z) }"
    statics = infer(parsed(text), {"x": (2, 3, 8, 8)})
    assert len(statics.accepted_sizes) > 1
    assert all(other.is_open("x", 0) for other in statics.accepted_sizes)


def test_the_model_is_left_alone() -> None:
    model = parsed("g (float[n,3,h,w] x) => (float y) { y = Relu(x) }")
    before = model.SerializeToString()
    infer(model)
    assert model.SerializeToString() == before


def test_shape_arithmetic_with_a_symbolic_batch() -> None:
    """What old exporters write for `x.view(x.size(0), -1)`; onnx's inference alone gives up on it."""
    model = parsed(
        """g (float[n,8,2,2] x) => (float y) {
            s = Shape(x)  zero = Constant<value_int=0>()  b = Gather(s, zero)  a = Constant<value_ints=[0]>()
            u = Unsqueeze(b, a)  rest = Constant<value_ints=[-1]>()  t = Concat<axis=0>(u, rest)  y = Reshape(x, t)
        }"""
    )
    statics = infer(model)
    assert statics.shapes["y"] == (1, 32)
    assert "t" in statics.sampled
    assert statics.fixed_constant("t") is None
    assert statics.fixed_constant("rest") is not None


def test_values_of_branches_have_keys_of_their_own() -> None:
    model = parsed(
        """g (float[2,3] x, bool c) => (float y) {
            y = If(c) <then_branch = t () => (float o) { o = Relu(x) },
                       else_branch = e () => (float o) { k = Transpose(x)  o = Transpose(k) }>
        }"""
    )
    shapes = infer(model).shapes
    assert shapes["y.else_branch/k"] == (3, 2)
    assert shapes["y.then_branch/o"] == shapes["y.else_branch/o"] == (2, 3)


# --- values ------------------------------------------------------------------

I = np.array  # noqa: E741
SAMPLES: dict[str, tuple[list[np.ndarray], dict]] = {
    "Abs": ([I([-3, 4])], {}),
    "Add": ([I([1, 2]), I(3)], {}),
    "And": ([I([True, False]), I([True, True])], {}),
    "Cast": ([I([1.5, -2.5])], {"to": TensorProto.INT64}),
    "Ceil": ([I([1.2, -1.2])], {}),
    "CenterCropPad": ([I([1, 2, 3, 4]), I([2])], {}),
    "Clip": ([I([-2, 1, 9]), I(0), I(5)], {}),
    "Concat": ([I([1, 2]), I([3])], {"axis": 0}),
    "ConstantOfShape": ([I([2, 3])], {"value": helper.make_tensor("v", TensorProto.INT64, [1], [7])}),
    "CumSum": ([I([1, 2, 3]), I(0)], {}),
    "Div": ([I([7, -7, 7]), I([2, 2, -2])], {}),
    "Equal": ([I([1, 2]), I([1, 3])], {}),
    "Expand": ([I([1]), I([3])], {}),
    "Flatten": ([I([[1, 2], [3, 4]])], {"axis": 0}),
    "Floor": ([I([1.7, -1.7])], {}),
    "Gather": ([I([5, 6, 7]), I([2, -1])], {"axis": 0}),
    "GatherND": ([I([5, 6, 7]), I([[2], [0]])], {}),
    "Greater": ([I([1, 2]), I([1, 1])], {}),
    "GreaterOrEqual": ([I([1, 2]), I([1, 3])], {}),
    "Identity": ([I([1, 2])], {}),
    "Less": ([I([1, 2]), I([2, 1])], {}),
    "LessOrEqual": ([I([1, 2]), I([1, 1])], {}),
    "Max": ([I([1, 5]), I([3])], {}),
    "Min": ([I([1, 5]), I([3])], {}),
    "Mod": ([I([7, -7]), I([3, 3])], {}),
    "Mul": ([I([1, 5]), I([3])], {}),
    "Neg": ([I([1, -5])], {}),
    "NonZero": ([I([0, 5, 0, 2])], {}),
    "Not": ([I([True, False])], {}),
    "OneHot": ([I([0, 2]), I(3), I([0, 1])], {}),
    "Or": ([I([True, False]), I([False, False])], {}),
    "Pad": ([I([1, 2]), I([1, 0]), I(0)], {}),
    "Pow": ([I([2.0, 3.0]), I([2.0])], {}),
    "Range": ([I(0), I(6), I(2)], {}),
    "ReduceMax": ([I([3, 9, 2])], {"keepdims": 0}),
    "ReduceMin": ([I([3, 9, 2])], {"keepdims": 1}),
    "ReduceProd": ([I([3, 9, 2]), I([0])], {"keepdims": 0}),
    "ReduceSum": ([I([3, 9, 2]), I([0])], {"keepdims": 0}),
    "Reshape": ([I([1, 2, 3, 4]), I([2, -1])], {}),
    "Round": ([I([0.5, 1.5, -2.5])], {}),
    "ScatterElements": ([I([1, 2, 3]), I([1]), I([9])], {}),
    "ScatterND": ([I([1, 2, 3]), I([[1]]), I([9])], {}),
    "Sign": ([I([-3, 0, 2])], {}),
    "Slice": ([I([1, 2, 3, 4]), I([-1]), I([-5]), I([0]), I([-1])], {}),
    "Split": ([I([1, 2, 3]), I([1, 2])], {}),
    "Sqrt": ([I([4.0, 9.0])], {}),
    "Squeeze": ([I([[1, 2]]), I([0])], {}),
    "Sub": ([I([1, 5]), I([3])], {}),
    "Tile": ([I([1, 2]), I([2])], {}),
    "Transpose": ([I([[1, 2], [3, 4]])], {"perm": [1, 0]}),
    "Unsqueeze": ([I([1, 2]), I([0, 2])], {}),
    "Where": ([I([True, False]), I([1, 2]), I([3, 4])], {}),
    "Xor": ([I([True, False]), I([True, True])], {}),
}


def test_every_evaluated_operator_is_sampled() -> None:
    assert set(SAMPLES) == {name for name, row in OPERATORS.items() if row.value is not None}


@pytest.mark.parametrize("op", SAMPLES)
def test_values_are_those_of_the_reference(op: str) -> None:
    inputs, attributes = SAMPLES[op]
    names = [f"x{k}" for k in range(len(inputs))]
    outputs = ["y0", "y1"] if op == "Split" else ["y0"]
    proto = node(op, names, outputs, **attributes)
    kinds = [helper.np_dtype_to_tensor_dtype(x.dtype) for x in inputs]
    infos = [helper.make_tensor_value_info(n, k, x.shape) for n, k, x in zip(names, kinds, inputs, strict=True)]
    graph = helper.make_graph([proto], "g", infos, [helper.make_empty_tensor_value_info(n) for n in outputs])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    wanted = ReferenceEvaluator(model).run(None, dict(zip(names, inputs, strict=True)))
    found = evaluate(proto, inputs, attributes_of(proto), 18)
    assert found is not None
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.shape == np.shape(b)


@pytest.mark.parametrize(
    ("op", "inputs"),
    [
        ("ConstantOfShape", [I([1 << 40])]),
        ("Expand", [I([1]), I([1 << 40])]),
        ("Tile", [I([1, 2]), I([1 << 40])]),
        ("Range", [I(0), I(1 << 40), I(1)]),
        ("Range", [I(0), I(5), I(0)]),
        ("Pad", [I([1]), I([0, 1 << 40])]),
        ("Add", [np.zeros((LARGEST, 1)), np.zeros((1, LARGEST))]),
        ("Gather", [np.zeros((2, LARGEST // 2)), np.zeros(LARGEST, np.int64)]),
    ],
)
def test_nothing_large_is_made(op: str, inputs: list[np.ndarray]) -> None:
    names = [f"x{k}" for k in range(len(inputs))]
    assert evaluate(node(op, names, ["y"]), inputs, {}, 17) is None


@pytest.mark.parametrize(
    ("op", "inputs"),
    [
        ("Reshape", [I([1, 2, 3]), I([2, -1])]),
        ("Gather", [I([1]), I([7])]),
        ("Div", [I([1]), I([0])]),
        ("Concat", [I(1)]),
    ],
)
def test_nonsense_has_no_value(op: str, inputs: list[np.ndarray]) -> None:
    names = [f"x{k}" for k in range(len(inputs))]
    assert evaluate(node(op, names, ["y"]), inputs, {}, 17) is None


# --- where sizes come from ---------------------------------------------------


def origins(text: str, key: str) -> list[list[tuple[str, int]]]:
    model = parsed(text)
    makers = {n.output[0]: Node(n, "", tuple(n.input), tuple(n.output)) for n in model.graph.node}
    found = Arithmetic(infer(model), 17, makers).origins(key)
    return [sorted(places) for places in found.ravel()]


HEAD = (
    "g (float[n,8,6,4] x) => (float y) "
    "{ s = Shape(x)  i = Constant<value_ints=[1]>()  two = Constant<value_ints=[2]>() "
)


@pytest.mark.parametrize(
    ("nodes", "key", "places"),
    [
        ("y = Identity(s)", "s", [[("x", 0)], [("x", 1)], [("x", 2)], [("x", 3)]]),
        ("y = Gather(s, i)", "y", [[("x", 1)]]),
        ("y = Slice(s, i, two)", "y", [[("x", 1)]]),
        ("g = Gather(s, i)  y = Div(g, two)", "y", [[("x", 1)]]),
        ("g = Gather(s, i)  h = Gather(s, two)  y = Mul(g, h)", "y", [[("x", 1), ("x", 2)]]),
        ("g = Gather(s, i)  y = Concat<axis=0>(two, g)", "y", [[], [("x", 1)]]),
        ("g = Gather(s, i)  c = Cast<to=1>(g)  y = Sqrt(c)", "y", [[("x", 1)]]),
        ("y = ReduceProd<keepdims=0>(s)", "y", [[("x", 0), ("x", 1), ("x", 2), ("x", 3)]]),
        ("y = Size(x)", "y", [[("x", 0), ("x", 1), ("x", 2), ("x", 3)]]),
        ("y = ConstantOfShape(two)", "y", [[], []]),
        ("y = Shape<start=1, end=3>(x)", "y", [[("x", 1)], [("x", 2)]]),
        ("y = Identity(two)", "two", [[]]),
    ],
)
def test_origins(nodes: str, key: str, places: list[list[tuple[str, int]]]) -> None:
    assert origins(HEAD + nodes + " }", key) == places
