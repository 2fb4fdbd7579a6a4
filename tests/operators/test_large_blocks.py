"""Reshapes of maps that are too large to follow position by position: groups of channels go as a whole."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxprune


def normalised(groups: int, channels: int, sizes: list[int | str]) -> onnx.ModelProto:
    """A convolution, a group normalisation as exporters wrote it before there was one operator, and another layer."""
    rng = np.random.default_rng(0)
    tensors = {
        "w": rng.normal(size=(channels, 3, 1, 1)), "v": rng.normal(size=(4, channels, 1, 1)),
        "one": np.ones(groups), "none": np.zeros(groups), "scale": rng.normal(size=(channels, 1, 1)),
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("Reshape", ["a", "split"], ["b"]),
        helper.make_node("InstanceNormalization", ["b", "one", "none"], ["c"]),
        helper.make_node("Shape", ["a"], ["shape"]),
        helper.make_node("Reshape", ["c", "shape"], ["d"]),
        helper.make_node("Mul", ["d", "scale"], ["e"]),
        helper.make_node("Conv", ["e", "v"], ["y"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "normalised",
        [value("x", TensorProto.FLOAT, sizes)], [value("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(a.astype(np.float32), name) for name, a in tensors.items()]
        + [numpy_helper.from_array(np.array([0, groups, -1]), "split")],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("sizes", [[1, 3, 400, 400], ["n", 3, "h", "w"]], ids=str)
def test_whole_groups_of_a_large_map_go(sizes: list[int | str]) -> None:
    result = onnxprune.prune(
        normalised(8, 32, sizes), ratio=0.5, round_to=1, input_shapes={"x": (1, 3, 400, 400)},
        compensate="none", measure=False,
    )  # fmt: skip
    assert result.report.proof
    (kept,) = [t for t in result.model.graph.initializer if t.name == "w"]
    assert kept.dims[0] == 16


def test_groups_across_channels_of_a_large_map_stay() -> None:
    found = onnxprune.inspect(normalised(6, 28, [1, 3, 414, 414]))
    assert [row.reason for row in found.frozen if row.layer == "a"] == [
        "b (Reshape) merges it into an axis of more positions than can be followed"
    ]
