"""Operators about shapes, and tensors made from nothing."""

import math
from typing import Any

import numpy as np
from onnx import numpy_helper

from onnxprune.channels.labels import Axes, fixed
from onnxprune.channels.op import Op
from onnxprune.channels.promises import first
from onnxprune.channels.tables import repair, rule

LARGEST_FILL = 1 << 20  # elements of a filled tensor that may have channels


@rule("Shape", "Size", "Range", "RandomNormal", "RandomUniform", "Multinomial", tangled=True)
def shape(op: Op, **_: Any) -> list[Axes]:
    """What follows from a shape follows the cut by itself."""
    return [(...,)] * len(op.shapes)  # type: ignore[list-item]


@rule("EyeLike", "RandomNormalLike", "RandomUniformLike", "Bernoulli")
def like(op: Op, x: Axes, **_: Any) -> Axes:
    op.freeze(*x, why="makes numbers by its shape")
    return x


def _filled_with_zeros(op: Op) -> bool:
    value = op.attributes.get("value")
    return value is None or not np.any(numpy_helper.to_array(value))


@rule("ConstantOfShape", quiet=_filled_with_zeros)
def constant_of_shape(op: Op, _: Axes, **__: Any) -> Axes:
    size = op.shapes[0]
    if size is None or math.prod(size) > LARGEST_FILL:
        return (...,)  # type: ignore[return-value]
    return tuple(fixed(n) if op.open_out(axis) else op.channels(n) for axis, n in enumerate(size))


@repair("ConstantOfShape")
def repair_constant_of_shape(edit: Any, **_: Any) -> None:
    told, size = edit.ints(0), edit.shape_out(0)
    if told is not None:
        edit.set_ints(0, None, {k: n for k, n in enumerate(size) if told[k] != n})


@rule("OptionalGetElement", "Optional", quiet=first)
@rule("SequenceAt", "SequenceLength", "SplitToSequence", "ConcatFromSequence", "Loop", "Scan", quiet=lambda op: False)
def opaque(op: Op, *_: Axes | None, **__: Any) -> Axes:
    return op.unknown("hides values that cannot be followed")
