"""Networks from their files as modules of torch: which weights are trained, wherever they stand, what comes back."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

pytest.importorskip("torch", reason="torch, the extra `train`, is not installed")
import torch

from onnxprune.errors import ModelError, UsageError
from onnxprune.model.network import Network
from onnxprune.runtime.session import make_session
from onnxprune.training.agree import LARGEST, LIMIT, agreement
from onnxprune.training.module import TorchModule

RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, 3)).astype(np.float32)


def tensor(name: str, *shape: int, dtype: str = "f4") -> TensorProto:
    return numpy_helper.from_array(RNG.normal(size=shape).astype(dtype), name)


def model_of(
    nodes: Sequence[onnx.NodeProto],
    weights: Sequence[TensorProto] = (),
    *,
    shape: Sequence[int] = (4, 3),
    kind: int = TensorProto.FLOAT,
    output: int = TensorProto.FLOAT,
    extra: Sequence[str] = (),
) -> ModelProto:
    """A network from x to y."""
    inputs = [helper.make_tensor_value_info("x", kind, shape)]
    graph = helper.make_graph(
        nodes, "net", inputs, [helper.make_tensor_value_info("y", output, None)], initializer=weights
    )
    imports = [helper.make_opsetid("", 17), *(helper.make_opsetid(domain, 1) for domain in extra)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def node(op: str, inputs: str, output: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), output.split(), name=f"{op} to {output}", **attributes)


def constant(name: str, value: TensorProto) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=value)


def trained(model: ModelProto, steps: int = 3, x: np.ndarray = X) -> tuple[TorchModule, ModelProto]:
    """A few steps of SGD towards zero; torch and onnxruntime agree before and after."""
    network = TorchModule.of(model)
    agreement(network, model, [{"x": x}])
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = network({"x": torch.from_numpy(x)})["y"].float().square().mean()
        loss.backward()
        losses.append(float(loss.detach()))
        optimizer.step()
    assert losses[-1] < losses[0]
    after = network.written(Network.of(model)).proto()
    agreement(network, after, [{"x": x}], limit=2e-3)
    return network, after


def changed(before: ModelProto, after: ModelProto) -> list[str]:
    """Names of the initializers whose elements differ; all else is the same."""
    names = [
        a.name
        for a, b in zip(before.graph.initializer, after.graph.initializer, strict=True)
        if not np.array_equal(numpy_helper.to_array(a), numpy_helper.to_array(b))
    ]
    for a, b in zip(before.graph.initializer, after.graph.initializer, strict=True):
        assert (a.name, a.data_type, list(a.dims)) == (b.name, b.data_type, list(b.dims))
    assert [n.SerializeToString(deterministic=True) for n in before.graph.node if n.op_type != "Constant"] == [
        n.SerializeToString(deterministic=True) for n in after.graph.node if n.op_type != "Constant"
    ]
    return names


def test_a_shared_weight_is_one_parameter() -> None:
    model = model_of(
        [node("MatMul", "x w", "h"), node("Tanh", "h", "t"), node("MatMul", "t w", "y")], [tensor("w", 3, 3)]
    )
    network, after = trained(model)
    assert list(network.parameters_by_key()) == ["w"]
    assert changed(model, after) == ["w"]


def test_weights_in_constants_behind_identity_transpose_and_reshape() -> None:
    nodes = [
        constant("c", tensor("", 3, 5)),
        node("Identity", "a", "same"),
        node("Transpose", "b", "turned", perm=[1, 0]),
        node("Reshape", "d shape", "long"),
        node("MatMul", "x c", "h1"),
        node("MatMul", "h1 same", "h2"),
        node("MatMul", "h2 turned", "h3"),
        node("Add", "h3 long", "y"),
    ]
    shape = numpy_helper.from_array(np.array([-1]), "shape")
    model = model_of(nodes, [tensor("a", 5, 5), tensor("b", 2, 5), tensor("d", 1, 2), shape])
    network, after = trained(model)
    assert sorted(network.parameters_by_key()) == ["a", "b", "c", "d"]
    assert changed(model, after) == ["a", "b", "d"]
    before_c, after_c = (numpy_helper.to_array(m.graph.node[0].attribute[0].t) for m in (model, after))
    assert not np.array_equal(before_c, after_c)


def test_half_precision_is_trained_in_float32_and_written_back_in_its_own() -> None:
    nodes = [node("Cast", "x", "x16", to=10), node("MatMul", "x16 w", "h"), node("Cast", "h", "y", to=1)]
    network, after = trained(model_of(nodes, [tensor("w", 3, 2, dtype="f2")]))
    assert network.parameters_by_key()["w"].dtype == torch.float32
    assert after.graph.initializer[0].data_type == TensorProto.FLOAT16


def test_quantised_weights_are_trained_straight_through_and_stay_whole() -> None:
    w = numpy_helper.from_array(RNG.integers(-100, 100, (3, 2)).astype("i1"), "w")
    scale = numpy_helper.from_array(np.array([0.01, 0.02], "f4"), "scale")
    zero = numpy_helper.from_array(np.array([3, -5], "i1"), "zero")
    model = model_of(
        [node("DequantizeLinear", "w scale zero", "r", axis=1), node("MatMul", "x r", "y")], [w, scale, zero]
    )
    network, after = trained(model, steps=30)
    assert list(network.parameters_by_key()) == ["w"]
    assert changed(model, after) == ["w"]
    real = (numpy_helper.to_array(w).astype("f4") - np.array([3, -5])) * np.array([0.01, 0.02], "f4")
    np.testing.assert_allclose(TorchModule.of(model).parameters_by_key()["w"].detach().numpy(), real, rtol=1e-6)


def test_without_training_the_file_comes_back_to_the_byte() -> None:
    w = numpy_helper.from_array(RNG.integers(-100, 100, (3, 2)).astype("i1"), "w")
    scale = numpy_helper.from_array(np.float32(0.0123), "scale")
    nodes = [node("DequantizeLinear", "w scale", "r"), node("MatMul", "x r", "h"), node("Mul", "h v", "y")]
    model = model_of(nodes, [w, scale, tensor("v", 2)])
    after = TorchModule.of(model).written(Network.of(model)).proto()
    assert after.SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)


def test_external_data_is_read_from_its_file(tmp_path: Path) -> None:
    model = model_of([node("MatMul", "x w", "y")], [tensor("w", 3, 700)])
    right = numpy_helper.to_array(model.graph.initializer[0])
    onnx.save(model, tmp_path / "net.onnx", save_as_external_data=True, size_threshold=0, location="net.data")
    found = TorchModule.of(tmp_path / "net.onnx").parameters_by_key()["w"]
    np.testing.assert_array_equal(found.detach(), right)


NORM = ["g", "b", "m", "v"]


def normalised() -> ModelProto:
    weights = [tensor(name, 3) for name in NORM[:3]] + [numpy_helper.from_array(np.full(3, 2, "f4"), "v")]
    return model_of([node("BatchNormalization", "x g b m v", "y", momentum=0.8)], weights)


def test_frozen_batch_normalization_keeps_its_statistics() -> None:
    model = normalised()
    network, after = trained(model)
    assert changed(model, after) == ["g", "b"]
    assert "statistic" in network.frozen["m"]


def branch(name: str, output: str, nodes: Sequence[onnx.NodeProto], weights: Sequence[TensorProto]) -> onnx.GraphProto:
    return helper.make_graph(nodes, name, [], [helper.make_empty_tensor_value_info(output)], initializer=weights)


def conditional(condition: onnx.NodeProto) -> ModelProto:
    then = branch("then", "t", [node("MatMul", "x w", "t")], [tensor("w", 3, 2)])
    other = branch("else", "e", [node("MatMul", "x u", "e")], [tensor("u", 3, 2)])
    nodes = [condition, node("If", "c", "h", then_branch=then, else_branch=other), node("Tanh", "h", "y")]
    return model_of(nodes)


def test_an_if_with_a_constant_condition_is_the_branch_that_it_takes() -> None:
    model = conditional(constant("c", numpy_helper.from_array(np.array(True))))
    network, after = trained(model)
    assert list(network.parameters_by_key()) == ["h.then_branch/w"]
    graphs = [{a.name: a.g for a in m.graph.node[1].attribute} for m in (model, after)]
    for name, moved in (("then_branch", True), ("else_branch", False)):
        before, now = (numpy_helper.to_array(g[name].initializer[0]) for g in graphs)
        assert np.array_equal(before, now) != moved


def test_the_branch_that_the_data_take_gets_the_gradient() -> None:
    total = [node("ReduceSum", "x", "sum", keepdims=0), node("Greater", "sum zero", "c")]
    model = conditional(total[1])
    model.graph.node.insert(0, total[0])
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0), "zero"))
    network = TorchModule.of(model)
    weights = network.parameters_by_key()
    for x, taken in ((np.abs(X), "then_branch/w"), (-np.abs(X), "else_branch/u")):
        network.zero_grad()
        agreement(network, model, [{"x": x}])
        network({"x": torch.from_numpy(x)})["y"].sum().backward()
        assert [key for key, p in weights.items() if p.grad is not None] == [f"h.{taken}"]


@pytest.mark.parametrize(("op", "gates"), [("LSTM", 4), ("GRU", 3)])
def test_recurrent_layers(op: str, gates: int) -> None:
    x = RNG.normal(size=(5, 2, 3)).astype(np.float32)
    weights = [tensor("w", 1, gates * 4, 3), tensor("r", 1, gates * 4, 4), tensor("b", 1, gates * 8)]
    model = model_of([node(op, "x w r b", "y", hidden_size=4)], weights, shape=(5, 2, 3))
    _, after = trained(model, x=x)
    assert changed(model, after) == ["w", "r", "b"]


def test_an_unknown_operator_in_front_of_the_weights_is_run_and_frozen() -> None:
    nodes = [node("Unfold", "x", "h", domain="none"), node("MatMul", "h w", "y")]
    with pytest.raises(ModelError, match="Unfold can be run neither by torch nor by onnxruntime"):
        TorchModule.of(model_of(nodes, [tensor("w", 3, 2)], extra=["none"]))({"x": torch.from_numpy(X)})
    nodes = [node("Inverse", "x", "h", domain="com.microsoft"), node("MatMul", "h w", "y")]
    model = model_of(nodes, [tensor("w", 3, 2)], shape=(3, 3), extra=["com.microsoft"])
    network, after = trained(model, x=X[:3])
    assert changed(model, after) == ["w"]
    assert any("Inverse" in name and "onnxruntime" in why for name, why in network.frozen.items())


def test_an_unknown_operator_behind_weights_is_refused_by_name() -> None:
    nodes = [node("MatMul", "x w", "h"), node("Inverse", "h", "y", domain="com.microsoft")]
    with pytest.raises(ModelError, match=r"no gradient is known for 'Inverse to y' \(Inverse\)"):
        TorchModule.of(model_of(nodes, [tensor("w", 3, 3)], extra=["com.microsoft"]))


def test_where_an_output_has_no_gradient_the_loss_is_taken_of_what_it_is_made_from() -> None:
    nodes = [node("MatMul", "x w", "scores"), node("ArgMax", "scores", "y", axis=1)]
    network = TorchModule.of(model_of(nodes, [tensor("w", 3, 2)], output=TensorProto.INT64))
    assert network.ends == ("scores",)
    network({"x": torch.from_numpy(X)}, network.ends)["scores"].sum().backward()
    assert network.parameters_by_key()["w"].grad is not None


def test_watched_values_are_given_besides_the_outputs() -> None:
    network = TorchModule.of(model_of([node("MatMul", "x w", "h"), node("Tanh", "h", "y")], [tensor("w", 3, 2)]))
    out = network({"x": torch.from_numpy(X)}, watch=["h"])
    torch.testing.assert_close(out["h"].tanh(), out["y"])
    with pytest.raises(UsageError, match="computes no value 'z'"):
        network({"x": torch.from_numpy(X)}, watch=["z"])
    with pytest.raises(UsageError, match="needs an input 'x'"):
        network({})


def test_rounding_that_a_network_magnifies_is_no_disagreement() -> None:
    """A variance as a difference of large numbers: the same sums in another order give another one."""
    means = {"keepdims": 1, "axes": [1]}
    nodes = [
        helper.make_node("Mul", ["x", "w"], ["h"]),
        helper.make_node("Mul", ["h", "h"], ["squares"]),
        helper.make_node("ReduceMean", ["squares"], ["of_squares"], **means),
        helper.make_node("ReduceMean", ["h"], ["mean"], **means),
        helper.make_node("Mul", ["mean", "mean"], ["squared"]),
        helper.make_node("Sub", ["of_squares", "squared"], ["y"]),
    ]
    x = (6 + RNG.normal(size=(8, 2048)) * 0.03).astype(np.float32)
    model = model_of(nodes, [numpy_helper.from_array(np.ones(2048, np.float32), "w")], shape=(8, 2048))
    assert LIMIT < agreement(TorchModule.of(model), model, [{"x": x}])["y"] < LARGEST


def test_a_disagreement_names_the_first_node() -> None:
    model = model_of(
        [node("MatMul", "x w", "h"), node("Sigmoid", "h", "s"), node("Exp", "s", "y")], [tensor("w", 3, 2)]
    )
    network = TorchModule.of(model)
    other = ModelProto.FromString(model.SerializeToString())
    other.graph.node[1].op_type = "Tanh"
    with pytest.raises(ModelError, match=r"first node that differs is 'Sigmoid to s' \(Sigmoid\)"):
        agreement(network, other, [{"x": X}])


def test_numbers_that_are_no_weights_stay() -> None:
    grid = numpy_helper.from_array(RNG.normal(size=(4, 2)).astype("f4"), "grid")
    model = model_of(
        [node("MatMul", "x w", "h"), node("Sigmoid", "h", "s"), node("Add", "s grid", "y")], [tensor("w", 3, 2), grid]
    )
    network, after = trained(model)
    assert changed(model, after) == ["w"]
    assert "no weight" in network.frozen["grid"]


def test_local_functions_are_entered() -> None:
    call = helper.make_node("Twice", ["x", "w"], ["y"], domain="local")
    body = [node("MatMul", "a b", "h"), node("Add", "h h", "c")]
    function = helper.make_function("local", "Twice", ["a", "b"], ["c"], body, [helper.make_opsetid("", 17)])
    model = model_of([call], [tensor("w", 3, 2)], extra=["local"])
    model.functions.append(function)
    _, after = trained(model)
    assert changed(model, after) == ["w"]


def test_float64_stays_float64() -> None:
    model = model_of([node("MatMul", "x w", "y")], [tensor("w", 3, 2, dtype="f8")], kind=11, output=11)
    x = X.astype(np.float64)
    out = TorchModule.of(model)({"x": torch.from_numpy(x)})["y"]
    assert out.dtype == torch.float64
    np.testing.assert_allclose(out.detach(), make_session(model).run({"x": x})["y"], rtol=1e-12)
