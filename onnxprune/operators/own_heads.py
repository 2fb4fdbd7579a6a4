"""Attention in one node that looks at queries and keys through their products alone, and at values through their sums.

Any invertible map of a head's queries, with its inverse on the keys, gives the same scores; one of its values comes out
of the node as it went in.
"""

from dataclasses import dataclass

import onnx

from onnxprune.operators.registry import attributes_of, operator_of


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
    a, heads = attributes_of(node), operator_of(node).heads
    given = {k for k, name in enumerate(node.input) if name}
    if heads is None or heads.whole or a.get("do_rotary", 0) or any(node.output[1:]) or given.intersection(heads.past):
        return None
    count = a.get("q_num_heads", a.get("num_heads", 0))
    if a.get("kv_num_heads", count) != count:
        return None
    return OwnHeads(count, heads.packed, heads.bias if heads.bias in given else None)
