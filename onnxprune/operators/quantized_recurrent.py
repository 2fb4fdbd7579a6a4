"""onnxruntime's LSTM with weights in eight bits."""

from typing import Any

from onnxprune.operators.labels import Axes
from onnxprune.operators.op import Op
from onnxprune.operators.quantization import one_scale
from onnxprune.operators.recurrent import couple_gates, stays_zero
from onnxprune.operators.registry import Arrays, Attributes, Shape, define
from onnxprune.operators.roles import Scaling

_lstm_stays_zero = stays_zero("LSTM", 1, 2, 3, 5, 6, 7)


def quantized_lstm(
    op: Op, x: Axes, w: Axes, r: Axes, b: Axes | None = None, lengths: Axes | None = None, h: Axes | None = None,
    c: Axes | None = None, p: Axes | None = None, *steps: Axes | None, **_: Any,
) -> list[Axes]:  # fmt: skip
    """Weights (directions, features, gates · units) in eight bits; scales and zero points for each column, or one."""
    one_scale(op, x)
    op.sums(op.relies(_lstm_stays_zero(op)), r[1], why="takes one scale over all units")
    out = couple_gates(op, 4, 0, x, (w[0], w[2], w[1]), (r[0], r[2], r[1]), b, lengths, h, c, p)
    for weight, scale in zip((w, w, r, r), steps, strict=True):
        if scale is not None and len(scale) == 2:
            op.tie(weight[2], scale[1])
            op.freeze(scale[0], why="has a direction for each position")
    for place, k in ((1, 8), (2, 10)):
        zero = op.constant(k + 1)
        if zero is None or (zero.any() and zero.size > 1):
            return op.unknown("has zero points of its own for each direction or column")
        op.scalings[place] = Scaling("", op.names[k + 1] if zero.any() else "", None)  # ranked as integers
    return out


def repair_quantized_lstm(edit: Any, **_: Any) -> None:
    edit.set_attribute("hidden_size", edit.count_in(2, 1))


def _lstm_shape(x: Arrays, a: Attributes) -> list[Shape | None]:
    """Input (steps, batch, features), recurrent weights (directions, units, gates · units)."""
    (steps, batch, _), directions, units = x[0], x[2][0], a["hidden_size"]
    last = (directions, batch, units)
    return [(steps, directions, batch, units), last, last]


define(
    "com.microsoft:DynamicQuantizeLSTM", gates=4, couple=quantized_lstm, zero=_lstm_stays_zero,
    repair=repair_quantized_lstm, shape=_lstm_shape,
)  # fmt: skip
