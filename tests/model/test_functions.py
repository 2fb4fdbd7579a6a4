"""Networks with local functions are cut as if each call stood written out."""

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune import apply, prune, verify
from onnxprune.channels import analyse
from onnxprune.model.functions import inlined
from onnxprune.model.network import Network
from onnxprune.surgery import cut, mask

BLOCK = """
<domain: "local", opset_import: ["" : 17]>
block (x, w, b) => (y) {
    z = Conv <pads = [1, 1, 1, 1]> (x, w, b)
    y = Relu (z)
}
"""
TWICE = """
<domain: "local", opset_import: ["" : 17, "local" : 1]>
twice <width> (x, w, b, v, c) => (y) {
    a = local.block (x, w, b)
    n = Constant <value_ints: ints = @width> ()
    flat = Reshape (a, n)
    back = Constant <value = int64[4] {1, -1, 6, 6}> ()
    d = Reshape (flat, back)
    y = local.block (d, v, c)
}
"""


def network() -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    shapes = {
        "w": (8, 3, 3, 3),
        "b": (8,),
        "v": (6, 8, 3, 3),
        "c": (6,),
        "u": (10, 6, 3, 3),
        "d": (10,),
        "t": (6, 10, 3, 3),
    }
    weights = [numpy_helper.from_array(rng.standard_normal(s).astype(np.float32), n) for n, s in shapes.items()]
    nodes = [
        helper.make_node("twice", ["x", "w", "b", "v", "c"], ["m"], domain="local", width=[1, 8, 36]),
        helper.make_node("twice", ["m", "u", "d", "t", "c"], ["n"], domain="local", width=[1, 10, 36]),
        helper.make_node("GlobalAveragePool", ["n"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "calls",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 6, 6))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 6, 1, 1))],
        weights,
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    functions = [onnx.parser.parse_function(text) for text in (BLOCK, TWICE)]
    return helper.make_model(graph, opset_imports=imports, functions=functions, ir_version=8)


def run(model: onnx.ModelProto) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).standard_normal((1, 3, 6, 6)).astype(np.float32)
    return session.run(None, {"x": x})[0]


def test_calls_are_written_out() -> None:
    model = network()
    flat = inlined(Network.of(model)).proto()
    assert {node.op_type for node in flat.graph.node} == {"Conv", "Relu", "Constant", "Reshape", "GlobalAveragePool"}
    np.testing.assert_array_equal(run(flat), run(model))
    assert [t.raw_data for t in flat.graph.initializer] == [t.raw_data for t in model.graph.initializer]


def test_attributes_that_a_call_does_not_say_have_their_defaults() -> None:
    model = network()
    inner, outer = model.functions
    inner.node[1].CopyFrom(helper.make_node("LeakyRelu", ["z"], ["y"]))
    inner.node[1].attribute.append(onnx.AttributeProto(name="alpha", ref_attr_name="slope", type="FLOAT"))
    inner.attribute_proto.append(helper.make_attribute("slope", 0.5))
    outer.node[0].attribute.append(helper.make_attribute("slope", 0.75))
    flat = inlined(Network.of(model)).proto()
    slopes = [n.attribute[0].f for n in flat.graph.node if n.op_type == "LeakyRelu"]
    assert slopes == [0.75, 0.5, 0.75, 0.5]
    np.testing.assert_allclose(run(flat), run(model), rtol=1e-6)


def test_each_call_is_cut_on_its_own() -> None:
    model = inlined(Network.of(network())).proto()
    deps = analyse(model)
    assert sorted(len(group) for group in deps.groups) == [6, 8, 10]
    dead = deps.nothing
    for k, group in enumerate(deps.groups):
        dead[group.components[: k + 2]] = True
    pruned = cut(model, deps, dead)
    onnx.checker.check_model(pruned, full_check=True)
    np.testing.assert_allclose(run(pruned), run(mask(model, deps, dead)), rtol=1e-4, atol=1e-5)


def test_a_model_without_calls_is_left_as_it_is() -> None:
    model = network()
    del model.graph.node[:2]
    model.graph.node[0].input[0] = "x"
    whole = Network.of(model)
    assert inlined(whole) is whole


def overloaded() -> onnx.ModelProto:
    """The same calls, of which the second is of another function of the same name."""
    model = network()
    other = onnx.FunctionProto()
    other.CopyFrom(model.functions[1])
    other.overload = "wide"
    model.functions.append(other)
    model.graph.node[1].overload = "wide"
    model.ir_version = 10
    return model


@pytest.mark.parametrize("build", [network, overloaded])
def test_a_model_in_functions_is_cut_as_the_same_network_written_out(build: Callable[[], onnx.ModelProto]) -> None:
    model = build()
    before = model.SerializeToString(deterministic=True)
    result, flat = (prune(m, ratio=0.5, round_to=1, measure=False) for m in (model, inlined(Network.of(model)).proto()))
    assert result.model.graph == flat.model.graph
    assert not result.model.functions
    assert result.plan.groups == flat.plan.groups
    assert verify(model, result.model, result.plan).passed
    assert apply(model, result.plan, measure=False).model.graph == result.model.graph
    assert model.SerializeToString(deterministic=True) == before
    np.testing.assert_array_equal(run(prune(model, ratio=0.0, measure=False).model), run(model))
