"""Faults planted in a cut that is right: the proof finds each of them, and nothing in the cut itself."""

from dataclasses import replace
from functools import partial

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper, numpy_helper
from runtime_models import build, conv_net, masked_and_pruned, weight, with_weights

import onnxprune
from onnxprune.errors import CheckFailed
from onnxprune.model.graphs import graphs_of
from onnxprune.model.static import infer, runs_out
from onnxprune.operators.intervals import zero_where
from onnxprune.operators.registry import OPERATORS
from onnxprune.runtime.branches import called, ways
from onnxprune.runtime.inputs import NORMAL, PIXELS, POSITIVE
from onnxprune.runtime.prove import _second_opinion, _View, _Way, prove
from onnxprune.runtime.session import make_session
from onnxprune.runtime.source import Variant
from onnxprune.runtime.specs import model_inputs
from onnxprune.runtime.stimuli import Stimuli, explored, told
from onnxprune.runtime.taps import find_taps
from onnxprune.runtime.tolerance import Check

DEAD = [1, 4]
FLOAT, INT64, BOOL, NODE = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL, helper.make_node
SIZE = (1, 3, 8, 8)


def net(*tail, given=(), free="NHW", outputs=(("y", FLOAT, None),), **weights) -> onnx.ModelProto:
    """Conv to 6 channels, Relu, Conv to `c`, with `tail` behind it; `given` stands before the first Conv."""
    rng = np.random.default_rng(0)
    arrays = {
        "w1": rng.standard_normal((6, 3, 3, 3)).astype(np.float32),
        "b1": rng.standard_normal(6).astype(np.float32),
        "w2": rng.standard_normal((5, 6, 3, 3)).astype(np.float32),
    }
    nodes = [
        *given,
        NODE("Conv", ["in" if given else "x", "w1", "b1"], ["c1"], pads=[1] * 4),
        NODE("Relu", ["c1"], ["r1"]),
        NODE("Conv", ["r1", "w2"], ["c"], pads=[1] * 4),
        *tail,
    ]
    shape = ["N" if "N" in free else 1, 3, "H" if "H" in free else 8, "W" if "W" in free else 8]
    return build(nodes, [("x", FLOAT, shape)], outputs, arrays | weights)


def stimuli(model: onnx.ModelProto, size=SIZE) -> Stimuli:
    return Stimuli(model_inputs(model), {s.name: size for s in model_inputs(model)})


def proven(model: onnx.ModelProto, damage=lambda pruned: None):
    """The proof of a right cut of the model, and that of a damaged copy."""
    masked, pruned = masked_and_pruned(model, DEAD)
    wrong = onnx.ModelProto()
    wrong.CopyFrom(pruned)
    damage(wrong)
    right = prove(masked, pruned, stimuli(model))
    assert right.passed, right
    return right, prove(masked, wrong, stimuli(model))


def add(model: onnx.ModelProto, name: str, array: np.ndarray) -> str:
    model.graph.initializer.append(numpy_helper.from_array(array, name))
    return name


def node(model: onnx.ModelProto, output: str) -> onnx.NodeProto:
    return next(n for n in model.graph.node if output in n.output)


# Wrong at another size


def flat() -> onnx.ModelProto:
    tail = [
        NODE("Shape", ["c"], ["sizes"]),
        NODE("Gather", ["sizes", "zero"], ["batch"]),
        NODE("Concat", ["batch", "rest"], ["to"], axis=0),
        NODE("Reshape", ["c", "to"], ["y"]),
    ]
    return net(*tail, zero=np.array([0]), rest=np.array([5, -1]))


def test_a_size_of_the_analysis_in_the_model_is_found():
    """One sample for a batch of any number: right at the analysed batch of one."""

    def damage(pruned: onnx.ModelProto) -> None:
        node(pruned, "y").input[1] = add(pruned, "sampled", np.array([1, 5, -1]))

    _, wrong = proven(flat(), damage)
    assert not wrong.passed
    with pytest.raises(CheckFailed, match=r"at x:2x3x5x7"):
        wrong.require()


def test_a_bound_that_is_reached_at_small_sizes_is_found():
    """Channels up to the height: all of them where the image is higher than the layer is wide."""
    tail = [
        NODE("Shape", ["x"], ["sizes"]),
        NODE("Gather", ["sizes", "two"], ["height"]),
        NODE("Sub", ["height", "two"], ["bound"]),
        NODE("Slice", ["c", "zero", "bound", "one"], ["part"]),
        NODE("ReduceSum", ["part", "one"], ["y"]),
    ]

    def damage(pruned: onnx.ModelProto) -> None:
        node(pruned, "part").input[2] = add(pruned, "sampled", np.array([6]))

    _, wrong = proven(net(*tail, zero=np.array([0]), one=np.array([1]), two=np.array([2])), damage)
    assert not wrong.passed


def test_sizes_that_were_run_and_those_that_could_not_are_told():
    fixed = net(NODE("Flatten", ["c"], ["f"]), NODE("MatMul", ["f", "m"], ["y"]), m=np.eye(320, 2, dtype=np.float32))
    right, _ = proven(fixed)
    assert "x:2x3x8x8" in right.sizes
    assert "x:2x3x5x7: the original does not run" in right.skipped
    assert right.inputs == (NORMAL, POSITIVE, PIXELS)
    closed = net(NODE("Identity", ["c"], ["y"]), free="")
    assert proven(closed)[0].sizes == ("x:1x3x8x8",)


# Wrong in the other branch


def branch(model: onnx.ModelProto, name: str) -> onnx.GraphProto:
    return next(a.g for a in node(model, "y").attribute if a.name == name)


def branched() -> onnx.ModelProto:
    """Twice the values where the sum of the input is above a threshold that hardly any input reaches."""

    def body(name: str, op: str, by: str) -> onnx.GraphProto:
        made = helper.make_empty_tensor_value_info(name)
        return helper.make_graph([NODE(op, ["c", by], [name])], name, [], [made])

    tail = [
        NODE("ReduceMin", ["x"], ["lowest"], keepdims=0),
        NODE("Greater", ["lowest", "high"], ["loud"]),
        NODE("If", ["loud"], ["y"], then_branch=body("then", "Mul", "k"), else_branch=body("else", "Add", "k")),
    ]
    return net(*tail, high=np.float32(1e6), k=np.float32(2))


def test_the_branch_that_no_input_takes_is_run():
    def damage(pruned: onnx.ModelProto) -> None:
        branch(pruned, "then_branch").node[0].input[1] = add(pruned, "other", np.float32(3))

    right, wrong = proven(branched(), damage)
    assert right.branches == ("then", "else")
    assert not wrong.passed
    assert {c.where for c in wrong.checks if not c.passed} == {"branch then"}


def test_conditions_of_one_element_are_sent_both_ways():
    model = branched()
    node(model, "y").input[0] = "one"
    model.graph.node.insert(
        len(model.graph.node) - 1, NODE("Reshape", ["loud", add(model, "single", np.array([1]))], ["one"])
    )

    def damage(pruned: onnx.ModelProto) -> None:
        branch(pruned, "else_branch").node[0].input[1] = add(pruned, "other", np.float32(3))

    right, wrong = proven(model, damage)
    assert right.branches == ("then", "else")
    assert {c.where for c in wrong.checks if not c.passed} > {"branch else"}  # input takes this one, too


def test_branches_inside_branches_are_taken_in_all_ways():
    outer = branched()
    inner = onnx.GraphProto()
    inner.CopyFrom(branch(outer, "then_branch"))
    deep = NODE("If", ["loud"], ["deep"], then_branch=inner, else_branch=branch(outer, "else_branch"))
    body = helper.make_graph([deep], "body", [], [helper.make_empty_tensor_value_info("deep")])
    branch(outer, "then_branch").CopyFrom(body)
    assert len(ways(outer.graph)) == 4
    assert called((True, False)) == "then, else inside"
    assert proven(outer)[0].passed


def test_conditions_on_sizes_alone_are_left_as_they_are():
    sized = branched()
    sized.graph.node.insert(0, NODE("Size", ["x"], ["many"]))
    node(sized, "lowest").CopyFrom(NODE("Cast", ["many"], ["lowest"], to=FLOAT))
    assert ways(sized.graph) == []


# Wrong only on some input


def test_what_is_wrong_for_large_positive_input_only_is_found():
    def damage(pruned: onnx.ModelProto) -> None:
        pruned.graph.node.insert(0, NODE("Clip", ["x", "", add(pruned, "most", np.float32(20))], ["clipped"]))
        node(pruned, "c1").input[0] = "clipped"

    _, wrong = proven(net(NODE("Identity", ["c"], ["y"])), damage)
    assert not wrong.passed
    assert all(PIXELS in c.where for c in wrong.checks if not c.passed)


@pytest.mark.parametrize("least", [-0.5, 0.0, 100.0])
def test_input_that_gives_only_nan_is_replaced_by_input_that_does_not(least):
    """A logarithm of what is above `least`, which standard normal input hardly is."""
    given = [NODE("Sub", ["x", "least"], ["above"]), NODE("Sqrt", ["above"], ["in"])]
    model = net(NODE("Identity", ["c"], ["y"]), given=given, least=np.float32(least))
    right, wrong = proven(
        model,
        lambda pruned: pruned.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.ones(4, np.float32), "b1")),
    )
    assert not right.silent
    assert not wrong.passed


def test_outputs_that_are_never_a_number_prove_nothing():
    given = [
        NODE("Abs", ["x"], ["a"]),
        NODE("Neg", ["a"], ["b"]),
        NODE("Sub", ["b", "k"], ["c0"]),
        NODE("Sqrt", ["c0"], ["in"]),
    ]
    masked, pruned = masked_and_pruned(net(NODE("Identity", ["c"], ["y"]), given=given, k=np.float32(1)), DEAD)
    proof = prove(masked, pruned, stimuli(masked))
    assert not proof.passed
    with pytest.raises(CheckFailed, match="the outputs say nothing: 'y' is NaN or infinity"):
        proof.require()


def test_outputs_that_do_not_move_are_told():
    """Nothing passes a Relu after so large a subtraction."""
    tail = [
        NODE("Sub", ["c", "k"], ["s"]),
        NODE("Relu", ["s"], ["r"]),
        NODE("Exp", ["r"], ["e"]),
        NODE("ReduceMean", ["e"], ["y"]),
    ]
    masked, pruned = masked_and_pruned(net(*tail, k=np.float32(1e6)), DEAD)
    taps = prove(masked, pruned, stimuli(masked))
    assert taps.passed
    still = net(NODE("Mul", ["c", "k"], ["m"]), NODE("ReduceMax", ["m"], ["y"], keepdims=0), k=np.float32(0))
    masked, pruned = masked_and_pruned(still, DEAD)
    proof = prove(masked, pruned, stimuli(masked))
    assert proof.silent == {"y": "the same"}
    assert "the outputs say nothing" in proof.warnings[0]


# Wrong by a small amount beside a large one


@pytest.mark.parametrize("large", [1.0, 1e6])
def test_a_large_channel_hides_nothing_in_a_small_one(large):
    bias = np.array([large, 0, 0, 0, 0], np.float32).reshape(5, 1, 1)

    def damage(pruned: onnx.ModelProto) -> None:
        other = bias.copy()
        other[3] += 0.02
        node(pruned, "y").input[1] = add(pruned, "other", other)

    _, wrong = proven(net(NODE("Add", ["c", "k"], ["y"]), k=bias), damage)
    assert not wrong.passed


# What rounding explains is no fault


def one_ulp(pruned: onnx.ModelProto) -> None:
    bias = weight(pruned, "b1")
    pruned.CopyFrom(with_weights(pruned, b1=bias * np.float32(1 + 2e-7)))


def test_near_ties_of_topk_may_fall_the_other_way():
    """Two channels of the last layer are alike but for rounding, and what is picked goes on through weights."""
    tail = [
        NODE("Flatten", ["c"], ["f"]),
        NODE("TopK", ["f", "k"], ["best", "at"]),
        NODE("GatherElements", ["f", "at"], ["again"], axis=1),
        NODE("Unsqueeze", ["at", "one"], ["column"]),
        NODE("Cast", ["column"], ["number"], to=FLOAT),
        NODE("MatMul", ["number", "m"], ["y"]),
    ]
    model = net(
        *tail,
        k=np.array([40]),
        one=np.array([2]),
        m=np.ones((1, 2), np.float32),
        outputs=[("y", FLOAT, None), ("at", TensorProto.INT64, None)],
    )
    w2 = weight(model, "w2")
    w2[1] = w2[0] * np.float32(1 + 1.5e-7)
    _, nudged = proven(with_weights(model, w2=w2), one_ulp)
    assert nudged.passed, nudged
    least = helper.make_attribute("largest", 0)
    _, wrong = proven(with_weights(model, w2=w2), lambda p: node(p, "best").attribute.add().CopyFrom(least))
    assert not wrong.passed


def test_a_chaotic_network_is_proven_before_the_chaos():
    """x → 4x(1 − x) doubles every error: after fifty rounds nothing is left of the input."""
    rounds = []
    last = "z0"
    for k in range(50):
        rounds += [NODE("Sub", ["one", last], [f"m{k}"]), NODE("Mul", [last, f"m{k}"], [f"p{k}"])]
        rounds += [NODE("Mul", [f"p{k}", "four"], [f"z{k + 1}"])]
        last = f"z{k + 1}"
    tail = [NODE("Sigmoid", ["c"], ["z0"]), *rounds, NODE("Identity", [last], ["y"])]
    model = net(*tail, one=np.float32(1), four=np.float32(4), free="")
    _, nudged = proven(model, one_ulp)
    assert nudged.passed, nudged
    _, wrong = proven(model, lambda p: p.CopyFrom(with_weights(p, b1=weight(p, "b1") * np.float32(1.001))))
    assert not wrong.passed


# Decisions inside bodies


def picks(into: str) -> list[onnx.NodeProto]:
    """The places of the 40 largest of `in`, weighed by their order: near ties move the sum by whole numbers."""
    return [
        NODE("TopK", ["in", "k"], ["best", "at"]),
        NODE("Cast", ["at"], ["places"], to=FLOAT),
        NODE("MatMul", ["places", "order"], ["sum"]),
        NODE("Sin", ["sum"], [into]),
    ]


def body(nodes: list[onnx.NodeProto], inputs: list, outputs: list[tuple[str, int]]) -> onnx.GraphProto:
    given = [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in inputs]
    return helper.make_graph(nodes, "body", given, [helper.make_tensor_value_info(*o, None) for o in outputs])


LAYER = [NODE("Conv", ["r1", "w2"], ["own"], pads=[1] * 4), NODE("Flatten", ["own"], ["row"])]  # reads dead channels


def in_branches() -> list[onnx.NodeProto]:
    then = body([*LAYER, NODE("Identity", ["row"], ["in"]), *picks("a")], [], [("a", FLOAT)])
    other = body([NODE("Flatten", ["c"], ["f"]), NODE("ReduceMax", ["f"], ["b"], axes=[1])], [], [("b", FLOAT)])
    condition = [NODE("ReduceMean", ["c"], ["mean"], keepdims=0), NODE("Less", ["mean", "none"], ["less"])]
    return [*condition, NODE("If", ["less"], ["y"], then_branch=then, else_branch=other)]


def in_a_loop() -> list[onnx.NodeProto]:
    step = [*LAYER, NODE("Add", ["row", "state"], ["in"]), *picks("moved"), NODE("Identity", ["on"], ["still"])]
    step.append(NODE("Add", ["state", "moved"], ["next"]))
    state = ("state", FLOAT, ["N", 1])
    inside = body(step, [("round", INT64, []), ("on", BOOL, []), state], [("still", BOOL), ("next", FLOAT)])
    start = [NODE("Flatten", ["c"], ["f"]), NODE("ReduceMin", ["f"], ["least"], axes=[1])]
    return [*start, NODE("Loop", ["three", "", "least"], ["y"], body=inside)]


def in_a_scan() -> list[onnx.NodeProto]:
    conv = NODE("Conv", ["whole", "w2"], ["own"], pads=[1] * 4)
    step = [NODE("Unsqueeze", ["map", "first"], ["whole"]), conv, LAYER[1], NODE("Add", ["row", "state"], ["in"])]
    step += [*picks("moved"), NODE("Add", ["state", "moved"], ["next"]), NODE("Identity", ["moved"], ["out"])]
    inside = body(step, [("state", FLOAT, [1, 1]), ("map", FLOAT, None)], [("next", FLOAT), ("out", FLOAT)])
    return [NODE("Scan", ["zero", "r1"], ["last", "y"], body=inside, num_scan_inputs=1)]


def in_a_loop_of_branches() -> list[onnx.NodeProto]:
    """A branch in each round, always the same one."""
    then = body(picks("a"), [], [("a", FLOAT)])
    other = body([NODE("ReduceMax", ["in"], ["b"], axes=[1])], [], [("b", FLOAT)])
    step = [*LAYER, NODE("Add", ["row", "state"], ["in"])]
    step += [NODE("ReduceMin", ["in"], ["low"], keepdims=0), NODE("Less", ["low", "none"], ["less"])]
    step += [NODE("If", ["less"], ["moved"], then_branch=then, else_branch=other)]
    step += [NODE("Add", ["state", "moved"], ["next"]), NODE("Identity", ["on"], ["still"])]
    state = ("state", FLOAT, ["N", 1])
    inside = body(step, [("round", INT64, []), ("on", BOOL, []), state], [("still", BOOL), ("next", FLOAT)])
    start = [NODE("Flatten", ["c"], ["f"]), NODE("ReduceMin", ["f"], ["least"], axes=[1])]
    return [*start, NODE("Loop", ["three", "", "least"], ["y"], body=inside)]


@pytest.mark.parametrize("tail", [in_branches, in_a_loop, in_a_scan, in_a_loop_of_branches])
def test_near_ties_in_bodies_may_fall_the_other_way(tail):
    """Two channels of the last layer are alike but for rounding; a body orders them, and sums up the order."""
    numbers = {"k": np.array([40]), "order": np.arange(1, 41, dtype=np.float32)[:, None] * np.float32(1e-2)}
    numbers |= {
        "three": np.array(3),
        "none": np.float32(0),
        "zero": np.zeros((1, 1), np.float32),
        "first": np.array([0]),
    }
    model = net(*tail(), free="N", **numbers)
    w2 = weight(model, "w2")
    w2[1] = w2[0] * np.float32(1 + 1.5e-7)
    w2 = with_weights(model, w2=w2)
    _, nudged = proven(w2, one_ulp)
    assert nudged.passed, nudged

    def least(pruned: onnx.ModelProto) -> None:
        for graph, _ in graphs_of(pruned.graph):
            for n in (n for n in graph.node if n.op_type == "TopK"):
                n.attribute.add().CopyFrom(helper.make_attribute("largest", 0))

    _, wrong = proven(w2, least)
    assert not wrong.passed
    _, wrong = proven(w2, lambda p: p.CopyFrom(with_weights(p, b1=weight(p, "b1") * np.float32(1.001))))
    assert not wrong.passed


# Outputs that are no tensors


def test_elements_of_sequences_and_maps_are_outputs():
    tail = [NODE("SequenceConstruct", ["c", "r1"], ["y"])]
    outputs = [helper.make_tensor_sequence_value_info("y", FLOAT, None)]
    model = net(*tail)
    model.graph.output[0].CopyFrom(outputs[0])
    run = make_session(model).run({"x": np.ones(SIZE, np.float32)})
    assert list(run) == ["y[0]", "y[1]"]
    model.graph.node[-1].CopyFrom(NODE("SequenceConstruct", ["c", "c"], ["y"]))
    right, wrong = proven(model, lambda p: p.CopyFrom(with_weights(p, b1=weight(p, "b1") * np.float32(1.01))))
    assert right.passed
    assert not wrong.passed
    scores = build(
        [NODE("ZipMap", ["x"], ["y"], domain="ai.onnx.ml", classlabels_strings=["a", "b"])],
        [("x", FLOAT, ["N", 2])],
        [("y", FLOAT, None)],
    )
    scores.opset_import.append(helper.make_opsetid("ai.onnx.ml", 1))
    key = helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(FLOAT, []))
    scores.graph.output[0].type.CopyFrom(helper.make_sequence_type_proto(key))
    run = make_session(scores).run({"x": np.array([[1, 2]], np.float32)})
    assert run["y[0].keys"].tolist() == ["a", "b"]
    assert run["y[0].values"].tolist() == [1, 2]


# Faults in the rules themselves


@pytest.mark.parametrize("op", ["Reshape", "Split", "Slice", "Gather", "Conv"])
def test_a_repair_that_is_missing_is_found(op, monkeypatch):
    """What each operator says of its channels does not follow the cut."""
    tails = {
        "Reshape": [NODE("Reshape", ["r1", "k"], ["t"]), NODE("Reshape", ["t", "m"], ["u"])],
        "Split": [NODE("Split", ["r1", "k"], ["t", "v"], axis=1), NODE("Concat", ["t", "v"], ["u"], axis=1)],
        "Slice": [NODE("Slice", ["r1", "k", "m", "one"], ["u"])],
        "Gather": [NODE("Gather", ["r1", "k"], ["u"], axis=1)],
        "Conv": [NODE("Conv", ["r1", "k"], ["u"], group=6)],
    }
    values = {
        "Reshape": {"k": np.array([0, 6, 64]), "m": np.array([0, 6, 8, 8])},
        "Split": {"k": np.array([2, 4])},
        "Slice": {"k": np.array([1]), "m": np.array([5]), "one": np.array([1])},
        "Gather": {"k": np.array([5, 4, 3, 2, 1, 0])},
        "Conv": {"k": np.ones((6, 1, 1, 1), np.float32)},
    }
    width = 4 if op == "Slice" else 6
    model = net(
        *tails[op],
        NODE("Conv", ["u", "last"], ["y"]),
        free="N",
        last=np.ones((2, width, 1, 1), np.float32),
        **values[op],
    )
    onnxprune.prune(model, ratio=0.5, round_to=1, compensate="none", measure=False)
    monkeypatch.setitem(OPERATORS, op, replace(OPERATORS[op], repair=None))
    with pytest.raises(onnxprune.OnnxPruneError):
        onnxprune.prune(model, ratio=0.5, round_to=1, compensate="none", measure=False)


@pytest.mark.parametrize("op", ["Relu", "Conv"])
def test_a_fact_that_is_wrong_is_found(op, monkeypatch):
    """What an operator gives is said to be zero for every input."""
    kernel = np.random.default_rng(2).standard_normal((6, 6, 1, 1)).astype(np.float32)
    tail = [NODE(op, ["r1", "k"][: 1 + (op == "Conv")], ["u"]), NODE("Conv", ["u", "last"], ["y"])]
    model = net(*tail, free="N", last=np.ones((2, 6, 1, 1), np.float32), **({"k": kernel} if op == "Conv" else {}))
    onnxprune.prune(model, lossless=True, measure=False)
    silent = replace(OPERATORS[op], bound=lambda site: zero_where(site, np.ones((1,) * len(site.shapes[0]), bool)))
    monkeypatch.setitem(OPERATORS, op, silent)
    with pytest.raises(CheckFailed):
        onnxprune.prune(model, lossless=True, measure=False)


def test_what_is_run_is_told_with_its_size():
    model = conv_net()
    seen = explored(make_session(model), stimuli(model))
    assert [told(t.feed) for t in seen.runs][:3] == ["x:1x3x8x8"] * 3
    given = replace(stimuli(model), data=({"x": np.ones((4, 3, 8, 8), np.float32)},))
    assert str(explored(make_session(model), given).runs[-1]) == "x:4x3x8x8 (your data)"


def test_sizes_without_elements_are_not_run():
    """onnxruntime may crash on them, and nothing is to be learned there."""
    nodes = [
        NODE("Shape", ["x"], ["s"], start=2, end=3),
        NODE("Div", ["s", "eight"], ["d"]),
        NODE("Squeeze", ["d"], ["count"]),
        NODE("Range", ["zero", "count", "one"], ["rows"]),
        NODE("Gather", ["x", "rows"], ["g"], axis=2),
        NODE("Max", ["d", "least"], ["height"]),
        NODE("Concat", ["start", "height", "width"], ["target"], axis=0),
        NODE("Reshape", ["g", "target"], ["r"]),
        NODE("Conv", ["r", "w"], ["y"]),
    ]
    numbers = {"eight": np.array([8]), "zero": np.array(0), "one": np.array(1), "least": np.array([1])}
    numbers |= {"start": np.array([1, 3]), "width": np.array([8])}
    arrays = numbers | {"w": np.ones((2, 3, 1, 1), np.float32)}
    model = build(nodes, [("x", FLOAT, [1, 3, "H", 8])], [("y", FLOAT, [1, 2, None, 8])], arrays)
    empties = partial(runs_out, infer(model, {"x": (1, 3, 16, 8)}))
    assert empties({"x": (1, 3, 5, 8)})
    assert not empties({"x": (1, 3, 37, 8)})
    seen = explored(make_session(model), replace(stimuli(model, (1, 3, 16, 8)), empties=empties))
    heights = {t.feed["x"].shape[2] for t in seen.runs}
    assert min(heights) == 16 < max(heights)
    assert any("without elements" in words for words in seen.skipped)


@pytest.mark.parametrize("wrong", [False, True])
def test_rounding_beside_chaos_is_judged_part_by_part(wrong):
    """One run that rounding explains, and one that says nothing: the parts decide, and find what is wrong."""
    masked, pruned = masked_and_pruned(conv_net(), DEAD)
    if wrong:
        weights = numpy_helper.to_array(pruned.graph.initializer[0]).copy()
        weights[0] *= 1.01
        pruned.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights, pruned.graph.initializer[0].name))
    one, two = Variant(masked), Variant(pruned)
    view = _View(one, two, find_taps(masked), partial(make_session, providers="cpu", threads=1), None, None, False)
    trials = explored(make_session(masked), stimuli(masked)).runs
    name = masked.graph.output[0].name
    failed = [
        Check(name, 5e-5, 3e-5, False, False, where=str(trials[0])),
        Check(name, 7.0, 0.05, False, False, where=str(trials[1]), noisy=True),
    ]
    assert all(c.passed for c in _second_opinion(view, _Way((), trials), failed)) is not wrong


def looped(body: str, head: str) -> onnx.ModelProto:
    """A state x (2, 3) that goes through a body in a number of rounds and under flags that are inputs."""
    nodes = f"""
        y = Loop(m, flag, x) <body = l (int64 i, bool go, float[2,3] s1) => (bool on, float[2,3] s2) {{
            on = Identity(go)  {body} }}>"""
    graph = onnx.parser.parse_graph(f"g (float[2,3] x, {head}) => (float[2,3] y) {{ {nodes} }}")
    graph.initializer.append(numpy_helper.from_array(np.array(1), "one"))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("head", ["int64 m, bool flag", "bool flag, int64 m", "bool flag, bool other, int64 m"])
def test_a_fault_that_only_a_third_round_shows_is_found(head):
    """Flags and counts that are drawn apart would seldom let a loop go round so often."""
    right = looped("s2 = Tanh(s1)", head)
    late = "k = Greater(i, one)  f = Cast<to=1>(k)  t = Tanh(s1)  s2 = Add(t, f)"
    shapes = {s.name: s.shape for s in model_inputs(right)}
    for seed in range(4):
        given = Stimuli(model_inputs(right), shapes, seed)
        assert prove(right, right, given).passed
        assert not prove(right, looped(late, head), given).passed


def test_a_fault_that_only_flags_that_are_all_off_show_is_found():
    head = "float[2,3] x, bool a, bool b, bool c, bool d, bool e"
    nodes = "p = Or(a, b)  q = Or(c, d)  r = Or(p, q)  s = Or(r, e)  {}  f = Cast<to=1>(n)  y = Add(x, f)"
    one, two = (
        helper.make_model(
            onnx.parser.parse_graph(f"g ({head}) => (float[2,3] y) {{ {nodes.format(last)} }}"),
            opset_imports=[helper.make_opsetid("", 17)],
            ir_version=8,
        )
        for last in ("n = Not(s)", "n = Xor(s, s)")
    )
    given = Stimuli(model_inputs(one), {s.name: s.shape for s in model_inputs(one)})
    assert prove(one, one, given).passed
    assert not prove(one, two, given).passed


def test_an_index_of_two_rows_is_no_count():
    """What does not run with a larger one runs as it was drawn."""
    graph = onnx.parser.parse_graph("g (float[2,3] x, int64 k) => (float[3] y) { y = Gather(x, k) }")
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    seen = explored(make_session(model), Stimuli(model_inputs(model), {"x": (2, 3), "k": ()}))
    assert POSITIVE in {t.kind for t in seen.runs}
