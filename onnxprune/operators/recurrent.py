"""Recurrent layers: a hidden unit is one row of every gate, one column of the recurrent weights, one of each state."""

from typing import Any

import numpy as np

from onnxprune.operators.facts import Facts, facts, padded
from onnxprune.operators.labels import Axes, Labels, fixed
from onnxprune.operators.op import Op
from onnxprune.operators.patches import linear_gates
from onnxprune.operators.quantized import one_scale
from onnxprune.operators.registry import Arrays, Attributes, Shape, Trait, define
from onnxprune.operators.roles import Scaling, Silence
from onnxprune.operators.site import Site
from onnxprune.operators.value_numbers import EXACT, mix, multiples

QUIET = {  # activations after which a unit without weights stays at zero, by position among those of one direction
    "LSTM": ({"Sigmoid", "HardSigmoid"}, {"Tanh", "Relu", "Softsign"}, {"Tanh", "Relu", "Softsign"}),
    "GRU": ({"Sigmoid", "HardSigmoid"}, {"Tanh", "Relu", "Softsign"}),
    "RNN": ({"Tanh", "Relu", "Softsign"},),
}


def _quiet(kind: str, *parameters: int) -> Any:
    """Weights, biases and first states of zero keep a unit at zero, unless its activation lifts it."""

    def condition(op: Op) -> Silence:
        given = op.attributes.get("activations", ())
        names = [name.decode() if isinstance(name, bytes) else name for name in given]
        calm = all(name in QUIET[kind][k % len(QUIET[kind])] for k, name in enumerate(names))
        return Silence(calm) & op.all_silent(parameters)

    return condition


def _recurrent(
    op: Op,
    gates: int,
    layout: int,
    x: Axes,
    w: Axes,
    r: Axes,
    b: Axes | None = None,
    lengths: Axes | None = None,
    h: Axes | None = None,
    c: Axes | None = None,
    p: Axes | None = None,
) -> list[Axes]:
    """Weights (directions, gates · units, features), recurrent weights (directions, gates · units, units).

    Units are tied over gates, and over directions, since both have one `hidden_size`.
    """
    op.freeze(w[0], r[0], why="has a direction for each position")
    op.contract(w[2], x[2], op.weights[1] or op.quiet[0])
    units = r[2]
    for labels in (w[1], r[1]):
        op.tie(np.broadcast_to(units, (gates, units.size)), labels.reshape(gates, -1))
        op.writes(labels)
    op.reads(w[2])
    op.reads(r[2])
    if not (op.weights[2] or op.quiet[2]):
        op.freeze(units, why="takes its recurrent weights from data")
    _tie_parameters(op, units, b, p)
    states = [state for state in (h, c) if state is not None]
    for state in states:
        op.tie(units, state[2])
    direction, batch = fixed(w[0].size), x[0] if layout else x[1]
    if batch.size > 1:
        op.freeze(batch, *(state[0] if layout else state[1] for state in states), why="keeps a state for each sample")
    _freeze_steps(op, x, layout, lengths, states)
    op.macs(x[0].size * x[1].size * w[0].size, w[1], w[2])
    op.macs(x[0].size * x[1].size * r[0].size, r[1], r[2])
    return _outputs(x, units, direction, layout)


def _tie_parameters(op: Op, units: Labels, *parameters: Axes | None) -> None:
    """Biases and peepholes have a number for each gate and unit."""
    for axes in filter(None, parameters):
        grid = axes[1].reshape(-1, units.size)
        op.freeze(axes[0], why="has a direction for each position")
        op.tie(np.broadcast_to(units, grid.shape), grid)


def _freeze_steps(op: Op, x: Axes, layout: int, lengths: Axes | None, states: list[Axes]) -> None:
    op.freeze(x[1] if layout else x[0], why="goes along it step by step")
    op.freeze(*(state[1] if layout else state[0] for state in states), why="has a direction for each position")
    op.freeze(*(lengths or ()), why="stops at it")


def _outputs(x: Axes, units: Labels, direction: Labels, layout: int) -> list[Axes]:
    """All steps, the last hidden state, the last cell state."""
    if layout:
        last: Axes = (fixed(x[0].size), direction, units)
        return [(fixed(x[0].size), fixed(x[1].size), direction, units), last, last]
    last = (direction, fixed(x[1].size), units)
    return [(fixed(x[0].size), direction, fixed(x[1].size), units), last, last]


def lstm(op: Op, *inputs: Any, layout: int = 0, **_: Any) -> list[Axes]:
    return _recurrent(op, 4, layout, *inputs)


def gru(op: Op, *inputs: Any, layout: int = 0, **_: Any) -> list[Axes]:
    return _recurrent(op, 3, layout, *inputs)[:2]


def rnn(op: Op, *inputs: Any, layout: int = 0, **_: Any) -> list[Axes]:
    return _recurrent(op, 1, layout, *inputs)[:2]


def repair_recurrent(edit: Any, hidden_size: int | None = None, **_: Any) -> None:
    if hidden_size is not None:
        edit.set_attribute("hidden_size", edit.count_in(2, 2))


def gates_of(w: np.ndarray, _: Attributes) -> np.ndarray:
    """Weights of all gates and directions, (directions, gates · units, inputs), as those of one layer."""
    return w.reshape(-1, w.shape[2])[None, :, :, None]


def bound_recurrent(site: Site) -> list[Facts | None] | None:
    """Hidden units with the same weights stay the same from states of zero on, and without weights at zero."""
    w, r, b = (site.array(k) for k in (1, 2, 3))
    states = [site.fact(k) for k in (5, 6) if site.has(k)]
    told = [n.decode() if isinstance(n, bytes) else n for n in site.attributes.get("activations", ())]
    calm = QUIET[site.node.op_type]
    if w is None or r is None or any(site.has(k) and site.array(k) is None for k in (3, 7)):
        return None
    if any(s is None or s[0].low.any() or s[0].high.any() for s in states):
        return None
    if not all(name in calm[k % len(calm)] for k, name in enumerate(told)):
        return None
    units = r.shape[2]
    rows = [a.reshape(len(a), -1, units, a.shape[2]).transpose(2, 0, 1, 3).reshape(units, -1) for a in (w, r)]
    rows += [a.reshape(-1, units).T for a in (b, site.array(7)) if a is not None]
    own = np.concatenate(rows, 1)
    first, factor = multiples(own, np.zeros(units), np.zeros(units, np.uint64), EXACT)
    first = np.where(factor == 1, first, np.arange(units))
    low = np.where(own.any(1), -np.inf, 0.0)
    one = facts(low, -low, mix(site.token, first))
    return [None if s is None else padded(one, len(s)).named(k) for k, s in enumerate(site.outputs)]


_GATES: dict[str, Any] = {
    "repair": repair_recurrent, "bound": bound_recurrent, "filters": gates_of,
    "linear": lambda shape, _: linear_gates(shape[0]), "traits": Trait.LAYER | Trait.RECURRENT,
}  # fmt: skip

define("LSTM", couple=lstm, zero=_quiet("LSTM", 1, 2, 3, 5, 6, 7), **_GATES)
define("GRU", couple=gru, zero=_quiet("GRU", 1, 2, 3, 5), **_GATES)
define("RNN", couple=rnn, zero=_quiet("RNN", 1, 2, 3, 5), **_GATES)


_quiet_lstm = _quiet("LSTM", 1, 2, 3, 5, 6, 7)


def quantized_lstm(
    op: Op, x: Axes, w: Axes, r: Axes, b: Axes | None = None, lengths: Axes | None = None, h: Axes | None = None,
    c: Axes | None = None, p: Axes | None = None, *steps: Axes | None, **_: Any,
) -> list[Axes]:  # fmt: skip
    """Weights (directions, features, gates · units) in eight bits; scales and zero points for each column, or one."""
    one_scale(op, x)
    if op.relies(_quiet_lstm(op)):
        op.demands.append(r[1])
    else:
        op.freeze(r[1], why="takes one scale over all units")
    out = _recurrent(op, 4, 0, x, (w[0], w[2], w[1]), (r[0], r[2], r[1]), b, lengths, h, c, p)
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
    "com.microsoft:DynamicQuantizeLSTM",
    couple=quantized_lstm,
    zero=_quiet_lstm,
    repair=repair_quantized_lstm,
    shape=_lstm_shape,
)
