"""Branches that are written out in the main graph give what the If gave, and go by the keys of the analysis."""

import numpy as np
import onnx
import pytest
from onnx import GraphProto, ModelProto, helper, numpy_helper
from runtime_models import build

from onnxprune.channels.analysis import analyse
from onnxprune.model.network import Network
from onnxprune.runtime.session import make_session
from onnxprune.surgery.recovery.flattened import flattened
from onnxprune.surgery.recovery.unfused import alike, written_out

FLOAT, NODE = onnx.TensorProto.FLOAT, helper.make_node
SHAPE = (2, 3, 8, 8)


def branch(last: onnx.NodeProto, seed: int, shape: tuple[int, ...] = (), stem: str = "") -> GraphProto:
    """A layer of its own, with names that the other branch has, too, and then another node."""
    w = np.random.default_rng(seed).standard_normal((6, 8, 3, 3)).astype(np.float32)
    c, d, weights = stem + "c", stem + "d", stem + "w"
    nodes = [NODE("Conv", ["r", weights], [c], pads=[1] * 4), NODE("Relu", [c], [d])]
    if shape:
        nodes[0].input[0] = "q"
        nodes.insert(0, NODE("Reshape", ["r", "shape"], ["q"]))
    tensors = [numpy_helper.from_array(w, weights), numpy_helper.from_array(np.array(shape, np.int64), "shape")]
    outputs = [helper.make_tensor_value_info(last.output[0], FLOAT, None)]
    return helper.make_graph([*nodes, last], "branch", [], outputs, tensors[: 1 + bool(shape)])


def network(nested: bool = False, unfit: bool = False, batch: int | str = "N") -> ModelProto:
    """An If that goes by the mean of its input; `unfit`, its second branch takes another number of samples."""
    then = branch(NODE("Sigmoid", ["d"], ["out"]), 1)
    if nested:
        inner = (
            branch(NODE("Exp", ["in d"], ["deep"]), 3, stem="in "),
            branch(NODE("Add", ["in d", "around"], ["deep"]), 4, stem="in "),
        )
        then.node[-1].output[0] = "around"
        then.node.append(NODE("If", ["less"], ["out"], then_branch=inner[0], else_branch=inner[1]))
    other = branch(NODE("Neg", ["d"], ["out"]), 2, (3, 8, 8, 8) if unfit else ())
    nodes = [
        NODE("Conv", ["x", "w0"], ["c0"], pads=[1] * 4),
        NODE("Relu", ["c0"], ["r"]),
        NODE("ReduceMean", ["x"], ["mean"], keepdims=0),
        NODE("Less", ["mean", "zero"], ["less"]),
        NODE("If", ["less"], ["z"], then_branch=then, else_branch=other),
        NODE("Conv", ["z", "w1"], ["y"]),
    ]
    rng = np.random.default_rng(0)
    weights = {"w0": rng.standard_normal((8, 3, 3, 3)), "w1": rng.standard_normal((4, 6, 1, 1))}
    arrays = {name: array.astype(np.float32) for name, array in weights.items()} | {"zero": np.float32(0)}
    return build(nodes, [("x", FLOAT, [batch, 3, 8, 8])], [("y", FLOAT, None)], arrays)


@pytest.mark.parametrize("nested", [False, True])
def test_it_computes_the_same_and_its_groups_are_the_same(nested: bool) -> None:
    model = network(nested)
    feeds = [np.random.default_rng(k).standard_normal(SHAPE).astype(np.float32) for k in range(4)]
    flat = flattened(model, {"x": feeds[0]})
    assert len({float(x.mean()) < 0 for x in feeds}) == 2  # both branches are taken
    for x in feeds:
        one, two = (make_session(m).run({"x": x})["y"] for m in (model, flat))
        np.testing.assert_array_equal(one, two)
    before, after = (analyse(m, input_shapes={"x": SHAPE}) for m in (model, flat))
    assert alike(before, after)
    assert before.sources.keys() == after.sources.keys()
    assert not [k for k in after.sources if after.sources[k].path]
    assert sum(node.op_type == "Conv" for node in flat.graph.node) == 4 + 2 * nested


def test_a_fixed_number_of_samples_is_kept() -> None:
    feed = {"x": np.random.default_rng(0).standard_normal((6, *SHAPE[1:])).astype(np.float32)}
    flat = flattened(network(batch=6), feed)
    assert sum(node.op_type == "Conv" for node in flat.graph.node) == 4


def test_a_branch_that_does_not_run_on_the_samples_stays() -> None:
    model = network(unfit=True)
    x = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    x -= x.mean() + 1
    flat = flattened(model, {"x": x})
    inside = next(n for n in flat.graph.node if n.op_type == "If")
    layers = {a.name: sum(n.op_type == "Conv" for n in a.g.node) for a in inside.attribute}
    assert layers == {"then_branch": 0, "else_branch": 1}
    one, two = (make_session(m).run({"x": x})["y"] for m in (model, flat))
    np.testing.assert_array_equal(one, two)
    assert flattened(flat, {"x": x}) is flat


def test_without_layers_in_branches_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    for a in model.graph.node[4].attribute:
        a.g.CopyFrom(helper.make_graph([NODE("Relu", ["r"], [f"o{a.name}"])], a.name, [],
                                       [helper.make_tensor_value_info(f"o{a.name}", FLOAT, None)]))  # fmt: skip
    feed = {"x": np.zeros(SHAPE, np.float32)}
    assert flattened(model, feed) is model
    own, deps = Network.of(model), analyse(model, input_shapes={"x": SHAPE})
    monkeypatch.delattr(Network, "proto")  # nor is all of it put into one message to find that out
    assert written_out(own, deps, analyse, feed) == (own, deps)
