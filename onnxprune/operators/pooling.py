"""Pools: spatial axes shrink or vanish, channels pass."""

from typing import Any

import numpy as np

from onnxprune.operators.facts import Facts, facts, reduced
from onnxprune.operators.labels import Axes, fixed
from onnxprune.operators.op import Op
from onnxprune.operators.registry import Alike, Trait, define
from onnxprune.operators.site import Site
from onnxprune.operators.value_numbers import mix
from onnxprune.operators.zeros import first


def pool(op: Op, x: Axes, *_: Axes | None, **__: Any) -> list[Axes]:
    op.freeze(*x[2:], why="pools over it")
    if len(op.shapes) > 1:
        op.freeze(*x[:2], why="gives positions among all its elements")
    return [(x[0], x[1], ...)] * len(op.shapes)  # type: ignore[list-item]


def bound_pool(site: Site) -> list[Facts | None] | None:
    if site.inputs[0] is None or len(site.inputs[0].shape) < 3:
        return None
    found = reduced(site.inputs[0], range(2, len(site.inputs[0].shape)))
    low, high = found.low, found.high
    counts = site.attributes.get("count_include_pad", 0) and site.node.op_type == "AveragePool"
    if counts and (any(site.attributes.get("pads", ())) or site.attributes.get("auto_pad", b"NOTSET") != b"NOTSET"):
        low, high = np.minimum(low, 0), np.maximum(high, 0)
    out = facts(low, high, mix(found.identity, site.kind), found.scale)
    return [out, *[site.nothing(k) for k in range(1, len(site.outputs))]]


_POOL: dict[str, Any] = {"couple": pool, "channel": 1, "zero": first, "apart": True}
_MEAN = Trait.RANGE | Trait.MAPS

define("MaxPool", **_POOL, bound=bound_pool, traits=_MEAN | Trait.MOVES)
define("AveragePool GlobalAveragePool GlobalMaxPool", **_POOL, bound=bound_pool, traits=_MEAN)
define("LpPool", **_POOL, traits=Trait.MAPS)
define("GlobalLpPool", **_POOL)
define("com.microsoft:NhwcMaxPool", couple=pool, apart=True, shape=Alike("MaxPool"), traits=Trait.CHANNELS_LAST)


def roi_pool(op: Op, x: Axes, rois: Axes, **_: Any) -> Axes:
    op.freeze(x[0], *x[2:], *rois, why="takes regions of it")
    return (fixed(rois[0].size), x[1], ...)  # type: ignore[return-value]


def roi_align(op: Op, x: Axes, rois: Axes, batch: Axes, **_: Any) -> Axes:
    op.freeze(x[0], *x[2:], *rois, *batch, why="takes regions of it")
    return (fixed(rois[0].size), x[1], ...)  # type: ignore[return-value]


define("MaxRoiPool", couple=roi_pool, channel=1, zero=first, apart=True)
define("RoiAlign", couple=roi_align, channel=1, zero=first, apart=True)
