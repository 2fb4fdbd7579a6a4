"""Models that are well-formed messages and still no good: sizes, versions, names, order."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_files import add, model, node, refusal, value, weight, with_weight
from onnx import helper, numpy_helper

from onnxprune.model import load


def data_type(kind: int) -> object:
    return lambda t: setattr(t, "data_type", kind)


BAD_TENSORS = {
    "huge dims": (lambda t: t.dims.__setitem__(slice(None), [2**40, 2**20]), "needs"),
    "overflowing dims": (lambda t: t.dims.__setitem__(slice(None), [2**62] * 4), "impossible size"),
    "huge dims of nothing": (
        lambda t: (t.ClearField("raw_data"), t.dims.__setitem__(slice(None), [2**40, 0])),
        "impossible size",
    ),
    "short raw data": (lambda t: setattr(t, "raw_data", t.raw_data[:-1]), "holds 15 bytes, and needs 16"),
    "long raw data": (lambda t: setattr(t, "raw_data", t.raw_data * 2), "holds 32 bytes"),
    "no data": (lambda t: t.ClearField("raw_data"), "holds 0 elements, and needs 4"),
    "huge dims without data": (
        lambda t: (t.ClearField("raw_data"), t.dims.__setitem__(slice(None), [2**40])),
        "holds 0 elements",
    ),
    "negative dim": (lambda t: t.dims.__setitem__(0, -2), "negative size"),
    "negative dims whose product fits": (lambda t: t.dims.__setitem__(slice(None), [-2, -2]), "negative size"),
    "unknown type": (data_type(999), "data type 999"),
    "undefined type": (data_type(0), "data type 0"),
    "segment": (lambda t: t.segment.SetInParent(), "segments"),
    "twice": (lambda t: t.float_data.extend([0] * 4), "twice, as float_data and raw_data"),
    "wrong field": (lambda t: (t.ClearField("raw_data"), t.int32_data.extend([0] * 4)), "holds 0 elements"),
    "rank": (lambda t: t.dims.extend([1] * 70), "72 axes"),
}


@pytest.mark.parametrize(("change", "expected"), BAD_TENSORS.values(), ids=BAD_TENSORS)
def test_tensors_that_are_not_what_they_say(change: object, expected: str) -> None:
    text = refusal(with_weight(change))  # type: ignore[arg-type]
    assert expected in text
    assert "'w'" in text


def test_tensors_in_attributes_and_bodies_are_checked() -> None:
    bad = weight("c")
    bad.raw_data = b"123"
    constant = node("Constant", [], ["c"], value=bad)
    assert "'c'" in refusal(model([constant, node("Add", ["x", "c"], ["y"])]))
    branch = helper.make_graph([node("Identity", ["c"], ["b"])], "b", [], [value("b")], [bad])
    flag = numpy_helper.from_array(np.array(True), "flag")
    assert "'c'" in refusal(model([node("If", ["flag"], ["y"], then_branch=branch, else_branch=branch)], [flag]))


def without(proto: onnx.ModelProto, field: str) -> onnx.ModelProto:
    proto.ClearField(field)
    return proto


def two_opsets() -> onnx.ModelProto:
    proto = add()
    proto.opset_import.add(version=12)
    return proto


BAD_VERSIONS = {
    "no graph": (without(add(), "graph"), "no graph"),
    "no ir_version": (without(add(), "ir_version"), "ir_version"),
    "ir 999": (model([node("Relu", ["x"], ["y"])], ir=999), "IR version 999"),
    "no opset": (without(add(), "opset_import"), "no operator set"),
    "opset 0": (model([node("Relu", ["x"], ["y"])], opset=0), "no operator set"),
    "opset 999": (model([node("Relu", ["x"], ["y"])], opset=999), "opset 999"),
    "two opsets": (two_opsets(), r"[12, 17]"),
}


@pytest.mark.parametrize(("proto", "expected"), BAD_VERSIONS.values(), ids=BAD_VERSIONS)
def test_versions(proto: onnx.ModelProto, expected: str) -> None:
    assert expected in refusal(proto)


def test_an_opset_that_onnx_knows_is_read_even_if_runtimes_do_not() -> None:
    newest = onnx.defs.onnx_opset_version()
    assert load(model([node("Relu", ["x"], ["y"])], opset=newest)).opset == newest


BAD_GRAPHS = {
    "cycle": (
        [node("Add", ["t", "y"], ["y"], name="a"), node("Relu", ["x"], ["t"])],
        "cycle: 'a' (Add) → 'a' (Add)",
    ),
    "long cycle": (
        [
            node("Add", ["x", "c"], ["a"]),
            node("Relu", ["a"], ["b"]),
            node("Relu", ["b"], ["c"]),
            node("Relu", ["c"], ["y"]),
        ],
        "'a' (Add) → 'b' (Relu) → 'c' (Relu) → 'a' (Add)",
    ),
    "two producers": (
        [node("Relu", ["x"], ["y"], name="a"), node("Sigmoid", ["x"], ["y"], name="b")],
        "'y' has two producers: 'a' (Relu) and 'b' (Sigmoid)",
    ),
    "initializer and node": ([node("Relu", ["x"], ["w"]), node("Relu", ["w"], ["y"])], "'w' has two producers"),
    "input and node": ([node("Relu", ["x"], ["x"]), node("Relu", ["x"], ["y"])], "'x' has two producers"),
    "dangling input": ([node("Add", ["x", "nowhere"], ["y"], name="a")], "'a' (Add) reads 'nowhere'"),
    "no outputs": ([node("Relu", ["x"], ["y"]), node("Relu", ["x"], [], name="a")], "'a' (Relu) has no outputs"),
    "dangling output": ([node("Relu", ["x"], ["z"])], "output 'y' is produced by nothing"),
}


@pytest.mark.parametrize(("nodes", "expected"), BAD_GRAPHS.values(), ids=BAD_GRAPHS)
def test_graphs_that_cannot_run(nodes: list[onnx.NodeProto], expected: str) -> None:
    assert expected in refusal(model(nodes, [weight()]))


def test_two_inputs_of_one_name() -> None:
    assert "two inputs are named 'x'" in refusal(model([node("Relu", ["x"], ["y"])], inputs=["x", "x"]))


def test_a_body_reads_from_the_graphs_around_it_and_nowhere_else() -> None:
    flag = numpy_helper.from_array(np.array(True), "flag")

    def conditional(name: str) -> onnx.ModelProto:
        branch = helper.make_graph([node("Relu", [name], ["b"])], "b", [], [value("b")])
        late = [node("If", ["flag"], ["y"], then_branch=branch, else_branch=branch), node("Relu", ["x"], ["late"])]
        return model(late, [flag, weight()])

    assert load(conditional("w")).proto.graph.node[0].op_type == "If"
    sorted_nodes = load(conditional("late"))
    assert [n.op_type for n in sorted_nodes.proto.graph.node] == ["Relu", "If"]
    assert any("out of order" in w for w in sorted_nodes.warnings)
    assert "reads 'nowhere'" in refusal(conditional("nowhere"))


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(8)))
def test_unsorted_nodes_are_sorted_stably(order: list[int]) -> None:
    chain = [node("Relu", ["x" if i == 0 else f"t{i - 1}"], [f"t{i}"]) for i in range(6)]
    free = [node("Relu", ["x"], ["f"]), node("Add", ["t5", "f"], ["y"])]
    nodes = [*chain, *free]
    proto = model([nodes[i] for i in order])
    before = proto.SerializeToString()
    loaded = load(proto)
    seen, waiting, expected = {"x"}, list(proto.graph.node), []
    while waiting:  # always the first that can run
        ready = next(n for n in waiting if set(n.input) <= seen)
        waiting.remove(ready)
        expected.append(ready)
        seen |= set(ready.output)
    assert list(loaded.proto.graph.node) == expected
    assert proto.SerializeToString() == before
    in_order = list(proto.graph.node) == list(loaded.proto.graph.node)
    assert in_order == (not loaded.warnings)


def test_an_initializer_that_is_there_twice() -> None:
    nodes = [node("Add", ["x", "w"], ["y"])]
    assert "two different initializers are named 'w'" in refusal(model(nodes, [weight(), weight(seed=1)]))
    same = load(model(nodes, [weight(), weight(), weight()]))
    assert len(same.proto.graph.initializer) == 1
    assert "'w'" in same.warnings[0]


def test_names_that_are_not_text() -> None:
    data = model([node("Relu", ["x"], ["y"], name="NAME")]).SerializeToString().replace(b"NAME", b"\xff\xfe\xfd\xfc")
    assert "not valid UTF-8" in refusal(data)


def test_names_cannot_write_to_the_terminal() -> None:
    text = refusal(model([node("Relu", ["\x1b[31m\nevil"], ["y"])]))
    assert "\x1b" not in text


def test_what_the_checker_says_is_a_warning(capfd: pytest.CaptureFixture[str]) -> None:
    bad = load(model([node("Relu", ["x"], ["y"], alpha=1.0)]))
    assert any(w.startswith("onnx.checker: ") and "alpha" in w for w in bad.warnings)
    experimental = load(model([node("ImageScaler", ["x"], ["y"], scale=1.0)]))
    assert any("'ImageScaler'" in w for w in experimental.warnings)
    assert load(add()).warnings == ()
    assert capfd.readouterr().out == ""  # the checker prints about experimental operators


def test_operators_of_other_domains_are_left_to_the_runtime() -> None:
    proto = model([node("Gelu", ["x"], ["t"], domain="com.microsoft"), node("Mine", ["t"], ["y"], domain="my.own")])
    proto.opset_import.add(domain="com.microsoft", version=1)
    proto.opset_import.add(domain="my.own", version=1)
    assert [w for w in load(proto).warnings if "my.own:Mine" in w]
    assert not [w for w in load(proto).warnings if "microsoft" in w]
