"""A node computed by onnxruntime, for parts of a network that no gradient goes through."""

from functools import lru_cache
from typing import Any

import numpy as np
import onnx
from onnx import helper

from onnxprune.errors import ModelError
from onnxprune.operators.arrays import from_array
from onnxprune.operators.forward import TorchCall
from onnxprune.operators.lazy_torch import torch


def native(node: TorchCall, *inputs: Any) -> Any:
    """Outputs of a node that becomes a model of its own, of the types that it is given.

    Raises ModelError where onnxruntime does not know the operator either.
    """
    arrays = [x if x is None or isinstance(x, np.ndarray) else x.detach().cpu().numpy() for x in inputs]
    names = [f"x{k}" if x is not None else "" for k, x in enumerate(arrays)]
    outputs = [f"y{k}" for k in range(node.outputs)]
    proto = helper.make_node(node.op, names, outputs, domain=node.domain, **node.attributes)
    session = _session(proto.SerializeToString(deterministic=True), node.opset, tuple(map(_kind, arrays)))
    device = next((x.device for x in inputs if isinstance(x, torch.Tensor)), torch.device("cpu"))
    found = session.run({name: x for name, x in zip(names, arrays, strict=True) if name})
    values = [from_array(found[name]) for name in outputs]
    return tuple(x.to(device) if isinstance(x, torch.Tensor) else x for x in values)


def _kind(array: np.ndarray | None) -> int:
    if array is None:
        return 0
    return onnx.TensorProto.STRING if array.dtype.kind in "OSU" else helper.np_dtype_to_tensor_dtype(array.dtype)


@lru_cache(maxsize=64)
def _session(encoded: bytes, opset: int, kinds: tuple[int, ...]) -> Any:
    from onnxprune.runtime.session import make_session

    node = onnx.NodeProto.FromString(encoded)
    named = [(name, kind) for name, kind in zip(node.input, kinds, strict=True) if name]
    inputs = [helper.make_tensor_value_info(name, kind, None) for name, kind in named]
    imports = [helper.make_opsetid(node.domain, opset)] + ([helper.make_opsetid("", 17)] if node.domain else [])
    graph = helper.make_graph([node], "node", inputs, [helper.make_empty_tensor_value_info(n) for n in node.output])
    try:
        return make_session(helper.make_model(graph, opset_imports=imports, ir_version=8), providers="cpu")
    except ModelError as error:
        raise ModelError(f"{node.op_type} can be run neither by torch nor by onnxruntime: {error}") from error
