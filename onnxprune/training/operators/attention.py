"""Attention in one node (Vaswani et al. 2017, arXiv 1706.03762), rotations, and embeddings with their norm.

Heads are an axis of their own inside: (batch, heads, tokens, features).
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from onnxprune.errors import ModelError
from onnxprune.training.operators.table import Node, differentiable


def heads_apart(x: Tensor, heads: int) -> Tensor:
    """(batch, tokens, heads · features) with the heads as an axis."""
    return x if x.dim() == 4 else x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)


def heads_together(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    scale: float,
    *,
    causal: int | None = None,
    softcap: float = 0.0,
) -> tuple[Tensor, Tensor]:
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


def _added(mask: Tensor | None, like: Tensor) -> Tensor | None:
    """Flags as numbers to be added: minus infinity where nothing is seen."""
    if mask is None or mask.dtype != torch.bool:
        return mask
    return torch.zeros(mask.shape, dtype=like.dtype, device=like.device).masked_fill(~mask, -math.inf)


def _with_past(past: Tensor | None, x: Tensor) -> Tensor:
    return x if past is None else torch.cat((past, x), 2)


@differentiable("Attention", into=(0, 1, 2, 3, 4, 5))
def attention(
    node: Node, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, past_k: Tensor | None = None,
    past_v: Tensor | None = None,
) -> Any:  # fmt: skip
    flat = q.dim() == 3
    q, k, v = (heads_apart(x, node.get(n)) for x, n in ((q, "q_num_heads"), (k, "kv_num_heads"), (v, "kv_num_heads")))
    k, v = _with_past(past_k, k), _with_past(past_v, v)
    scale = node.get("scale") or 1 / math.sqrt(q.shape[-1])
    causal = (0 if past_k is None else past_k.shape[2]) if node.get("is_causal") else None
    y, logits = attend(q, k, v, _added(mask, q), scale, causal=causal, softcap=node.get("softcap", 0.0))
    y = heads_together(y) if flat else y
    if node.outputs > 3 and node.get("qk_matmul_output_mode"):
        raise ModelError("Attention gives its products in a mode that cannot be trained")
    return (y, k, v, logits)[: node.outputs] if node.outputs > 1 else y


def _behind(node: Node, q: Tensor, k: Tensor) -> int | None:
    return k.shape[2] - q.shape[2] if node.get("unidirectional") else None


@differentiable("com.microsoft:MultiHeadAttention", into=(0, 1, 2, 3, 5, 6, 7))
def multi_head_attention(
    node: Node, q: Tensor, k: Tensor | None = None, v: Tensor | None = None, bias: Tensor | None = None,
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
    k, v = _with_past(past_k, k), _with_past(past_v, v)
    if padding is not None:
        seen = (1 - padding.to(q.dtype))[:, None, None] * node.get("mask_filter_value", -10000.0)
        added = seen if added is None else added + seen
    scale = node.get("scale") or 1 / math.sqrt(q.shape[-1])
    y, _ = attend(q, k, v, added, scale, causal=_behind(node, q, k))
    y = heads_together(y)
    return (y, k, v)[: node.outputs] if node.outputs > 1 else y


@differentiable("com.microsoft:Attention", into=(0, 1, 2, 5), layer=True)
def packed_attention(
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


@differentiable("com.microsoft:GroupQueryAttention", into=(0, 1, 2))
def group_query_attention(
    node: Node, q: Tensor, k: Tensor | None, v: Tensor | None, past_k: Tensor | None, past_v: Tensor | None,
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


def _rotary(node: Node, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    flat, heads = x.dim() == 3, node.get("num_heads", 0)
    width = node.get("rotary_embedding_dim", 0)
    if not heads and flat:
        heads = x.shape[-1] // (width or 2 * cos.shape[-1])
    y = rotate(heads_apart(x, heads), cos, sin, bool(node.get("interleaved")))
    return heads_together(y) if flat else y


@differentiable("RotaryEmbedding", into=(0, 1, 2))
def rotary_embedding(node: Node, x: Tensor, cos: Tensor, sin: Tensor, positions: Tensor | None = None) -> Tensor:
    """Tables (positions, pairs), or with the rows picked already (batch, tokens, pairs)."""
    if positions is not None:
        cos, sin = cos[positions.long()], sin[positions.long()]
    return _rotary(node, x, cos.unsqueeze(1), sin.unsqueeze(1))


@differentiable("com.microsoft:RotaryEmbedding", into=(0, 2, 3))
def rotary_embedding_of_runtime(node: Node, x: Tensor, positions: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Positions (batch, tokens), or the first one of all samples."""
    tokens = x.shape[-2] if x.dim() == 4 else x.shape[1]
    if positions.dim() == 1:
        positions = positions.reshape(1, 1) + torch.arange(tokens, device=positions.device)
    return _rotary(node, x, cos[positions.long()].unsqueeze(1), sin[positions.long()].unsqueeze(1))


@differentiable("com.microsoft:EmbedLayerNormalization", into=(2, 3, 4, 5, 6))
def embed_layer_normalization(
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
