"""The law of facts: in a run, every element lies within its bounds, and elements of one identity are multiples."""

import contextlib
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from all_rows import ROWS
from hypothesis import given
from hypothesis import strategies as st
from law import Feeds, opened
from law import run as outputs_of
from onnx import helper, numpy_helper
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidGraph, NotImplemented
from patterns.builder import PATTERNS
from planted import plant, spoiled
from random_networks import networks
from wheel_models import LAWLESS, node_tests

from onnxprune.channels import analyse
from onnxprune.lossless.propagate import Knowledge
from onnxprune.model.graphs import opset_of
from onnxprune.model.network import Network
from onnxprune.operators.facts import Facts, aligned, expanded, facts, known, of_integers, reduced, reshaped, unknown
from onnxprune.operators.facts import axis_blocks as blocks_of
from onnxprune.operators.registry import operator, operator_of
from onnxprune.operators.value_numbers import SINGLE, mix, multiples, name_of, snapped
from onnxprune.runtime.lifted import Inside, lift, rounds_of

Run = Callable[[onnx.ModelProto, Feeds], list[np.ndarray]]
SIDE = 8


def held_by(found: Facts, value: np.ndarray, near: float = 1e-4) -> int:
    """Check facts against a value, of integers exactly; the number of elements of which something is known."""
    if value.dtype.kind in "iub":
        value, near = value.astype(np.longdouble), 0
    size = np.abs(value).max(initial=1e-30)
    assert (value >= found.low - near * size).all()
    assert (value <= found.high + near * size).all()
    varied = [k for k, n in enumerate(found.shape) if n > 1 or value.shape[k] == 1]
    rest = [k for k in range(value.ndim) if k not in varied]
    rows = value.transpose([*varied, *rest]).reshape(int(np.prod([value.shape[k] for k in varied])), -1)
    names, scales = found.identity.ravel(), found.scale.ravel()
    names, scales = (np.broadcast_to(a, len(rows)) if a.size == 1 else a for a in (names, scales))
    order = np.argsort(names, kind="stable")
    same = names[order][1:] == names[order][:-1]
    a, b = order[1:][same], order[:-1][same]
    with np.errstate(all="ignore"):
        gap = np.abs(rows[a] * scales[b, None] - rows[b] * scales[a, None]) / np.maximum(scales[a], scales[b])[:, None]
    assert (gap <= near * size).all()
    return int(same.sum()) + int((np.isfinite(found.low) | np.isfinite(found.high)).sum())


def check(model: onnx.ModelProto, feed: Feeds, *, sized: bool = False, run: Run = outputs_of) -> int:
    """Every value that depends on data, in every round; the number of elements of which something is known.

    sized: the model says the sizes of all its inputs itself.
    """
    shapes = {} if sized else {name: array.shape for name, array in feed.items()}
    knowledge = Knowledge.of(Network.of(model), analyse(model, input_shapes=shapes))
    loops, made = dict(rounds_of(model.graph)), {name for node in model.graph.node for name in node.output if name}
    known = {n: f for n, f in knowledge.facts.items() if f is not None and (n in made or n in loops)}
    types = knowledge.deps.statics.types
    seen = loops.keys() & types.keys()
    inside = {n: Inside(types[n], len(f.shape)) for n, f in known.items() if n in seen}
    tapped, wanted = onnx.ModelProto(), [n for n in known if n in made]
    tapped.CopyFrom(model)
    del tapped.graph.output[:]
    tapped.graph.output.extend(onnx.ValueInfoProto(name=n) for n in wanted)
    lift(tapped.graph, inside, ())
    values = dict(zip([o.name for o in tapped.graph.output], run(tapped, feed), strict=True))
    numbers = {n: v for n, v in values.items() if v.dtype.kind in "fiub" and np.isfinite(v).all()}
    firsts = [node.output[0] for node in model.graph.node if node.output[0] in numbers]
    assert all(types.get(n) == helper.np_dtype_to_tensor_dtype(numbers[n].dtype) for n in firsts)
    numbers = {n: v.astype(np.float64) if v.dtype.kind == "f" else v for n, v in numbers.items()}
    return sum(held_in_all_rounds(known[n], v, loops.get(n, 0)) for n, v in numbers.items())


def held_in_all_rounds(found: Facts, value: np.ndarray, loops: int) -> int:
    """Check facts of a value that so many loops give stacked; of one in a branch that is not taken there is nothing."""
    if value.ndim != len(found.shape) + loops or not value.size:
        return 0
    return held_by(found.map(lambda a: a.reshape((1,) * loops + a.shape)), value)


@pytest.mark.parametrize("name", sorted(PATTERNS))
def test_in_every_pattern(name: str) -> None:
    pattern = PATTERNS[name]
    x = np.random.default_rng(0).normal(size=pattern.run)
    if pattern.kind != onnx.TensorProto.FLOAT:
        x = np.abs(3 * x)
    feed = {"x": x.astype(onnx.helper.tensor_dtype_to_np_dtype(pattern.kind))}
    model = pattern.model(2)
    assert check(model, feed)
    deps = analyse(model, input_shapes={"x": pattern.run})
    check(plant(model, deps)[0], feed)


@given(networks(SIDE), st.integers(0, 99))
def test_in_random_networks(model: onnx.ModelProto, seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=(2, 3, SIDE, SIDE)).astype(np.float32)
    check(spoiled(model, seed), {"x": x})


# --- facts and names by themselves --------------------------------------------


def test_positions_are_told_apart_and_put_together_again() -> None:
    one = unknown(3, name_of("x"))
    wide = expanded(one, (2, 3, 4), [1])
    assert wide is not None
    assert wide.shape == (1, 3, 1)
    assert len(np.unique(wide.identity)) == 3
    copy = wide.map(lambda a: a[:, [0, 1, 0]])
    assert reduced(copy, [1]).shape == (1, 1, 1)
    assert reduced(copy, [1]).identity != reduced(wide, [1]).identity
    first, second = aligned([(copy, (2, 3, 4)), (one, (2, 3, 4))]) or ()
    assert first.shape == second.shape == (1, 3, 1)
    assert len(np.unique(second.identity)) == 3


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ((2, 6, 5), (2, 2, 3, 5), [([0], [0]), ([1], [1, 2]), ([2], [3])]),
        ((1, 6, 5), (6, 5), [([0, 1], [0]), ([2], [1])]),
        ((2, 3, 4), (2, 12), [([0], [0]), ([1, 2], [1])]),
        ((4, 6), (8, 3), [([0, 1], [0, 1])]),
        ((5,), (5, 1, 1), [([0], [0]), ([], [1]), ([], [2])]),
    ],
)
def test_blocks_of_a_reshape(before: tuple[int, ...], after: tuple[int, ...], expected: list) -> None:
    assert blocks_of(before, after) == expected


def test_a_reshape_keeps_what_is_known() -> None:
    array = np.arange(6.0).reshape(1, 6, 1)
    out = reshaped(known(array), (4, 6, 5), (4, 2, 3, 5))
    assert out is not None
    assert out.low.tolist() == array.reshape(1, 2, 3, 1).tolist()
    flat = reshaped(known(array), (4, 6, 5), (4, 30))
    assert flat is not None
    assert flat.low.tolist() == [np.repeat(np.arange(6.0), 5).tolist()]


def test_integers_round_and_wrap() -> None:
    """2 ** 53 and one more are one number in float64."""
    large, rest = [2.0**53, 2.0**53, -200], [2.5, -3, 0]
    names = {"kind": name_of("Div"), "token": name_of("y")}
    found = of_integers(known(np.float64(large + rest)), np.dtype("i1"), **names)
    assert found.low.tolist() == [-np.inf, -np.inf, -np.inf, 2, -3, 0]
    assert found.high.tolist() == [np.inf, np.inf, np.inf, 3, -3, 0]
    assert len(np.unique(found.identity[:4])) == 4
    wide = of_integers(known(np.float64(large)), np.dtype("i8"), **names)
    assert wide.constant.tolist() == [False, False, True]
    assert wide.identity[0] != wide.identity[1]
    halves = facts(np.full(2, -np.inf), np.full(2, np.inf), np.full(2, name_of("x")), np.float64([0.5, 1]))
    named, other = (of_integers(halves, np.dtype(kind), **names) for kind in ("i1", "i2"))
    assert len(np.unique([*named.identity, *other.identity])) == 4
    assert named.scale.tolist() == [1, 1]
    above = facts(np.float64([0, -200]), np.full(2, np.inf), np.full(2, name_of("x")))
    assert of_integers(above, np.dtype("i1"), **names).low.tolist() == [-np.inf, -np.inf]
    assert of_integers(above, np.dtype("i1"), **names, selects=True).low.tolist() == [0, -np.inf]


def test_names() -> None:
    assert mix(1, 2) != mix(2, 1)
    assert name_of("Relu") != name_of("Gelu")
    assert int(name_of("x")) == int(name_of("x"))


@pytest.mark.parametrize("features", [1, 7, 300])
def test_multiples_are_found_and_nothing_else(features: int) -> None:
    rng = np.random.default_rng(features)
    rows = rng.normal(size=(40, features)).astype(np.float32)
    rows[[7, 9, 30]] = rows[2] * np.float32([[0.3], [1], [1.5]])
    rows[11] = 0
    rows[12] = -rows[3]
    keys = np.where(np.arange(40) < 35, 1, 2).astype(np.uint64)
    rows[36] = rows[5]
    last = rows[:, 0].copy()
    last[20] = 2 * last[21]
    rows[20] = rows[21]  # but for the last feature
    first, factor = multiples(rows, last, keys, SINGLE)
    if features > 1:
        assert {i: int(f) for i, f in enumerate(first) if i != f} == {7: 2, 9: 2, 30: 2}
        np.testing.assert_allclose(factor[[7, 9, 30]], [0.3, 1, 1.5], rtol=1e-6)
    assert (first <= np.arange(40)).all()
    np.testing.assert_allclose(rows, rows[first] * factor[:, None], rtol=1e-5, atol=1e-6)
    assert first[11] == 11
    assert first[36] >= 35


def test_numbers_are_snapped_to_the_first_of_their_kind() -> None:
    keys = np.array([1, 1, 2, 1], np.uint64)
    out = snapped(keys, np.array([1.0, 1.0 + 1e-9, 1.0 + 1e-9, 2.0]), 1e-6)
    assert out.tolist() == [1.0, 1.0, 1.0 + 1e-9, 2.0]


# --- every operator of the wheel's tests ----------------------------------------


def led_by_facts(model: onnx.ModelProto, data: dict[str, np.ndarray], axis: int, seed: int) -> onnx.ModelProto | None:
    """The model behind nodes that make some positions of its inputs copies, multiples and constants."""
    rng, out, nodes = np.random.default_rng(seed), onnx.ModelProto(), []
    out.CopyFrom(model)
    for value in model.graph.input:
        array, name = data[value.name], value.name
        if array.dtype != np.float32 or not -array.ndim <= axis < array.ndim or array.shape[axis] < 2:
            continue
        size = array.shape[axis]
        picks, scale, shift = np.arange(size), rng.choice([1, 2, 0.5], size), np.zeros(size)
        picks[1::2] = picks[: 2 * (size // 2) : 2]
        fixed = rng.integers(0, size)
        scale[fixed], shift[fixed] = 0, rng.choice([0, 1.5, -0.5])
        shape = [-1 if k == axis % array.ndim else 1 for k in range(array.ndim)]
        tensors = [picks, *(a.astype(np.float32).reshape(shape) for a in (scale, shift))]
        out.graph.initializer.extend(numpy_helper.from_array(a, f"{name}.{k}") for k, a in enumerate(tensors))
        for node in out.graph.node:
            for k, taken in enumerate(node.input):
                node.input[k] = f"{name}.led" if taken == name else taken
        nodes += [
            helper.make_node("Gather", [name, f"{name}.0"], [f"{name}.picked"], axis=axis % array.ndim),
            helper.make_node("Mul", [f"{name}.picked", f"{name}.1"], [f"{name}.scaled"]),
            helper.make_node("Add", [f"{name}.scaled", f"{name}.2"], [f"{name}.led"]),
        ]
    return behind(nodes, out)


def behind(nodes: list[onnx.NodeProto], model: onnx.ModelProto) -> onnx.ModelProto | None:
    """The model with these nodes in front."""
    if not nodes:
        return None
    graph = onnx.GraphProto(node=[*nodes, *model.graph.node])
    del model.graph.node[:]
    model.graph.node.extend(graph.node)
    model.ir_version = max(model.ir_version, 4)
    return model


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_through_every_row_of_the_rules(axis: int) -> None:
    ran = set()
    for case in ROWS:
        model, data, weights = case.build(0)
        if operator_of(model.graph.node[0]).bound is None or opset_of(model) < 7:
            continue
        led = led_by_facts(opened(model, weights), dict(data), axis, seed=len(str(case)))
        if led is not None:
            with contextlib.suppress(Fail, NotImplemented, InvalidGraph):
                check(led, dict(data))
                ran.add(case.op)
    assert len(ran) > 100


def test_a_bias_that_the_data_makes_is_no_constant() -> None:
    """A QLinearConv whose filters hold their zero point alone gives its bias, whatever that is."""
    scalars = {"s": np.float32(1), "z": np.uint8(0), "w": np.zeros((3, 2, 1, 1), np.uint8)}
    graph = helper.make_graph(
        [helper.make_node("QLinearConv", [*"xszwszsz", "b"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", 2, [1, 2, 2, 2]), helper.make_tensor_value_info("b", 6, [3])],
        [helper.make_empty_tensor_value_info("y")],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in scalars.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    check(model, {"x": np.ones((1, 2, 2, 2), np.uint8), "b": np.array([3, 4, 5], np.int32)})


@pytest.mark.slow
@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_through_every_operator(axis: int) -> None:
    ran = set()
    for test in node_tests():
        names = {operator(n.domain, n.op_type) for n in test.model.graph.node if operator_of(n).bound is not None}
        if not test.data or not names or test.name.startswith(LAWLESS) or opset_of(test.model) < 7:
            continue
        model = led_by_facts(test.model, test.data, axis, seed=len(test.name))
        if model is not None:
            with contextlib.suppress(Fail, NotImplemented, InvalidGraph):  # of what onnxruntime has no kernel for
                check(model, test.data, sized=True)
                ran |= names
    assert len(ran) > 50
