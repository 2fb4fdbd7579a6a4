"""onnxruntime's MultiHeadAttention and GroupQueryAttention."""

import math
from typing import Any

import numpy as np

from onnxprune.errors import ModelError
from onnxprune.operators.attention import (
    attend,
    attend_seen,
    bound_attention,
    couple_heads,
    heads_apart,
    heads_together,
    keep_scale,
    pair_costs,
    score_bias,
    with_past,
)
from onnxprune.operators.forward import Forward, TorchCall
from onnxprune.operators.fused_attention import rotate
from onnxprune.operators.labels import Axes, fixed
from onnxprune.operators.lazy_torch import Tensor, torch
from onnxprune.operators.op import Op
from onnxprune.operators.reach import within_heads
from onnxprune.operators.registry import Arrays, Attributes, HeadInputs, Shape, Trait, define


def multi_head(
    op: Op, q: Axes, k: Axes | None = None, v: Axes | None = None, b: Axes | None = None, padding: Axes | None = None,
    bias: Axes | None = None, past_k: Axes | None = None, past_v: Axes | None = None, *_: Axes | None,
    num_heads: int, **__: Any,
) -> Any:  # fmt: skip
    """Queries, keys and values (batch, tokens, features of all heads)."""
    if k is None or v is None or not len(q) == len(k) == len(v) == 3 or past_k or past_v or any(op.given[1:]):
        return op.unknown("packs its inputs or keeps earlier tokens")
    grids = [x[2].reshape(num_heads, -1) for x in (q, k, v)]
    zero = all(op.relies(op.zero_where_dead(k)) for k in (0, 1, 3))
    head = couple_heads(op, *grids, scores=zero)
    if b is not None:
        op.tie(np.concatenate([q[2], k[2], v[2]]), b[0])
    op.freeze(*(padding or ()), q[0], q[1], *k[:2], *v[:2], why="attends over it")
    if bias is not None:
        score_bias(op, bias, head)
    pair_costs(op, q, k, grids[0], grids[2])
    return [(q[0], q[1], v[2]), *[(...,)] * (len(op.given) - 1)]


def repair_multi_head(edit: Any, num_heads: int, **_: Any) -> None:
    live = edit.live_in(1, 2).reshape(num_heads, -1)
    edit.set_attribute("num_heads", int(live.any(axis=1).sum()))
    keep_scale(edit, live.shape[1], int(live.any(axis=0).sum()))


def _multi_head_shape(x: Arrays, _: Attributes) -> list[Shape | None]:
    query, value = x[0], x[2] if len(x) > 2 else None
    if len(query) == 5:  # packed: (batch, tokens, heads, 3, width)
        return [(*query[:2], query[2] * query[4])]
    if value is None:
        return [query]
    return [(*query[:2], value[2] if len(value) == 3 else value[1] * value[3])]


def forward_multi_head_attention(
    node: TorchCall, q: Tensor, k: Tensor | None = None, v: Tensor | None = None, bias: Tensor | None = None,
    padding: Tensor | None = None, added: Tensor | None = None, past_k: Tensor | None = None,
    past_v: Tensor | None = None,
) -> Any:  # fmt: skip
    if k is None or v is None or (padding is not None and padding.dim() != 2):
        raise ModelError("MultiHeadAttention with packed inputs or such a mask cannot be trained")
    heads = node.get("num_heads")
    if bias is not None:
        parts = bias.split((q.shape[-1], q.shape[-1], bias.shape[0] - 2 * q.shape[-1]))
        q = q + parts[0]
        k, v = (
            x + part if x.dim() == 3 else x + part.reshape(heads, 1, -1) for x, part in ((k, parts[1]), (v, parts[2]))
        )
    q, k, v = (heads_apart(x, heads) for x in (q, k, v))
    k, v = with_past(past_k, k), with_past(past_v, v)
    y = attend_seen(node, q, k, v, padding, added)
    return (y, k, v)[: node.outputs] if node.outputs > 1 else y


HEADS = HeadInputs(bias=3, mask=5, past=(6, 7, 8, 9))
define(
    "com.microsoft:MultiHeadAttention", couple=multi_head, repair=repair_multi_head, bound=bound_attention,
    factors=(0, 1), heads=HEADS, reach=within_heads(HEADS), shape=_multi_head_shape, traits=Trait.ATTENDS,
    forward=Forward(forward_multi_head_attention, into=(0, 1, 2, 3, 5, 6, 7)),
)  # fmt: skip


def group_query(
    op: Op, q: Axes, k: Axes | None = None, v: Axes | None = None, past_k: Axes | None = None,
    past_v: Axes | None = None, *rest: Axes | None, num_heads: int, kv_num_heads: int, **_: Any,
) -> Any:  # fmt: skip
    """Whole groups of query heads with the key and value head that they share; their width stays."""
    if k is None or v is None or any(x for x in rest[4:] if x) or op.given[3:4] == [True]:
        return op.unknown("packs its inputs or hands out its scores")
    head = k[2].reshape(kv_num_heads, -1)[:, 0]
    for x in (q, k, v):
        grid = x[2].reshape(kv_num_heads, -1)
        op.tie(np.broadcast_to(head[:, None], grid.shape), grid)
    for past in (past_k, past_v):
        if past is not None:
            op.tie(head, past[1])
            op.freeze(past[0], *past[2:], why="attends over it")
    op.freeze(q[0], q[1], *k[:2], *v[:2], *(x for axes in rest if axes for x in axes), why="attends over it")
    pair_costs(op, q, k, q[2], q[2])
    return [(q[0], q[1], q[2]), *[(fixed(q[0].size), head, ...)] * (len(op.given) - 1)]


def repair_group_query(edit: Any, num_heads: int, kv_num_heads: int, **_: Any) -> None:
    live = edit.live_in(1, 2)
    kept = edit.count_in(1, 2) * kv_num_heads // live.size
    edit.set_attribute("kv_num_heads", kept)
    edit.set_attribute("num_heads", kept * num_heads // kv_num_heads)


def _grouped_query(x: Arrays, a: Attributes) -> list[Shape | None]:
    (batch, tokens, features), heads, shared = x[0], a["num_heads"], a["kv_num_heads"]
    if len(x) < 2 or x[1] is None:  # packed: queries, keys and values
        return [(batch, tokens, features * heads // (heads + 2 * shared))]
    earlier = len(x) > 3 and x[3] is not None
    present = None if earlier else (batch, shared, x[1][1], features // heads)
    return [x[0], present, present]


def forward_group_query_attention(
    node: TorchCall, q: Tensor, k: Tensor | None, v: Tensor | None, past_k: Tensor | None, past_v: Tensor | None,
    lengths: Tensor, total: Tensor, cos: Tensor | None = None, sin: Tensor | None = None, *more: Tensor | None,
) -> Any:  # fmt: skip
    """A prompt without an earlier part, all samples as long; Ainslie et al. 2023, arXiv 2305.13245."""
    earlier = past_k is not None and past_k.shape[2] > 0
    if k is None or v is None or earlier or node.get("local_window_size", -1) != -1 or any(x is not None for x in more):
        raise ModelError("GroupQueryAttention with packed inputs, a past or a window cannot be trained")
    q = heads_apart(q, node.get("num_heads"))
    k, v = (heads_apart(x, node.get("kv_num_heads")) for x in (k, v))
    if node.get("do_rotary") and cos is not None and sin is not None:
        positions = torch.arange(q.shape[2], device=q.device)
        turned = bool(node.get("rotary_interleaved"))
        q, k = (rotate(x, cos[positions], sin[positions], turned) for x in (q, k))
    y, _ = attend(q, k, v, None, node.get("scale") or 1 / math.sqrt(q.shape[-1]), causal=0)
    return (heads_together(y), k, v)[: node.outputs] if node.outputs > 1 else heads_together(y)


GROUPED = HeadInputs(past=(3, 4), whole=True)
define(
    "com.microsoft:GroupQueryAttention", couple=group_query, repair=repair_group_query, bound=bound_attention,
    factors=(0, 1), heads=GROUPED, reach=within_heads(GROUPED), shape=_grouped_query, traits=Trait.ATTENDS,
    forward=Forward(forward_group_query_attention, into=(0, 1, 2)),
)  # fmt: skip
