"""onnxruntime's Attention with the weights of queries, keys and values; rotary positions; embeddings."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from onnxprune.errors import ModelError
from onnxprune.operators.attention import (
    attend_seen,
    couple_heads,
    heads_apart,
    heads_together,
    keep_scale,
    names_of_heads,
    pair_costs,
    score_bias,
    zeros_along,
)
from onnxprune.operators.facts import Facts, NothingKnown
from onnxprune.operators.forward import Forward, TorchCall
from onnxprune.operators.intervals import zero_where
from onnxprune.operators.labels import Axes, fixed, line
from onnxprune.operators.lazy_torch import Tensor, functional, torch
from onnxprune.operators.op import Op
from onnxprune.operators.reach import packed_sizes, within_heads
from onnxprune.operators.registry import FLOAT, Alike, Arrays, Attributes, HeadInputs, Shape, Trait, define
from onnxprune.operators.site import Site
from onnxprune.operators.value_numbers import Ids, bits, mix

HEADS = HeadInputs(bias=2, mask=5, past=(4,), packed=True)
ROWS = 1 << 20  # elements of weights that are named at once


def fused_attention(
    op: Op, x: Axes, w: Axes, b: Axes | None = None, mask: Axes | None = None, past: Axes | None = None,
    bias: Axes | None = None, *_: Axes | None,
    num_heads: int, do_rotary: int = 0, **__: Any,
) -> Any:  # fmt: skip
    """Weights (features, all queries, keys and values)."""
    op.contract(w[0], x[2], op.weights[1] or op.zero_inputs[0])
    op.writes(w[1])
    op.reads(w[0])
    if b is not None:
        op.tie(w[1], b[0])
        op.adds(b[0])
    ends = np.cumsum(packed_sizes(w[1].size, op.attributes))
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


def repair_fused_attention(edit: Any, num_heads: int, **attributes: Any) -> None:
    live = edit.live_in(1, 1)
    parts = np.split(live, np.cumsum(packed_sizes(live.size, attributes))[:-1])
    counts = [int(part.sum()) for part in parts]
    heads = int(parts[1].reshape(num_heads, -1).any(axis=1).sum())
    edit.set_attribute("num_heads", heads)
    if attributes.get("qkv_hidden_sizes") or len(set(counts)) > 1:
        edit.set_attribute("qkv_hidden_sizes", counts)
    keep_scale(edit, parts[1].size // num_heads, counts[1] // heads)


def bound_fused_attention(site: Site) -> Facts:
    """Features of values whose weights and bias are zero."""
    w, bias, out = site.weight(1), site.weight(2, np.zeros(1)), site.shape_out()
    if any(map(site.has, HEADS.past)):
        raise NothingKnown
    busy = w.any(axis=0) | (bias != 0)
    ends = np.cumsum(packed_sizes(busy.size, site.attributes))[:-1]
    columns = mix(_columns(w), bits(np.broadcast_to(bias, busy.shape)))
    heads = site.attributes["num_heads"]
    names, along = names_of_heads(site, np.split(columns, ends), heads, heads, HEADS.mask), line(len(out), -1)
    values = busy[ends[1] :].reshape(along)
    return zero_where(site, ~values, names=None if names is None else names.reshape(along))


def _columns(w: np.ndarray) -> Ids:
    """A name for what stands in each column of a matrix, a few rows at a time."""
    names, step = np.zeros(w.shape[1], np.uint64), max(1, ROWS // max(1, w.shape[1]))
    for start in range(0, len(w), step):
        block = w[start : start + step]
        names ^= np.bitwise_xor.reduce(mix(bits(block), start + np.arange(len(block))[:, None]), axis=0)
    return names


def _attention_shape(x: Arrays, a: Attributes) -> list[Shape | None]:
    """Input (batch, tokens, features), weights (features, all of q, k and v)."""
    return [(*x[0][:2], packed_sizes(x[1][1], a)[2])]


def forward_packed_attention(
    node: TorchCall, x: Tensor, w: Tensor, b: Tensor | None = None, mask: Tensor | None = None,
    past: Tensor | None = None, added: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Weights (features, all of queries, keys and values); a mask (batch, tokens) of those that are seen."""
    if past is not None or node.outputs > 1 or (mask is not None and mask.dim() != 2):
        raise ModelError("Attention with a past or such a mask cannot be trained")
    packed, sizes = x @ w if b is None else x @ w + b, packed_sizes(w.shape[1], node.attributes)
    q, k, v = (heads_apart(part, node.get("num_heads")) for part in packed.split(sizes, -1))
    return attend_seen(node, q, k, v, mask, added)


define(
    "com.microsoft:Attention", couple=fused_attention, repair=repair_fused_attention, bound=bound_fused_attention,
    factors=(0, 1), heads=HEADS, reach=within_heads(HEADS), shape=_attention_shape,
    traits=Trait.LAYER | Trait.ATTENDS,
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


def forward_embed_layer_normalization(
    node: TorchCall, ids: Tensor, segments: Tensor | None, words: Tensor, places: Tensor, kinds: Tensor | None,
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
    "com.microsoft:EmbedLayerNormalization", couple=embed, typed_by=FLOAT, traits=Trait.SCALES | Trait.LOOKS_UP,
    shape=lambda x, _: [(*x[0], x[2][1]), x[0][:1], (*x[0], x[2][1])],
    forward=Forward(forward_embed_layer_normalization, into=(2, 3, 4, 5, 6)),
)  # fmt: skip


def turn(op: Op, x: Axes, tables: Sequence[Axes | None], heads: int) -> Axes:
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


def repair_rotary(edit: Any, num_heads: int = 0, **_: Any) -> None:
    if num_heads and edit.rank_in(0) == 3:
        edit.set_attribute("num_heads", edit.count_in(0, 2) * num_heads // edit.size_in(0, 2))


def bound_rotary(site: Site) -> Facts:
    """A turn within each head, which leaves a head of zeros as it is."""
    shape, table = site.shape_out(), site.shape(2)
    axis = {3: 2, 4: 1}[len(shape)]
    vanishing = zeros_along(site, 0, axis)
    if axis == 2:
        width = shape[2] // heads if (heads := site.attributes.get("num_heads", 0)) else 2 * table[-1]
        vanishing = np.repeat(vanishing.reshape(-1, width).all(1), width)
    return zero_where(site, vanishing.reshape(line(len(shape), axis)))


def rotate(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
    """Pairs of features turned by an angle per token: Su et al. 2021, arXiv 2104.09864; features beyond stay.

    Args:
        x: (batch, heads, tokens, features).
        cos: (tokens, pairs) or (batch, 1, tokens, pairs); `sin` alike.
        sin: see `cos`.
        interleaved: whether the two of a pair stand side by side, or half the features apart.
    """
    turned, rest = x[..., : 2 * cos.shape[-1]], x[..., 2 * cos.shape[-1] :]
    a, b = (turned[..., ::2], turned[..., 1::2]) if interleaved else turned.chunk(2, -1)
    a, b = a * cos - b * sin, a * sin + b * cos
    y = torch.stack((a, b), -1).flatten(-2) if interleaved else torch.cat((a, b), -1)
    return torch.cat((y, rest), -1) if rest.shape[-1] else y


def _rotary(node: TorchCall, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    flat, heads = x.dim() == 3, node.get("num_heads", 0)
    width = node.get("rotary_embedding_dim", 0)
    if not heads and flat:
        heads = x.shape[-1] // (width or 2 * cos.shape[-1])
    y = rotate(heads_apart(x, heads), cos, sin, bool(node.get("interleaved")))
    return heads_together(y) if flat else y


def forward_rotary_embedding(
    node: TorchCall, x: Tensor, cos: Tensor, sin: Tensor, positions: Tensor | None = None
) -> Tensor:
    """Tables (positions, pairs), or with the rows picked already (batch, tokens, pairs)."""
    if positions is not None:
        cos, sin = cos[positions.long()], sin[positions.long()]
    return _rotary(node, x, cos.unsqueeze(1), sin.unsqueeze(1))


define(
    "RotaryEmbedding", repair=repair_rotary, bound=bound_rotary,
    couple=lambda op, x, *tables, num_heads=0, **_: turn(op, x, tables, num_heads),
    forward=Forward(forward_rotary_embedding, into=(0, 1, 2)),
)  # fmt: skip


def forward_rotary_embedding_of_runtime(
    node: TorchCall, x: Tensor, positions: Tensor, cos: Tensor, sin: Tensor
) -> Tensor:
    """Positions (batch, tokens), or the first one of all samples."""
    tokens = x.shape[-2] if x.dim() == 4 else x.shape[1]
    if positions.dim() == 1:
        positions = positions.reshape(1, 1) + torch.arange(tokens, device=positions.device)
    return _rotary(node, x, cos[positions.long()].unsqueeze(1), sin[positions.long()].unsqueeze(1))


define(
    "com.microsoft:RotaryEmbedding", repair=repair_rotary, bound=bound_rotary, shape=Alike(),
    couple=lambda op, x, places, cos, sin, *, num_heads=0, **_: turn(
        op, x, (places, cos, sin), num_heads or x[-1].size // (2 * cos[-1].size)
    ),
    forward=Forward(forward_rotary_embedding_of_runtime, into=(0, 2, 3)),
)  # fmt: skip
