"""Networks with an operator that onnxruntime lacks: without a proof, all that follows from the weights is cut."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import onnxprune

SHAPES = {"w1": (8, 3, 3, 3), "w2": (8, 8, 3, 3), "w3": (8, 8, 3, 3), "w4": (8, 8, 3, 3), "w5": (5, 8)}


def network(domain: str, size: int | None = None) -> onnx.ModelProto:
    """Two convolutions, an operator of a foreign domain (or a new standard one), two convolutions and a classifier."""
    rng, make = np.random.default_rng(0), helper.make_node
    nodes = [
        make("Conv", ["x", "w1"], ["a"], pads=[1] * 4),
        make("Relu", ["a"], ["ra"]),
        make("Conv", ["ra", "w2"], ["b"], pads=[1] * 4),
        make("Unheard", ["b"], ["c"], name="odd", domain=domain),
        make("Relu", ["c"], ["rc"]),
        make("Conv", ["rc", "w3"], ["d"], pads=[1] * 4),
        make("Relu", ["d"], ["rd"]),
        make("Conv", ["rd", "w4"], ["e"], pads=[1] * 4),
        make("GlobalAveragePool", ["e"], ["g"]),
        make("Flatten", ["g"], ["f"]),
        make("Gemm", ["f", "w5"], ["y"], transB=1),
    ]
    weights = [onnx.numpy_helper.from_array(rng.standard_normal(s).astype(np.float32), n) for n, s in SHAPES.items()]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", ["N", 3, 8, 8]), ("y", ["N", 5])))
    graph = helper.make_graph(nodes, "graph", [x], [y], weights)
    if size is not None:
        graph.value_info.append(helper.make_tensor_value_info("c", TensorProto.FLOAT, ["N", 8, size, size]))
    opsets = [helper.make_opsetid("", 17), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


@pytest.mark.parametrize("domain", ["", "foreign"])
@pytest.mark.parametrize("options", [{"ratio": 0.5}, {"target": "macs=0.5"}], ids=["ratio", "target"])
def test_what_follows_from_the_weights_is_cut(domain: str, options: dict[str, object]) -> None:
    result = onnxprune.prune(network(domain), verify=False, **options)
    cut = {g.name: g.kept for g in result.report.groups}
    assert cut.keys() == {"w1", "w3", "w4"}  # those of w2 are what the operator takes
    assert max(cut.values()) < 8
    kept = {t.name: tuple(t.dims) for t in result.model.graph.initializer}
    assert kept["w2"] == (8, cut["w1"], 3, 3)
    assert kept["w4"] == (cut["w4"], cut["w3"], 3, 3)


def test_the_sizes_behind_it_are_those_of_the_file() -> None:
    known, unknown = (onnxprune.prune(network("foreign", n), ratio=0.5, verify=False).report for n in (4, None))
    layer = 8 * 8 * 9
    assert unknown.before.macs - known.before.macs == 2 * layer * (8 * 8 - 4 * 4)


def test_with_a_proof_it_is_refused() -> None:
    with pytest.raises(onnxprune.ModelError, match="verify=False"):
        onnxprune.prune(network("foreign"), ratio=0.5)


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_a_weight_that_is_no_number_is_named(number: float) -> None:
    rng = np.random.default_rng(0)
    weights = {"w1": rng.standard_normal((8, 4)), "w2": rng.standard_normal((4, 8))}
    weights["w2"][:, 3:] = number  # of channels that stay, too
    nodes = [
        helper.make_node("Gemm", ["x", "w1"], ["a"], transB=1),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("Gemm", ["r", "w2"], ["y"], transB=1),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 4]) for n in "xy"]
    tensors = [onnx.numpy_helper.from_array(w.astype(np.float32), n) for n, w in weights.items()]
    graph = helper.make_graph(nodes, "graph", ends[:1], ends[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(onnxprune.CheckFailed, match="the file has NaN or infinity in 'w2'"):
        onnxprune.prune(model, ratio=0.5, method="l2", compensate="none")
