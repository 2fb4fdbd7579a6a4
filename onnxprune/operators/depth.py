"""Channels that become places of an image, and places that become channels."""

import numpy as np

from onnxprune.operators.facts import Facts, NothingKnown, expanded, reduced
from onnxprune.operators.forward import Forward, TorchCall
from onnxprune.operators.labels import Axes, line, repeated
from onnxprune.operators.lazy_torch import Tensor
from onnxprune.operators.op import Op
from onnxprune.operators.registry import Trait, define
from onnxprune.operators.site import Site
from onnxprune.operators.zeros import first


def depth_to_space(op: Op, x: Axes, *, blocksize: int, mode: bytes | str = b"DCR") -> Axes:
    square = blocksize * blocksize
    grid = x[1].reshape(-1, square).T if mode in (b"CRD", "CRD") else x[1].reshape(square, -1)
    op.freeze(*x[2:], why="interleaves it with channels")
    op.tie(grid[:1], grid)
    return (x[0], grid[0], ...)  # type: ignore[return-value]


def _channels(site: Site) -> Facts:
    """Facts of every channel, where they hold for all places of a map."""
    found, shape = site.data(), site.shape()
    if any(n > 1 for n in found.shape[2:]):
        raise NothingKnown
    return expanded(found, shape, [1])


def bound_depth_to_space(site: Site) -> Facts:
    """A channel of the outcome holds one of each block of channels."""
    whole, square = _channels(site), site.attributes["blocksize"] ** 2
    rows = [1, square, -1] if site.attributes.get("mode", b"DCR") in (b"DCR", "DCR") else [1, -1, square]
    flat = reduced(whole, [0]).map(lambda a: a.reshape(rows))
    inner = reduced(flat, [1 if rows[1] == square else 2])
    return inner.map(lambda a: a.reshape(line(len(whole.shape), 1))).named(site.kind)


def forward_depth_to_space(node: TorchCall, x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    b = node.get("blocksize")
    if node.get("mode", "DCR") == "DCR":
        parts, order = x.reshape(n, b, b, c // b**2, h, w), (0, 3, 4, 1, 5, 2)
    else:
        parts, order = x.reshape(n, c // b**2, b, b, h, w), (0, 1, 4, 2, 5, 3)
    return parts.permute(order).reshape(n, c // b**2, h * b, w * b)


define(
    "DepthToSpace", couple=depth_to_space, channel=1, zero=first, bound=bound_depth_to_space, channelwise=True,
    traits=Trait.MOVES | Trait.RANGE, forward=Forward(forward_depth_to_space),
)  # fmt: skip


def space_to_depth(op: Op, x: Axes, *, blocksize: int) -> Axes:
    op.freeze(*x[2:], why="interleaves it with channels")
    return (x[0], repeated(x[1], blocksize * blocksize), ...)  # type: ignore[return-value]


def bound_space_to_depth(site: Site) -> Facts:
    shape = site.shape()
    tiled = _channels(site).map(lambda a: np.concatenate([a] * site.attributes["blocksize"] ** 2, 1))
    place = np.arange(tiled.shape[1], dtype=np.uint64).reshape(line(len(shape), 1)) // np.uint64(shape[1])
    return tiled.named(place, site.kind)


def forward_space_to_depth(node: TorchCall, x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    b = node.get("blocksize")
    return x.reshape(n, c, h // b, b, w // b, b).permute(0, 3, 5, 1, 2, 4).reshape(n, c * b * b, h // b, w // b)


define(
    "SpaceToDepth", couple=space_to_depth, channel=1, zero=first, bound=bound_space_to_depth, channelwise=True,
    traits=Trait.MOVES | Trait.RANGE, forward=Forward(forward_space_to_depth),
)  # fmt: skip
