"""The masked original: what is zero in quantised tables, in norms of weights, and where the network divides by it."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from runtime_models import build

import onnxprune

FLOAT, NODE = TensorProto.FLOAT, helper.make_node
CUT = {"ratio": 0.5, "round_to": 1, "compensate": "none", "measure": False}
RNG = np.random.default_rng(0)


def drawn(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def table_of_codes() -> onnx.ModelProto:
    """Scores between rows of a quantised table, whose zero is 114; nothing with weights reads its channels."""
    nodes = [
        NODE("Gather", ["codes", "x"], ["rows"]),
        NODE("DequantizeLinear", ["rows", "scale", "zero"], ["q"]),
        NODE("Transpose", ["q"], ["k"], perm=[0, 2, 1]),
        NODE("MatMul", ["q", "k"], ["y"]),
    ]
    codes = RNG.integers(0, 256, (20, 32)).astype(np.uint8)
    weights = {"codes": codes, "scale": np.float32(0.02), "zero": np.uint8(114)}
    return build(nodes, [("x", TensorProto.INT64, ["n", "t"])], [("y", FLOAT, ["n", "t", "t"])], weights)


def demodulated(reader: list[onnx.NodeProto]) -> onnx.ModelProto:
    """Channels divided by the norm of the filter that made them, without an epsilon, as generators do."""
    nodes = [
        NODE("Conv", ["x", "w1"], ["c1"], pads=[1] * 4),
        NODE("Relu", ["c1"], ["r1"]),
        NODE("Mul", ["w2", "w2"], ["squares"]),
        NODE("ReduceSum", ["squares", "inner"], ["sums"], keepdims=0),
        NODE("Sqrt", ["sums"], ["norms"]),
        NODE("Reshape", ["norms", "to"], ["n4"]),
        NODE("Mul", ["x0", "w2"], ["ws"]),
        NODE("Conv", ["r1", "ws"], ["c2"], pads=[1] * 4),
        NODE("Div", ["c2", "n4"], ["d"]),
        *reader,
    ]
    weights = {
        "w1": drawn(8, 3, 9, 9),  # large beside w2, of which the norm keeps a whole copy
        "w2": drawn(6, 8, 3, 3),
        "w3": drawn(4, 6, 1, 1),
        "inner": np.array([1, 2, 3]),
        "to": np.array([1, -1, 1, 1]),
        "channels": np.array([1]),
    }
    inputs = [("x", FLOAT, ["N", 3, "H", "W"]), ("x0", FLOAT, [1, 1, 1, 1])]
    return build(nodes, inputs, [("y", FLOAT, None)], weights)


def normed_table() -> onnx.ModelProto:
    """A LayerNorm of an initializer, whose channels are tied to those of a LayerNorm of values."""
    nodes = [
        NODE("LayerNormalization", ["table", "g"], ["t"], axis=-1),
        NODE("MatMul", ["t", "shared"], ["keys"]),
        NODE("MatMul", ["x", "first"], ["h"]),
        NODE("LayerNormalization", ["h", "g2"], ["n"], axis=-1),
        NODE("MatMul", ["n", "shared"], ["queries"]),
        NODE("Transpose", ["queries"], ["turned"], perm=[1, 0]),
        NODE("MatMul", ["keys", "turned"], ["y"]),
    ]
    weights = {"table": drawn(6, 16), "g": drawn(16), "g2": drawn(16), "first": drawn(8, 16), "shared": drawn(16, 12)}
    return build(nodes, [("x", FLOAT, ["N", 8])], [("y", FLOAT, [6, "N"])], weights)


def test_zero_in_a_quantised_table_is_its_zero_point():
    assert onnxprune.prune(table_of_codes(), **CUT).report.changed


@pytest.mark.parametrize(
    "reader",
    [[NODE("ReduceSum", ["d", "channels"], ["y"])], [NODE("Conv", ["d", "w3"], ["y"])]],
    ids=["sum", "convolution"],
)
def test_a_removed_channel_that_is_divided_by_nothing_adds_nothing(reader):
    report = onnxprune.prune(demodulated(reader), **CUT).report
    assert report.changed


def test_a_norm_of_weights_takes_its_statistics_over_the_channels_that_stay():
    report = onnxprune.prune(normed_table(), thaw=True, **CUT).report
    assert report.changed
    assert len(report.approximated) == 2
