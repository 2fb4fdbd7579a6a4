"""Graphs at the edge of what is a graph: analysis and surgery refuse in words or leave things as they are."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from law import agree, run
from model_files import node
from networks import random_dead
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from onnxprune.channels import analyse
from onnxprune.errors import ModelError, OnnxPruneError
from onnxprune.surgery import cut, mask

IMAGE = ("x", [1, 3, 9, 9])
RNG = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


WEIGHTS = {"w1": floats(8, 3, 3, 3), "b1": floats(8), "w2": floats(4, 8, 3, 3)}


def two_layers(name: str = "") -> list[NodeProto]:
    nodes = [node("Conv", ["x", "w1", "b1"], ["c"]), node("Relu", ["c"], ["r"]), node("Conv", ["r", "w2"], ["y"])]
    for n in nodes:
        n.name = name
    return nodes


def value(name: str, shape: Sequence[int | str] | None = None, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def network(
    nodes: Sequence[NodeProto],
    inputs: Sequence[tuple[str, Sequence[int | str] | None]] = (IMAGE,),
    tensors: dict[str, Any] = WEIGHTS,
    outputs: Sequence[str] = ("y",),
    opset: int = 17,
    ir: int = 8,
) -> ModelProto:
    weights = [numpy_helper.from_array(np.asarray(array), name) for name, array in tensors.items()]
    graph = helper.make_graph(nodes, "g", [value(*i) for i in inputs], [value(o, [None] * 4) for o in outputs], weights)
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("my.domain", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=ir)


def groups_of(model: ModelProto) -> dict[str, int]:
    """Names and sizes of the groups; nothing crashes on the way, and nothing removed is nothing changed."""
    before = model.SerializeToString(deterministic=True)
    deps = analyse(model)
    assert cut(model, deps, deps.nothing).SerializeToString(deterministic=True) == before
    dead = random_dead(deps, 0.5, seed=0)
    cut(model, deps, dead)
    mask(model, deps, dead)
    assert model.SerializeToString(deterministic=True) == before
    return {g.name: len(g) for g in deps.groups}


# --- what is odd but right ---------------------------------------------------


@pytest.mark.parametrize("name", ["", "the same for all"])
def test_node_names_do_not_matter(name: str) -> None:
    model = network(two_layers(name))
    assert groups_of(model) == {"w1": 8}
    deps = analyse(model)
    pruned = cut(model, deps, random_dead(deps, 0.5, seed=0))
    assert pruned.graph.initializer[0].dims == [4, 3, 3, 3]


@pytest.mark.parametrize("dims", [["n", 3, "h", "w"], ["n", "c", "h", "w"], [None, None, None, None]])
def test_symbolic_sizes(dims: list[Any]) -> None:
    assert groups_of(network(two_layers(), [("x", dims)])) == {"w1": 8}


def test_tensors_listed_as_inputs() -> None:
    listed = [(name, array.shape) for name, array in WEIGHTS.items()]
    model = network(two_layers(), [IMAGE, *listed], opset=8, ir=3)
    assert groups_of(model) == {"w1": 8}
    deps = analyse(model)
    pruned = cut(model, deps, random_dead(deps, 0.5, seed=0))
    onnx.checker.check_model(pruned)
    assert [[d.dim_value for d in v.type.tensor_type.shape.dim] for v in pruned.graph.input] == [
        [1, 3, 9, 9],
        [4, 3, 3, 3],
        [4],
        [4, 4, 3, 3],
    ]


def test_a_weight_that_the_caller_may_replace_stays() -> None:
    assert groups_of(network(two_layers(), [IMAGE, ("w1", [8, 3, 3, 3])])) == {}
    assert groups_of(network(two_layers(), [IMAGE, ("b1", [8])])) == {}


def test_a_weight_that_only_the_caller_has() -> None:
    assert groups_of(network([node("Conv", ["x", "w"], ["y"])], [IMAGE, ("w", [8, 3, 3, 3])], {})) == {}


def test_a_bias_that_is_an_output_too_is_copied() -> None:
    model = network(two_layers(), outputs=["y", "b1"])
    model.graph.output[1].CopyFrom(value("b1", [8]))
    assert groups_of(model) == {"w1": 8}
    deps = analyse(model)
    dead = random_dead(deps, 0.5, seed=0)
    x = {"x": floats(1, 3, 9, 9)}
    for name, a, b in zip("yb", run(mask(model, deps, dead), x), run(cut(model, deps, dead), x), strict=True):
        agree(name, a, b, 1e-5)
    np.testing.assert_array_equal(run(cut(model, deps, dead), x)[1], WEIGHTS["b1"])


def test_a_tensor_that_nobody_uses_stays() -> None:
    model = network(two_layers(), tensors={**WEIGHTS, "idle": floats(9)})
    deps = analyse(model)
    pruned = cut(model, deps, random_dead(deps, 0.5, seed=0))
    assert "idle" in {t.name for t in pruned.graph.initializer}


def test_weights_that_are_not_numbers() -> None:
    broken = WEIGHTS["w1"].copy()
    broken[2] = np.nan
    assert groups_of(network(two_layers(), tensors={**WEIGHTS, "w1": broken})) == {"w1": 8}


def test_a_long_chain() -> None:
    names = ["x", *(f"t{k}" for k in range(2000)), "y"]
    nodes = [node("Relu", [a], [b]) for a, b in itertools.pairwise(names)]
    assert groups_of(network(nodes, tensors={})) == {}


def test_two_networks_that_share_a_name_in_their_branches() -> None:
    then, other = (
        helper.make_graph([node("Conv", ["x", w], ["out"])], w, [], [value("out", [1, 8, 7, 7])]) for w in ("w1", "w3")
    )
    nodes = [node("If", ["flag"], ["c"], then_branch=then, else_branch=other), node("Conv", ["c", "w2"], ["y"])]
    model = network(nodes, tensors={**WEIGHTS, "w3": floats(8, 3, 3, 3)})
    model.graph.input.append(value("flag", [], TensorProto.BOOL))
    assert groups_of(model) == {"w3": 8}
    deps = analyse(model)
    dead = random_dead(deps, 0.5, seed=0)
    for flag in (True, False):
        feeds = {"x": floats(1, 3, 9, 9), "flag": np.array(flag)}
        agree("y", run(mask(model, deps, dead), feeds)[0], run(cut(model, deps, dead), feeds)[0], 1e-5)


# --- nothing to prune --------------------------------------------------------

EMPTY = {
    "no node": network([], [], {}, []),
    "an input that is the output": network([], [("y", [1, 3])], {}),
    "a tensor that is the output": network([], [], {"y": floats(8)}),
    "no weights": network([node("Relu", ["x"], ["y"])], tensors={}),
    "no batch": network(two_layers(), [("x", [0, 3, 9, 9])]),
    "an axis without positions": network(
        [node("Concat", ["x", "e"], ["c"], axis=1), node("Relu", ["c"], ["y"])], [("x", [1, 3])], {"e": floats(1, 0)}
    ),
    "a shape without positions": network([node("Reshape", ["x", "s"], ["y"])], [("x", [1, 0, 3])], {"s": [0, 3]}),
    "integers": network([node("MatMul", ["x", "w"], ["y"])], tensors={"w": np.arange(12).reshape(3, 4)}),
}


@pytest.mark.parametrize("name", EMPTY)
def test_nothing_to_prune(name: str) -> None:
    assert groups_of(EMPTY[name]) in ({}, {"w1": 8})


# --- unknown, and huge -------------------------------------------------------


def test_an_unknown_operator_freezes_what_it_touches_and_is_named() -> None:
    nodes = [
        node("Conv", ["x", "w1"], ["c"]),
        node("Odd", ["c", "w3"], ["d"], domain="my.domain", name="odd"),
        node("Conv", ["d", "w2"], ["y"]),
    ]
    model = network(nodes, tensors={**WEIGHTS, "w3": floats(8, 3)})
    assert groups_of(model) == {}
    deps = analyse(model)
    reasons = {str(deps.nodes[k]): why for k, why in deps.unknown.items()}
    assert reasons["odd (Odd)"] == "the operator is not known to onnxprune"
    assert any("odd (Odd)" in deps.reason(labels) for _, _, labels in deps.whole_writers())


HUGE = {
    "a fill": network([node("ConstantOfShape", ["s"], ["y"])], [], {"s": [1 << 17, 1 << 17]}),
    "a long fill": network(
        [node("ConstantOfShape", ["s"], ["f"]), node("Add", ["x", "f"], ["y"])], [("x", [1])], {"s": [1 << 34]}
    ),
    "a fill for weights": network(
        [node("ConstantOfShape", ["s"], ["f"]), node("Conv", ["x", "f"], ["y"])], tensors={"s": [1 << 34, 3, 1, 1]}
    ),
    "a fill for weights, each axis of which could be": network(
        [
            node("ConstantOfShape", ["s"], ["f"]),
            node("Conv", ["x", "f"], ["c"]),
            node("Relu", ["c"], ["r"]),
            node("Conv", ["r", "w"], ["y"]),
        ],
        [("x", [1, 3, 4000, 4000])],
        {"s": [1 << 9, 3, 1 << 10, 1 << 10], "w": floats(4, 512, 1, 1)},
    ),
    "a fill for no weights": network(
        [node("ConstantOfShape", ["s"], ["f"]), node("Conv", ["x", "f"], ["y"])], tensors={"s": [1 << 40, 0, 1, 1]}
    ),
    "an input": network([node("Relu", ["x"], ["y"])], [("x", [1, 1 << 40])], {}),
    "rows of a product": network([node("MatMul", ["x", "w"], ["y"])], [("x", [1 << 40, 3])], {"w": floats(3, 4)}),
    "tiles": network([node("Tile", ["x", "t"], ["y"])], [("x", [1, 3])], {"t": [1 << 30, 1 << 30]}),
    "tiles of a tensor of the file": network(
        [node("Tile", ["w", "t"], ["y"])], [("x", [1])], {"w": floats(9), "t": [1 << 28, 1, 1, 4]}
    ),
    "tiles of positions": network(
        [node("Conv", ["x", "w1"], ["c"]), node("Tile", ["c", "t"], ["d"]), node("Conv", ["d", "w2"], ["y"])],
        tensors={**WEIGHTS, "t": [1, 1, 1 << 24, 1 << 24]},
    ),
    "tiles of channels": network(
        [node("Conv", ["x", "w1"], ["c"]), node("Tile", ["c", "t"], ["y"])],
        tensors={**WEIGHTS, "t": [1, 1 << 28, 1, 1]},
    ),
    "an expansion": network(
        [node("Conv", ["x", "w1"], ["c"]), node("Expand", ["c", "t"], ["y"])],
        tensors={**WEIGHTS, "t": [1 << 20, 8, 7, 7]},
    ),
    "a range": network(
        [node("Range", ["a", "b", "d"], ["r"]), node("Gather", ["w", "r"], ["y"])],
        tensors={"w": floats(9, 9), "a": 0, "b": 1 << 40, "d": 1},
    ),
    "padding": network(
        [node("Conv", ["x", "w1"], ["c"]), node("Pad", ["c", "p"], ["y"])],
        tensors={**WEIGHTS, "p": [0, 1 << 33, 0, 0, 0, 0, 0, 0]},
    ),
}


@pytest.mark.parametrize("name", HUGE)
def test_huge_sizes_take_no_memory(name: str) -> None:
    assert groups_of(HUGE[name]) == {}


# --- malformed ---------------------------------------------------------------

CONV = node("Conv", ["x", "w1"], ["c"])
MALFORMED = {
    "inputs are missing": [node("Conv", ["x"], ["c"]), node("Gemm", ["c"], ["y"])],
    "no inputs": [node("Conv", [], ["c"]), node("Reshape", [], ["d"]), node("Gather", ["c"], ["y"])],
    "no outputs": [node("Conv", ["x", "w1"], [])],
    "an input that nobody makes": [node("Conv", ["nothing", "w1"], ["c"]), node("Relu", ["none"], ["y"])],
    "a wrong order of nodes": two_layers()[::-1],
    "a cycle": [node("Add", ["x", "b"], ["a"]), node("Relu", ["a"], ["b"])],
    "two makers of one value": [node("Relu", ["x"], ["c"]), CONV, node("Conv", ["c", "w2"], ["y"])],
    "a wrong bias": [node("Conv", ["x", "w1", "b2"], ["c"]), node("Conv", ["c", "w2"], ["y"])],
    "wrong channels": [node("Conv", ["x", "w2"], ["y"])],
    "group 0": [node("Conv", ["x", "w1"], ["y"], group=0)],
    "group 5": [node("Conv", ["x", "w1"], ["y"], group=5)],
    "group of text": [node("Conv", ["x", "w1"], ["y"], group="a")],
    "a short order of axes": [CONV, node("Transpose", ["c"], ["y"], perm=[0, 1])],
    "an axis too far": [CONV, node("Softmax", ["c"], ["y"], axis=9)],
    "a missing attribute": [CONV, node("DepthToSpace", ["c"], ["y"])],
    "an odd attribute": [node("Conv", ["x", "w1"], ["c"], odd=3), node("Gather", ["c", "one"], ["y"], odd=1)],
    "odd padding": [CONV, node("Pad", ["c", "three"], ["y"])],
    "sizes that do not sum up": [CONV, node("Split", ["c", "three"], ["y", "z"], axis=1)],
    "a step of zero": [CONV, node("Slice", ["c", "one", "four", "one", "zero"], ["y"])],
    "an empty slice": [CONV, node("Slice", ["c", "four", "one", "one"], ["y"])],
    "an index too far": [CONV, node("Gather", ["c", "far"], ["y"], axis=1)],
    "a shape of minus two": [node("Reshape", ["x", "minus"], ["y"])],
    "an equation that does not fit": [node("Einsum", ["x", "w1"], ["y"], equation="ij,j->zk")],
    "no equation": [node("Einsum", ["x", "w1"], ["y"])],
}
LEFT = {"a wrong order of nodes": {"w1": 8}, "an empty slice": {"w1": 8}}  # these are as good as others
NUMBERS = {"one": [1], "four": [4], "zero": [0], "far": [77], "minus": [-2, 7], "three": [0, 1, 0]}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_nodes_freeze_and_never_crash(name: str) -> None:
    """Nothing that a malformed node touches is cut, or the model is refused in one line."""
    found, told = {}, ""
    try:
        found = groups_of(network(MALFORMED[name], tensors={**WEIGHTS, "b2": floats(7), **NUMBERS}))
    except OnnxPruneError as error:
        told = str(error)
    assert "\n" not in told
    assert found == LEFT.get(name, {})


def without_data(dims: Sequence[int], dtype: int = TensorProto.FLOAT, raw: bytes = b"") -> ModelProto:
    model = network(two_layers(), tensors={"b1": WEIGHTS["b1"], "w2": WEIGHTS["w2"]})
    model.graph.initializer.append(TensorProto(name="w1", dims=dims, data_type=dtype, raw_data=raw))
    return model


@pytest.mark.parametrize("dims", [[8, 3, 3, 3], [1 << 40, 3, 3, 3], [1 << 40, 0, 3, 3], [-8, 3, 3, 3]])
def test_damaged_tensors_are_refused_in_words(dims: list[int]) -> None:
    with pytest.raises(ModelError, match="damaged"):
        groups_of(without_data(dims))


def test_damaged_types_and_data() -> None:
    assert groups_of(without_data([8, 3, 3, 3], 999)) == {}
    with pytest.raises(ModelError, match="the elements of 'w1' cannot be read"):
        groups_of(without_data([8, 3, 3, 3], raw=b"abc"))


def test_opset_that_nobody_knows() -> None:
    model = network(two_layers())
    del model.opset_import[:]
    assert groups_of(model) == {}
    assert groups_of(network(two_layers(), opset=999)) == {"w1": 8}


# --- a Scan inside another body ------------------------------------------------------


@pytest.mark.parametrize(("declared", "goes"), [("rows,8", 4), ("2,2,4", 0)])
def test_a_scan_inside_a_branch_hands_on_what_it_goes_through(declared: str, goes: int) -> None:
    """Unless its body says that it takes another shape."""
    graph = onnx.parser.parse_graph(f"""
        g (float[N,6] x, bool flag) => (float[N,4] y) {{
            h = MatMul(x, w)
            z = If(flag) <then_branch = t () => (float[N,8] a) {{
                    u = Unsqueeze(h, zero)  c = Concat<axis=0>(u, u)
                    o = Scan(c) <num_scan_inputs = 1, body = b (float[{declared}] s) => (float[rows,8] r) {{
                        f = Flatten<axis=1>(s)  r = MatMul(f, k) }}>
                    a = ReduceSum<keepdims=0>(o, zero) }},
                else_branch = e () => (float[N,8] b2) {{ b2 = Relu(h) }}>
            y = MatMul(z, v) }}
    """)
    tensors = {"w": floats(6, 8), "k": floats(8, 8), "v": floats(8, 4), "zero": np.array([0])}
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in tensors.items())
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    deps = analyse(model, input_shapes={"x": (2, 6)})
    assert sum(len(g) for g in deps.groups) == 2 * goes
    if goes:
        dead = deps.dead({g.name: np.arange(0, len(g), 2) for g in deps.groups})
        for taken in (True, False):
            feed = {"x": floats(2, 6), "flag": np.array(taken)}
            agree("y", run(mask(model, deps, dead), feed)[0], run(cut(model, deps, dead), feed)[0], 1e-5)
