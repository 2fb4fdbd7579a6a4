"""Layers that are solved together with their readers: which they are, and what it is worth."""

from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnxprune.channels import analyse
from onnxprune.model.network import Network
from onnxprune.runtime.session import make_session
from onnxprune.surgery.compensate import compensate
from onnxprune.surgery.recovery import couples as module
from onnxprune.surgery.recovery.couples import couples
from onnxprune.surgery.recovery.joint import Pair
from onnxprune.surgery.recovery.layer_graph import LayerGraph
from onnxprune.surgery.recovery.solvable import Finder, is_solvable
from onnxprune.surgery.rewrite import cut

Layer = tuple[str, dict[str, object]]

CONV, GEMM, MATMUL = ("Conv", {"pads": [1] * 4}), ("Gemm", {"transB": 1}), ("MatMul", {})


def network(layer: Layer, *between: str, groups: int = 1, layers: int = 3) -> onnx.ModelProto:
    """Layers of eight channels with a bias, the same nodes between any two of them, and a Relu behind the last."""
    kind, attributes = layer
    rng, nodes, tensors, value = np.random.default_rng(0), [], [], "x"
    for k in range(layers):
        shape = {"Conv": (8, 8 // groups, 3, 3)}.get(kind, (8, 8))
        weight = rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))
        tensors += [numpy_helper.from_array(weight.astype(np.float32), f"w{k}")]
        tensors += [numpy_helper.from_array(rng.normal(0, 0.3, 8).astype(np.float32), f"b{k}")]
        more = {"group": groups} if kind == "Conv" else {}
        inputs = [value, f"w{k}"] if kind == "MatMul" else [value, f"w{k}", f"b{k}"]
        nodes.append(helper.make_node(kind, inputs, [value := f"y{k}"], name=f"l{k}", **attributes, **more))
        if kind == "MatMul":
            nodes.append(helper.make_node("Add", [value, f"b{k}"], [value := f"a{k}"]))
        for op in between if k < layers - 1 else ():
            shape = {"kernel_shape": [2, 2]} if op == "MaxPool" else {}
            nodes.append(helper.make_node(op, [value], [value := f"{op}{k}"], **shape))
    nodes.append(helper.make_node("Relu", [value], ["out"]))
    size = [8, 8] if kind == "Conv" else []
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", 1, ["n", 8, *size])],
        [helper.make_tensor_value_info("out", 1, None)], tensors,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def feeds(batches: int, layer: Layer = CONV) -> list[Mapping[str, np.ndarray]]:
    rng, size = np.random.default_rng(1), (8, 8) if layer is CONV else ()
    mix = rng.normal(size=(8, 8))  # channels that go together, so that there is something to take over
    each = [rng.normal(size=(16 if size else 256, 8, *size)) for _ in range(batches)]
    return [{"x": np.einsum("nc...,cd->nd...", a, mix).astype(np.float32)} for a in each]


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (network(CONV, "Relu"), {"l0": "l1", "l1": "l2"}),
        (network(GEMM, "Relu"), {"l0": "l1", "l1": "l2"}),
        (network(MATMUL, "Clip"), {"l0": "l1", "l1": "l2"}),
        (network(CONV, "Tanh"), {}),
        (network(CONV), {}),
        (network(CONV, "Relu", "MaxPool"), {}),
        (network(CONV, "Relu", groups=2), {}),
    ],
    ids=["Conv", "Gemm", "MatMul and bias", "no clipping", "nothing between", "pooled", "grouped"],
)
def test_layers_behind_one_that_clips_are_solved_with_it(model: onnx.ModelProto, expected: Mapping[str, str]) -> None:
    assert coupled(clipping(model, "low")) == expected


def test_layers_behind_one_that_clips_at_what_is_computed_are_solved_alone() -> None:
    model = clipping(network(MATMUL, "Clip"), "low", "high")
    model.graph.node.insert(0, helper.make_node("ReduceMax", ["x"], ["high"], keepdims=0))
    assert coupled(model) == {}


def clipping(model: onnx.ModelProto, *bounds: str) -> onnx.ModelProto:
    """The model with these bounds of its Clips, the first of them 0."""
    for node in model.graph.node:
        node.input.extend(bounds if node.op_type == "Clip" else ())
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0), "low"))
    return model


def coupled(model: onnx.ModelProto) -> dict[str, str]:
    """The layers that are solved together with another one, by name."""
    deps = analyse(model)
    finder = Finder(LayerGraph(Network.of(model), unpacked=True), deps, deps.nothing)
    layers = [finder.layer(k) for k, node in enumerate(model.graph.node) if is_solvable(node)]
    return {finder.network.nodes[k].name: x.label for k, x in couples(finder, layers).items()}


def left(model: onnx.ModelProto, layer: Layer, batches: int = 8) -> tuple[float, onnx.ModelProto]:
    """Error of the repaired network on other samples, as a share of the variance; half of two widths is cut."""
    deps = analyse(model)
    kept = {g.name: np.arange(0, 8, 2) for g in deps.groups}
    found = compensate("lstsq", Network.of(model), deps, kept, analyse=analyse, feeds=feeds(batches, layer))
    small = cut(found.model, found.deps, found.deps.dead(kept))
    (feed,) = feeds(1, layer)
    feed = {"x": feed["x"][::-1] * 0.9}
    before, after = (make_session(m, providers="cpu").run(feed)["out"] for m in (Network.of(model), small))
    return float(np.mean((before - after) ** 2) / before.var()), found.model.proto()


@pytest.mark.parametrize("layer", [CONV, GEMM, MATMUL], ids=["Conv", "Gemm", "MatMul and bias"])
def test_layers_that_are_solved_together_lose_less(layer: Layer, monkeypatch: pytest.MonkeyPatch) -> None:
    model = network(layer, "Relu")
    together = left(model, layer)[0]
    monkeypatch.setattr(module, "STEPS", 0)
    alone = left(model, layer)[0]
    assert together < 0.9 * alone


def test_batches_that_are_copies_of_one_show_several_of_its_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[np.ndarray] = []

    def together(pair: Pair, *_: object, **__: object) -> None:
        seen.append(pair.columns)

    for name, value in (("ROWS", 7 * 64), ("rows_for", lambda features: features), ("together", together)):
        monkeypatch.setattr(module, name, value)
    model = network(CONV, "Relu")
    deps = analyse(model)
    kept = {g.name: np.arange(0, 8, 2) for g in deps.groups}
    compensate("lstsq", Network.of(model), deps, kept, analyse=analyse, feeds=feeds(1) * 8)
    first = seen[0].reshape(len(seen[0]), 7, 64)  # features, batches, places
    assert len(np.unique(first[:, :, 20], axis=1).T) > 3


@pytest.mark.parametrize(("most", "samples"), [(7, 16), (40, 40), (10_000, 84)], ids=["few", "half", "all"])
def test_batches_of_single_samples_give_no_more_rows_than_are_enough(
    most: int, samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 96 images of 64 places each an eighth is held out."""
    seen: list[Pair] = []
    for name, value in (("ROWS", most * 64), ("rows_for", lambda features: 0)):
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(module, "together", lambda *pairs, **_: seen.extend(pairs[:2]))
    model = network(CONV, "Relu", layers=2)
    deps = analyse(model)
    kept = {g.name: np.arange(0, 8, 2) for g in deps.groups}
    given = [{"x": f["x"][k : k + 1]} for f in feeds(6) for k in range(16)]
    compensate("lstsq", Network.of(model), deps, kept, analyse=analyse, feeds=given)
    assert [pair.columns.shape[1] / 64 for pair in seen] == [samples, 12]
    assert [pair.places.shape[1] / 64 for pair in seen] == [samples, 12]


@pytest.mark.parametrize(
    "given", [feeds(1), [{"x": f["x"][:1]} for f in feeds(4)]], ids=["none to judge it", "fewer rows than unknowns"]
)
def test_nothing_is_solved_together_where_samples_are_too_few(
    given: list[Mapping[str, np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = network(CONV, "Relu")
    deps = analyse(model)
    kept = {g.name: np.arange(0, 8, 2) for g in deps.groups}
    monkeypatch.setattr(module, "together", lambda *_, **__: pytest.fail("solved together"))
    compensate("lstsq", Network.of(model), deps, kept, analyse=analyse, feeds=given)


def test_where_couples_gain_nothing_no_more_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    monkeypatch.setattr(module, "together", lambda *_, **__: tried.append(None))
    model = network(CONV, "Relu", layers=8)
    deps = analyse(model)
    kept = {g.name: np.arange(0, 8, 2) for g in deps.groups}
    compensate("lstsq", Network.of(model), deps, kept, analyse=analyse, feeds=feeds(8))
    assert len(tried) == module.VAIN < len(coupled(model))


def test_a_layer_whose_input_is_whole_still_serves_its_reader() -> None:
    model = network(CONV, "Relu")
    deps = analyse(model)
    kept = {deps.groups[0].name: np.arange(0, 8, 2)}
    found = compensate("lstsq", Network.of(model), deps, kept, analyse=analyse, feeds=feeds(8))
    assert set(found.changed) == {"w0", "b0", "w1", "b1", "w2", "b2"}
    again = compensate("lstsq", Network.of(model), deps, kept, analyse=analyse, feeds=feeds(1))
    assert set(again.changed) == {"w1", "b1", "w2", "b2"}
