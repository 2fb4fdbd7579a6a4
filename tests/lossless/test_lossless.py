"""Lossless pruning: what is planted goes, all else stays, and the output is that of the original."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper, parser
from planted import CLOSE, Net, gone, lossless
from text_graphs import build

import onnxprune
from onnxprune.channels import analyse
from onnxprune.lossless import redundancy
from onnxprune.lossless.conditions import Conditions
from onnxprune.lossless.propagate import Knowledge
from onnxprune.model.network import Network

# --- constants ---------------------------------------------------------------

ACTIVATIONS: dict[str, dict[str, Any]] = {
    "LeakyRelu": {"alpha": 0.2},
    "Celu": {"alpha": 0.7},
    "ThresholdedRelu": {"alpha": 0.1},
}
PLAIN = "Relu Sigmoid Tanh HardSwish Gelu Elu Mish Softplus HardSigmoid Exp Sqrt Selu Abs Neg Floor Reciprocal Sin Cos"
PLAIN += " Tan Sinh Cosh Asinh Atan"


@pytest.mark.parametrize("activation", [*PLAIN.split(), "Softsign", "Erf", *ACTIVATIONS])
def test_a_constant_behind_an_activation_moves_into_the_bias(activation: str) -> None:
    net = Net()
    y = (
        net.op("Abs", net.conv("x", 3, 8, 3, zero=(1, 3, 6)))
        if activation == "Sqrt"
        else net.conv("x", 3, 8, zero=(1, 3, 6))
    )
    y = net.op(activation, y, **ACTIVATIONS.get(activation, {}))
    found, small, error = lossless(net.model(net.conv(y, 8, 5, 3, bias=False), 3, 9, 9))
    assert gone(found, "dead") == gone(found) == 3
    assert error < CLOSE
    reader = small.graph.node[-1]
    assert len(reader.input) == 3
    assert any(v for v in (t for t in small.graph.initializer if t.name == reader.input[2]))


def pooled(net: Net, y: str) -> str:
    return net.op("MaxPool", net.op("AveragePool", y, kernel_shape=[2, 2]), kernel_shape=[2, 2])


def clipped(net: Net, y: str) -> str:
    return net.op("Clip", y, net.tensor(np.array(0.3)), net.tensor(np.array(0.6)))


def scaled(net: Net, y: str) -> str:
    y = net.op("Mul", y, net.tensor(net.filters(8, 1, 1)))
    return net.op("Sub", net.op("Add", y, net.tensor(net.filters(1, 8, 1, 1))), net.tensor(np.array(0.5)))


def normalised(net: Net, y: str) -> str:
    numbers = [net.tensor(net.filters(8, low=low)) for low in (0.5, -0.5, -0.5, 0.5)]
    return net.op("BatchNormalization", y, *numbers)


def instance(net: Net, y: str) -> str:
    return net.op("InstanceNormalization", y, *(net.tensor(net.filters(8, low=low)) for low in (0.5, -0.5)))


def swish(net: Net, y: str) -> str:
    return net.op("Mul", y, net.op("Sigmoid", y))


def slopes(net: Net, y: str) -> str:
    return net.op("PRelu", net.op("Neg", y), net.tensor(net.filters(8, 1, 1, low=0.1)))


def resized(net: Net, y: str) -> str:
    return net.op("Resize", y, "", net.tensor(np.array([1, 1, 2, 2])), mode="linear")


def reflected(net: Net, y: str) -> str:
    pads = numpy_helper.from_array(np.array([0, 0, 1, 1, 0, 0, 1, 1]), "pads")
    net.tensors.append(pads)
    return net.op("Pad", y, "pads", mode="reflect")


def summed(net: Net, y: str) -> str:
    return net.op("Max", net.op("Sum", y, net.op("Relu", y)), net.op("Min", y, net.op("Tanh", y)))


@pytest.mark.parametrize(
    "way", [pooled, clipped, scaled, normalised, instance, swish, slopes, resized, reflected, summed]
)
def test_a_constant_is_followed_through(way: Callable[[Net, str], str]) -> None:
    net = Net(1)
    y = way(net, net.conv("x", 3, 8, zero=(0, 5)))
    found, _, error = lossless(net.model(net.conv(y, 8, 5, 3), 3, 12, 12))
    assert gone(found, "dead") == gone(found) == 2
    assert error < 5 * CLOSE  # norms of single maps amplify rounding


def test_at_a_padded_border_only_zeros_go_and_the_other_constants_become_one() -> None:
    """Zero filters with biases b and −b behind a Relu: b meets the padding, 0 does not."""
    net = Net(2)
    w = net.tensor(net.filters(8, 3, 1, 1, zero=(1, 3, 4, 6)))
    b = net.tensor(np.array([1, 0.5, 1, 0.7, -0.2, 1, -0.3, 1]))
    y = net.op("Relu", net.op("Conv", "x", w, b))
    found, small, error = lossless(net.model(net.conv(y, 8, 5, 3, pads=[1] * 4), 3, 9, 9))
    assert found.removed == {"t0": {"dead": 2, "duplicate": 1}}
    assert error < CLOSE
    assert next(t for t in small.graph.initializer if t.name == "t0").dims[0] == 5


def test_a_relu_that_never_opens_is_dead() -> None:
    """Behind a Relu, filters without a positive weight and with a bias below zero; one that just opens stays."""
    net = Net(3)
    y = net.op("Relu", net.conv("x", 3, 6))
    w, b = net.filters(8, 6, 3, 3), net.filters(8, low=0.1)
    w[[2, 7]], b[[2, 7]] = -np.abs(w[[2, 7]]), [-0.1, 0.001]
    y = net.op("Relu", net.op("Conv", y, net.tensor(w, "two"), net.tensor(b)))
    found, _, error = lossless(net.model(net.conv(y, 8, 5, 3, pads=[1] * 4), 3, 9, 9))
    assert {k: v for k, v in found.removed.items() if k.startswith("two")} == {"two2": {"dead": 1}}
    assert error < CLOSE


def test_norms_with_a_factor_of_zero() -> None:
    """Network slimming leaves γ = 0 behind: the channel is β, whatever its filter is."""
    net = Net(4)
    gamma, rest = net.filters(8, low=0.5), [net.filters(8, low=low) for low in (-0.5, -0.5, 0.5)]
    gamma[[0, 2, 5]] = 0
    y = net.conv(net.op("Relu", net.conv("x", 3, 6)), 6, 8, 3, pads=[1] * 4, bias=False)
    y = net.op("BatchNormalization", y, *(net.tensor(a) for a in (gamma, *rest)))
    found, _, error = lossless(net.model(net.conv(net.op("Relu", y), 8, 5, 3), 3, 9, 9))
    assert gone(found, "dead") == gone(found) == 3
    assert error < CLOSE


def test_layer_scale_of_zero() -> None:
    net = Net(5)
    factor = net.filters(8)
    factor[[1, 4]] = 0
    y = net.op("Mul", net.op("MatMul", "x", net.tensor(net.filters(6, 8))), net.tensor(factor))
    found, small, error = lossless(net.model(net.op("MatMul", y, net.tensor(net.filters(8, 5))), 4, 6))
    assert gone(found, "dead") == 2
    assert error < CLOSE
    assert [n.op_type for n in small.graph.node] == ["MatMul", "Mul", "MatMul"]  # zeros need no bias


def test_a_product_without_a_bias_gets_one() -> None:
    net = Net(6)
    w = net.filters(6, 8)
    w[:, [1, 4]] = 0
    y = net.op("Sigmoid", net.op("MatMul", "x", net.tensor(w)))
    found, small, error = lossless(net.model(net.op("MatMul", y, net.tensor(net.filters(8, 5))), 4, 6))
    assert gone(found, "dead") == 2
    assert error < CLOSE
    assert [n.op_type for n in small.graph.node] == ["MatMul", "Sigmoid", "MatMul", "Add"]


def test_a_bias_that_two_layers_share_is_copied() -> None:
    net = Net(7)
    shared = net.tensor(net.filters(5, low=0.1))
    y = net.op("Relu", net.conv("x", 3, 8, zero=(1, 3)))
    a = net.op("Conv", y, net.tensor(net.filters(5, 8, 1, 1)), shared)
    b = net.op("Conv", net.op("Sigmoid", y), net.tensor(net.filters(5, 8, 1, 1)), shared)
    found, _, error = lossless(net.model(net.op("Add", a, b), 3, 9, 9))
    assert gone(found, "dead") == 2
    assert error < CLOSE


def test_a_bias_may_stand_in_a_norm_or_in_an_addition() -> None:
    for seed in range(3):
        net = Net(20 + seed)
        y = net.conv(net.op("Relu", net.conv("x", 3, 8, zero=(1, 3))), 8, 8, bias=False)
        y = normalised(net, y) if seed else net.op("Add", y, net.tensor(net.filters(8, 1, 1)))
        found, small, error = lossless(net.model(y, 3, 9, 9))
        assert gone(found, "dead") == 2
        assert error < CLOSE
        assert len(small.graph.node[2].input) == 2  # no other bias was made


# --- structures --------------------------------------------------------------


@pytest.mark.parametrize(("second", "goes"), [((1, 3), 2), ((1,), 1), ((), 0)])
def test_a_residual_stream_is_dead_where_all_of_its_writers_are(second: tuple[int, ...], goes: int) -> None:
    net = Net(8)
    x = net.op("Relu", net.conv("x", 3, 8, zero=(1, 3)))
    y = net.op("Relu", net.conv(x, 8, 6))
    y = net.op("Add", x, net.conv(y, 6, 8, zero=second))
    y = net.op("Relu", net.conv(y, 8, 8))
    found, _, error = lossless(net.model(net.conv(y, 8, 5, 3), 3, 9, 9))
    assert gone(found, "dead") == gone(found) == goes
    assert error < CLOSE


def test_parts_of_a_concat_go_by_themselves() -> None:
    net = Net(9)
    parts = [net.op("Relu", net.conv("x", 3, 8, zero=zero)) for zero in ((0, 1), (), (7,))]
    y = net.op("Concat", *parts, axis=1)
    found, _, error = lossless(net.model(net.conv(y, 24, 5, 3), 3, 9, 9))
    assert found.removed == {"w0": {"dead": 2}, "w4": {"dead": 1}}
    assert error < CLOSE


def test_a_depthwise_filter_of_zeros_takes_its_channel_along() -> None:
    """And the channels upstream that only it has read; its own bias moves on."""
    net = Net(10)
    y = net.op("Relu", net.conv("x", 3, 8, 3))
    depth = net.tensor(net.filters(8, 1, 3, 3, zero=(2, 5)))
    y = net.op("Conv", y, depth, net.tensor(net.filters(8, low=0.2)), group=8, pads=[1] * 4)
    found, small, error = lossless(net.model(net.conv(net.op("Relu", y), 8, 5), 3, 9, 9))
    assert gone(found, "dead") == gone(found) == 2
    assert error < CLOSE
    assert next(a.i for a in small.graph.node[2].attribute if a.name == "group") == 6


def test_a_constant_is_spread_over_the_features_of_a_flattened_map() -> None:
    net = Net(11)
    y = net.op("Flatten", net.op("MaxPool", net.op("Relu", net.conv("x", 3, 8, zero=(1, 3))), kernel_shape=[2, 2]))
    y = net.op("Gemm", y, net.tensor(net.filters(6, 8 * 64)), transB=1, alpha=0.5)
    found, small, error = lossless(net.model(y, 3, 9, 9))
    assert gone(found, "dead") == 2
    assert error < CLOSE
    assert next(t for t in small.graph.initializer if t.name == "t2").dims == [6, 6 * 64]


def test_grouped_and_transposed_readers() -> None:
    """Channels 1 and 5 go together; a transposed convolution sees a constant oftener at some places."""
    for kind, goes in (("Conv", 1), ("ConvTranspose", 0)):
        net = Net(12)
        y = net.op("Sigmoid", net.conv("x", 3, 8, zero=(1, 5)))
        y = net.op(kind, y, net.tensor(net.filters(8, 2 if kind == "ConvTranspose" else 4, 3, 3)), group=2)
        found, _, error = lossless(net.model(y, 3, 9, 9))
        assert gone(found, "dead") == goes
        assert error < CLOSE


def test_recurrent_units_of_zeros() -> None:
    net = Net(13)
    w, r, b = net.filters(1, 32, 6), net.filters(1, 32, 8), net.filters(1, 64)
    for array in (w, r, b):
        array.reshape(-1, 8, array.shape[2] if array.ndim == 3 else 1)[:, [2, 6]] = 0
    y = net.op("LSTM", "x", net.tensor(w), net.tensor(r), net.tensor(b), hidden_size=8)
    y = net.op("MatMul", y, net.tensor(net.filters(8, 5)))
    found, small, error = lossless(net.model(y, 2, 6))
    assert gone(found) == 2
    assert error < CLOSE
    assert next(a.i for a in small.graph.node[0].attribute if a.name == "hidden_size") == 6


@pytest.mark.parametrize(("kind", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
@pytest.mark.parametrize("directions", [1, 2])
def test_copies_of_recurrent_units(kind: str, gates: int, directions: int) -> None:
    """Also copies in what the gates read."""
    net = Net(24)
    w, r = net.filters(directions, gates * 8, 6), net.filters(directions, gates * 8, 8)
    b = net.filters(directions, 2 * gates * 8)
    for array in (w, r, b):
        grid = array.reshape(-1, 8, array.shape[2] if array.ndim == 3 else 1)
        grid[:, [5, 6]] = grid[:, [1, 3]]
    first = net.filters(4, 6)
    first[:, 2] = first[:, 4]
    way = "bidirectional" if directions == 2 else "forward"
    y = net.op("MatMul", "x", net.tensor(first))
    y = net.op(kind, y, net.tensor(w), net.tensor(r), net.tensor(b), hidden_size=8, direction=way)
    y = net.op("MatMul", y, net.tensor(net.filters(8, 5)))
    found, small, error = lossless(net.model(y, 2, 4))
    assert sorted(found.removed.values(), key=str) == [{"duplicate": 1}, {"duplicate": 2}]
    assert error < CLOSE
    assert next(a.i for a in small.graph.node[1].attribute if a.name == "hidden_size") == 6


# --- what nobody reads, and copies -------------------------------------------


def test_what_no_reader_weighs_goes_and_what_only_fed_it_too() -> None:
    net = Net(14)
    y = net.op("Relu", net.conv("x", 3, 8, 3))
    middle = net.filters(6, 8, 1, 1)
    middle[:4, 2] = 0  # channel 2 feeds only channels 4 and 5, which nobody reads
    y = net.op("Sigmoid", net.op("Conv", y, net.tensor(middle), net.tensor(net.filters(6))))
    last = net.filters(5, 6, 3, 3)
    last[:, [4, 5]] = 0
    found, _, error = lossless(net.model(net.op("Conv", y, net.tensor(last), pads=[1] * 4), 3, 9, 9))
    assert found.removed == {"w0": {"ignored": 1}, "t2": {"ignored": 2}}
    assert found.rounds == 2
    assert error < CLOSE


@pytest.mark.parametrize(
    ("activation", "scale", "goes"),
    [("Relu", 1, 2), ("Relu", 0.3, 2), ("Sigmoid", 1, 2), ("Sigmoid", 0.3, 0), ("Relu", -1, 0)],
)
def test_copies_and_where_they_may_be_multiples(activation: str, scale: float, goes: int) -> None:
    net = Net(15)
    w, b = net.filters(8, 3, 3, 3), net.filters(8)
    w[[3, 7]], b[[3, 7]] = np.float32(scale) * w[[0, 4]], np.float32(scale) * b[[0, 4]]
    y = net.op(activation, net.op("Conv", "x", net.tensor(w), net.tensor(b)))
    found, _, error = lossless(net.model(net.conv(y, 8, 5, 3, pads=[1] * 4), 3, 9, 9))
    assert gone(found, "duplicate") == gone(found) == goes
    assert error < CLOSE
    if goes:
        assert found.kept["t0"].tolist() == [0, 1, 2, 4, 5, 6]


def test_copies_behind_weights_that_are_turned_first() -> None:
    """Exporters leave Transpose and Squeeze between a tensor of the file and its layer."""
    net = Net(23)
    w = net.filters(8, 3, 1, 1)
    w[5] = 2 * w[1]
    y = net.op("Relu", net.op("Conv", "x", net.tensor(w)))
    last = net.op("Transpose", net.op("Squeeze", net.tensor(net.filters(8, 1, 5)), net.ints(1)), perm=[1, 0])
    y = net.op("Gemm", net.op("Flatten", net.op("GlobalMaxPool", y)), last, transB=1)
    found, _, error = lossless(net.model(y, 3, 9, 9))
    assert found.removed == {"t0": {"duplicate": 1}}
    assert error < CLOSE


def test_copies_lead_to_copies_downstream() -> None:
    """Filters that differ only in how they share two copies out are copies once these are one."""
    net = Net(16)
    w = net.filters(8, 3, 3, 3)
    w[1] = w[0]
    y = net.op("Relu", net.op("Conv", "x", net.tensor(w)))
    second = net.filters(6, 8, 1, 1)
    second[4] = second[2]
    second[4, :2] = second[2, 1::-1]
    y = net.op("Tanh", net.op("Conv", y, net.tensor(second), pads=[0] * 4))
    found, _, error = lossless(net.model(net.conv(y, 6, 5, 3), 3, 9, 9))
    assert found.removed == {"t0": {"duplicate": 1}, "t1": {"duplicate": 1}}
    assert error < CLOSE


def test_copies_of_a_stream_have_to_be_copies_in_all_that_writes_it() -> None:
    for both, goes in ((True, 1), (False, 0)):
        net = Net(17)
        a, b = net.filters(8, 3, 1, 1), net.filters(8, 3, 1, 1)
        a[5] = a[2]
        b[5] = b[2] if both else b[5]
        y = net.op("Add", *(net.op("Conv", "x", net.tensor(w)) for w in (a, b)))
        found, _, error = lossless(net.model(net.conv(net.op("Gelu", y), 8, 5, 3), 3, 9, 9))
        assert gone(found) == gone(found, "duplicate") == goes
        assert error < CLOSE


# --- limits ------------------------------------------------------------------


def test_a_group_keeps_a_channel() -> None:
    net = Net(18)
    a = net.op("Relu", net.conv("x", 3, 4, zero=(0, 1, 2, 3)))
    b = net.op("Relu", net.conv("x", 3, 4))
    found, small, error = lossless(net.model(net.conv(net.op("Concat", a, b, axis=1), 8, 5, 3), 3, 9, 9))
    assert found.removed == {"w0": {"dead": 3}}
    assert error < CLOSE
    assert small.graph.node[0].op_type == "Conv"


@pytest.mark.parametrize(
    ("options", "goes"),
    [({"multiple": 4}, 4), ({"share": 0.25}, 2), ({"stays": {"w0": [1]}}, 4), ({"stays": {"w0": range(8)}}, 0)],
)
def test_counts_that_are_asked_for(options: dict, goes: int) -> None:
    net = Net(19)
    y = net.op("Relu", net.conv("x", 3, 8, zero=(1, 2, 3, 5, 6)))
    found, _, error = lossless(net.model(net.conv(y, 8, 5, 3), 3, 9, 9), **options)
    assert gone(found) == goes
    assert error < CLOSE


def test_weights_that_a_caller_may_replace_are_not_relied_on() -> None:
    net = Net(21)
    model = net.model(net.conv(net.op("Relu", net.conv("x", 3, 8, zero=(1, 3))), 8, 5, 3), 3, 9, 9)
    first = model.graph.initializer[0]
    model.graph.input.append(helper.make_tensor_value_info(first.name, 1, first.dims))
    assert not redundancy(Network.of(model), analyse(model), analyse=analyse).kept


@pytest.mark.parametrize("domain", ["", "com.microsoft"])
def test_constants_pass_a_quantiser_of_either_domain(domain: str) -> None:
    net = Net()
    y, step = net.conv("x", 3, 8, zero=(1, 3, 6)), net.tensor(np.array(0.05))
    net.tensors.append(numpy_helper.from_array(np.array(128, np.uint8), "zero"))
    for op in ("QuantizeLinear", "DequantizeLinear"):
        y = net.op(op, y, step, "zero")
    model = net.model(net.conv(y, 8, 5, 3, bias=False), 3, 9, 9)
    for node in model.graph.node[1:3]:
        node.domain = domain
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    found, _, error = lossless(model)
    assert gone(found, "dead") == gone(found) == 3
    assert error < CLOSE


def test_zeros_go_from_norms_by_the_mean_of_squares() -> None:
    net = Net()
    y = net.op("Relu", net.op("MatMul", "x", net.tensor(net.filters(6, 8) * (np.arange(8) % 2))))
    y = net.op("RMSNormalization", y, net.tensor(net.filters(8, low=0.5)))
    found, _, error = lossless(net.model(net.op("MatMul", y, net.tensor(net.filters(8, 4))), 5, 6, opset=23))
    assert gone(found) == 4
    assert error < CLOSE


def test_zeros_go_from_a_local_response_normalisation() -> None:
    """One that is another constant, or that no layer reads, stays: its neighbours are divided by something of it."""
    net = Net()
    shift = net.filters(8, low=0.5) * (1 - 2 * np.isin(np.arange(8), (1, 4)))
    y = net.op("Conv", "x", net.tensor(net.filters(8, 3, 3, 3, zero=(1, 4, 6))), net.tensor(shift))
    y = net.op("LRN", net.op("Relu", y), size=3)
    last = net.filters(5, 8, 3, 3) * (np.arange(8) != 2)[:, None, None]
    found, _, error = lossless(net.model(net.op("Conv", y, net.tensor(last)), 3, 9, 9))
    assert gone(found, "dead") == gone(found) == 2
    assert error < CLOSE


def test_a_reshape_that_loses_elements_is_refused_at_once() -> None:
    net = Net(4)
    y = net.op("Reshape", net.conv("x", 3, 8, zero=(0, 5)), net.ints(0, 8), allowzero=1)
    with pytest.raises(onnxprune.ModelError, match="cannot"):
        onnxprune.prune(net.model(y, 3, 12, 12), lossless=True, input_shapes={"x": (1, 3, 12, 12)}, measure=False)


def test_columns_of_integers_that_hold_their_zero_point_go() -> None:
    rng = np.random.default_rng(0)
    w, v = (rng.integers(100, 156, shape).astype(np.uint8) for shape in ((6, 8), (8, 4)))
    w[:, [1, 4]] = 128
    graph = parser.parse_graph("""
        g (float[N,6] x) => (float[N,4] y) {
            q = QuantizeLinear(x, s, z)  h = QLinearMatMul(q, s, z, w, s, wz, s2, z)
            o = QLinearMatMul(h, s2, z, v, s, wz, s2, z)  y = DequantizeLinear(o, s2, z) }
    """)
    steps = {"z": np.uint8(120), "wz": np.uint8(128), "s": np.float32(0.03), "s2": np.float32(0.05)}
    tensors = {"w": w, "v": v} | steps
    graph.initializer.extend(numpy_helper.from_array(np.asarray(a), name) for name, a in tensors.items())
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert onnxprune.prune(model, lossless=True, measure=False).report.removed == {"dead": 2}


def test_fused_activations_of_sums_are_followed() -> None:
    """Two units are dead, and two alike, in front of each of onnxruntime's fused layers."""
    rng = np.random.default_rng(1)
    w, u, v = (rng.normal(size=shape).astype(np.float32) for shape in ((6, 8), (8, 8), (8, 4)))
    b = np.abs(rng.normal(size=8)).astype(np.float32)
    w[:, [1, 4]], u[:, [0, 2]] = 0, 0
    w[:, 6], u[:, 6] = w[:, 5], u[:, 5]
    b[6] = b[5]
    nodes = [
        helper.make_node("FusedGemm", ["x", "w", "b"], ["h"], domain="com.microsoft", activation="Relu"),
        helper.make_node("MatMul", ["h", "u"], ["m"]),
        helper.make_node("BiasGelu", ["m", "b"], ["g"], domain="com.microsoft"),
        helper.make_node("MatMul", ["g", "v"], ["y"]),
    ]
    infos = [helper.make_tensor_value_info(n, 1, ["N", k]) for n, k in (("x", 6), ("y", 4))]
    tensors = [numpy_helper.from_array(a, n) for n, a in (("w", w), ("u", u), ("v", v), ("b", b))]
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    graph = helper.make_graph(nodes, "g", infos[:1], infos[1:], tensors)
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    assert onnxprune.prune(model, lossless=True, measure=False).report.removed == {"dead": 4, "duplicate": 2}


@pytest.mark.parametrize("where", ["initializer", "attribute"])
def test_weights_that_are_kept_without_their_zeros_stay_as_they_are(where: str) -> None:
    rng = np.random.default_rng(0)
    one, two = (rng.normal(size=s).astype(np.float32) for s in ((6, 8), (8, 4)))
    one[:, 3] = 0
    values = numpy_helper.from_array(rng.normal(size=5).astype(np.float32), "sparse" if where == "initializer" else "")
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(np.arange(5) * 9), [8, 8])
    nodes = "h = MatMul(x, one) r = Relu(h) s = MatMul(r, sparse) t = Tanh(h) u = Add(s, t) y = MatMul(u, two)"
    graph = parser.parse_graph(f"g (float[n,6] x) => (float[n,4] y) {{ {nodes} }}")
    graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in (("one", one), ("two", two)))
    if where == "initializer":
        graph.sparse_initializer.append(sparse)
    else:
        graph.node.insert(0, helper.make_node("Constant", [], ["sparse"], sparse_value=sparse))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    result = onnxprune.prune(model, lossless=True, measure=False)
    assert [t.values.name for t in result.model.graph.sparse_initializer] == ["sparse"] * (where == "initializer")


@pytest.mark.parametrize("groups", [1, 4])
def test_a_channel_that_a_kernel_slides_over_stays_unless_it_is_zero(groups: int) -> None:
    """Its neighbours have a part of it, though nobody else reads it."""
    net = Net()
    y = net.op("Relu", net.conv("x", 3, 8))
    pooled = net.op("Unsqueeze", net.op("ReduceMean", y, net.ints(2, 3), keepdims=0), net.ints(1))
    pooled = net.op("Concat", *[pooled] * groups, axis=1)
    slid = net.op("Conv", pooled, net.tensor(net.filters(groups, 1, 3)), pads=[1, 1], group=groups)
    gate = net.op("Sigmoid", net.op("ReduceSum", slid, net.ints(1), keepdims=0))
    gated = net.op("Mul", y, net.op("Unsqueeze", gate, net.ints(2, 3)))
    last = net.filters(5, 8, 3, 3)
    last[:, 2] = 0
    _, _, error = lossless(net.model(net.op("Conv", gated, net.tensor(last)), 3, 9, 9))
    assert error < CLOSE


@pytest.mark.parametrize("node", ["Conv(a)", "MatMul(a)", "Einsum(a, a)", "LSTM(a)"])
def test_a_node_that_makes_no_sense_needs_all_that_it_takes(node: str) -> None:
    model = build(f"a = Conv(x, w[8,3,1,1])  b = {node}  y = Relu(b)")
    deps = analyse(model)
    conditions = Conditions.of(Knowledge.of(Network.of(model), deps))
    taken = deps.component[deps.values["a"].axes[1]]
    assert conditions.needed[taken].all()
