"""onnxruntime's Attention with the weights of queries, keys and values; embeddings."""

import math
from typing import Any

import numpy as np

from onnxprune.errors import ModelError
from onnxprune.operators.attention import (
    attend,
    couple_heads,
    heads_apart,
    heads_together,
    keep_scale,
    pair_costs,
    score_bias,
)
from onnxprune.operators.facts import Facts
from onnxprune.operators.forward import Forward, Node
from onnxprune.operators.intervals import zero_where
from onnxprune.operators.labels import Axes, fixed, line
from onnxprune.operators.lazy_torch import Tensor, functional, torch
from onnxprune.operators.multi_head import _behind
from onnxprune.operators.op import Op
from onnxprune.operators.registry import FLOAT, Arrays, Attributes, Shape, Trait, define
from onnxprune.operators.site import Site


def _sizes(total: int, qkv_hidden_sizes: Any) -> tuple[int, int, int]:
    """Features of all heads of queries, keys and values."""
    return tuple(qkv_hidden_sizes) if qkv_hidden_sizes else (total // 3,) * 3


def fused_attention(
    op: Op, x: Axes, w: Axes, b: Axes | None = None, mask: Axes | None = None, past: Axes | None = None,
    bias: Axes | None = None, *_: Axes | None,
    num_heads: int, qkv_hidden_sizes: Any = None, do_rotary: int = 0, **__: Any,
) -> Any:  # fmt: skip
    """Weights (features, all queries, keys and values)."""
    op.contract(w[0], x[2], op.weights[1] or op.quiet[0])
    op.writes(w[1])
    op.reads(w[0])
    if b is not None:
        op.tie(w[1], b[0])
        op.adds(b[0])
    ends = np.cumsum(_sizes(w[1].size, qkv_hidden_sizes))
    q, k, v = (part.reshape(num_heads, -1) for part in np.split(w[1], ends[:-1]))
    head = couple_heads(op, q, k, v, scores=all(op.weights[1:3]) and not do_rotary)
    op.freeze(*(mask or ()), x[0], x[1], why="attends over it")
    if bias is not None:
        score_bias(op, bias, head)
    if past is not None or op.given[1:2] == [True]:
        op.freeze(w[1], why="keeps keys and values of earlier tokens")
    op.macs(x[0].size * x[1].size, w[0], w[1])
    pair_costs(op, x, x, q, v)
    return [(x[0], x[1], v.ravel()), (...,)][: len(op.given)]


def repair_fused_attention(edit: Any, num_heads: int, qkv_hidden_sizes: Any = None, **_: Any) -> None:
    live = edit.live_in(1, 1)
    parts = np.split(live, np.cumsum(_sizes(live.size, qkv_hidden_sizes))[:-1])
    counts = [int(part.sum()) for part in parts]
    heads = int(parts[1].reshape(num_heads, -1).any(axis=1).sum())
    edit.set_attribute("num_heads", heads)
    if qkv_hidden_sizes or len(set(counts)) > 1:
        edit.set_attribute("qkv_hidden_sizes", counts)
    keep_scale(edit, parts[1].size // num_heads, counts[1] // heads)


def bound_fused_attention(site: Site) -> list[Facts | None] | None:
    """Features of values whose weights and bias are zero."""
    w, out = site.array(1), site.outputs[0]
    bias = site.array(2) if site.has(2) else np.zeros(1)
    if w is None or bias is None or out is None or site.has(4):
        return None
    busy = w.any(axis=0) | (bias != 0)
    values = busy[sum(_sizes(busy.size, site.attributes.get("qkv_hidden_sizes"))[:2]) :]
    return [zero_where(site, ~values.reshape(line(len(out), -1)))]


def _attention_shape(x: Arrays, a: Attributes) -> list[Shape | None]:
    """Input (batch, tokens, features), weights (features, all of q, k and v)."""
    sizes = a.get("qkv_hidden_sizes") or [x[1][1] // 3] * 3
    return [(*x[0][:2], sizes[2])]


def forward_packed_attention(
    node: Node, x: Tensor, w: Tensor, b: Tensor | None = None, mask: Tensor | None = None, past: Tensor | None = None,
    added: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Weights (features, all of queries, keys and values); a mask (batch, tokens) of those that are seen."""
    if past is not None or node.outputs > 1 or (mask is not None and mask.dim() != 2):
        raise ModelError("Attention with a past or such a mask cannot be trained")
    sizes = node.get("qkv_hidden_sizes") or [w.shape[1] // 3] * 3
    packed = x @ w if b is None else x @ w + b
    q, k, v = (heads_apart(part, node.get("num_heads")) for part in packed.split(sizes, -1))
    if mask is not None:
        seen = (1 - mask.to(x.dtype))[:, None, None] * node.get("mask_filter_value", -10000.0)
        added = seen if added is None else added + seen
    scale = node.get("scale") or 1 / math.sqrt(q.shape[-1])
    y, _ = attend(q, k, v, added, scale, causal=_behind(node, q, k))
    return heads_together(y)


define(
    "com.microsoft:Attention", couple=fused_attention, repair=repair_fused_attention, bound=bound_fused_attention,
    factors=(0, 1), shape=_attention_shape, traits=Trait.LAYER | Trait.ATTENDS,
    forward=Forward(forward_packed_attention, into=(0, 1, 2, 5)),
)  # fmt: skip
define("com.microsoft:QAttention", shape=_attention_shape, typed_by=FLOAT, traits=Trait.ATTENDS)


def embed(
    op: Op, ids: Axes, segments: Axes | None, words: Axes, places: Axes, segment: Axes | None,
    *rest: Axes | None, **_: Any,
) -> Any:  # fmt: skip
    """Words, positions and segments added and normalised."""
    tables = [table for table in (words, places, segment) if table is not None]
    op.freeze(*(table[0] for table in tables), why="is looked up by the data")
    for table in tables:
        op.writes(table[1])
    features = op.tie(words[1], *(table[1] for table in tables), *(p[0] for p in rest[:2] if p))
    op.statistics(features, why="normalises over its channels")
    y = (fixed(ids[0].size), fixed(ids[1].size), features)
    return [y, (...,), y][: len(op.given)]


def _embed(x: Arrays, _: Attributes) -> list[Shape | None]:
    out = (*x[0], x[2][1])
    return [out, x[0][:1], out]


def forward_embed_layer_normalization(
    node: Node, ids: Tensor, segments: Tensor | None, words: Tensor, places: Tensor, kinds: Tensor | None,
    scale: Tensor, shift: Tensor, mask: Tensor | None = None, positions: Tensor | None = None,
) -> Any:  # fmt: skip
    """Rows of tables for words, positions and kinds of segments, added and normalised; how many tokens count."""
    total = functional.embedding(ids.long(), words)
    total = total + (places[: ids.shape[1]] if positions is None else places[positions.long()])
    if kinds is not None and segments is not None:
        total = total + kinds[segments.long()]
    y = functional.layer_norm(total, total.shape[-1:], scale, shift, node.get("epsilon", 1e-12))
    count = torch.zeros(len(ids), dtype=torch.int32) if mask is None else mask.sum(1, dtype=torch.int32)
    return (y, count, total)[: max(1, node.outputs)] if node.outputs > 1 else y


define(
    "com.microsoft:EmbedLayerNormalization", couple=embed, shape=_embed, typed_by=FLOAT,
    traits=Trait.SCALES | Trait.LOOKS_UP, forward=Forward(forward_embed_layer_normalization, into=(2, 3, 4, 5, 6)),
)  # fmt: skip
