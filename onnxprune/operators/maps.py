"""Operators on maps that sample, crop, reverse or fold them."""

import math
from typing import Any

import numpy as np

from onnxprune.operators.facts import Facts, expanded, facts, reduced
from onnxprune.operators.labels import Axes, fixed
from onnxprune.operators.op import Op, on
from onnxprune.operators.registry import Alike, Arrays, Attributes, Shape, define
from onnxprune.operators.site import Site
from onnxprune.operators.value_numbers import bits, mix
from onnxprune.operators.zeros import first


def reverse(op: Op, x: Axes, *_: Axes | None, time_axis: int = 0, batch_axis: int = 1, **__: Any) -> Axes:
    op.freeze(x[time_axis], x[batch_axis], why="reverses it")
    return x


define("ReverseSequence", couple=reverse, apart=True)
define("Reverse", couple=reverse)


def trilu(op: Op, x: Axes, *_: Axes | None, **__: Any) -> Axes:
    op.freeze(*x[-2:], why="keeps a triangle of it")
    return x


define("Trilu", couple=trilu, zero=first, apart=True)
define("com.microsoft:Trilu", shape=Alike())


def grid_sample(op: Op, x: Axes, grid: Axes, **_: Any) -> Axes:
    op.freeze(*x[2:], *grid[1:], why="samples it")
    return (op.tie(x[0], grid[0]), x[1], ...)  # type: ignore[return-value]


def bound_grid_sample(site: Site) -> Facts | None:
    """Means of neighbours, and of zeros outside of a map."""
    found, grid, shape = site.inputs[0], site.fact(1), site.shapes[0]
    if (
        found is None
        or grid is None
        or shape is None
        or site.attributes.get("mode", b"linear") in (b"cubic", b"bicubic")
    ):
        return None
    flat = reduced(found, range(2, len(shape)))
    where = expanded(reduced(grid[0], range(1, len(shape))), grid[1], [0] if flat.shape[0] > 1 else [])
    if where is None:
        return None
    names = mix(flat.identity, where.identity, bits(where.scale), site.kind)
    return facts(np.minimum(flat.low, 0), np.maximum(flat.high, 0), names, flat.scale)


define(
    "GridSample", couple=grid_sample, zero=first, statistics=lambda op: range(2, len(op.shapes[0] or ())),
    bound=bound_grid_sample, apart=True,
)  # fmt: skip
define("com.microsoft:GridSample", shape=Alike("GridSample", (0, 1)))


def columns_to_image(op: Op, x: Axes, *_: Axes | None, **__: Any) -> Axes:
    """Columns (samples, channels · places in a block, blocks) become maps again."""
    grid = x[1].reshape(-1, math.prod(op.told(2)))
    op.freeze(x[2], why="puts blocks of it into their places")
    op.tie(grid[:, :1], grid)
    return (x[0], grid[:, 0], ...)  # type: ignore[return-value]


define("Col2Im", couple=columns_to_image, channel=1, zero=first)


def crop(op: Op, x: Axes, **_: Any) -> Axes:
    """Of early Windows exports: crops height and width."""
    op.freeze(*x[2:], why="crops it")
    return on(on(x, 2, _cropped(op, 2)), 3, _cropped(op, 3))


def _cropped(op: Op, axis: int) -> Any:
    shape = op.shapes[0]
    if shape is None:
        return op.unknown("crops to a size that is not known")
    return fixed(shape[axis])


def bound_crop(site: Site) -> Facts | None:
    """Of early Windows exports: a part of every map."""
    found = site.inputs[0]
    return None if found is None else reduced(found, range(2, len(found.shape))).named(site.kind)


def _crop_shape(x: Arrays, a: Attributes) -> list[Shape | None]:
    left, top, right, bottom = a.get("border", (0, 0, 0, 0))
    height, width = a.get("scale", (x[0][2] - top - bottom, x[0][3] - left - right))
    return [(*x[0][:2], height, width)]


define("Crop", couple=crop, zero=first, bound=bound_crop, apart=True, shape=_crop_shape)
