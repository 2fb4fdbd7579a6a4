"""Rows of operators that mix channels by weights, of recurrent layers, and of their quantised kin."""

import numpy as np
from rows import I, P, Row, W, X, row

S = np.float32(0.05)  # a scale
Z = np.uint8(3)  # a zero point


def scales(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


U = X((2, 4, 5, 5), "u1", 0, 9, zero=3)
WU = X((6, 4, 3, 3), "u1", 0, 9, weight=True)
CONVOLUTIONS = [
    row("Conv", (2, 4, 5, 5), W(6, 4, 3, 3), W(6), free=12),
    row("Conv", (2, 4, 5, 5), W(6, 4, 3, 3), free=12, pads=[1, 1, 1, 1], strides=[2, 2], opset=1),
    row("DeformConv", (2, 4, 5, 5), W(6, 4, 3, 3), (2, 18, 3, 3), W(6), free=12, opset=19),
    row("DeformConv", (2, 4, 5, 5), W(6, 4, 2, 2), (2, 16, 4, 4), None, (2, 8, 4, 4), free=10, opset=19,
        offset_group=2),
    row("DeformConv", (1, 8, 5, 5), W(6, 4, 3, 3), (1, 36, 3, 3), W(6), free=7, opset=22, group=2, offset_group=2),
    row("DeformConv", (1, 4, 5, 5), W(4, 1, 3, 3), (1, 18, 3, 3), W(4), free=4, opset=19, group=4),
    row("Conv", (2, 4, 9), W(6, 4, 3), W(6), free=12, dilations=[2]),
    row("Conv", (2, 4, 5), W(6, 4, 1), W(6), free=17),
    row("Conv", (2, 4, 5, 3), W(6, 4, 1, 1), free=20, auto_pad="SAME_UPPER"),
    row("Conv", (2, 4, 5, 3), W(6, 4, 1, 3), free=17, pads=[0, 1, 0, 1], _zeroed=False),
    row("Conv", (2, 4, 5, 3), W(6, 4, 1, 3), free=20, pads=[0, 1, 0, 1], _garbage=False),
    row("Conv", (1, 1, 6), W(1, 1, 3), W(1), free=6, pads=[1, 1], _garbage=False),
    row("Conv", (1, 1, 6), W(1, 1, 3), free=6, pads=[1, 1], opset=10, _garbage=False),
    row("Conv", (1, 1, 9), W(1, 1, 3), free=9, pads=[4, 0], dilations=[2], _garbage=False),
    row("Conv", (1, 1, 6), W(1, 1, 4), W(1), free=6, auto_pad="SAME_LOWER", _garbage=False),
    row("Conv", (1, 2, 6, 7), W(3, 2, 3, 5), W(3), free=18, pads=[1, 2, 1, 2], _garbage=False),
    row("Conv", (1, 4, 6), W(6, 4, 1), free=10, strides=[2]),
    row("Conv", (1, 4, 4, 4, 4), W(6, 4, 2, 2, 2), W(6), free=10),
    row("Conv", (1, 6, 5, 5), W(8, 3, 3, 3), W(8), free=7, group=2),
    row("Conv", (1, 6, 5, 5), W(6, 1, 3, 3), W(6), free=6, group=6),
    row("Conv", (1, 4, 5, 5), W(8, 1, 3, 3), W(8), free=4, group=4),
    row("Conv", (1, 4, 5, 5), (6, 4, 3, 3), (6,), free=10, _garbage=False),
    row("Conv", W(2, 4, 5, 5), (6, 4, 3, 3), free=8),
    row("com.microsoft:FusedConv", (1, 4, 5, 5), W(6, 4, 3, 3), W(6), free=10, activation="Relu"),
    row("com.microsoft:FusedConv", (1, 4, 5, 5), W(6, 4, 3, 3), W(6), (1, 6, 3, 3), free=10, activation="Relu"),
    row("com.microsoft:FusedConv", (1, 6, 5, 5), W(8, 3, 3, 3), W(8), free=7, group=2, activation="Relu"),
    row("com.microsoft:FusedConv", (1, 4, 5, 5), W(8, 1, 3, 3), free=4, group=4, activation="Relu"),
    row("ConvTranspose", (2, 4, 5, 5), W(4, 6, 3, 3), W(6), free=12),
    row("ConvTranspose", (1, 4, 5), W(4, 6, 3), free=10, strides=[2], output_padding=[1]),
    row("ConvTranspose", (1, 4, 3, 3, 3), W(4, 6, 2, 2, 2), W(6), free=10),
    row("ConvTranspose", (1, 6, 5, 5), W(6, 4, 3, 3), W(8), free=7, group=2),
    row("ConvTranspose", (1, 6, 5, 5), W(6, 1, 3, 3), W(6), free=6, group=6),
    row("ConvTranspose", (1, 6, 5, 5), W(6, 2, 3, 3), W(12), free=6, group=6),
    row("ConvInteger", U, WU, I(3, dtype="u1")[0], I(5, dtype="u1")[0], free=12, opset=10),
    row("ConvInteger", U, X((4, 1, 3, 3), "u1", 0, 9, weight=True), I(3, dtype="u1")[0], free=6, opset=10, group=4),
    row(
        "QLinearConv", U, S, Z, WU, scales(0.1, 0.2, 0.3, 0.1, 0.2, 0.3), I(1, 1, 1, 1, 1, 1, dtype="u1"), S, Z,
        X((6,), "i4", -9, 9, weight=True), free=12, _garbage=False,
    ),
    row("QLinearConv", U, S, Z, WU, S, Z, S, Z, free=12),
    row("QLinearConv", U, S, Z, X((4, 1, 3, 3), "u1", 0, 9, weight=True), S, Z, S, Z, free=6, group=4),
    row("QLinearConv", U, S, Z, X((8, 2, 3, 3), "u1", 0, 9, weight=True), S, Z, S, Z, free=8, group=2),
]  # fmt: skip

MATRICES = [
    row("Gemm", (3, 8), W(8, 5), W(5), free=16),
    row("Gemm", (3, 8), W(5, 8), W(5), free=16, transB=1, alpha=0.5, beta=2.0),
    row("Gemm", (8, 3), W(8, 5), W(5), free=16, transA=1),
    row("Gemm", (3, 8), W(8, 5), W(3, 5), free=16),
    row("Gemm", (3, 8), W(8, 5), W(3, 1), free=16),
    row("Gemm", (3, 8), W(8, 5), W(), free=16),
    row("Gemm", (3, 8), W(8, 5), W(1, 5), free=16, opset=7),
    row("Gemm", (3, 8), W(8, 5), free=16, opset=11),
    row("Gemm", W(5, 8), (8, 3), W(5, 1), free=16),
    row("Gemm", (3, 8), (8, 5), (5,), free=16, _garbage=False),
    row("Gemm", (3, 8), W(8, 5), W(5), free=16, opset=1, broadcast=1),
    row("Gemm", (3, 8), W(5, 8), W(3, 5), free=16, opset=6, transB=1),
    row("com.microsoft:FusedGemm", (3, 8), W(8, 5), W(5), free=16, activation="Relu"),
    row("MatMul", (3, 8), W(8, 5), free=16),
    row("MatMul", (2, 3, 8), W(8, 5), free=18, opset=1),
    row("MatMul", W(5, 8), (2, 8, 3), free=18),
    row("MatMul", (2, 3, 4, 5), (2, 3, 5, 6), free=20, _garbage=False),
    row("MatMul", (2, 3, 4, 5), W(2, 3, 5, 6), free=20),
    row("MatMul", (3, 1, 4, 5), (2, 5, 6), free=20, _garbage=False),
    row("MatMul", (8,), W(8, 5), free=13),
    row("MatMul", (3, 8), W(8), free=11),
    row("MatMul", (2, 3, 8), W(8), free=13),
    row("MatMul", (8,), W(2, 8, 5), free=15),
    row("MatMul", (8,), (8,), free=8, _garbage=False),
    row("com.microsoft:FusedMatMul", (2, 3, 8), W(5, 8), free=18, transB=1, alpha=0.5),
    row("com.microsoft:FusedMatMul", (2, 8, 3), W(8, 5), free=18, transA=1),
    row("com.microsoft:TransposeMatMul", (2, 3, 8), W(5, 8), free=18, transB=1),
    row("Einsum", (2, 3, 8), W(8, 5), free=18, equation="bij,jk->bik"),
    row("Einsum", (2, 3, 8), (2, 5, 8), free=18, _garbage=False, equation="bid,bjd->bij"),
    row("Einsum", (2, 8), W(3, 8), W(8, 5), free=18, equation="bi,oi,ik->bok"),
    row("Einsum", (2, 3, 8), W(8, 4, 5), free=22, equation="bnd,dhe->bhne"),
    row("Einsum", (2, 3, 8), W(8, 5), free=18, equation="...j,jk->...k"),
    row("Einsum", (2, 3, 8), W(5, 8), free=18, equation="...j,kj"),
    row("Einsum", (2, 3, 8), (3, 8), free=13, equation="...jk,jk->...jk"),
    row("MatMulInteger", X((3, 8), "u1", 0, 9, zero=3), X((8, 5), "u1", 0, 9, weight=True), Z, Z, free=16),
    row("MatMulInteger", X((3, 8), "u1", 0, 9, zero=3), X((8, 5), "u1", 0, 9, zero=3), Z, Z, free=16, _garbage=False),
    row("MatMulInteger", X((3, 8), "u1", 0, 9, zero=3), X((8, 5), "u1", 0, 9, zero=3), *[np.uint8(5)] * 2, free=8),
    row(
        "MatMulInteger", X((3, 8), "u1", 0, 9, zero=3), X((8, 5), "i1", -9, 9, weight=True), Z,
        I(1, 2, 3, 4, 5, dtype="i1"), free=16,
    ),
    row("QLinearMatMul", X((3, 8), "u1", 0, 9, zero=3), S, Z, X((8, 5), "u1", 0, 9, weight=True), S, Z, S, Z, free=16),
    row(
        "com.microsoft:MatMulIntegerToFloat", X((3, 8), "u1", 0, 9, zero=3), X((8, 5), "u1", 0, 9, weight=True), S, S,
        Z, Z, W(5), free=16,
    ),
    row(
        "com.microsoft:DynamicQuantizeMatMul", (3, 8), X((8, 5), "u1", 0, 9, weight=True), S, Z, W(5), free=16,
        _garbage=False,
    ),
    row(
        "com.microsoft:QGemm", X((3, 8), "u1", 0, 9, zero=3), S, Z, X((8, 5), "i1", -9, 9, weight=True),
        scales(0.1, 0.2, 0.3, 0.1, 0.2), I(0, 0, 0, 0, 0, dtype="i1"), X((5,), "i4", -9, 9, weight=True), S, Z, free=16,
    ),
]  # fmt: skip

RECURRENT = [
    row("LSTM", (3, 2, 4), W(1, 20, 4), W(1, 20, 5), W(1, 40), free=9, hidden_size=5, outputs=3),
    row(
        "LSTM", (3, 2, 4), W(2, 20, 4), W(2, 20, 5), W(2, 40), None, W(2, 2, 5), W(2, 2, 5), W(2, 15), free=9,
        hidden_size=5, outputs=3, direction="bidirectional",
    ),
    row("GRU", (3, 2, 4), W(1, 15, 4), W(1, 15, 5), W(1, 30), None, (1, 2, 5), free=9, hidden_size=5, outputs=2),
    row("GRU", (3, 2, 4), W(1, 15, 4), W(1, 15, 5), free=9, hidden_size=5, outputs=2, linear_before_reset=1),
    row("RNN", (3, 2, 4), W(1, 5, 4), W(1, 5, 5), W(1, 10), free=9, hidden_size=5, outputs=2),
    row(
        "com.microsoft:DynamicQuantizeLSTM", (3, 2, 4), X((1, 4, 20), "i1", -9, 9, weight=True),
        X((1, 5, 20), "i1", -9, 9, weight=True), W(1, 40), None, None, None, None, P(1, 20), np.zeros((1, 20), "i1"),
        P(1, 20), np.zeros((1, 20), "i1"), free=9, hidden_size=5, outputs=3, _garbage=False,
    ),
    row(
        "com.microsoft:DynamicQuantizeLSTM", (3, 2, 4), X((2, 4, 20), "i1", -9, 9, weight=True),
        X((2, 5, 20), "i1", -9, 9, weight=True), W(2, 40), None, None, None, None, P(2), np.ones(2, "i1"),
        P(2), np.ones(2, "i1"), free=0, hidden_size=5, outputs=3, direction="bidirectional",
        _refused="zero points of its own",
    ),
]  # fmt: skip

ROWS: list[Row] = CONVOLUTIONS + MATRICES + RECURRENT
