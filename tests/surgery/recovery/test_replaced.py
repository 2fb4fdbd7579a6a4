"""Layers that get biases of their own."""

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from onnxprune.model.network import Network
from onnxprune.runtime.session import make_session
from onnxprune.surgery.recovery.replaced import with_biases_at

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 3, 4, 4)).astype(np.float32)
W, V = RNG.standard_normal((6, 3, 1, 1)).astype(np.float32), RNG.standard_normal((4, 5)).astype(np.float32)
BIASES = {"c": np.arange(6, dtype=np.float32), "m": np.arange(5, dtype=np.float32)}


def network(ir: int) -> ModelProto:
    """A Conv and a MatMul behind it, and a branch in which the names lie that their biases would have."""
    value = helper.make_tensor_value_info
    tensors = {name: numpy_helper.from_array(np.float32(k)) for k, name in enumerate(("conv.bias", "product.product"))}
    held = [helper.make_node("Constant", [], [name], value=tensor) for name, tensor in tensors.items()]
    ways = [*held, helper.make_node("Sum", ["m", *tensors], ["one"])], [helper.make_node("Identity", ["m"], ["other"])]
    branches = [
        helper.make_graph(way, "g", [], [value(way[-1].output[0], TensorProto.FLOAT, (2, 6, 4, 5))]) for way in ways
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
        helper.make_node("MatMul", ["c", "v"], ["m"], name="product"),
        helper.make_node("If", ["flag"], ["y"], then_branch=branches[0], else_branch=branches[1]),
    ]
    weights = {"w": W, "v": V}
    inputs = [value("x", TensorProto.FLOAT, X.shape), value("flag", TensorProto.BOOL, [])]
    inputs += [value(name, TensorProto.FLOAT, a.shape) for name, a in weights.items() if ir < 4]
    held = [numpy_helper.from_array(a, name) for name, a in weights.items()]
    graph = helper.make_graph(nodes, "g", inputs, [value("y", TensorProto.FLOAT, (2, 6, 4, 5))], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 8 if ir < 4 else 17)], ir_version=ir)


@pytest.mark.parametrize("ir", [3, 8])
def test_biases_stand_beside_names_in_branches_and_are_listed_where_all_tensors_are(ir: int) -> None:
    model = network(ir)
    made = with_biases_at(Network.of(model), BIASES).proto()
    onnx.checker.check_model(made, full_check=True)
    new = {t.name for t in made.graph.initializer} - {"w", "v"}
    assert new == {"conv.bias.1", "product.bias"}
    assert {v.name for v in made.graph.input} == {"x", "flag"} | ({"w", "v", *new} if ir < 4 else set())
    plain = np.einsum("nchw,oc->nohw", X, W[..., 0, 0]) + BIASES["c"].reshape(-1, 1, 1)
    for flag in (False, True):
        found = make_session(made).run({"x": X, "flag": np.array(flag)})["y"]
        np.testing.assert_allclose(found, plain @ V + BIASES["m"] + flag, rtol=1e-4, atol=1e-4)
