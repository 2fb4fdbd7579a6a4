"""Sequences whose elements are known are written out; others stay what they are."""

import numpy as np
import onnx
import pytest
from onnx import ModelProto
from other_sizes import run

from onnxprune import prune
from onnxprune.model.network import Network
from onnxprune.model.unsequenced import without_sequences
from onnxprune.operators.registry import operator_of

KNOWN = {  # of x, (2, 8, N), in opset 13
    "equal parts": "k = {3} s = SplitToSequence <axis = 1> (x, k) p = {2} y = SequenceAt (s, p)",
    "parts of given sizes": "k = {1, 5, 2} s = SplitToSequence <axis = -2> (x, k) p = {-1} y = SequenceAt (s, p)",
    "single positions": "s = SplitToSequence <axis = 1> (x) p = {0} y = SequenceAt (s, p)",
    "single positions without their axis": "s = SplitToSequence <axis = 1, keepdims = 0> (x) p = {3}"
    " y = SequenceAt (s, p)",
    "gathered again": "k = {4} s = SplitToSequence <axis = 1> (x, k) y = ConcatFromSequence <axis = 1> (s)",
    "stacked": "a = Relu (x) s = SequenceConstruct (x, a) y = ConcatFromSequence <axis = -1, new_axis = 1> (s)",
    "their number": "s = SplitToSequence <axis = 1> (x) n = SequenceLength (s) f = Cast <to = 1> (n) y = Mul (x, f)",
    "put in and taken out": "a = Relu (x) b = Neg (x) e = SequenceEmpty () s = SequenceInsert (e, x)"
    " t = SequenceInsert (s, a) p = {-1} u = SequenceInsert (t, b, p) o = {0} v = SequenceErase (u, o)"
    " w = SequenceErase (v) y = SequenceAt (w, o)",
}  # fmt: skip
LEFT = {
    "a place that the data says": "s = SplitToSequence <axis = 1> (x) m = ReduceMax <keepdims = 0> (x)"
    " c = Clip (m, lo, lo) p = Cast <to = 7> (c) y = SequenceAt (s, p)",
    "a length that is open": "s = SplitToSequence <axis = 2> (x) p = {0} y = SequenceAt (s, p)",
    "a size of one whose axis goes": "k = {1} s = SplitToSequence <axis = 1, keepdims = 0> (x, k) p = {0}"
    " y = SequenceAt (s, p)",
    "a name that is taken": "s = SplitToSequence <axis = 1> (x) p = {0} z = SequenceAt (s, p) y = Add (z, other)",
    "an element of a sequence that stays": "a = Relu (x) s = SequenceConstruct (x, a) t = SequenceInsert (s, x)"
    " m = ReduceMax <keepdims = 0> (x) c = Clip (m, lo, lo) p = Cast <to = 7> (c) y = SequenceAt (t, p)",
}


def model_of(text: str) -> ModelProto:
    """A model of x in onnx's text form, in which `{…}` are integers: one of them, or a list."""
    parts, tensors = text.split("{"), []
    for k, part in enumerate(parts[1:]):
        numbers = [int(n) for n in part.partition("}")[0].split(",")]
        array = np.array(numbers if len(numbers) > 1 else numbers[0])
        tensors.append(onnx.numpy_helper.from_array(array, f"ints{k}"))
        parts[k + 1] = f"Identity (ints{k}){part.partition('}')[2]}"
    graph = onnx.parser.parse_graph(f"g (float[2,8,N] x) => (float y) {{ {''.join(parts)} }}")
    graph.initializer.extend([*tensors, onnx.numpy_helper.from_array(np.array(1, np.float32), "lo")])
    graph.initializer.append(onnx.numpy_helper.from_array(np.array(1, np.float32), "s/1"))
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = {"other": "s/1"}.get(name, name)
    if not any("s/1" in node.input for node in graph.node):
        del graph.initializer[-1]
    graph.output[0].type.tensor_type.ClearField("shape")
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)


def same(model: ModelProto, other: ModelProto) -> None:
    x = np.random.default_rng(0).standard_normal((2, 8, 5)).astype(np.float32)
    np.testing.assert_array_equal(run(other, {"x": x})[0], run(model, {"x": x})[0])


@pytest.mark.parametrize("name", KNOWN)
def test_known_elements_stand_for_themselves(name: str) -> None:
    model = model_of(KNOWN[name])
    plain = without_sequences(Network.of(model)).proto()
    rows = [operator_of(node) for node in plain.graph.node]
    assert not any(row.elements or row.unsequenced for row in rows)
    same(model, plain)


@pytest.mark.parametrize("name", LEFT)
def test_what_is_not_known_stays(name: str) -> None:
    model = model_of(LEFT[name])
    network = Network.of(model)
    assert without_sequences(network) is network


@pytest.mark.parametrize("end", ["an output of the graph", "a body"])
def test_sequences_that_others_take_stay(end: str) -> None:
    model = model_of("s = SplitToSequence <axis = 1> (x) p = {0} y = SequenceAt (s, p)")
    if end == "a body":
        text = "b () => (z) { q = Constant <value_int = 1> () z = SequenceAt (s, q) }"
        body = onnx.parser.parse_graph(text.replace("(z)", "(float[2,1,N] z)", 1))
        model.graph.node.append(onnx.helper.make_node("If", ["yes"], ["v"], then_branch=body, else_branch=body))
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(True), "yes"))
    else:
        model.graph.output.append(onnx.helper.make_tensor_sequence_value_info("s", 1, [2, 1, None]))
    network = Network.of(model)
    assert without_sequences(network) is network


def test_channels_of_a_sequence_go() -> None:
    """A quarter of a map, another one, and all of it again, by way of a sequence."""
    model, rng = onnx.ModelProto(), np.random.default_rng(0)
    model.CopyFrom(
        model_of(
            "a = Conv (x, v) s = SplitToSequence <axis = 1> (a, k) p = {0} q = {2} b = SequenceAt (s, p)"
            " c = SequenceAt (s, q) d = Add (b, c) e = ConcatFromSequence <axis = 1> (s)"
            " f = Concat <axis = 1> (d, e) y = Conv (f, w)"
        )
    )
    arrays = {"k": np.array(8), "v": rng.standard_normal((32, 8, 1)), "w": rng.standard_normal((4, 40, 1))}
    types = {"i": np.int64, "f": np.float32}
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(x.astype(types[x.dtype.kind]), name) for name, x in arrays.items()
    )
    result = prune(model, ratio=0.5, round_to=1, compensate="none", measure=False, input_shapes={"x": (2, 8, 5)})
    assert [len(group.keep) for group in result.plan.groups] == [4, 4, 4]  # the first quarter goes with the third
    assert any("sequences" in note for note in result.report.notes)
