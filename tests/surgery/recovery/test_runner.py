"""A network run piece by piece: what it holds, and of how many samples."""

import itertools
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune.channels import analyse
from onnxprune.model.network import Network
from onnxprune.surgery.recovery import runner as module
from onnxprune.surgery.recovery.layer_graph import LayerGraph
from onnxprune.surgery.recovery.runner import AT_ONCE, Runner, activations, affordable, within

BATCHES = 4


def chain() -> LayerGraph:
    names = ["x", "a", "b", "y"]
    nodes = [helper.make_node("Neg", [one], [two]) for one, two in itertools.pairwise(names)]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, (2, 3)) for n in ("x", "y")]
    graph = helper.make_graph(nodes, "chain", values[:1], values[1:])
    return LayerGraph(Network.of(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)))


@pytest.mark.parametrize("pinned", [False, True])
def test_what_is_taken_for_the_last_time_goes_batch_by_batch(pinned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    feeds = [{"x": np.full((2, 3), k, np.float32)} for k in range(BATCHES)]
    runner, sizes = Runner(chain(), feeds), list[int]()
    runner.get("a")
    if pinned:
        runner.pin("a")
    load = module.make_session

    def watched(*given: Any, **options: Any) -> Any:
        session = load(*given, **options)

        class Watched:
            def run(self, feed: Any) -> Any:
                sizes.append(sum(array.size for array in runner.held["a"]))
                return session.run(feed)

        return Watched()

    monkeypatch.setattr(module, "make_session", watched)
    found = runner.get("b")
    assert [array[0, 0] for array in found] == list(range(BATCHES))
    assert sizes == [6 * (BATCHES if pinned else BATCHES - k) for k in range(BATCHES)]
    assert ("a" in runner.held) == pinned
    assert [f["x"].size for f in feeds] == [6] * BATCHES


def test_weights_do_not_count_among_what_each_sample_holds() -> None:
    graph = onnx.parser.parse_graph(
        "g (float[2,64] x) => (float[2,8] y) { h = MatMul(x, w) r = Relu(h) y = MatMul(r, v) }"
    )
    for name, shape in {"w": (64, 100), "v": (100, 8)}.items():
        graph.initializer.append(numpy_helper.from_array(np.ones(shape, np.float32), name))
    deps = analyse(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    assert activations(deps) == {"x": (2, 64), "h": (2, 100), "r": (2, 100), "y": (2, 8)}


def test_samples_count_among_what_is_held() -> None:
    shapes = {"x": (2, 3, 10), "a": (2, 100), "y": (2, 5)}
    each = 4 * (AT_ONCE * 100 + 30)
    assert affordable(shapes, 2, ["x"], 7 * each) == 7
    assert affordable(shapes, 2, ["x"], 7 * each - 2) == 6
    feeds = [{"x": np.zeros((2, 3, 10), np.float32)}] * 5
    assert len(within(feeds, shapes, 7 * each)) == 3
    assert len(within(feeds, shapes, 1)) == 1
