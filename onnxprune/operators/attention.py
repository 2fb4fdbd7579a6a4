"""Attention in one node: whole heads go, or the same share of every head.

Heads of keys and values that several query heads share go together with these.

An example: four query heads of width 3 over two key heads, features q0 ... q11 and k0 ... k5, with values alike.

    whole heads     q0-q5 attend with k0-k2 over v0-v2: these 12 are one channel; q6-q11, k3-k5 and v3-v5 another one.
    shares          q0, q3, q6, q9, k0 and k3 are one channel of three, since every head has the same width; removed
                    features have to be zero, or they would still count in the scores.  v0 and v3 are another one.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from onnxprune.errors import ModelError
from onnxprune.operators.facts import Facts, NothingKnown, along
from onnxprune.operators.forward import Forward, TorchCall
from onnxprune.operators.intervals import zero_where
from onnxprune.operators.labels import Axes, Labels, fixed, line
from onnxprune.operators.lazy_torch import Tensor, torch
from onnxprune.operators.op import Op
from onnxprune.operators.reach import within_heads
from onnxprune.operators.registry import HeadInputs, Trait, define, operator_of
from onnxprune.operators.site import Site
from onnxprune.operators.value_numbers import Ids, bits, mix

SCORES = "multiplies queries by keys, and removed features would count"


def couple_heads(op: Op, q: Labels, k: Labels, v: Labels, *, scores: bool) -> Labels:
    """Tie the features of queries, keys and values, and return labels of the heads (all fixed if none can go).

    A single head can lose shares alone, and heads of one feature can go as a whole alone.

    Args:
        op: the node.
        q, k, v: (key heads, queries per key · width), (key heads, width), (key heads, value width).
        scores: the dead features of q and k are zero, so that some of them may go.
    """
    if (op.heads and len(k) > 1) or k.shape[1] == v.shape[1] == 1:
        head = k[:, 0]
        for grid in (k, v, q):
            op.tie(np.broadcast_to(head[:, None], grid.shape), grid)
        return head
    width = k[0]
    op.tie(np.broadcast_to(width, k.shape), k)
    op.tie(np.broadcast_to(width, (q.size // width.size, width.size)), q.reshape(-1, width.size))
    op.tie(np.broadcast_to(v[0], v.shape), v)
    op.sums(scores, width, why=SCORES)
    return fixed(k.shape[0])


def pair_costs(op: Op, queries: Axes, keys: Axes, scored: Labels, mixed: Labels) -> None:
    """Scores, and their products with the values: for every pair of tokens."""
    pairs = queries[0].size * queries[1].size * keys[1].size
    op.macs(pairs, scored.ravel())
    op.macs(pairs, mixed.ravel())


def keep_scale(edit: Any, before: int, after: int) -> None:
    """The scale of the scores follows the width of the heads unless it is told."""
    if before != after and not edit.attribute("scale"):
        edit.set_attribute("scale", 1 / math.sqrt(before))


def score_bias(op: Op, bias: Axes, head: Labels) -> None:
    """Added to the scores: (batch, heads, queries, keys), sizes of 1 broadcast."""
    for k, labels in enumerate(bias):
        if k == len(bias) - 3 and labels.size == head.size:
            op.tie(head, labels)
        else:
            op.freeze(labels, why="attends over it")


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
    zero = op.relies(op.zero_where_dead(0)) and op.relies(op.zero_where_dead(1))
    head = couple_heads(op, *grids, scores=zero)
    op.freeze(q[1], k[1], v[1], why="attends over it")
    if mask is not None:
        score_bias(op, mask, np.repeat(head, q_num_heads // kv_num_heads))
    shared = grids[2][:, None, :]
    out = np.broadcast_to(shared, (kv_num_heads, q_num_heads // kv_num_heads, shared.shape[2])).ravel()
    pair_costs(op, q, k, grids[0], out)
    return [(q[0], q[1], out), *[(...,)] * (len(op.given) - 1)]


def _heads_apart(op: Op, q: Axes, k: Axes, v: Axes, mask: Axes | None) -> Axes:
    op.freeze(q[2], k[2], v[2], why="attends over it")
    grid = q[1].reshape(k[1].size, -1)
    op.tie(np.broadcast_to(k[1][:, None], grid.shape), grid)
    op.tie(k[1], v[1])
    op.tie(q[3], k[3])
    op.sums(op.relies(op.zero_where_dead(0)) and op.relies(op.zero_where_dead(1)), q[3], why=SCORES)
    if mask is not None:
        score_bias(op, mask, q[1])
    op.macs(q[0].size * q[2].size * k[2].size, q[1], q[3])
    op.macs(q[0].size * q[2].size * k[2].size, q[1], v[3])
    return (q[0], q[1], q[2], v[3])


def repair_attention(edit: Any, q_num_heads: int = 0, kv_num_heads: int = 0, **_: Any) -> None:
    if edit.rank_in(0) == 4:
        keep_scale(edit, edit.size_in(0, 3), edit.count_in(0, 3))
        return
    live = edit.live_in(1, 2).reshape(kv_num_heads, -1)
    heads = int(live.any(axis=1).sum())
    edit.set_attribute("kv_num_heads", heads)
    edit.set_attribute("q_num_heads", heads * q_num_heads // kv_num_heads)
    keep_scale(edit, live.shape[1], int(live.any(axis=0).sum()))


def zeros_along(site: Site, k: int, axis: int) -> np.ndarray:
    """Positions on one axis of input k at which it is zero always, bool."""
    return along(site.data(k), site.shape(k), axis).zero.ravel()


def bound_attention(site: Site) -> Facts:
    """Means of values: a feature that is zero in all of them is zero in their means."""
    out, heads = site.shape_out(), operator_of(site.node).heads
    if heads is None or any(map(site.has, heads.past)):
        raise NothingKnown
    bias = np.zeros(1) if heads.bias is None else site.weight(heads.bias, np.zeros(1))
    axis = 1 if len(out) == 4 else -1
    vanishing = zeros_along(site, 2, axis)
    vanishing = vanishing & (bias[-vanishing.size :] == 0)
    count = site.attributes.get("kv_num_heads", 0) or (len(vanishing) if axis == 1 else 1)
    times = out[axis] // len(vanishing)  # query heads that share one of these
    vanishing = np.repeat(vanishing.reshape(count, -1), times, 0).ravel()
    names, at = None if heads.whole else _names(site, axis, bias, heads.mask), line(len(out), axis)
    return zero_where(site, vanishing.reshape(at), names=None if names is None else names.reshape(at))


def _names(site: Site, axis: int, bias: np.ndarray, mask: int | None) -> Ids | None:
    """Names of the outputs along an axis: equal for copies of a head; None where heads have masks of their own."""
    if any(found is None for found in site.inputs[:3]):
        return None
    own = [mix(*along(site.data(k), site.shape(k), axis).exact).ravel() for k in range(3)]
    if bias.size > 1:
        ends = np.cumsum([x.size for x in own])[:-1]
        own = [mix(x, bits(b)) for x, b in zip(own, np.split(bias, ends), strict=True)]
    a = site.attributes
    queries = own[0].size if axis == 1 else a.get("q_num_heads") or a["num_heads"]
    heads = own[1].size if axis == 1 else a.get("kv_num_heads") or queries
    return names_of_heads(site, own, heads, queries, mask)


def names_of_heads(site: Site, parts: Sequence[Ids], heads: int, queries: int, mask: int | None) -> Ids | None:
    """Names of the outputs, from those of queries, keys and values, whose heads stand behind each other.

    Args:
        site: the attention.
        parts: names of queries, keys and values, one for each position.
        heads: of keys and values.
        queries: heads of queries.
        mask: the input that is added to the scores; None is returned where heads have one each.
    """
    shape = site.taken[mask] if mask is not None and site.has(mask) else (1, 1)
    if shape is None or (len(shape) > 2 and shape[-3] != 1):
        return None
    q, k = (x.reshape(n, -1) for x, n in zip(parts, (queries, heads), strict=False))
    q, k = (np.bitwise_xor.reduce(mix(x, np.arange(x.shape[1])), axis=1, keepdims=True) for x in (q, k))
    k, v = (np.repeat(x, queries // heads, 0) for x in (k, parts[2].reshape(heads, -1)))
    return mix(site.token, q, k, v).ravel()


def heads_apart(x: Tensor, heads: int) -> Tensor:
    """(batch, tokens, heads · features) with the heads as an axis."""
    return x if x.dim() == 4 else x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)


def heads_together(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


def attend(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float, *, causal: int | None = None,
    softcap: float = 0.0,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Softmax of the scaled products of queries and keys times the values, and these products.

    Args:
        q: (batch, heads, tokens, features); keys and values have as many heads, or a divisor of that.
        k: likewise, with more tokens where earlier ones stand before them.
        v: likewise.
        bias: added to the products.
        scale: of the products.
        causal: where the queries begin among the keys, if a token sees none behind it.
        softcap: limit that a tanh bends the products to; 0 for none.
    """
    times = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(times, 1) if times > 1 else x for x in (k, v))
    logits = q @ k.transpose(-1, -2) * scale
    if softcap:
        logits = softcap * torch.tanh(logits / softcap)
    masked = logits
    if causal is not None:
        hidden = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device)
        masked = masked.masked_fill(hidden.triu(1 + causal), -math.inf)
    masked = masked if bias is None else masked + bias
    return torch.softmax(masked, -1) @ v, logits


def added_mask(mask: Tensor | None, like: Tensor) -> Tensor | None:
    """Flags as numbers to be added: minus infinity where nothing is seen."""
    if mask is None or mask.dtype != torch.bool:
        return mask
    return torch.zeros(mask.shape, dtype=like.dtype, device=like.device).masked_fill(~mask, -math.inf)


def attend_seen(node: TorchCall, q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None, added: Tensor | None) -> Tensor:
    """What onnxruntime's nodes make of queries, keys and values: heads together again.

    Args:
        node: its scale, and whether tokens see none behind them.
        q, k, v: as in `attend`.
        seen: which tokens are, (batch, tokens); the others' products get a number of large size.
        added: to the products.
    """
    if seen is not None:
        hidden = (1 - seen.to(q.dtype))[:, None, None] * node.get("mask_filter_value", -10000.0)
        added = hidden if added is None else added + hidden
    scale = node.get("scale") or 1 / math.sqrt(q.shape[-1])
    causal = k.shape[2] - q.shape[2] if node.get("unidirectional") else None
    return heads_together(attend(q, k, v, added, scale, causal=causal)[0])


def with_past(past: Tensor | None, x: Tensor) -> Tensor:
    return x if past is None else torch.cat((past, x), 2)


def forward_attention(
    node: TorchCall, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, past_k: Tensor | None = None,
    past_v: Tensor | None = None,
) -> Any:  # fmt: skip
    flat = q.dim() == 3
    q, k, v = (heads_apart(x, node.get(n)) for x, n in ((q, "q_num_heads"), (k, "kv_num_heads"), (v, "kv_num_heads")))
    k, v = with_past(past_k, k), with_past(past_v, v)
    scale = node.get("scale") or 1 / math.sqrt(q.shape[-1])
    causal = (0 if past_k is None else past_k.shape[2]) if node.get("is_causal") else None
    y, logits = attend(q, k, v, added_mask(mask, q), scale, causal=causal, softcap=node.get("softcap", 0.0))
    y = heads_together(y) if flat else y
    if node.outputs > 3 and node.get("qk_matmul_output_mode"):
        raise ModelError("Attention gives its products in a mode that cannot be trained")
    return (y, k, v, logits)[: node.outputs] if node.outputs > 1 else y


HEADS = HeadInputs(mask=3, past=(4, 5))
define(
    "Attention", couple=attention, repair=repair_attention, bound=bound_attention, factors=(0, 1),
    heads=HEADS, reach=within_heads(HEADS), traits=Trait.LAYER | Trait.ATTENDS,
    forward=Forward(forward_attention, into=(0, 1, 2, 3, 4, 5)),
)  # fmt: skip
