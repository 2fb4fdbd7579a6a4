"""Shapes of operators that onnx's own inference does not know: of onnxruntime, and of early Windows exports."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx

Shape = tuple[int, ...]
SAME = "Identity"

# operator -> the standard one whose output has the same shape, and which inputs stand for its own
ALIKE: dict[str, tuple[str, tuple[int, ...]]] = {
    "GroupNormalization": (SAME, (0,)),
    "com.microsoft:FusedConv": ("Conv", (0, 1)),
    "com.microsoft:FusedGemm": ("Gemm", (0, 1)),
    "com.microsoft:GridSample": ("GridSample", (0, 1)),
    "com.microsoft:MatMulIntegerToFloat": ("MatMul", (0, 1)),
    "com.microsoft:DynamicQuantizeMatMul": ("MatMul", (0, 1)),
    "com.microsoft:NhwcMaxPool": ("MaxPool", (0,)),
    "com.microsoft:QGemm": ("Gemm", (0, 3)),
    "com.microsoft:QLinearAdd": ("Add", (0, 3)),
    "com.microsoft:QLinearAveragePool": ("AveragePool", (0,)),
    "com.microsoft:QLinearGlobalAveragePool": ("GlobalAveragePool", (0,)),
    "com.microsoft:QLinearMul": ("Mul", (0, 3)),
    "com.microsoft:QLinearReduceMean": ("ReduceMean", (0,)),
    "com.microsoft:QLinearWhere": ("Where", (0, 1, 4)),
    **dict.fromkeys("Affine ImageScaler ParametricSoftplus ScaledTanh".split(), (SAME, (0,))),
    **{
        f"com.microsoft:{name}": (SAME, (0,))
        for name in "BiasAdd BiasGelu BiasSoftmax DequantizeLinear FastGelu Gelu GroupNorm Inverse QLinearLeakyRelu "
        "QLinearSigmoid QLinearSoftmax QuantizeLinear QuickGelu RotaryEmbedding ScaledSiLU Trilu".split()
    },
}
FLOATS = frozenset({"DequantizeLinear", "MatMulIntegerToFloat", "EmbedLayerNormalization", "QAttention"})
CHANNELS_LAST = frozenset({"com.microsoft:NhwcMaxPool"})


def stand_in(node: onnx.NodeProto, opset: int) -> onnx.NodeProto | None:
    """A node of a standard operator whose output has the same shape; None where there is none."""
    known = ALIKE.get(f"{node.domain}:{node.op_type}" if node.domain else node.op_type)
    if known is None or any(k >= len(node.input) or not node.input[k] for k in known[1]):
        return None
    op_type, inputs = known
    copy = onnx.helper.make_node(op_type, [node.input[k] for k in inputs], [node.output[0]])
    allowed = onnx.defs.get_schema(op_type, opset, "").attributes
    copy.attribute.extend(a for a in node.attribute if a.name in allowed)
    return copy


def channels_last(node: onnx.NodeProto) -> bool:
    """Whether the first input of a pool has its channels at the end."""
    told = any(a.name == "channels_last" and a.i for a in node.attribute)
    return told or f"{node.domain}:{node.op_type}" in CHANNELS_LAST


def type_of(node: onnx.NodeProto, types: Sequence[int | None]) -> int | None:
    """Element type of the outputs, from those of the inputs."""
    if node.op_type in FLOATS or (node.op_type == "QGemm" and len(node.input) < 8):
        return int(onnx.TensorProto.FLOAT)
    k = 2 if node.op_type == "QLinearConcat" else 0
    return types[k] if k < len(types) else None


def shapes_of(
    node: onnx.NodeProto, shapes: Sequence[Shape | None], attributes: Mapping[str, Any]
) -> list[Shape | None]:
    """Shapes of the outputs, as far as they are known, of operators that are like no standard one.

    Args:
        node: any node.
        shapes: of its inputs, None where left out or unknown.
        attributes: of the node, as Python values.
    """
    known = SHAPES.get(f"{node.domain}:{node.op_type}" if node.domain else node.op_type)
    if known is None or not shapes or shapes[0] is None:
        return []
    try:
        return known(shapes, attributes)
    except (IndexError, KeyError, TypeError):  # an input that the shape needs is left out or unknown
        return []


def _crop(x: Sequence[Any], a: Mapping[str, Any]) -> list[Shape | None]:
    left, top, right, bottom = a.get("border", (0, 0, 0, 0))
    height, width = a.get("scale", (x[0][2] - top - bottom, x[0][3] - left - right))
    return [(*x[0][:2], height, width)]


def _attention(x: Sequence[Any], a: Mapping[str, Any]) -> list[Shape | None]:
    """Input (batch, tokens, features), weights (features, all of q, k and v)."""
    sizes = a.get("qkv_hidden_sizes") or [x[1][1] // 3] * 3
    return [(*x[0][:2], sizes[2])]


def _multi_head(x: Sequence[Any], _: Mapping[str, Any]) -> list[Shape | None]:
    query, value = x[0], x[2] if len(x) > 2 else None
    if len(query) == 5:  # packed: (batch, tokens, heads, 3, width)
        return [(*query[:2], query[2] * query[4])]
    if value is None:
        return [query]
    return [(*query[:2], value[2] if len(value) == 3 else value[1] * value[3])]


def _grouped_query(x: Sequence[Any], a: Mapping[str, Any]) -> list[Shape | None]:
    (batch, tokens, features), heads, shared = x[0], a["num_heads"], a["kv_num_heads"]
    if len(x) < 2 or x[1] is None:  # packed: queries, keys and values
        return [(batch, tokens, features * heads // (heads + 2 * shared))]
    earlier = len(x) > 3 and x[3] is not None
    present = None if earlier else (batch, shared, x[1][1], features // heads)
    return [x[0], present, present]


def _embed(x: Sequence[Any], _: Mapping[str, Any]) -> list[Shape | None]:
    out = (*x[0], x[2][1])
    return [out, x[0][:1], out]


def _skip_norm(x: Sequence[Any], _: Mapping[str, Any]) -> list[Shape | None]:
    statistics = (*x[0][:-1], 1)
    return [x[0], statistics, statistics, x[0]]


def _concat(x: Sequence[Any], a: Mapping[str, Any]) -> list[Shape | None]:
    """Inputs: scale and zero point of the output, then (values, scale, zero point) of each part."""
    parts, axis = x[2::3], a["axis"] % len(x[2])
    return [tuple(sum(p[axis] for p in parts) if k == axis else n for k, n in enumerate(parts[0]))]


def matrix_axes(rank: int, transposed: int, batch_inside: int) -> list[int]:
    """Axes of an operand of FusedMatMul in the order (batch..., rows, columns); the rows may stand before the batch."""
    axes = list(range(rank))
    if batch_inside:
        axes = [*axes[1:-1], 0, axes[-1]]
    return [*axes[:-2], axes[-1], axes[-2]] if transposed else axes


def _matmul(x: Sequence[Any], a: Mapping[str, Any]) -> list[Shape | None]:
    left, right = (
        [shape[k] for k in matrix_axes(len(shape), a.get(f"trans{side}", 0), a.get(f"transBatch{side}", 0))]
        for shape, side in ((x[0], "A"), (x[1], "B"))
    )
    rank = max(len(left), len(right)) - 2
    columns = zip(*((*(1,) * (rank + 2 - len(s)), *s[:-2]) for s in (left, right)), strict=True)
    return [(*(max(pair) if min(pair) else 0 for pair in columns), left[-2], right[-1])]


def _lstm(x: Sequence[Any], a: Mapping[str, Any]) -> list[Shape | None]:
    """Input (steps, batch, features), recurrent weights (directions, units, gates · units)."""
    (steps, batch, _), directions, units = x[0], x[2][0], a["hidden_size"]
    last = (directions, batch, units)
    return [(steps, directions, batch, units), last, last]


def _half(x: Sequence[Any], _: Mapping[str, Any]) -> list[Shape | None]:
    return [(*x[0][:-1], x[0][-1] // 2)]


def _packed_columns(x: Sequence[Any], a: Mapping[str, Any]) -> list[Shape | None]:
    return [(*x[0][:-1], a["N"])]


def _reshape(x: Sequence[Any], a: Mapping[str, Any]) -> list[Shape | None]:
    """Before opset 5 the target is an attribute."""
    told = [x[0][k] if size == 0 else size for k, size in enumerate(a.get("shape", ()))]
    rest = math.prod(size for size in told if size != -1)
    return [tuple(math.prod(x[0]) // rest if size == -1 else size for size in told)] if told and rest else []


def _split(x: Sequence[Any], a: Mapping[str, Any]) -> list[Shape | None]:
    """Before opset 2 sizes may be left to the operator, which is of no use here."""
    axis = a.get("axis", 0) % len(x[0])
    return [tuple(size if k == axis else n for k, n in enumerate(x[0])) for size in a.get("split", ())]


SHAPES: dict[str, Callable[[Sequence[Any], Mapping[str, Any]], list[Shape | None]]] = {
    "Crop": _crop,
    "Pow": lambda x, _: [x[0]],
    "Reshape": _reshape,
    "Split": _split,
    "com.microsoft:Attention": _attention,
    "com.microsoft:BiasSplitGelu": _half,
    "com.microsoft:DynamicQuantizeLSTM": _lstm,
    "com.microsoft:EmbedLayerNormalization": _embed,
    "com.microsoft:FusedMatMul": _matmul,
    "com.microsoft:GroupQueryAttention": _grouped_query,
    "com.microsoft:MatMulBnb4": _packed_columns,
    "com.microsoft:MatMulNBits": _packed_columns,
    "com.microsoft:MultiHeadAttention": _multi_head,
    "com.microsoft:QAttention": _attention,
    "com.microsoft:QLinearConcat": _concat,
    "com.microsoft:SkipLayerNormalization": _skip_norm,
    "com.microsoft:SkipSimplifiedLayerNormalization": _skip_norm,
    "com.microsoft:TransposeMatMul": _matmul,
}
