"""Attention in one node: whole heads go, or the same share of every head.

Heads of keys and values that several query heads share go together with these.
"""

import math
from typing import Any

import numpy as np

from onnxprune.channels.labels import Axes, Labels, fixed
from onnxprune.channels.op import Op
from onnxprune.channels.tables import repair, rule


def couple_heads(op: Op, q: Labels, k: Labels, v: Labels, *, scores: bool) -> Labels:
    """Tie the features of queries, keys and values, and return labels of the heads (all fixed if none can go).

    Args:
        op: the node.
        q, k, v: (key heads, queries per key · width), (key heads, width), (key heads, value width).
        scores: the dead features of q and k are zero, so that some of them may go.
    """
    if op.heads:
        head = k[:, 0]
        for grid in (k, v, q):
            op.tie(np.broadcast_to(head[:, None], grid.shape), grid)
        return head
    width = k[0]
    op.tie(np.broadcast_to(width, k.shape), k)
    op.tie(np.broadcast_to(width, (q.size // width.size, width.size)), q.reshape(-1, width.size))
    op.tie(np.broadcast_to(v[0], v.shape), v)
    if scores:
        op.demands.append(width)
    else:
        op.freeze(width, why="multiplies queries by keys, and removed features would count")
    return fixed(k.shape[0])


def _costs(op: Op, queries: Axes, keys: Axes, scored: Labels, mixed: Labels) -> None:
    """Scores, and their products with the values: for every pair of tokens."""
    pairs = queries[0].size * queries[1].size * keys[1].size
    op.macs(pairs, scored.ravel())
    op.macs(pairs, mixed.ravel())


def _keep_scale(edit: Any, before: int, after: int) -> None:
    """The scale of the scores follows the width of the heads unless it is told."""
    if before != after and not edit.attribute("scale"):
        edit.set_attribute("scale", 1 / math.sqrt(before))


# --- onnxruntime: Attention --------------------------------------------------


def _sizes(total: int, qkv_hidden_sizes: Any) -> tuple[int, int, int]:
    """Features of all heads of queries, keys and values."""
    return tuple(qkv_hidden_sizes) if qkv_hidden_sizes else (total // 3,) * 3


@rule("com.microsoft:Attention")
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
        _score_bias(op, bias, head)
    if past is not None or op.given[1:2] == [True]:
        op.freeze(w[1], why="keeps keys and values of earlier tokens")
    op.macs(x[0].size * x[1].size, w[0], w[1])
    _costs(op, x, x, q, v)
    return [(x[0], x[1], v.ravel()), (...,)][: len(op.given)]


@repair("com.microsoft:Attention")
def repair_fused_attention(edit: Any, num_heads: int, qkv_hidden_sizes: Any = None, **_: Any) -> None:
    live = edit.live_in(1, 1)
    parts = np.split(live, np.cumsum(_sizes(live.size, qkv_hidden_sizes))[:-1])
    counts = [int(part.sum()) for part in parts]
    heads = int(parts[1].reshape(num_heads, -1).any(axis=1).sum())
    edit.set_attribute("num_heads", heads)
    if qkv_hidden_sizes or len(set(counts)) > 1:
        edit.set_attribute("qkv_hidden_sizes", counts)
    _keep_scale(edit, parts[1].size // num_heads, counts[1] // heads)


def _score_bias(op: Op, bias: Axes, head: Labels) -> None:
    """Added to the scores: (batch, heads, queries, keys), sizes of 1 broadcast."""
    for k, labels in enumerate(bias):
        if k == len(bias) - 3 and labels.size == head.size:
            op.tie(head, labels)
        else:
            op.freeze(labels, why="attends over it")


# --- onnxruntime: MultiHeadAttention, GroupQueryAttention --------------------


@rule("com.microsoft:MultiHeadAttention")
def multi_head(
    op: Op, q: Axes, k: Axes | None = None, v: Axes | None = None, b: Axes | None = None, padding: Axes | None = None,
    bias: Axes | None = None, past_k: Axes | None = None, past_v: Axes | None = None, *_: Axes | None,
    num_heads: int, **__: Any,
) -> Any:  # fmt: skip
    """Queries, keys and values (batch, tokens, features of all heads)."""
    if k is None or v is None or not len(q) == len(k) == len(v) == 3 or past_k or past_v or any(op.given[1:]):
        return op.unknown("packs its inputs or keeps earlier tokens")
    grids = [x[2].reshape(num_heads, -1) for x in (q, k, v)]
    quiet = op.silent(0) and op.silent(1) and op.silent(3)
    head = couple_heads(op, *grids, scores=quiet)
    if b is not None:
        op.tie(np.concatenate([q[2], k[2], v[2]]), b[0])
    op.freeze(*(padding or ()), q[0], q[1], *k[:2], *v[:2], why="attends over it")
    if bias is not None:
        _score_bias(op, bias, head)
    _costs(op, q, k, grids[0], grids[2])
    return [(q[0], q[1], v[2]), *[(...,)] * (len(op.given) - 1)]


@repair("com.microsoft:MultiHeadAttention")
def repair_multi_head(edit: Any, num_heads: int, **_: Any) -> None:
    live = edit.live_in(1, 2).reshape(num_heads, -1)
    edit.set_attribute("num_heads", int(live.any(axis=1).sum()))
    _keep_scale(edit, live.shape[1], int(live.any(axis=0).sum()))


@rule("com.microsoft:GroupQueryAttention")
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
    _costs(op, q, k, q[2], q[2])
    return [(q[0], q[1], q[2]), *[(fixed(q[0].size), head, ...)] * (len(op.given) - 1)]


@repair("com.microsoft:GroupQueryAttention")
def repair_group_query(edit: Any, num_heads: int, kv_num_heads: int, **_: Any) -> None:
    live = edit.live_in(1, 2)
    kept = edit.count_in(1, 2) * kv_num_heads // live.size
    edit.set_attribute("kv_num_heads", kept)
    edit.set_attribute("num_heads", kept * num_heads // kv_num_heads)


# --- the standard operator ---------------------------------------------------


@rule("Attention")
def attention(
    op: Op, q: Axes, k: Axes, v: Axes, mask: Axes | None = None, past_k: Axes | None = None, past_v: Axes | None = None,
    lengths: Axes | None = None, *, q_num_heads: int = 0, kv_num_heads: int = 0, **_: Any,
) -> Any:  # fmt: skip
    """(batch, tokens, features of all heads), or (batch, heads, tokens, width) where the heads stand apart."""
    if past_k or past_v or any(op.given[1:]):
        return op.unknown("keeps earlier tokens or hands out its scores")
    op.freeze(*(lengths or ()), q[0], k[0], v[0], why="attends over it")
    if len(q) == 4:
        return [_heads_apart(op, q, k, v, mask), *[(...,)] * (len(op.given) - 1)]
    grids = [x[2].reshape(kv_num_heads, -1) for x in (q, k, v)]
    quiet = op.silent(0) and op.silent(1)
    head = couple_heads(op, *grids, scores=quiet)
    op.freeze(q[1], k[1], v[1], why="attends over it")
    if mask is not None:
        _score_bias(op, mask, np.repeat(head, q_num_heads // kv_num_heads))
    shared = grids[2][:, None, :]
    out = np.broadcast_to(shared, (kv_num_heads, q_num_heads // kv_num_heads, shared.shape[2])).ravel()
    _costs(op, q, k, grids[0], out)
    return [(q[0], q[1], out), *[(...,)] * (len(op.given) - 1)]


def _heads_apart(op: Op, q: Axes, k: Axes, v: Axes, mask: Axes | None) -> Axes:
    op.freeze(q[2], k[2], v[2], why="attends over it")
    grid = q[1].reshape(k[1].size, -1)
    op.tie(np.broadcast_to(k[1][:, None], grid.shape), grid)
    op.tie(k[1], v[1])
    op.tie(q[3], k[3])
    if op.silent(0) and op.silent(1):
        op.demands.append(q[3])
    else:
        op.freeze(q[3], why="multiplies queries by keys, and removed features would count")
    if mask is not None:
        _score_bias(op, mask, q[1])
    op.macs(q[0].size * q[2].size * k[2].size, q[1], q[3])
    op.macs(q[0].size * q[2].size * k[2].size, q[1], v[3])
    return (q[0], q[1], q[2], v[3])


@repair("Attention")
def repair_attention(edit: Any, q_num_heads: int = 0, kv_num_heads: int = 0, **_: Any) -> None:
    if edit.rank_in(0) == 4:
        _keep_scale(edit, edit.size_in(0, 3), edit.count_in(0, 3))
        return
    live = edit.live_in(1, 2).reshape(kv_num_heads, -1)
    heads = int(live.any(axis=1).sum())
    edit.set_attribute("kv_num_heads", heads)
    edit.set_attribute("q_num_heads", heads * q_num_heads // kv_num_heads)
    _keep_scale(edit, live.shape[1], int(live.any(axis=0).sum()))


# --- rotary positions, embeddings --------------------------------------------


@rule("RotaryEmbedding")
def rotary(op: Op, x: Axes, cos: Axes, sin: Axes, *positions: Axes | None, num_heads: int = 0, **_: Any) -> Axes:
    return _rotate(op, x, [cos, sin, *positions], num_heads)


@rule("com.microsoft:RotaryEmbedding")
def fused_rotary(op: Op, x: Axes, positions: Axes, cos: Axes, sin: Axes, *, num_heads: int = 0, **_: Any) -> Axes:
    return _rotate(op, x, [positions, cos, sin], num_heads or x[-1].size // (2 * cos[-1].size))


def _rotate(op: Op, x: Axes, tables: list[Axes | None], heads: int) -> Axes:
    """Pairs of features turn by an angle of their own: heads may go, features may not."""
    op.freeze(*(labels for axes in tables if axes for labels in axes), why="turns features by it")
    op.freeze(x[0], why="has a position for each token of each sample")
    if len(x) == 4:
        op.freeze(x[2], x[3], why="turns pairs of its features")
    else:
        grid = x[2].reshape(heads, -1)
        op.freeze(x[1], why="turns features by its position")
        op.tie(np.broadcast_to(grid[:, :1], grid.shape), grid)
    return x


@repair("RotaryEmbedding", "com.microsoft:RotaryEmbedding")
def repair_rotary(edit: Any, num_heads: int = 0, **_: Any) -> None:
    if num_heads and edit.rank_in(0) == 3:
        edit.set_attribute("num_heads", edit.count_in(0, 2) * num_heads // edit.size_in(0, 2))


@rule("com.microsoft:EmbedLayerNormalization")
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
