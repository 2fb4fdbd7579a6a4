"""Grouped convolutions whose faded filters lie elsewhere in every group: as many of each go, and nothing changes."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from law import run
from patterns.builder import NONE, Net
from patterns.moves import shuffle

from onnxprune import apply, prune, verify
from onnxprune.channels import analyse
from onnxprune.model.network import Network
from onnxprune.surgery import Plan
from onnxprune.surgery.align import aligned, alignment_of

GROUPS, WIDTH = 4, 8  # channels of each group


def dead(rng: np.random.Generator, groups: int = GROUPS, count: int = WIDTH // 2) -> np.ndarray:
    """As many positions of each group, but others."""
    return np.concatenate([np.sort(rng.choice(WIDTH, count, replace=False)) + WIDTH * g for g in range(groups)])


def bottlenecks(seed: int) -> onnx.ModelProto:
    """Two blocks as in ResNeXt, the second of which has two grouped convolutions one after the other."""
    rng, net, c = np.random.default_rng(seed), Net(), GROUPS * WIDTH
    odd = slice(1, None, 2)
    y = net.cbr("x", 3, 16, dead=odd)
    for several in (False, True):
        z = net.relu(net.norm(net.conv(y, 16, c, 1, dead=(one := dead(rng))), c, dead=one))
        z = net.relu(net.conv(z, c, c, group=GROUPS, dead=(two := dead(rng))))
        if several:
            z = net.relu(net.norm(net.conv(z, c, c, group=GROUPS, dead=(two := dead(rng))), c, dead=two))
        y = net.relu(net.op("Add", y, net.conv(z, c, 16, 1, dead=odd)))
    return net.model((1, 3, 8, 8), [net.head(y, 16)], 1, (1, 3, 8, 8))


@pytest.mark.parametrize("seed", range(3))
def test_equal_counts_of_each_group_go(seed: int, tmp_path: Path) -> None:
    model = bottlenecks(seed)
    result = prune(model, ratio=0.5, compensate="none", method="l2", round_to=1, measure=False)
    x = {"x": np.random.default_rng(1).standard_normal((1, 3, 8, 8)).astype(np.float32)}
    before, after = run(model, x)[0], run(result.model, x)[0]
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5 * np.abs(before).max())
    small = {t.name: tuple(t.dims) for t in result.model.graph.initializer}
    convs = [n for n in result.model.graph.node if n.op_type == "Conv" and len(n.attribute)]
    grouped = [n for n in convs if any(a.name == "group" and a.i == GROUPS for a in n.attribute)]
    assert [small[n.input[1]][:2] for n in grouped] == [(GROUPS * WIDTH // 2, WIDTH // 2)] * 3
    plan = Plan.from_json(result.plan.to_json())
    again = apply(model, plan, measure=False).model
    assert {t.name: t.raw_data for t in again.graph.initializer} == {
        t.name: t.raw_data for t in result.model.graph.initializer
    }
    assert verify(model, result.model, plan).passed


def test_the_plan_says_how_to_reorder_the_weights() -> None:
    """For the training checkpoint: reorder, then take."""
    model = bottlenecks(0)
    result = prune(model, ratio=0.5, compensate="none", method="l2", round_to=1, measure=False)
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    for tensor in result.model.graph.initializer:
        array = result.plan.alignment.apply(weights[tensor.name], tensor.name)
        for axis, kept in result.plan.initializers.get(tensor.name, {}).items():
            array = array.take(kept, axis)
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(tensor), array)


@pytest.mark.parametrize("seed", range(3))
def test_a_shuffle_between_two_grouped_convolutions(seed: int) -> None:
    """What changes places before it would change groups behind it: no order fits both."""
    rng, net, c = np.random.default_rng(seed), Net(), GROUPS * WIDTH
    y = net.relu(net.conv(net.cbr("x", 3, c, 1, dead=NONE), c, c, group=GROUPS, dead=dead(rng)))
    y = shuffle(net, net.norm(y, c, dead=NONE), GROUPS, c)
    y = net.relu(net.conv(y, c, c, 1, group=GROUPS, dead=dead(rng)))
    model = net.model((1, 3, 8, 8), [net.head(y, c)], 1, (1, 3, 8, 8))
    whole = Network.of(model)
    moved = aligned(whole, alignment_of(whole, analyse(model))).proto()
    x = {"x": rng.standard_normal((1, 3, 8, 8)).astype(np.float32)}
    np.testing.assert_allclose(run(moved, x)[0], run(model, x)[0], rtol=1e-4, atol=1e-5)


def test_nothing_is_reordered_without_need() -> None:
    model = bottlenecks(0)
    for tensor in model.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if array.dtype == np.float32:
            noise = np.random.default_rng(0).uniform(0.5, 1, array.shape).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(noise, tensor.name))
    assert not prune(model, ratio=0.5, compensate="none", measure=False).plan.alignment
    assert prune(bottlenecks(0), ratio=0.0, measure=False).model.graph == bottlenecks(0).graph
