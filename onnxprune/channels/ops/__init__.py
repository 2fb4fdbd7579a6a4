"""One function per operator: what it does to channel labels, and beside it what must follow a cut."""

from onnxprune.channels.ops import (
    attention,
    integer,
    linear,
    movement,
    norm,
    pointwise,
    quantize,
    recurrent,
    reduce,
    select,
    shape,
)

__all__ = [
    "attention",
    "integer",
    "linear",
    "movement",
    "norm",
    "pointwise",
    "quantize",
    "recurrent",
    "reduce",
    "select",
    "shape",
]
