"""Rows of the differentiable operators that the rules of pruning have no row for, or another one is needed."""

import numpy as np
from rows import I, P, Row, W, X, row

IMAGE = (2, 3, 6, 7)
LINE = X((2, 3, 8), low=0.1, high=2)
GRID = X((2, 4, 5, 2), low=-0.9, high=0.9)
SEEN = np.array([[1, 1, 0], [1, 1, 1]], "i4")

ROWS = [
    row("Conv", (1, 3, 7, 8), W(4, 3, 3, 2), W(4), free=0, auto_pad="SAME_UPPER", strides=[2, 2]),
    row("Conv", (1, 3, 7, 8), W(4, 3, 3, 2), free=0, auto_pad="SAME_LOWER"),
    row("Conv", (1, 3, 7, 8), W(4, 3, 3, 3), free=0, auto_pad="VALID", dilations=[2, 1]),
    row("Conv", (1, 3, 7, 8), W(4, 3, 3, 3), free=0, pads=[0, 1, 2, 1]),
    row("ConvTranspose", (1, 3, 5, 4), W(3, 4, 3, 3), W(4), free=0, strides=[2, 2], pads=[1, 0, 0, 1]),
    row("ConvTranspose", (1, 3, 5, 4), W(3, 4, 3, 3), free=0, strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1]),
    row("ConvTranspose", (1, 3, 5, 4), W(3, 4, 3, 3), free=0, strides=[2, 2], auto_pad="SAME_UPPER"),
    row("ConvTranspose", (1, 3, 5, 4), W(3, 4, 3, 3), free=0, strides=[2, 2], auto_pad="SAME_LOWER"),
    row("ConvTranspose", (1, 3, 5, 4), W(3, 4, 3, 3), free=0, strides=[2, 2], output_shape=[10, 8]),
    row("ConvTranspose", (1, 3, 5, 4), W(3, 4, 3, 3), free=0, dilations=[2, 1]),
    row("MaxPool", IMAGE, free=0, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    row("MaxPool", IMAGE, free=0, kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 1], ceil_mode=1),
    row("MaxPool", IMAGE, free=0, kernel_shape=[3, 3], auto_pad="SAME_UPPER", strides=[2, 2]),
    row("MaxPool", IMAGE, free=0, kernel_shape=[2, 2], dilations=[2, 2]),
    row("MaxPool", IMAGE, free=0, kernel_shape=[3, 3], pads=[1, 1, 0, 0], strides=[2, 2], outputs=2),
    row("MaxPool", IMAGE, free=0, kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2], outputs=2, storage_order=1),
    row("AveragePool", IMAGE, free=0, kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2]),
    row("AveragePool", IMAGE, free=0, kernel_shape=[3, 3], pads=[1, 0, 1, 1], strides=[2, 2], ceil_mode=1),
    row("AveragePool", IMAGE, free=0, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1, pads=[1, 0, 1, 1],
        count_include_pad=1, opset=19),
    row("AveragePool", IMAGE, free=0, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1, opset=19),
    row("AveragePool", IMAGE, free=0, kernel_shape=[2, 2], dilations=[2, 2], opset=19),
    row("AveragePool", IMAGE, free=0, kernel_shape=[3, 3], auto_pad="SAME_LOWER", strides=[2, 2]),
    row("LpPool", X(IMAGE, low=0.1), free=0, kernel_shape=[3, 2], p=3, strides=[2, 2], opset=18),
    row("MaxUnpool", (1, 1, 2, 2), np.array([5, 7, 13, 15]).reshape(1, 1, 2, 2), free=0, kernel_shape=[2, 2],
        strides=[2, 2], opset=11),
    row("Resize", IMAGE, None, np.array([1, 1, 2, 3], "f4"), free=0, mode="linear", opset=13),
    row("Resize", IMAGE, None, np.array([1, 1, 0.6, 0.5], "f4"), free=0, mode="linear", opset=13,
        coordinate_transformation_mode="align_corners"),
    row("Resize", IMAGE, None, np.array([1, 1, 1.7, 0.5], "f4"), free=0, mode="linear", opset=13,
        coordinate_transformation_mode="asymmetric"),
    row("Resize", IMAGE, None, None, I(2, 3, 1, 9), free=0, mode="linear", opset=13,
        coordinate_transformation_mode="pytorch_half_pixel"),
    row("Resize", IMAGE, None, np.array([1, 1, 1.5, 2], "f4"), free=0, mode="cubic", opset=13),
    row("Resize", IMAGE, None, np.array([1, 1, 1.5, 2], "f4"), free=0, mode="cubic", opset=13, exclude_outside=1,
        cubic_coeff_a=-0.5),
    row("Resize", IMAGE, None, np.array([1, 1, 0.5, 0.4], "f4"), free=0, mode="linear", opset=18, antialias=1),
    row("Resize", IMAGE, None, np.array([1, 1, 0.5, 0.4], "f4"), free=0, mode="cubic", opset=18, antialias=1),
    *(
        row("Resize", IMAGE, None, np.array([1, 1, 1.6, 0.7], "f4"), free=0, opset=13, nearest_mode=mode,
            coordinate_transformation_mode=at)
        for mode in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
        for at in ("half_pixel", "asymmetric", "tf_half_pixel_for_nn")
    ),
    row("Resize", IMAGE, None, None, I(2, 3, 8, 9), free=0, opset=19, mode="linear",
        coordinate_transformation_mode="half_pixel_symmetric"),
    row("Resize", IMAGE, np.array([1, 1, 0.6, 0.7], "f4"), free=0, opset=10),
    row("Upsample", IMAGE, np.array([1, 1, 2, 2], "f4"), free=0, opset=9, mode="linear"),
    row("Pad", IMAGE, I(0, 0, 2, 1, 0, 0, 1, 3), free=0, mode="edge"),
    row("Pad", IMAGE, I(0, 0, 2, 1, 0, 0, 1, 3), free=0, mode="wrap", opset=19),
    row("Pad", IMAGE, I(0, 0, -2, 1, 0, 0, 1, -3), np.float32(2), free=0),
    *(
        row("GridSample", (2, 3, 4, 5), GRID, free=0, opset=opset, mode=mode, padding_mode=edge, align_corners=corners)
        for opset, mode, edge, corners in (
            (16, "bilinear", "zeros", 0), (16, "bilinear", "border", 1), (16, "nearest", "zeros", 0),
            (16, "bicubic", "zeros", 1), (20, "linear", "reflection", 0),
        )
    ),
    row("com.microsoft:GridSample", (2, 3, 4, 5), GRID, free=0),
    row("com.microsoft:Trilu", (2, 4, 4), np.int64(1), free=0, upper=0),
    row("LRN", (1, 5, 3, 3), free=0, size=5, alpha=0.5, beta=0.6, bias=1.5),
    row("GatherND", (2, 3, 4), I(1, 0).reshape(2, 1), free=0, batch_dims=1),
    row("GatherND", (2, 3, 4), np.array([[0, 1], [1, -1]]), free=0),
    row("ScatterND", (4, 3), I(1, 3, 1).reshape(3, 1), (3, 3), free=0, reduction="add", opset=18),
    row("ScatterND", LINE, I(1, 0).reshape(2, 1), X((2, 3, 8), low=0.1), free=0, reduction="mul", opset=18),
    row("ScatterND", (4, 3), I(1, 3).reshape(2, 1), (2, 3), free=0, reduction="max", opset=18),
    row("ScatterElements", (3, 4), I(0, 2, 2).reshape(1, 3), (1, 3), free=0, axis=1, reduction="add", opset=18),
    row("ScatterElements", (3, 4), I(0, -1, 2).reshape(1, 3), (1, 3), free=0, axis=1),
    row("TopK", (2, 6, 4), I(3), free=0, axis=1, outputs=2, largest=0),
    row("ArgMax", (2, 6, 4), free=0, axis=1, select_last_index=1, opset=13),
    row("CumSum", (2, 6, 4), np.int64(1), free=0, reverse=1),
    row("Compress", (2, 3), np.array([True, False, True, True]), free=0),
    row("Einsum", (2, 3, 4), (2, 4, 5), free=0, equation="bij,bjk->bik"),
    row("Softmax", (2, 3, 4, 5), free=0, opset=11, axis=2),
    row("LSTM", (4, 2, 3), W(1, 20, 3), W(1, 20, 5), W(1, 40), I(4, 2, dtype="i4"), (1, 2, 5), (1, 2, 5), W(1, 15),
        free=0, hidden_size=5, outputs=3, direction="reverse"),
    row("LSTM", (4, 2, 3), W(1, 20, 3), W(1, 20, 5), W(1, 40), free=0, hidden_size=5, outputs=2, clip=0.5,
        activations=["HardSigmoid", "Relu", "Softsign"]),
    row("LSTM", (4, 2, 3), W(1, 20, 3), W(1, 20, 5), W(1, 40), free=0, hidden_size=5, outputs=2, input_forget=1),
    row("GRU", (4, 2, 3), W(2, 15, 3), W(2, 15, 5), W(2, 30), I(4, 2, dtype="i4"), (2, 2, 5), free=0, hidden_size=5,
        outputs=2, direction="bidirectional", linear_before_reset=1),
    row("RNN", (4, 2, 3), W(2, 5, 3), W(2, 5, 5), W(2, 10), free=0, hidden_size=5, outputs=2, direction="bidirectional",
        activations=["Tanh", "Relu"]),
    row("InstanceNormalization", IMAGE, W(3), W(3), free=0, epsilon=0.1),
    row("com.microsoft:CDist", (5, 6), (4, 6), free=0, metric="sqeuclidean"),
    row("Attention", (2, 4, 3, 8), (2, 4, 5, 8), (2, 4, 5, 6), None, (2, 4, 2, 8), (2, 4, 2, 6), free=0, opset=23,
        is_causal=1, outputs=3),
    row("Attention", (2, 3, 16), (2, 3, 16), (2, 3, 16), free=0, opset=23, q_num_heads=4, kv_num_heads=4, is_causal=1,
        scale=0.3, softcap=2.0),
    row("Attention", (2, 4, 3, 8), (2, 4, 5, 8), (2, 4, 5, 6), X((3, 5), "?"), free=0, opset=23),
    row("com.microsoft:Attention", (2, 3, 8), W(8, 24), W(24), SEEN, free=0, num_heads=2),
    row("com.microsoft:MultiHeadAttention", (2, 3, 8), (2, 3, 8), (2, 3, 8), W(24), SEEN, free=0, num_heads=2,
        scale=0.5),
    row("RotaryEmbedding", (2, 3, 16), X((2, 3, 2), weight=True), X((2, 3, 2), weight=True), free=0, opset=23,
        num_heads=4, interleaved=1),
    row("ParametricSoftplus", LINE, free=0, opset=1, alpha=2.0, beta=0.5),
    row("ScaledTanh", LINE, free=0, opset=1, alpha=2.0, beta=0.5),
    row("Mod", X((2, 6), "i4", 1, 20), X((2, 6), "i4", 2, 7), free=0),
    row("Div", X((2, 6), "i4", -20, 20), X((2, 6), "i4", 2, 7), free=0),
    row("NonMaxSuppression", X((1, 6, 4), low=0, high=1), X((1, 1, 6), low=0, high=1), I(3), free=0, opset=11),
    row("Split", (2, 7, 4), free=0, axis=1, outputs=3, opset=18, num_outputs=3),
]  # fmt: skip

S, Z = np.float32(0.05), np.uint8(128)
FINE = np.float32(1 / 256)
U = X((2, 6, 3, 4), "u1", 100, 156)
PAIR = (U, S, Z, X((2, 6, 3, 4), "u1", 100, 156), S, Z, np.float32(0.0771), Z)
IN, COARSE = X((2, 4, 5, 5), "u1", 60, 200), np.float32(2)
ROWS_IN, COLUMNS = X((3, 8), "u1", 60, 200), X((8, 5), "u1", 60, 200, weight=True)

QUANTISED: list[Row] = [
    row("QuantizeLinear", IMAGE, S, Z, free=0),
    row("QuantizeLinear", IMAGE, np.array([0.02, 0.05, 0.03], "f4"), np.full(3, 5, "i1"), free=0),
    row("com.microsoft:QuantizeLinear", IMAGE, S, Z, free=0),
    row("DequantizeLinear", U, S, Z, free=0),
    row("DequantizeLinear", X((6, 4), "i1", -99, 99, weight=True), P(6), np.zeros(6, "i1"), free=0, axis=0),
    row("DequantizeLinear", X((6, 4), "i1", -99, 99), P(3, 4), free=0, axis=0, block_size=2, opset=21),
    row("com.microsoft:DequantizeLinear", U, S, Z, free=0),
    row("DynamicQuantizeLinear", IMAGE, free=0, outputs=3),
    row("QLinearConv", IN, S, Z, X((6, 4, 3, 3), "u1", 60, 200, weight=True), S, Z, COARSE, Z, free=0),
    row("QLinearConv", IN, S, Z, X((6, 4, 3, 3), "i1", -90, 90, weight=True), P(6), np.zeros(6, "i1"),
        np.float32(40), Z, X((6,), "i4", -20000, 20000, weight=True), free=0),
    row("QLinearMatMul", ROWS_IN, S, Z, COLUMNS, S, Z, np.float32(0.5), Z, free=0),
    row("com.microsoft:QGemm", ROWS_IN, S, Z, X((8, 5), "i1", -90, 90, weight=True), P(5), np.zeros(5, "i1"),
        X((5,), "i4", -12000, 12000, weight=True), np.float32(4), Z, free=0),
    row("com.microsoft:QGemm", ROWS_IN, S, Z, X((5, 8), "i1", -90, 90, weight=True), P(5), np.zeros(5, "i1"), free=0,
        transB=1),
    row("ConvInteger", IN, X((6, 4, 3, 3), "u1", 60, 200, weight=True), Z, Z, free=0),
    row("MatMulInteger", ROWS_IN, COLUMNS, Z, Z, free=0),
    row("com.microsoft:MatMulIntegerToFloat", ROWS_IN, COLUMNS, S, S, Z, Z, W(5), free=0),
    row("com.microsoft:DynamicQuantizeMatMul", (3, 8), COLUMNS, S, Z, W(5), free=0),
    row("com.microsoft:QLinearAdd", *PAIR, free=0),
    row("com.microsoft:QLinearMul", *PAIR, free=0),
    row("com.microsoft:QLinearLeakyRelu", U, S, Z, S, Z, free=0, alpha=0.5),
    row("com.microsoft:QLinearSigmoid", U, S, Z, FINE, np.uint8(0), free=0),
    row("com.microsoft:QLinearSoftmax", U, S, Z, FINE, np.uint8(0), free=0, _attributes={"opset": 13}),
    row("com.microsoft:QLinearConcat", S, Z, U, S, Z, U, S, Z, free=0, axis=1),
    row("com.microsoft:QLinearGlobalAveragePool", U, S, Z, np.float32(0.005), Z, free=0),
    row("com.microsoft:QLinearAveragePool", U, S, Z, np.float32(0.0213), Z, free=0, kernel_shape=[2, 2]),
    row("com.microsoft:QLinearWhere", X((6, 1, 1), "?"), U, S, Z, U, S, Z, S, Z, free=0),
]  # fmt: skip

HEAD = '<ir_version: 8, opset_import: ["" : 17]> '
GRAPHS = {
    "If": HEAD
    + "g (float[2, 3] x, bool c) => (float y) { y = If (c) <then_branch = a () => (float t) { t = Exp (x) },"
    " else_branch = b () => (float e) { e = Neg (x) }> }",
    "Loop": HEAD
    + "g (float[2, 3] x) => (float y, float all) { n = Constant <value = int64 {3}> ()"
    " go = Constant <value = bool {1}> () y, all = Loop (n, go, x)"
    " <body = b (int64 i, bool c, float[2, 3] v) => (bool d, float w, float s) {"
    " d = Identity (c) w = Sin (v) s = Mul (v, x) }> }",
    "Scan": HEAD
    + "g (float[3] s, float[4, 3] x) => (float y, float all) { y, all = Scan <num_scan_inputs = 1,"
    " body = b (float[3] v, float[3] p) => (float[3] w, float[3] o) { w = Mul (v, p) o = Tanh (w) }> (s, x) }",
    "sequences": HEAD
    + "g (float[2, 3] x, float[2, 3] z) => (float y, float w, int64 n, float q) { one = Constant <value = int64 {1}> ()"
    " s = SequenceConstruct (x, z) t = SequenceInsert (s, z, one) u = SequenceErase (t, one) n = SequenceLength (t)"
    " a = SequenceAt (u, one) e = Exp (a) empty = SequenceEmpty () f = SequenceInsert (empty, e)"
    " y = ConcatFromSequence <axis = 1> (f) p = SplitToSequence <axis = 1> (x)"
    " sum = ReduceSum <keepdims = 0> (x) odd = IsNaN (sum) place = Cast <to = 7> (odd)"  # a place that the data say
    " i = SequenceAt (t, place) j = SequenceAt (f, place) l = SequenceAt (p, place)"
    " w = ConcatFromSequence <axis = 0, new_axis = 1> (t) k = SequenceAt (p, one) q = Sin (k) }",
}  # fmt: skip

DRAWN = {
    "RandomNormalLike": HEAD + "g (float[3, 4] x) => (float y) { y = RandomNormalLike (x) }",
    "RandomUniformLike": HEAD + "g (float[3, 4] x) => (float y) { y = RandomUniformLike (x) }",
    "RandomNormal": HEAD + "g (float[3, 4] x) => (float y) { y = RandomNormal <shape = [3, 4]> () }",
    "RandomUniform": HEAD + "g (float[3, 4] x) => (float y) { y = RandomUniform <shape = [3, 4]> () }",
    "Bernoulli": HEAD + "g (float[3, 4] x) => (float y) { y = Bernoulli (x) }",
    "Multinomial": HEAD + "g (float[3, 4] x) => (int32 y) { y = Multinomial <sample_size = 2> (x) }",
}
