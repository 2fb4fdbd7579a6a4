"""Along which axes of its inputs an operator lets channels meet; along the others they pass."""

from collections.abc import Callable
from typing import Any

from onnxprune.channels.dependencies import Node
from onnxprune.channels.ops.linear import einsum_terms
from onnxprune.channels.ops.norm import RMS
from onnxprune.channels.tables import operator
from onnxprune.lossless.walk import Knowledge
from onnxprune.model.contrib import matrix_axes
from onnxprune.model.static import attributes_of

Axes = list[int]
Attributes = dict[str, Any]


def _matmul(_: Attributes, k: int, rank: int) -> Axes:
    return [rank - 1 if k == 0 or rank == 1 else rank - 2]


def _fused_matmul(a: Attributes, k: int, rank: int) -> Axes:
    name = "AB"[k]
    order = matrix_axes(rank, a.get(f"trans{name}", 0), a.get(f"transBatch{name}", 0))
    return [order[-1 if k == 0 else -2]]


def _gemm(a: Attributes, k: int, rank: int) -> Axes:
    return [] if k > 1 else [1 - a.get("transA", 0)] if k == 0 else [a.get("transB", 0)]


def _all(_: Attributes, __: int, rank: int) -> Axes:
    return list(range(rank))


def _normalised(a: Attributes, k: int, rank: int) -> Axes:
    return [] if k else list(range(rank))[a.get("axis", -1) :]


def _unit_length(a: Attributes, _: int, rank: int) -> Axes:
    return [a.get("axis", -1) % rank]


MEET: dict[str, Callable[[Attributes, int, int], Axes]] = {
    "MatMul": _matmul,
    "Gemm": _gemm,
    "com.microsoft:FusedMatMul": _fused_matmul,
    "com.microsoft:TransposeMatMul": _fused_matmul,
    **dict.fromkeys(RMS, _normalised),
    "LpNormalization": _unit_length,
}
REDUCTIONS = frozenset(
    "ReduceMean ReduceMax ReduceMin ReduceSum ReduceL1 ReduceL2 ReduceLogSum ReduceSumSquare ReduceProd".split()
)


def meeting_axes(knowledge: Knowledge, node: Node, k: int, rank: int) -> Axes:
    """Axes of input k, which has this rank, along which its elements are summed, or else come together."""
    name, attributes = operator(node.proto.domain, node.proto.op_type), attributes_of(node.proto)
    if name == "Einsum":
        shapes = [knowledge.deps.statics.shapes.get(key) for key in node.inputs]
        if any(shape is None for shape in shapes):
            return _all(attributes, k, rank)
        terms, result = einsum_terms(attributes["equation"], [len(shape or ()) for shape in shapes])
        return [j for j, letter in enumerate(terms[k]) if letter not in result]
    if name not in REDUCTIONS:
        return MEET.get(name, _all)(attributes, k, rank)
    told = attributes.get("axes")
    if told is None and len(node.inputs) > 1 and node.inputs[1]:
        array = knowledge.deps.statics.fixed_constant(node.inputs[1])
        told = None if array is None else array.ravel().tolist()
    return _all(attributes, k, rank) if told is None else sorted({int(j) % rank for j in told})
