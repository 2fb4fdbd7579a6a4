"""Small models and broken ones, built where a test needs them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from onnxprune.errors import OnnxPruneError
from onnxprune.model import load


def value(name: str, shape: Sequence[int | str] = (2, 2), kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def weight(name: str = "w", shape: Sequence[int] = (2, 2), seed: int = 0) -> TensorProto:
    array = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return numpy_helper.from_array(array, name)


def model(
    nodes: Sequence[NodeProto] = (),
    weights: Sequence[TensorProto] = (),
    *,
    inputs: Sequence[str] = ("x",),
    outputs: Sequence[str] = ("y",),
    opset: int = 17,
    ir: int = 8,
) -> ModelProto:
    graph = helper.make_graph(nodes, "g", [value(i) for i in inputs], [value(o) for o in outputs], list(weights))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)


def node(op: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> NodeProto:
    return helper.make_node(op, inputs, outputs, **attributes)


def add() -> ModelProto:
    """y = x + w."""
    return model([node("Add", ["x", "w"], ["y"])], [weight()])


def wide(count: int = 3, elements: int = 40_000) -> ModelProto:
    """Several weights that are large enough to be written on their own, and one small one."""
    weights = [weight(f"w{i}", (elements // 100, 100), seed=i) for i in range(count)]
    nodes = [node("Identity", [f"w{i}"], [f"y{i}"]) for i in range(count)]
    nodes.append(node("Add", ["x", "w"], ["y"]))
    return model(nodes, [*weights, weight()], outputs=["y", *(f"y{i}" for i in range(count))])


def with_weight(change: Callable[[TensorProto], object]) -> ModelProto:
    """y = x + w with a weight that was tampered with."""
    proto = add()
    change(proto.graph.initializer[0])
    return proto


def external(
    directory: Path,
    location: str = "w.data",
    *,
    offset: str | None = None,
    length: str | None = None,
    data: bytes | None = b"",
) -> Path:
    """A model in `directory` whose weight of 16 bytes is said to be at `location`; `data` is put there as w.data."""
    proto = add()
    tensor = proto.graph.initializer[0]
    raw = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, text in (("location", location), ("offset", offset), ("length", length)):
        if text is not None:
            tensor.external_data.add(key=key, value=text)
    directory.mkdir(parents=True, exist_ok=True)
    if data is not None:
        (directory / "w.data").write_bytes(data or raw)
    path = directory / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def wheel_models() -> list[Path]:
    """The models that come as files with onnx."""
    import onnx.backend.test

    return sorted(Path(onnx.backend.test.__file__).parent.glob("data/**/*.onnx"))


def refusal(source: object) -> str:
    """The one printable line with which a source is refused."""
    with pytest.raises(OnnxPruneError) as caught:
        load(source)
    text = str(caught.value)
    assert "\n" not in text
    assert text.isprintable()
    return text


def content(directory: Path) -> dict[str, bytes]:
    """All files in a directory."""
    return {p.name: p.read_bytes() for p in directory.iterdir() if p.is_file()}
