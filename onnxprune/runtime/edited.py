"""A graph that is run otherwise than it stands: values that are handed to it, and seeds."""

import zlib
from collections.abc import Mapping

import onnx

from onnxprune.model.graphs import refill
from onnxprune.model.tensors import nodes
from onnxprune.operators.registry import Trait, has


def hand_over(graph: onnx.GraphProto, values: Mapping[str, int]) -> None:
    """Let these values be given by the caller (name → element type); what the graph makes itself becomes an output."""
    for node in graph.node:
        for k, name in enumerate(node.output):
            if name in values:
                node.output[k] = own(name)
    refill(graph.output, [o for o in graph.output if o.name not in values])
    for name, element in values.items():
        graph.input.append(onnx.helper.make_tensor_value_info(name, element, None))
        graph.output.add().name = own(name)


def own(name: str) -> str:
    """What a graph makes itself of a value that is handed to it."""
    return f"{name}/own"


def draws_unseeded(graph: onnx.GraphProto) -> bool:
    """Whether any node of a graph draws random numbers without a seed of its own."""
    return any(map(_unseeded, nodes(graph.node)))


def sow(graph: onnx.GraphProto) -> None:
    """Give random operators a seed by the name of what they make: onnxruntime's own hangs on the place of the node."""
    for node in filter(_unseeded, nodes(graph.node)):
        seed = float(zlib.crc32(node.output[0].encode()) % 65536)
        node.attribute.append(onnx.helper.make_attribute("seed", seed))


def _unseeded(node: onnx.NodeProto) -> bool:
    return has(node, Trait.RANDOM) and not any(a.name == "seed" for a in node.attribute)
