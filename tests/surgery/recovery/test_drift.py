"""The drift of outputs that trial runs are scaled by."""

from functools import partial

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune.model.network import Network
from onnxprune.runtime.session import make_session
from onnxprune.surgery.recovery import drift as trial_drift
from onnxprune.surgery.recovery.drift import Drift
from onnxprune.surgery.recovery.layer_graph import LayerGraph


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
    monkeypatch.setattr(trial_drift, "ENOUGH", 1 << 10)
    rng = np.random.default_rng(0)
    feeds = [{"x": rng.standard_normal((1, 1, 4)).astype(np.float32)} for _ in range(samples)]
    drift = Drift(LayerGraph(Network.of(scaled(1, width)), unpacked=True), feeds, 1.0)
    assert drift(Network.of(scaled(1, width))) == 0
    assert drift(Network.of(scaled(0.5, width))) == pytest.approx(0.25, rel=0.5)


@pytest.mark.parametrize("batch", ["n", 160], ids=["open", "fixed"])
def test_a_fixed_number_of_samples_is_kept(batch: int | str) -> None:
    value = helper.make_tensor_value_info
    ends = value("x", TensorProto.FLOAT, (batch, 4)), value("y", TensorProto.FLOAT, (batch, 4))
    half = numpy_helper.from_array(np.float32(0.5), "half")
    graph = helper.make_graph([helper.make_node("Mul", ["x", "half"], ["y"])], "g", [ends[0]], [ends[1]], [half])
    model = Network.of(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    feeds = [{"x": np.random.default_rng(0).standard_normal((160, 4)).astype(np.float32)}]
    drift = Drift(LayerGraph(model, unpacked=True), feeds, 1.0)
    assert drift(model) == 0
    assert len(drift.feeds[0]["x"]) == (128 if batch == "n" else 160)


def beside(scores: float) -> Network:
    """Numbers in pixels, and much smaller ones in the same output."""
    value = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Mul", ["x", "large"], ["a"]),
        helper.make_node("Mul", ["x", "small"], ["b"]),
        helper.make_node("Concat", ["a", "b"], ["y"], axis=1),
    ]
    tensors = [numpy_helper.from_array(np.float32(n), name) for n, name in ((100, "large"), (scores, "small"))]
    ends = value("x", TensorProto.FLOAT, ("n", 4, 9)), value("y", TensorProto.FLOAT, ("n", 8, 9))
    graph = helper.make_graph(nodes, "g", [ends[0]], [ends[1]], tensors)
    return Network.of(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def test_small_numbers_beside_large_ones_count_by_their_own_scale() -> None:
    feeds = [{"x": np.random.default_rng(0).standard_normal((16, 4, 9)).astype(np.float32)}]
    drift = Drift(LayerGraph(beside(0.1), unpacked=True), feeds, 1.0)
    assert drift(beside(0.1)) == 0
    assert drift(beside(0)) == pytest.approx(1, rel=0.1)


def chained(*factors: float, dtype: int = TensorProto.FLOAT, domain: str = "") -> Network:
    """A product and a Relu, or onnxruntime's own QuickGelu, for each factor, one after the other."""
    activation = partial(helper.make_node, "QuickGelu" if domain else "Relu", domain=domain)
    nodes, tensors, at = [], [], "x"
    for k, factor in enumerate(factors):
        nodes += [helper.make_node("Mul", [at, f"f{k}"], [f"m{k}"]), activation([f"m{k}"], [f"r{k}"])]
        tensors.append(numpy_helper.from_array(helper.tensor_dtype_to_np_dtype(dtype).type(factor), f"f{k}"))
        at = f"r{k}"
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    ends = helper.make_tensor_value_info("x", dtype, ("n", 4)), helper.make_tensor_value_info(at, dtype, ("n", 4))
    graph = helper.make_graph(nodes, "g", [ends[0]], [ends[1]], tensors)
    return Network.of(helper.make_model(graph, opset_imports=opsets, ir_version=8))


@pytest.mark.parametrize(
    ("dtype", "room", "first"),
    [(TensorProto.FLOAT, 1 << 20, "m2"), (TensorProto.FLOAT, 0, "x"), (TensorProto.FLOAT16, 1 << 20, "x")],
    ids=["from what is held", "nothing fits", "short numbers"],
)
def test_a_run_goes_on_from_where_something_changes(
    dtype: int, room: int, first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held values are falsified, so that it shows which ones were taken."""
    monkeypatch.setattr(trial_drift, "HELD", room)
    rng = np.random.default_rng(0)
    feeds = [{"x": np.abs(rng.standard_normal((8, 4))).astype(helper.tensor_dtype_to_np_dtype(dtype))} for _ in "ab"]
    network = LayerGraph(chained(1, 2, 3, 4, dtype=dtype), unpacked=True)
    drift, other = Drift(network, feeds, 1.0, {"r2": 16.0, "r1": 16.0}), chained(1, 2, 2, 4, dtype=dtype)
    later = {"m2", "r2", "m3", "r3"}
    assert drift(other, later) == pytest.approx(drift(other), rel=1e-6)
    drift.held = [{n: 0 * a if n == "r1" else a for n, a in feed.items()} for feed in drift.held]
    assert (drift(other, later) == pytest.approx(drift(other))) == (first == "x")
    assert drift(other, {"m0", "r0", "m1", "r1", *later}) == pytest.approx(drift(other), rel=1e-6)


def test_what_may_be_rounding_alone_is_compared_with_the_original_interrupted_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    feeds = [{"x": np.abs(rng.standard_normal((8, 4))).astype(np.float32)}]
    model = chained(1, 2, 3, 4)
    drift = Drift(LayerGraph(model, unpacked=True), feeds, 1.0, {"r2": 16.0, "r1": 16.0})
    drift.held = [{n: a * np.float32(1 + 1e-5) for n, a in feed.items()} for feed in drift.held]  # as after fusing
    later = {"m2", "r2", "m3", "r3"}
    assert drift(model, later) == 0
    other = chained(1, 2, 3.0001, 4)
    assert drift(other, later) == pytest.approx(drift(other), rel=1e-2)
    monkeypatch.setattr(drift, "_interrupted", lambda: None)  # it lacks something there: both are run as a whole
    assert drift(other, later) == drift(other)


@pytest.mark.parametrize(
    ("factors", "domain", "sessions"),
    [
        ([(1, 2, 2, 4), (1, 2, 5, 4), (1, 2, 3, 4)], "", 1),
        ([(1, 2, 2, 4), (1, 2, 5, 7)], "", 2),
        ([(1, 2, 2, 4), (1, 2, 2, 4, 1)], "", 2),
        ([(1, 2, 2, 4), (1, 2, 5, 4)], "com.microsoft", 2),
    ],
    ids=["the same weights differ", "another does, too", "other nodes", "operators that may want fixed weights"],
)
def test_trial_runs_share_a_session_where_only_its_weights_differ(
    factors: list[tuple[float, ...]], domain: str, sessions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng, made = np.random.default_rng(0), []
    model, models = chained(1, 2, 3, 4, domain=domain), [chained(*f, domain=domain) for f in factors]
    feeds = [{"x": np.abs(rng.standard_normal((8, 4))).astype(np.float32)}]
    drift = Drift(LayerGraph(model, unpacked=True), feeds, 1.0, {"r1": 16.0})
    expected = [drift(m) for m in models]

    def counted(*args: object, **kwargs: object) -> object:
        made.append(args)
        return make_session(*args, **kwargs)

    monkeypatch.setattr(trial_drift, "make_session", counted)
    assert [drift(m, {"m2", "r2", "m3", "r3"}) for m in models] == pytest.approx(expected, rel=1e-6)
    assert len(made) == sessions
