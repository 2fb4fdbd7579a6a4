"""Weights that the graph computes by statistics over weights: computed beforehand, so that their channels can go."""

import numpy as np
from law import run, waste
from patterns.builder import Net
from standardised import standardised_network

from onnxprune import apply, prune, verify
from onnxprune.model.network import Network
from onnxprune.pipeline.fold import folded
from onnxprune.surgery import Plan

X = {"x": np.random.default_rng(1).standard_normal((1, 3, 8, 8)).astype(np.float32)}


def test_dead_channels_go_and_nothing_else_changes() -> None:
    """Dead inputs have weights, which count in the mean and the length."""
    model = standardised_network()
    before = model.SerializeToString(deterministic=True)
    result = prune(model, ratio=0.5, compensate="none", method="l2", round_to=1, measure=False)
    np.testing.assert_allclose(run(result.model, X)[0], run(model, X)[0], rtol=1e-4, atol=1e-6)
    convs = [n for n in result.model.graph.node if n.op_type == "Conv"]
    shapes = {t.name: list(t.dims) for t in result.model.graph.initializer}
    assert [shapes[n.input[1]][:2] for n in convs] == [[8, 3], [8, 8], [4, 8]]
    assert model.SerializeToString(deterministic=True) == before


def test_the_raw_weights_go() -> None:
    """Also where a node of several outputs standardises them, as PyTorch exports it: BatchNormalization in training."""
    net = Net()
    raw, gain, shift = net.weight(1, 16, 27, name="raw"), net.weight(16, low=0.5), net.weight(16)
    mean = net.op("ReduceMean", raw, axes=[0, 2], keepdims=0)
    apart = net.op("Sub", raw, net.op("ReduceMean", raw, axes=[0, 2]))
    variance = net.op("ReduceMean", net.op("Mul", apart, apart), axes=[0, 2], keepdims=0)
    w, *_ = net.op("BatchNormalization", raw, gain, shift, mean, variance, outputs=3, training_mode=1)
    y = net.relu(net.op("Conv", "x", net.reshape(w, 16, 3, 3, 3), pads=[1] * 4))
    model = net.model((1, 3, 8, 8), [net.head(y, 16)], 1, (1, 3, 8, 8))
    pruned = prune(model, ratio=0.5, compensate="none", round_to=1, measure=False).model
    del pruned.metadata_props[:]
    assert not waste(model, pruned)
    assert pruned.ByteSize() < model.ByteSize() / 2


def test_nothing_is_folded_that_would_take_more_bytes() -> None:
    """One raw weight, in eight bits, standardised for two layers."""
    net = Net()
    raw = net.tensor(np.random.default_rng(1).integers(-99, 99, (8, 8, 3, 3)).astype(np.int8), "raw")
    w = net.op("DequantizeLinear", raw, net.tensor(np.float32(0.01)))
    w = net.op("Sub", w, net.op("ReduceMean", w, axes=[1, 2, 3]))
    y = net.relu(net.op("Conv", net.cbr("x", 3, 8), w, pads=[1] * 4))
    network = Network.of(net.model((1, 3, 8, 8), [net.head(y, 8)], 1, (1, 3, 8, 8)))
    assert folded(network) is network


def test_weights_from_a_codebook() -> None:
    net, rng = Net(), np.random.default_rng(1)
    w = net.op("Gather", net.weight(16, name="codebook"), net.tensor(rng.integers(0, 16, (16, 8, 3, 3)), "codes"))
    y = net.relu(net.op("Conv", net.cbr("x", 3, 8), w, net.weight(16), pads=[1] * 4))
    model = net.model((1, 3, 8, 8), [net.head(net.cbr(y, 16, 8), 8)], 1, (1, 3, 8, 8))
    report = prune(model, ratio=0.5, round_to=1, measure=False).report
    assert report.after.macs < 0.3 * report.before.macs


def test_plans_hold() -> None:
    model = standardised_network()
    result = prune(model, ratio=0.5, compensate="none", measure=False)
    plan = Plan.from_json(result.plan.to_json())
    assert apply(model, plan, measure=False).model.graph == result.model.graph
    assert verify(model, result.model, plan).passed


def test_nothing_is_folded_without_need() -> None:
    """Products of weights are cut as they are, and a model that loses nothing is left alone."""
    net = Net()
    w = net.op("Mul", net.weight(8, 3, 3, 3), net.weight(8, 1, 1, 1, low=0.5))
    y = net.relu(net.op("Conv", "x", w, pads=[1] * 4))
    network = Network.of(net.model((1, 3, 8, 8), [net.head(y, 8, 3)], 1, (1, 3, 8, 8)))
    assert folded(network) is network
    assert prune(standardised_network(), ratio=0.0, measure=False).model.graph == standardised_network().graph
