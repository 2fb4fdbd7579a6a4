"""Which tensors of a file are defaults of inputs, what follows from them, and that they stay."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnxprune
from onnxprune.model.defaults import overridable
from onnxprune.model.static import infer


def gathering(*listed: str, version: int = 8) -> onnx.ModelProto:
    """A layer, and a choice of its channels by default indices; `listed` tensors are inputs, too."""
    nodes = "h = MatMul(x, w) z = Gather<axis=1>(h, k) r = Relu(z) y = MatMul(r, v)"
    graph = onnx.parser.parse_graph(f"g (float[n,6] x) => (float[n,4] y) {{ {nodes} }}")
    rng = np.random.default_rng(0)
    tensors = {name: rng.normal(size=size).astype(np.float32) for name, size in {"w": (6, 8), "v": (8, 4)}.items()}
    for name, array in (tensors | {"k": np.arange(8)[::-1].copy()}).items():
        graph.initializer.append(numpy_helper.from_array(array, name))
        if name in listed:
            kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
            graph.input.append(onnx.helper.make_tensor_value_info(name, kind, [None] * array.ndim))
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=version)


@pytest.mark.parametrize(
    ("listed", "found"),
    [("", ""), ("w", "w"), ("k", "k"), ("wk", "wk"), ("wv", ""), ("wvk", "")],
)
def test_what_is_listed_beside_what_is_not_may_be_replaced(listed: str, found: str) -> None:
    assert overridable(gathering(*listed)) == set(found)
    assert not overridable(gathering(*listed, version=3))


@pytest.mark.parametrize(("held", "found"), [("", ""), ("v", ""), ("w", "vk")])
def test_weights_in_constant_nodes_show_that_what_is_listed_is_meant(held: str, found: str) -> None:
    """A file that holds its larger matrix so has no habit of listing its weights."""
    model = gathering("w", "v", "k")
    for tensor in [t for t in model.graph.initializer if t.name in held]:
        model.graph.initializer.remove(tensor)
        model.graph.input.remove(next(v for v in model.graph.input if v.name == tensor.name))
        model.graph.node.insert(0, onnx.helper.make_node("Constant", [], [tensor.name], value=tensor))
    assert overridable(model) == set(found)


def test_numbers_that_may_be_replaced_have_a_shape_and_no_value() -> None:
    statics = infer(gathering("k"))
    assert statics.shapes["k"] == (8,)
    assert "k" not in statics.constants
    assert "k" in infer(gathering()).constants


@pytest.mark.parametrize("options", [{"ratio": 0.5, "compensate": "none"}, {"lossless": True}])
def test_indices_that_may_be_replaced_choose_among_all_channels(options: dict[str, object]) -> None:
    network = gathering("k")
    result = onnxprune.prune(network, measure=False, **options)
    assert [i.name for i in result.model.graph.input] == ["x", "k"]
    assert not any(len(g.keep) < g.channels for g in result.plan.groups)
    free = onnxprune.prune(gathering(), measure=False, ratio=0.5, compensate="none")
    assert [(g.name, len(g.keep)) for g in free.plan.groups] == [("w", 4)]
