"""Small models to run, with weights that are known."""

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

SHARED = Path(os.environ.get("ONNXPRUNE_SHARED", Path(__file__).parents[2] / "shared"))
needs_models = pytest.mark.skipif(not (SHARED / "models").is_dir(), reason="no folder ../shared/models here")
needs_data = pytest.mark.skipif(not (SHARED / "data").is_dir(), reason="no folder ../shared/data here")


def network(name: str) -> Path:
    return SHARED / "models" / f"{name}.onnx"


def build(nodes, inputs, outputs, weights=(), *, opset=17, ir=8) -> onnx.ModelProto:
    """A model from nodes, (name, element, shape) triples and arrays by name."""
    values = [[helper.make_tensor_value_info(*v) for v in group] for group in (inputs, outputs)]
    tensors = [numpy_helper.from_array(array, name) for name, array in dict(weights).items()]
    graph = helper.make_graph(list(nodes), "graph", *values, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)


def conv_net(channels=6, classes=4, seed=0, *, batch="N", size=8, tail=()) -> onnx.ModelProto:
    """Conv, Relu, Conv, Relu, mean, Gemm to `logits`; `tail` are the nodes after it, the last giving `out`."""
    rng = np.random.default_rng(seed)
    weights = {
        "w1": rng.standard_normal((channels, 3, 3, 3)).astype(np.float32),
        "b1": rng.standard_normal(channels).astype(np.float32),
        "w2": rng.standard_normal((5, channels, 3, 3)).astype(np.float32),
        "w3": rng.standard_normal((classes, 5)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], pads=[1] * 4),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], pads=[1] * 4),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("GlobalAveragePool", ["r2"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w3"], ["logits"], transB=1),
        *tail,
    ]
    out = tail[-1].output[0] if tail else "logits"
    inputs = [("x", TensorProto.FLOAT, [batch, 3, size, size])]
    return build(nodes, inputs, [(out, TensorProto.FLOAT, [batch, classes])], weights)


def with_weights(model: onnx.ModelProto, **arrays: np.ndarray) -> onnx.ModelProto:
    """A copy of the model with some initializers replaced, of any shape."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if tensor.name in arrays:
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(arrays[tensor.name]), tensor.name))
    return copy


def weight(model: onnx.ModelProto, name: str) -> np.ndarray:
    return next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == name).copy()


def masked_and_pruned(model: onnx.ModelProto, dead) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """`conv_net` without the channels `dead` of its first convolution: with zeros for them, and really cut."""
    w1, b1, w2 = (weight(model, n) for n in ("w1", "b1", "w2"))
    live = np.setdiff1d(np.arange(len(w1)), dead)
    zeroed = w2.copy()
    zeroed[:, dead] = 0
    return with_weights(model, w2=zeroed), with_weights(model, w1=w1[live], b1=b1[live], w2=w2[:, live])
