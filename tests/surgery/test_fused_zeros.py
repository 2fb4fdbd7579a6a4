"""Layers with a fused activation make zeros where the activation does, which sums over channels rely on."""

from typing import Any

import onnx
import pytest
from onnx import helper
from other_sizes import assert_same, masked
from planted import Net

import onnxprune

WIDTH = 16
ZERO = [{}, {"activation": "Relu"}, {"activation": "Clip", "activation_params": [0.0, 6.0]}]
OTHER = [{"activation": "Sigmoid"}, {"activation": "Clip", "activation_params": [0.5, 6.0]}]


def model_of(net: Net, y: str) -> onnx.ModelProto:
    model = net.model(y, 3, 9, 9)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model


def fused(net: Net, x: str, read: int, added: str = "", **activation: Any) -> str:
    w, b = net.tensor(net.filters(WIDTH, read, 3, 3)), net.tensor(net.filters(WIDTH))
    given = [w, b, *[added] * bool(added)]
    return net.op("FusedConv", x, *given, pads=[1] * 4, **activation, domain="com.microsoft")


def attended(net: Net, y: str) -> str:
    """Efficient channel attention, in layers as onnxruntime fuses them."""
    pooled = net.op("Unsqueeze", net.op("ReduceMean", y, net.ints(2, 3), keepdims=0), net.ints(1))
    kernel = net.tensor(net.filters(1, 1, 3))
    gate = net.op("FusedConv", pooled, kernel, pads=[1, 1], activation="Sigmoid", domain="com.microsoft")
    gate = net.op("Unsqueeze", net.op("Squeeze", gate, net.ints(1)), net.ints(2, 3))
    return net.conv(net.op("Mul", y, gate), WIDTH, 5)


def summed(net: Net, y: str) -> str:
    return net.op("ReduceSum", y, net.ints(1), keepdims=1)


def one(net: Net, **activation: Any) -> str:
    return fused(net, "x", 3, **activation)


def residual(net: Net, **activation: Any) -> str:
    y = net.op("Relu", net.conv("x", 3, WIDTH, 3, pads=[1] * 4))
    return fused(net, y, WIDTH, y, **activation)


def shifted(net: Net, **activation: Any) -> str:
    """What is added is not zero."""
    y = net.op("Sigmoid", net.conv("x", 3, WIDTH, 3, pads=[1] * 4))
    return fused(net, y, WIDTH, y, **activation)


def cut(body: Any, tail: Any, activation: dict[str, Any]) -> tuple[onnx.ModelProto, Any]:
    net = Net(5)
    model = model_of(net, tail(net, body(net, **activation)))
    return model, onnxprune.prune(model, ratio=0.5, compensate="none", round_to=1, measure=False)


@pytest.mark.parametrize("tail", [attended, summed])
@pytest.mark.parametrize("body", [one, residual])
@pytest.mark.parametrize("activation", ZERO, ids=str)
def test_channels_of_fused_layers_go_where_zeros_stay_zero(body: Any, tail: Any, activation: dict[str, Any]) -> None:
    model, result = cut(body, tail, activation)
    assert result.report.after.macs < 0.6 * result.report.before.macs
    assert not result.report.approximated
    assert_same(masked(model, result.plan.to_json(), result.model), result.model, [{"n": 2}, {"n": 3}])


@pytest.mark.parametrize("tail", [attended, summed])
@pytest.mark.parametrize(("body", "activation"), [*((one, a) for a in OTHER), *((shifted, a) for a in ZERO)])
def test_channels_of_fused_layers_stay_where_zeros_do_not(body: Any, tail: Any, activation: dict[str, Any]) -> None:
    assert not cut(body, tail, activation)[1].report.changed


@pytest.mark.parametrize(("activation", "goes"), [("Relu", True), ("Sigmoid", False)])
def test_fused_products_tell_sums_of_their_zeros(activation: str, goes: bool) -> None:
    net = Net(5)
    pooled = net.op("Flatten", net.op("GlobalAveragePool", "x"))
    w, b = net.tensor(net.filters(3, WIDTH)), net.tensor(net.filters(WIDTH))
    y = net.op("FusedGemm", pooled, w, b, activation=activation, domain="com.microsoft")
    model = model_of(net, net.op("ReduceSum", y, net.ints(1), keepdims=1))
    result = onnxprune.prune(model, ratio=0.5, compensate="none", round_to=1, measure=False)
    assert result.report.changed == goes
