"""Rows of attention in one node: whole heads, or the same features of every head."""

import numpy as np
from rows import I, Row, W, X, row

QUERIES, KEYS, VALUES = (2, 3, 8), (2, 5, 8), (2, 5, 12)
LENGTHS, TOTAL = I(2, dtype="i4"), np.int32(3)
TABLE = X((9, 2), low=-1, high=1, weight=True)
IDS = X((2, 3), "i4", 0, 5)

ROWS: list[Row] = [
    row("com.microsoft:Attention", (2, 3, 8), W(8, 24), W(24), free=10, num_heads=2),
    row("com.microsoft:Attention", (2, 3, 8), W(8, 24), W(24), free=16, num_heads=2, _heads=False),
    row("com.microsoft:Attention", (2, 3, 8), W(8, 28), W(28), free=10, num_heads=2, qkv_hidden_sizes=[8, 8, 12]),
    row("com.microsoft:MultiHeadAttention", QUERIES, KEYS, VALUES, free=2, num_heads=2),
    row("com.microsoft:MultiHeadAttention", QUERIES, KEYS, VALUES, W(28), free=2, num_heads=2),
    row(
        "com.microsoft:MultiHeadAttention", QUERIES, KEYS, VALUES, W(28), free=10, num_heads=2, _heads=False,
        _garbage=False,
    ),
    row("com.microsoft:MultiHeadAttention", QUERIES, KEYS, VALUES, free=6, num_heads=2, _heads=False, _zeroed=False),
    row(
        "com.microsoft:GroupQueryAttention", (1, 3, 64), (1, 3, 32), (1, 3, 32), None, None, LENGTHS, TOTAL, free=2,
        outputs=3, num_heads=4, kv_num_heads=2,
    ),
    row("Attention", (2, 3, 16), (2, 5, 8), (2, 5, 8), free=2, opset=23, q_num_heads=4, kv_num_heads=2),
    row(
        "Attention", (2, 3, 16), (2, 5, 8), (2, 5, 8), free=8, opset=23, q_num_heads=4, kv_num_heads=2, _heads=False,
        _garbage=False,
    ),
    row("Attention", (2, 4, 3, 8), (2, 2, 5, 8), (2, 2, 5, 6), free=16, opset=23, _garbage=False),
    row("Attention", (2, 4, 3, 8), (2, 2, 5, 8), (2, 2, 5, 6), free=8, opset=23, _zeroed=False),
    row("Attention", (2, 4, 3, 8), (2, 4, 5, 8), (2, 4, 5, 6), W(4, 3, 5), free=18, opset=23, _garbage=False),
    row("RotaryEmbedding", (2, 3, 16), TABLE, TABLE, X((2, 3), "i8", 0, 9), free=4, opset=23, num_heads=4),
    row("RotaryEmbedding", (2, 4, 3, 4), TABLE, TABLE, X((2, 3), "i8", 0, 9), free=4, opset=23),
    row("com.microsoft:RotaryEmbedding", (2, 3, 16), X((2, 3), "i8", 0, 9), TABLE, TABLE, free=4, num_heads=4),
    row(
        "com.microsoft:EmbedLayerNormalization", IDS, X((2, 3), "i4", 0, 2), W(10, 8), W(5, 8), W(2, 8), W(8), W(8),
        free=0, outputs=2,
    ),
]  # fmt: skip
