"""Rotary positions: pairs of features are turned by an angle for each token."""

from typing import Any

import numpy as np

from onnxprune.operators.attention import heads_apart, heads_together, silent_along
from onnxprune.operators.facts import Facts
from onnxprune.operators.forward import Forward, Node
from onnxprune.operators.intervals import zero_where
from onnxprune.operators.labels import Axes, line
from onnxprune.operators.lazy_torch import Tensor, torch
from onnxprune.operators.op import Op
from onnxprune.operators.registry import Alike, define
from onnxprune.operators.site import Site


def rotary(op: Op, x: Axes, cos: Axes, sin: Axes, *positions: Axes | None, num_heads: int = 0, **_: Any) -> Axes:
    return _rotate(op, x, [cos, sin, *positions], num_heads)


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


def repair_rotary(edit: Any, num_heads: int = 0, **_: Any) -> None:
    if num_heads and edit.rank_in(0) == 3:
        edit.set_attribute("num_heads", edit.count_in(0, 2) * num_heads // edit.size_in(0, 2))


def bound_rotary(site: Site) -> Facts | None:
    """A turn within each head, which leaves a head of zeros as it is."""
    shape, tables = site.outputs[0], [site.shapes[k] for k in (1, 2) if k < len(site.shapes)]
    if shape is None or len(shape) not in (3, 4) or any(t is None for t in tables):
        return None
    axis = 1 if len(shape) == 4 else 2
    silent = silent_along(site, 0, axis)
    if silent is None:
        return None
    if axis == 2:
        width = shape[2] // heads if (heads := site.attributes.get("num_heads", 0)) else 2 * (tables[-1] or (0,))[-1]
        silent = np.repeat(silent.reshape(-1, width).all(1), width)
    return zero_where(site, silent.reshape(line(len(shape), axis)))


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


def forward_rotary_embedding(
    node: Node, x: Tensor, cos: Tensor, sin: Tensor, positions: Tensor | None = None
) -> Tensor:
    """Tables (positions, pairs), or with the rows picked already (batch, tokens, pairs)."""
    if positions is not None:
        cos, sin = cos[positions.long()], sin[positions.long()]
    return _rotary(node, x, cos.unsqueeze(1), sin.unsqueeze(1))


define(
    "RotaryEmbedding", couple=rotary, repair=repair_rotary, bound=bound_rotary,
    forward=Forward(forward_rotary_embedding, into=(0, 1, 2)),
)  # fmt: skip


def forward_rotary_embedding_of_runtime(node: Node, x: Tensor, positions: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Positions (batch, tokens), or the first one of all samples."""
    tokens = x.shape[-2] if x.dim() == 4 else x.shape[1]
    if positions.dim() == 1:
        positions = positions.reshape(1, 1) + torch.arange(tokens, device=positions.device)
    return _rotary(node, x, cos[positions.long()].unsqueeze(1), sin[positions.long()].unsqueeze(1))


define(
    "com.microsoft:RotaryEmbedding", couple=fused_rotary, repair=repair_rotary, bound=bound_rotary, shape=Alike(),
    forward=Forward(forward_rotary_embedding_of_runtime, into=(0, 2, 3)),
)  # fmt: skip
