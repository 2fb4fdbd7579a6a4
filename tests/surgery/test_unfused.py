"""Integer and fused layers take over the work of channels that go, as layers of real numbers do."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from other_sizes import run

from onnxprune import prune
from onnxprune.model.network import Network
from onnxprune.surgery import compensate
from onnxprune.surgery.recovery.unfused import unfused

RNG = np.random.default_rng(5)
MICROSOFT = "com.microsoft"


def tensor(name: str, array: np.ndarray) -> TensorProto:
    return numpy_helper.from_array(array, name)


def floats(name: str, *shape: int) -> TensorProto:
    return tensor(name, (RNG.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32))


def integers(name: str, *shape: int) -> TensorProto:
    return tensor(name, RNG.integers(-60, 61, shape).astype(np.int8))


def node(kind: str, inputs: str, outputs: str, domain: str = "", **attributes: object) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), outputs.split(), domain=domain, **attributes)


SCALED = "DynamicQuantizeLinear", "a", "q s z"
REAL = [node("Cast", "i", "f", to=TensorProto.FLOAT), node("Mul", "s u", "su"), node("Mul", "f su", "y")]
READERS: dict[str, Callable[[], tuple[list[onnx.NodeProto], list[TensorProto]]]] = {
    "ConvInteger": lambda: (
        [node(*SCALED), node("ConvInteger", "q v z", "i", pads=[1] * 4), *REAL],
        [integers("v", 5, 16, 3, 3), tensor("u", np.float32(0.01))],
    ),
    "MatMulInteger": lambda: (
        [
            node("GlobalAveragePool", "a", "g"), node("Flatten", "g", "h"),
            node("DynamicQuantizeLinear", "h", "q s z"), node("MatMulInteger", "q v z zero", "i"), *REAL,
        ],
        [integers("v", 16, 5), tensor("u", np.float32(0.01)), tensor("zero", np.int8(3))],
    ),
    "FusedConv": lambda: (
        [
            node("Conv", "x l", "p"),
            node("FusedConv", "a v b p", "y", MICROSOFT, activation="LeakyRelu", activation_params=[0.2]),
        ],
        [floats("v", 5, 16, 1, 1), floats("b", 5), floats("l", 5, 4, 1, 1)],
    ),
    "FusedGemm": lambda: (
        [
            node("GlobalAveragePool", "a", "g"), node("Flatten", "g", "h"),
            node("FusedGemm", "h v b", "y", MICROSOFT, activation="Tanh"),
        ],
        [floats("v", 16, 5), floats("b", 5)],
    ),
}  # fmt: skip


def model(kind: str) -> onnx.ModelProto:
    """A Conv to 16 channels that are mixtures of four, and one layer that reads them."""
    nodes, tensors = READERS[kind]()
    mixed = (RNG.standard_normal((16, 4)) @ RNG.standard_normal((4, 36)) / 6).reshape(16, 4, 3, 3)
    graph = helper.make_graph(
        [node("Conv", "x w c", "a", pads=[1] * 4), *nodes],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [tensor("w", mixed.astype(np.float32)), floats("c", 16), *tensors],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(MICROSOFT, 1)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    made.graph.output[0].type.tensor_type.ClearField("shape")
    return made


@pytest.mark.parametrize("kind", READERS)
def test_written_out_it_computes_the_same(kind: str) -> None:
    whole = model(kind)
    written = unfused(Network.of(whole)).proto()
    assert kind not in {n.op_type for n in written.graph.node}
    x = {"x": RNG.standard_normal((3, 4, 8, 8), np.float32)}
    np.testing.assert_allclose(run(written, x)[0], run(whole, x)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", READERS)
def test_what_stays_takes_over(kind: str) -> None:
    whole, (data, fresh) = model(kind), RNG.standard_normal((2, 96, 4, 8, 8), np.float32)
    error = {}
    for repair in ("none", "lstsq"):
        small = prune(whole, ratio=0.5, round_to=1, compensate=repair, data=data, measure=False).model
        assert kind in {n.op_type for n in small.graph.node}
        before, after = (run(m, {"x": fresh})[0] for m in (whole, small))
        error[repair] = float(np.square(before - after).mean() / before.var())
    assert error["lstsq"] < 0.2 * error["none"], error


def test_sums_of_integers_that_are_used_as_such_stay_what_they_are() -> None:
    whole = model("ConvInteger")
    whole.graph.output.append(helper.make_tensor_value_info("i", TensorProto.INT32, None))
    assert "ConvInteger" in {n.op_type for n in unfused(Network.of(whole)).graph.graph.node}


@pytest.mark.parametrize("kind", ["ConvInteger", "FusedConv"])
def test_a_repair_that_does_harm_is_not_written(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is solved is written down wrongly: held-out samples tell, and the plain cut is what comes out."""
    own = compensate.encoded
    monkeypatch.setattr(compensate, "encoded", lambda network, v: {k: a * 0 for k, a in own(network, v).items()})
    whole, data = model(kind), RNG.standard_normal((96, 4, 8, 8), np.float32)
    results = [prune(whole, ratio=0.5, compensate=name, data=data, measure=False) for name in ("lstsq", "none")]
    assert "which is worse on held-out data" in results[0].report.warnings[0]
    assert results[0].plan.digests == results[1].plan.digests
