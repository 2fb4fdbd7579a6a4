"""The drift of outputs that trial runs are scaled by."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune.model.network import Network
from onnxprune.surgery.recovery import loss_curves
from onnxprune.surgery.recovery.layer_graph import LayerGraph
from onnxprune.surgery.recovery.loss_curves import Drift


def scaled(factor: float, width: int) -> onnx.ModelProto:
    """One sample at a time, repeated: as many outputs as are wanted."""
    value = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Mul", ["x", "factor"], ["z"]),
        helper.make_node("Expand", ["z", "shape"], ["y"]),
    ]
    tensors = [
        numpy_helper.from_array(np.float32(factor), "factor"),
        numpy_helper.from_array(np.array([1, width, 4]), "shape"),
    ]
    ends = value("x", TensorProto.FLOAT, (1, 1, 4)), value("y", TensorProto.FLOAT, (1, width, 4))
    graph = helper.make_graph(nodes, "g", [ends[0]], [ends[1]], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("width", [1, 9, 600], ids=["few numbers", "some", "more than are told apart"])
@pytest.mark.parametrize("samples", [3, 40])
def test_outputs_of_single_samples_are_compared_with_their_own(
    width: int, samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss_curves, "ENOUGH", 1 << 10)
    rng = np.random.default_rng(0)
    feeds = [{"x": rng.standard_normal((1, 1, 4)).astype(np.float32)} for _ in range(samples)]
    drift = Drift(LayerGraph.of(scaled(1, width), unpacked=True), feeds, 1.0)
    assert drift(Network.of(scaled(1, width))) == 0
    assert drift(Network.of(scaled(0.5, width))) == pytest.approx(0.25, rel=0.5)
