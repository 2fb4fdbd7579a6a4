"""Attention in one node that looks at queries and keys through their products alone, and at values through their sums.

Any invertible map of a head's queries, with its inverse on the keys, gives the same scores; one of its values comes out
of the node as it went in.
"""

from dataclasses import dataclass

import onnx

from onnxprune.model.static import attributes_of

RUNTIME = "com.microsoft"
EARLIER = {("", "Attention"): (4, 5), (RUNTIME, "Attention"): (4,), (RUNTIME, "MultiHeadAttention"): (6, 7, 8, 9)}


@dataclass(frozen=True)
class OwnHeads:
    """The heads of a node, each of which has keys and values of its own.

    count: of the heads that stand behind each other on the last axis; 0 where they have an axis of their own.
    packed: whether the node holds the weights that make queries, keys and values (inputs 1 and 2).
    bias: at which input the bias of queries, keys and values is added, behind each other; None where it is at none.
    """

    count: int
    packed: bool = False
    bias: int | None = None


def own_heads(node: onnx.NodeProto) -> OwnHeads | None:
    """The heads of an attention; None where something else sees its queries, keys or values, or it is none.

    Tokens of earlier runs would be in another basis, and rotary positions turn pairs of features.
    """
    a, domain = attributes_of(node), "" if node.domain == "ai.onnx" else node.domain
    places = EARLIER.get((domain, node.op_type))
    if places is None or a.get("do_rotary", 0) or any(node.output[1:]):
        return None
    if any(k < len(node.input) and node.input[k] for k in places):
        return None
    if not domain:
        queries, keys = (a.get(name, 0) for name in ("q_num_heads", "kv_num_heads"))
        return OwnHeads(queries) if queries == keys else None
    if node.op_type == "Attention":
        return OwnHeads(a["num_heads"], packed=True)
    return OwnHeads(a["num_heads"], bias=3 if len(node.input) > 3 and node.input[3] else None)
