"""Pools: spatial axes shrink or vanish, channels pass."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from onnxprune.operators.convolution import padded
from onnxprune.operators.facts import Facts, NothingKnown, facts, reduced
from onnxprune.operators.forward import Forward, TorchCall
from onnxprune.operators.intervals import homogeneous_rows
from onnxprune.operators.labels import Axes, fixed
from onnxprune.operators.lazy_torch import Tensor, functional, torch
from onnxprune.operators.op import Op
from onnxprune.operators.patches import padding
from onnxprune.operators.registry import Alike, Trait, define
from onnxprune.operators.site import Site
from onnxprune.operators.value_numbers import mix
from onnxprune.operators.zeros import first


def pool(op: Op, x: Axes, *_: Axes | None, **__: Any) -> list[Axes]:
    op.freeze(*x[2:], why="pools over it")
    if len(op.shapes) > 1:
        op.freeze(*x[:2], why="gives positions among all its elements")
    return [(x[0], x[1], ...)] * len(op.shapes)  # type: ignore[list-item]


def pooled(site: Site) -> Facts:
    """Facts that hold all over a map."""
    if len(site.data().shape) < 3:
        raise NothingKnown
    return reduced(site.data(), range(2, len(site.data().shape)))


def bound_pool(site: Site) -> Facts:
    found = pooled(site)
    low, high = found.low, found.high
    counts = site.attributes.get("count_include_pad", 0)
    if counts and (any(site.attributes.get("pads", ())) or site.attributes.get("auto_pad", b"NOTSET") != b"NOTSET"):
        low, high = np.minimum(low, 0), np.maximum(high, 0)
    return facts(low, high, mix(found.identity, site.kind), found.scale)


def bound_lp_pool(site: Site) -> Facts:
    """Lengths, which grow with what they are of."""
    found = pooled(site)
    return facts(0.0, np.where(found.zero, 0, np.inf), mix(found.identity, site.kind), found.scale)


_POOL: dict[str, Any] = {"couple": pool, "channel": 1, "zero": first, "channelwise": True}
_MEAN = Trait.RANGE | Trait.MAPS


def windows(node: TorchCall, sizes: Sequence[int]) -> tuple[list[int], list[int], list[int], list[int], list[int]]:
    """Kernel, strides, dilations, padding before, and padding after, so that the last window just fits.

    Under `ceil_mode` a last window counts that starts inside the input or the padding before it.
    """
    kernel, ones = node.get("kernel_shape"), [1] * len(sizes)
    strides, dilations = node.get("strides", ones), node.get("dilations", ones)
    before, after = padding(node.attributes, sizes, kernel)
    if not node.get("ceil_mode"):
        return kernel, strides, dilations, before, after
    fitted = []
    for size, k, s, d, p, q in zip(sizes, kernel, strides, dilations, before, after, strict=True):
        reach = (k - 1) * d + 1
        count = -(-(size + p + q - reach) // s) + 1
        count -= (count - 1) * s >= size + p
        fitted.append((count - 1) * s + reach - size - p)
    return kernel, strides, dilations, before, fitted


def places_of_maxima(node: TorchCall, x: Tensor, found: Tensor, sizes: Sequence[int], before: Sequence[int]) -> Tensor:
    """Places within the whole tensor of what was found in the (perhaps padded) space, row or column by column."""
    axes, rest = list[Tensor](), found
    for size, pad in zip(reversed(sizes), reversed(before), strict=True):
        axes.insert(0, rest % size - (pad if tuple(sizes) != tuple(x.shape[2:]) else 0))
        rest = rest // size
    order = list(range(len(axes)))[:: -1 if node.get("storage_order") else 1]
    flat = torch.zeros_like(found)
    for k in order:
        flat = flat * x.shape[2 + k] + axes[k]
    first = torch.arange(x.shape[0] * x.shape[1], device=x.device).reshape(*x.shape[:2], *[1] * len(axes))
    return flat + first * math.prod(x.shape[2:])


def forward_max_pool(node: TorchCall, x: Tensor) -> Any:
    rank = x.dim() - 2
    kernel, strides, dilations, before, after = windows(node, x.shape[2:])
    lopsided = before != after or any(2 * p > k for p, k in zip(before, kernel, strict=True))
    pads = [0] * rank if lopsided else before
    lowest = -math.inf if x.is_floating_point() else torch.iinfo(x.dtype).min
    wide = padded(x, before, after, lowest) if lopsided else x
    wide = wide if wide.is_floating_point() else wide.to(torch.float32)
    y = getattr(functional, f"max_pool{rank}d")(wide, kernel, strides, pads, dilations, return_indices=node.outputs > 1)
    if node.outputs == 1:
        return y.to(x.dtype)
    y, found = y
    return y.to(x.dtype), places_of_maxima(node, x, found, wide.shape[2:], before if lopsided else pads)


define("MaxPool", **_POOL, bound=bound_pool, traits=_MEAN | Trait.MOVES, forward=Forward(forward_max_pool))


def sums_of_windows(x: Tensor, kernel: list[int], strides: list[int], dilations: list[int]) -> Tensor:
    """Sums over windows."""
    rank, channels = x.dim() - 2, x.shape[1]
    if max(dilations) == 1:
        return getattr(functional, f"avg_pool{rank}d")(x, kernel, strides) * math.prod(kernel)
    ones = x.new_ones(channels, 1, *kernel)
    return getattr(functional, f"conv{rank}d")(x, ones, None, strides, 0, dilations, channels)


def forward_average_pool(node: TorchCall, x: Tensor) -> Tensor:
    """Means over what lies in the input, with `count_include_pad` over the padding too."""
    kernel, strides, dilations, before, after = windows(node, x.shape[2:])
    wide = padded(x, before, after)
    total = sums_of_windows(wide, kernel, strides, dilations)
    if not any(before) and not any(after):
        return total / math.prod(kernel)
    ones = torch.ones(1, 1, *x.shape[2:], dtype=x.dtype, device=x.device)
    if node.get("count_include_pad"):
        less, more = padding(node.attributes, x.shape[2:], kernel)
        ones = padded(ones, less, more, 1.0)
        rest = [n + p - m for n, p, m in zip(after, before, less, strict=True)]
        ones = padded(ones, [0] * len(less), [n - m for n, m in zip(rest, more, strict=True)])
    else:
        ones = padded(ones, before, after)
    return total / sums_of_windows(ones, kernel, strides, dilations)


define("AveragePool", **_POOL, bound=bound_pool, traits=_MEAN | Trait.PASSES, forward=Forward(forward_average_pool))
define(
    "GlobalAveragePool", **_POOL, bound=bound_pool, traits=_MEAN | Trait.PASSES,
    forward=Forward(lambda node, x: x.mean(tuple(range(2, x.dim())), keepdim=True)),
)  # fmt: skip
define(
    "GlobalMaxPool", **_POOL, bound=bound_pool, traits=_MEAN,
    forward=Forward(lambda node, x: x.amax(tuple(range(2, x.dim())), keepdim=True)),
)  # fmt: skip


def forward_lp_pool(node: TorchCall, x: Tensor) -> Tensor:
    p = node.get("p", 2)
    kernel, strides, dilations, before, after = windows(node, x.shape[2:])
    return sums_of_windows(padded(x.abs() ** p, before, after), kernel, strides, dilations) ** (1 / p)


define("LpPool", **_POOL, bound=bound_lp_pool, traits=Trait.MAPS, forward=Forward(forward_lp_pool))


define(
    "GlobalLpPool", **_POOL, bound=bound_lp_pool, forward=Forward(
        lambda node, x: torch.linalg.vector_norm(x, node.get("p", 2), tuple(range(2, x.dim())), keepdim=True)
    ),
)  # fmt: skip
define(
    "com.microsoft:NhwcMaxPool", couple=pool, channelwise=True, shape=Alike("MaxPool"),
    traits=Trait.CHANNELS_LAST | Trait.SELECTS,
    bound=lambda site: homogeneous_rows(site, range(1, len(site.shape()) - 1)),
)  # fmt: skip


def regions(op: Op, x: Axes, rois: Axes, batch: Axes = (), **_: Any) -> Axes:
    op.freeze(x[0], *x[2:], *rois, *batch, why="takes regions of it")
    return (fixed(rois[0].size), x[1], ...)  # type: ignore[return-value]


def bound_regions(site: Site) -> Facts:
    """The largest of elements, or means of neighbours, and zeros outside of the map."""
    return homogeneous_rows(site, (0, 2, 3), with_zero=True)


define("MaxRoiPool RoiAlign", couple=regions, channel=1, zero=first, channelwise=True, bound=bound_regions)


def forward_max_unpool(node: TorchCall, x: Tensor, places: Tensor, sizes: Tensor | None = None) -> Tensor:
    kernel, rank = node.get("kernel_shape"), x.dim() - 2
    strides, pads = node.get("strides", [1] * rank), node.get("pads", [0] * 2 * rank)
    shape = [
        (n - 1) * s + k - p - q
        for n, s, k, p, q in zip(x.shape[2:], strides, kernel, pads[:rank], pads[rank:], strict=True)
    ]
    small = [*x.shape[:2], *shape]
    out = x.new_zeros(math.prod(small) if sizes is None else math.prod(sizes.tolist()))
    out = out.scatter(0, places.reshape(-1), x.reshape(-1))
    return out.reshape(small if sizes is None else sizes.tolist())


define("MaxUnpool", forward=Forward(forward_max_unpool, into=(0,), host=(2,)))
