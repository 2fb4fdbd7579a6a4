"""Which attention in one node keeps what is in its heads to itself."""

from typing import Any

import pytest
from onnx import helper

from onnxprune.operators.own_heads import OwnHeads, own_heads

RUNTIME: dict[str, Any] = {"domain": "com.microsoft", "num_heads": 4}
STANDARD = {"q_num_heads": 4, "kv_num_heads": 4}


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "found"),
    [
        ("Attention", "q k v mask", STANDARD, OwnHeads(4)),
        ("Attention", "q k v", {}, OwnHeads(0)),
        ("Attention", "q k v", {**STANDARD, "kv_num_heads": 2}, None),
        ("Attention", "q k v - past", STANDARD, None),
        ("Attention", "q k v - - past", STANDARD, None),
        ("Attention", "x w", RUNTIME, OwnHeads(4, packed=True)),
        ("Attention", "x w b", RUNTIME, OwnHeads(4, packed=True, bias=2)),
        ("Attention", "x w b", {**RUNTIME, "do_rotary": 1}, None),
        ("Attention", "x w b - past", RUNTIME, None),
        ("MultiHeadAttention", "q k v", RUNTIME, OwnHeads(4)),
        ("MultiHeadAttention", "q k v b padding mask", RUNTIME, OwnHeads(4, bias=3)),
        *(("MultiHeadAttention", "q k v" + " -" * (k - 3) + " past", RUNTIME, None) for k in (6, 7, 8, 9)),
        ("GroupQueryAttention", "q k v", {**RUNTIME, "kv_num_heads": 4}, None),
        ("MatMul", "q k", {}, None),
    ],
)
def test_heads_that_nothing_else_sees(op: str, inputs: str, attributes: dict[str, Any], found: OwnHeads | None) -> None:
    names = ["" if name == "-" else name for name in inputs.split()]
    assert own_heads(helper.make_node(op, names, ["y"], **attributes)) == found
    assert own_heads(helper.make_node(op, names, ["y", "seen"], **attributes)) is None
