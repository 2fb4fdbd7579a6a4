"""A law for each column of the table of operators that says what an operator computes.

Whether channels stay apart, traits, functions, small constants, filters.  What a row says of channels, repairs and
zeros is proven by `test_rules`, its intervals and value numbers by `test_facts`.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import onnx
import pytest
from all_rows import ROWS
from law import Feeds, labelled, opened, run
from onnx import ModelProto, helper
from onnx.reference import ReferenceEvaluator
from rows import Row
from wheel_models import node_tests

from onnxprune.channels import Dependencies
from onnxprune.lossless.conditions import contraction_axes, is_channelwise
from onnxprune.model.evaluate import evaluate
from onnxprune.model.graphs import opset_of
from onnxprune.model.static import attributes_of
from onnxprune.operators.labels import is_fixed
from onnxprune.operators.registry import LARGEST_VALUE, OPERATORS, Trait, has, operator_of, traits_of

# --- separation ------------------------------------------------------------------


def touched(deps: Dependencies, name: str, component: int) -> np.ndarray:
    """Elements of a value on positions of a component, bool in its shape."""
    value = deps.values[name]
    assert value is not None
    found = np.zeros(value.shape, bool)
    for axis, labels in enumerate(value.axes):
        found |= along(axis, deps.component[labels] == component, found.ndim)
    if value.split_axis is not None:
        inside = deps.component[value.split_axis.labels] == component
        found |= np.expand_dims(inside, tuple(d for d in range(found.ndim) if d not in value.split_axis.dims))
    return found


def along(axis: int, positions: np.ndarray, rank: int) -> np.ndarray:
    return positions.reshape([-1 if k == axis else 1 for k in range(rank)])


def separate_axes(deps: Dependencies, name: str) -> list[int]:
    """Axes of an input along which the node says that channels stay apart."""
    node, value = deps.nodes[-1], deps.values[name]
    assert value is not None
    rank = len(value.axes)
    if is_channelwise(deps, node):
        return list(range(rank))
    meet = contraction_axes(deps, node, node.inputs.index(name), rank)
    return [axis for axis in range(rank) if axis not in meet]


def changes(case: Row) -> Iterator[tuple[Dependencies, ModelProto, Feeds, Feeds, int]]:
    """Inputs of a row, and the same with other numbers on the positions of one component, along separate axes."""
    model, data, weights = case.build(0)
    other = case.build(1)[1]
    model = opened(model, weights)
    deps, _ = labelled(model, data, data if case.zeroed else (), case.heads, case.zeros())
    for name, array in data.items():
        value = deps.values.get(name)
        for axis in separate_axes(deps, name) if value is not None else ():
            free = np.setdiff1d(deps.component[value.axes[axis]], [deps.frozen]) if value is not None else []
            for component in free[:1]:
                if value is not None and not is_fixed(value.axes[axis]):
                    there = along(axis, deps.component[value.axes[axis]] == component, array.ndim)
                    yield deps, model, data, data | {name: np.where(there, other[name], array)}, int(component)


def separation_holds(case: Row) -> int:
    """Asserts that a change stays on the positions of its component; how many changes there were."""
    count, before = 0, None
    for deps, model, data, changed, component in changes(case):
        before = run(model, data) if before is None else before
        for value, a, b in zip(model.graph.output, before, run(model, changed), strict=True):
            if value.name in deps.values and deps.values[value.name] is not None and a.shape == b.shape:
                same = (a == b) | ((a != a) & (b != b))
                assert np.all(same | touched(deps, value.name, component)), (str(case), value.name)
                count += 1
    return count


SEPARATE = [c for c in ROWS if (row := OPERATORS.get(c.op)) is not None and (row.channelwise or row.contracts)]


def test_channels_that_are_said_to_stay_apart_do() -> None:
    held = {case.op for case in SEPARATE if separation_holds(case)}
    assert {case.op for case in SEPARATE} - held == {"ConstantOfShape"}  # which takes a size alone


@pytest.mark.parametrize("op", ["Gemm", "MatMul", "ReduceSum", "ConvTranspose"])
def test_the_law_of_separation_can_fail(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPERATORS, op, replace(OPERATORS[op], channelwise=True))
    with pytest.raises(AssertionError):
        _ = [separation_holds(case) for case in ROWS if case.op == op]


# --- traits -----------------------------------------------------------------------


def outcomes(trait: Trait) -> Iterator[tuple[Row, list[np.ndarray], np.ndarray]]:
    """Rows of operators with a trait: their inputs, and the first output."""
    for case in ROWS:
        model, data, weights = case.build(0)
        if traits_of(model.graph.node[0]) & trait:
            arrays = {**data, **weights}
            yield case, [arrays[name] for name in model.graph.node[0].input if name], run(model, arrays)[0]


def test_views_and_moves_give_the_elements_that_they_take() -> None:
    seen = set()
    for case, inputs, y in outcomes(Trait.MOVES):
        traits = traits_of(helper.make_node(case.kind, [], [], domain=case.domain))
        taken = inputs if traits & Trait.JOINS else inputs[:1]
        assert np.isin(y, np.concatenate([x.ravel() for x in taken])).all(), case
        if traits & Trait.VIEW:
            assert np.array_equal(np.sort(y, None), np.sort(inputs[0], None)), case
        seen.add(case.op)
    fixed = {name for name, row in OPERATORS.items() if not callable(row.traits) and row.traits & Trait.MOVES}
    assert fixed == {name for name in seen if not callable(OPERATORS[name].traits)}


def test_unary_operators_keep_the_shape() -> None:
    for case, inputs, y in outcomes(Trait.UNARY):
        assert y.shape == inputs[0].shape, case


@pytest.mark.parametrize("name", [name for name, row in OPERATORS.items() if row.function is not None])
def test_functions_rise_or_fall_as_they_are_said_to(name: str) -> None:
    function, traits, x = OPERATORS[name].function, OPERATORS[name].traits, np.linspace(0.01, 4, 99)
    assert function is not None
    assert isinstance(traits, Trait)
    with np.errstate(all="ignore"):
        whole = np.r_[-x[::-1], x]
        if traits & Trait.MONOTONE:
            steps = np.diff(function(whole, {}))
            steps = steps[np.isfinite(steps)]
            assert (steps >= 0).all() or (steps <= 0).all()
        if traits & Trait.HOMOGENEOUS:
            np.testing.assert_allclose(function(3 * whole, {}), 3 * function(whole, {}))
        if traits & Trait.SATURATES:
            assert np.abs(function(100 * whole, {})).max() <= 1


# --- functions, constants, filters -----------------------------------------------


@pytest.mark.parametrize("name", [name for name, row in OPERATORS.items() if row.function is not None])
def test_functions_are_those_of_onnxruntime(name: str) -> None:
    domain, _, kind = name.rpartition(":")
    x = np.linspace(-2, 2, 81, dtype=np.float32)
    old = kind in ("Affine", "ParametricSoftplus", "ScaledTanh")  # onnxruntime has them in early opsets, told all
    node = helper.make_node(kind, ["x"], ["y"], domain=domain, **({"alpha": 1.0, "beta": 1.0} if old else {}))
    infos = [helper.make_tensor_value_info(n, 1, x.shape) for n in "xy"]
    opset = 24 if kind == "Swish" else 9 if old else 22
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    graph = helper.make_graph([node], "f", infos[:1], infos[1:])
    model = helper.make_model(graph, opset_imports=imports, ir_version=10)
    function = OPERATORS[name].function
    assert function is not None
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(
            function(x.astype(np.float64), attributes_of(node)), run(model, {"x": x})[0], rtol=1e-4, atol=1e-5
        )


def test_constants_are_those_of_the_reference() -> None:
    tried = set()
    for test in node_tests():
        nodes = test.model.graph.node
        if len(nodes) != 1 or not test.data or nodes[0].domain or (row := operator_of(nodes[0])).value is None:
            continue
        if any(x.size > LARGEST_VALUE or x.dtype.kind == "O" for x in test.data.values()):
            continue
        float8 = "FLOAT8" in test.name.upper() and has(nodes[0], Trait.CASTS | Trait.ROUNDS)
        if float8 and tuple(map(int, onnx.__version__.split(".")[:2])) < (1, 23):  # whose references round otherwise
            continue
        inputs = [test.data.get(name) for name in nodes[0].input]
        found = evaluate(nodes[0], inputs, attributes_of(nodes[0]), opset_of(test.model))
        if found is not None:
            for a, b in zip(found, ReferenceEvaluator(test.model).run(None, dict(test.data)), strict=False):
                assert a.dtype == b.dtype, test.name
                wide = (x.astype(np.float32) if x.dtype.name == "bfloat16" else x for x in (a, b))  # with its NaN
                np.testing.assert_array_equal(*wide, err_msg=test.name)
            tried.add(nodes[0].op_type)
        assert row.value is not None
    assert len(tried) > 40


LAYERS = [c for c in ROWS if traits_of(helper.make_node(c.op, [], [])) & Trait.LINEAR]


@pytest.mark.parametrize("case", LAYERS, ids=str)
def test_a_layer_is_the_product_of_its_filters_and_patches(case: Row) -> None:
    row = OPERATORS[case.op]
    model, data, weights = case.build(0)
    arrays = {**data, **weights}
    names = list(model.graph.node[0].input)
    x, w, attributes = arrays[names[0]], arrays[names[1]], attributes_of(model.graph.node[0])
    stacked = w.ndim != 2 and case.op == "MatMul"
    if names[1] not in weights or x.dtype != np.float32 or attributes.get("transA") or stacked:
        pytest.skip("no layer with weights of its own")
    assert row.linear is not None
    assert row.filters is not None
    y, linear, filters = run(model, arrays)[0], row.linear(w.shape, attributes), row.filters(w, attributes)
    matrix = linear.to_matrix(w)
    assert filters is not None
    assert np.shares_memory(filters, w)
    scale = attributes.get("alpha", 1.0)
    np.testing.assert_allclose(scale * filters.sum(3), matrix.reshape(filters.shape).sum(3), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(linear.from_matrix(matrix, w.shape), w, rtol=1e-6)
    rows = np.arange(linear.positions(y.shape))
    made = (matrix @ linear.columns(x, y.shape, rows)).reshape(-1, rows.size)
    bias = arrays[names[2]] * attributes.get("beta", 1.0) if len(names) > 2 and names[2] else np.zeros(1)
    if bias.ndim > 1 or bias.size not in (1, len(made)):
        pytest.skip("adds more than a bias")
    np.testing.assert_allclose(linear.outputs(y, rows), made + bias.reshape(-1, 1), rtol=1e-3, atol=1e-4)
