"""What draws numbers, or holds what does, is no constant, whoever asks."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnxprune.channels import analyse
from onnxprune.channels.parameters import computed_once
from onnxprune.lossless.nested import NestedGraph
from onnxprune.model.network import Network
from onnxprune.surgery.recovery.layer_graph import LayerGraph

DRAWN = "RandomNormal <shape = [6, 4]> ()"
KEPT = "Identity(w)"


def network(taken: str) -> onnx.ModelProto:
    """x (2, 6) times weights that an If of the file's own makes in its branches; `other` is made beside them."""
    graph = onnx.parser.parse_graph(
        f"""g (float[2,6] x) => (float[2,4] y) {{
            p = If (on) <then_branch = a () => (float[6,4] q) {{ q = {taken} }},
                         else_branch = b () => (float[6,4] r) {{ r = Identity(w) }}>
            other = Neg(w)  v = Add(p, other)  y = MatMul(x, v) }}"""
    )
    w = np.arange(24, dtype=np.float32).reshape(6, 4)
    graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in {"w": w, "on": np.array(True)}.items())
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def once(model: onnx.ModelProto) -> Callable[[str], bool]:
    deps = analyse(model)
    return computed_once(deps.nodes, ["w", "on"]).__contains__


ASKED = {
    "LayerGraph": lambda model: LayerGraph(Network.of(model)).is_constant,
    "NestedGraph": lambda model: NestedGraph(Network.of(model)).is_constant,
    "computed_once": once,
}


@pytest.mark.parametrize("name", ASKED)
def test_an_if_that_draws_is_no_constant(name: str) -> None:
    asked = ASKED[name](network(DRAWN))
    assert not asked("p")
    assert not asked("v")
    assert asked("other")


@pytest.mark.parametrize("name", ["LayerGraph", "NestedGraph"])
def test_an_if_over_tensors_of_the_file_is_one(name: str) -> None:
    assert ASKED[name](network(KEPT))("v")
