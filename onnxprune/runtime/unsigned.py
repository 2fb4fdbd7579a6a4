"""Integer products that cannot saturate: int8 weights become uint8 with a zero point to match.

On CPUs without the newer instructions, a product of uint8 and int8 adds pairs in 16 bits and cuts off what does not
fit. Which pairs meet changes when channels go, and the outcome with it; two uint8 are multiplied exactly everywhere.
"""

import numpy as np
from onnx import TensorProto

from onnxprune.model.network import Network, TensorLike
from onnxprune.operators.registry import Trait, has, operator_of

SHIFT = 128


def multiply_unsigned(network: Network) -> Network:
    """Shift the int8 weights of integer products, and their zero points, where they are tensors of the graph."""
    out, added = network.own(), dict[str, TensorLike]()
    graph = out.graph.graph
    tensors = {t.name: t for t in graph.initializer}
    shifted: dict[str, str] = {}
    for node in graph.node:
        if not has(node, Trait.INTEGER):
            continue
        (_, at_values), (at, at_zero) = operator_of(node).zero_points.inputs.items()
        values, weights, zero = (node.input[k] if k < len(node.input) else "" for k in (at_values, at, at_zero))
        signed = [name for name in (weights, zero) if name]
        known = all(name in tensors and tensors[name].data_type == TensorProto.INT8 for name in signed)
        if not known or not values or (values in tensors and tensors[values].data_type != TensorProto.UINT8):
            continue
        for name in {*signed, ""} - shifted.keys():
            array = network.array(name) if name else np.array(0, np.int8)
            shifted[name] = f"{name}/unsigned"
            added[shifted[name]] = (array.astype(np.int16) + SHIFT).astype(np.uint8)
        node.input.extend([""] * (at_zero + 1 - len(node.input)))
        node.input[at], node.input[at_zero] = shifted[weights], shifted[zero]
    return out.with_more(added)
