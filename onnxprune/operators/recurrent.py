"""Recurrent layers: a hidden unit is one row of every gate, one column of the recurrent weights, one of each state."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from onnxprune.errors import ModelError
from onnxprune.operators.activations import activation
from onnxprune.operators.facts import Facts, NothingKnown, facts, padded
from onnxprune.operators.forward import Forward, TorchCall
from onnxprune.operators.labels import Axes, Labels, fixed
from onnxprune.operators.lazy_torch import Tensor, torch
from onnxprune.operators.op import Op
from onnxprune.operators.patches import linear_gates
from onnxprune.operators.quantization import one_scale
from onnxprune.operators.registry import Arrays, Attributes, Shape, Trait, define
from onnxprune.operators.roles import Scaling, ZeroWhereDead
from onnxprune.operators.site import Site
from onnxprune.operators.value_numbers import EXACT, mix, multiples

ZERO_AT_ZERO = {  # activations that keep a unit without weights at zero, by position among those of one direction
    "LSTM": ({"Sigmoid", "HardSigmoid"}, {"Tanh", "Relu", "Softsign"}, {"Tanh", "Relu", "Softsign"}),
    "GRU": ({"Sigmoid", "HardSigmoid"}, {"Tanh", "Relu", "Softsign"}),
    "RNN": ({"Tanh", "Relu", "Softsign"},),
}


def stays_at_rest(kind: str, attributes: Attributes) -> bool:
    """Whether the activations keep a unit without weights at zero."""
    names = [name.decode() if isinstance(name, bytes) else name for name in attributes.get("activations", ())]
    return all(name in ZERO_AT_ZERO[kind][k % len(ZERO_AT_ZERO[kind])] for k, name in enumerate(names))


def stays_zero(kind: str, *parameters: int) -> Any:
    """Weights, biases and first states of zero keep a unit at zero, unless its activation lifts it."""
    return lambda op: ZeroWhereDead(stays_at_rest(kind, op.attributes)) & op.all_zero_where_dead(parameters)


def couple_gates(
    op: Op, gates: int, layout: int, x: Axes, w: Axes, r: Axes, b: Axes | None = None, lengths: Axes | None = None,
    h: Axes | None = None, c: Axes | None = None, p: Axes | None = None,
) -> list[Axes]:  # fmt: skip
    """Weights (directions, gates · units, features), recurrent weights (directions, gates · units, units).

    Units are tied over gates, and over directions, since both have one `hidden_size`.
    """
    op.freeze(w[0], r[0], why="has a direction for each position")
    op.contract(w[2], x[2], op.weights[1] or op.zero_inputs[0])
    units = r[2]
    for labels in (w[1], r[1]):
        op.tie(np.broadcast_to(units, (gates, units.size)), labels.reshape(gates, -1))
        op.writes(labels)
    op.reads(w[2])
    op.reads(r[2])
    if not (op.weights[2] or op.zero_inputs[2]):
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


def recurrent(gates: int, outputs: int) -> Callable[..., list[Axes]]:
    return lambda op, *inputs, layout=0, **_: couple_gates(op, gates, layout, *inputs)[:outputs]


def repair_recurrent(edit: Any, hidden_size: int | None = None, **_: Any) -> None:
    if hidden_size is not None:
        edit.set_attribute("hidden_size", edit.count_in(2, 2))


def gates_of(w: np.ndarray, _: Attributes) -> np.ndarray:
    """Weights of all gates and directions, (directions, gates · units, inputs), as those of one layer."""
    return w.reshape(-1, w.shape[2])[None, :, :, None]


def bound_recurrent(site: Site, kind: str) -> list[Facts | None]:
    """Hidden units with the same weights stay the same from states of zero on, and without weights at zero."""
    w, r = site.weight(1), site.weight(2)
    states = [site.fact(k)[0] for k in (5, 6) if site.has(k)]
    if not stays_at_rest(kind, site.attributes) or not all(s.zero.all() for s in states):
        raise NothingKnown
    units = r.shape[2]
    rows = [a.reshape(len(a), -1, units, a.shape[2]).transpose(2, 0, 1, 3).reshape(units, -1) for a in (w, r)]
    rows += [a.reshape(-1, units).T for a in (site.optional(3), site.optional(7)) if a is not None]
    own = np.concatenate(rows, 1)
    first, factor = multiples(own, np.zeros(units), np.zeros(units, np.uint64), EXACT)
    first = np.where(factor == 1, first, np.arange(units))
    low = np.where(own.any(1), -np.inf, 0.0)
    one = facts(low, -low, mix(site.token, first))
    return [None if s is None else padded(one, len(s)).named(k) for k, s in enumerate(site.shapes)]


DEFAULTS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}
PARAMETERS = {  # of activations that have any, alpha and beta where they are not told
    "LeakyRelu": (0.01,), "Elu": (1.0,), "ThresholdedRelu": (1.0,), "HardSigmoid": (0.2, 0.5), "Affine": (1.0, 1.0),
    "ScaledTanh": (1.0, 1.0),
}  # fmt: skip


def functions(node: TorchCall, direction: int) -> list[Callable[[Tensor], Tensor]]:
    """The activations of one direction, with their parameters."""
    count = len(DEFAULTS[node.op])
    names = node.get("activations", DEFAULTS[node.op] * 2)[direction * count :][:count]
    given = {key: iter(node.get(f"activation_{key}", [])) for key in ("alpha", "beta")}
    return [
        activation(name, {k: next(given[k], v) for k, v in zip(given, PARAMETERS.get(name, ()), strict=False)})
        for name in names
    ]


def _clipped(node: TorchCall, x: Tensor) -> Tensor:
    limit = node.get("clip")
    return x if not limit else x.clamp(-limit, limit)


def _lstm_cell(node: TorchCall, direction: int, r: Tensor, b: Tensor, p: Tensor | None) -> Callable[..., Any]:
    """Gates in the order i, o, f, c; peepholes in the order i, o, f."""
    f, g, h = functions(node, direction)
    pi, po, pf = (0.0, 0.0, 0.0) if p is None else p.chunk(3)

    def step(x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, ...]:
        i, o, forget, c = (x + hidden @ r.T + b).chunk(4, -1)
        i = f(_clipped(node, i + pi * cell))
        forget = 1 - i if node.get("input_forget") else f(_clipped(node, forget + pf * cell))
        cell = forget * cell + i * g(_clipped(node, c))
        o = f(_clipped(node, o + po * cell))
        return o * h(cell), cell

    return step


def _gru_cell(node: TorchCall, direction: int, r: Tensor, b: Tensor, p: Tensor | None) -> Callable[..., Any]:
    """Gates in the order z, r, h; Cho et al. 2014, arXiv 1406.1078."""
    f, g = functions(node, direction)
    units = r.shape[-1]
    r_gates, r_new = r[: 2 * units], r[2 * units :]
    b_gates, b_new = b[: 2 * units], b[2 * units :]

    def step(x: Tensor, hidden: Tensor) -> tuple[Tensor, ...]:
        z, reset = f(_clipped(node, x[:, : 2 * units] + hidden @ r_gates.T + b_gates)).chunk(2, -1)
        new = x[:, 2 * units :]
        if node.get("linear_before_reset"):
            new = new + reset * (hidden @ r_new.T + b_new)
        else:
            new = new + (reset * hidden) @ r_new.T + b_new
        new = g(_clipped(node, new))
        return ((1 - z) * new + z * hidden,)

    return step


def _rnn_cell(node: TorchCall, direction: int, r: Tensor, b: Tensor, p: Tensor | None) -> Callable[..., Any]:
    (f,) = functions(node, direction)
    return lambda x, hidden: (f(_clipped(node, x + hidden @ r.T + b)),)


CELLS = {"LSTM": _lstm_cell, "GRU": _gru_cell, "RNN": _rnn_cell}


def _one_way(
    step: Callable[..., Any], x: Tensor, states: tuple[Tensor, ...], lengths: Tensor | None, back: bool
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """All steps of one direction; behind its length a sample keeps its states and gives zeros."""
    outputs: list[Tensor] = [x.new_zeros(0)] * len(x)
    for t in reversed(range(len(x))) if back else range(len(x)):
        moved = step(x[t], *states)
        if lengths is not None:
            on = (lengths > t).unsqueeze(-1)
            moved = tuple(torch.where(on, new, old) for new, old in zip(moved, states, strict=True))
            outputs[t] = torch.where(on, moved[0], torch.zeros_like(moved[0]))
        else:
            outputs[t] = moved[0]
        states = moved
    return torch.stack(outputs), states


def forward_recurrent(
    node: TorchCall, x: Tensor, w: Tensor, r: Tensor, b: Tensor | None = None, lengths: Tensor | None = None,
    h: Tensor | None = None, c: Tensor | None = None, p: Tensor | None = None,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Outputs (steps, directions, batch, units), and the last states.

    LSTM: Hochreiter, Schmidhuber 1997, doi 10.1162/neco.1997.9.8.1735.  GRU: Cho et al. 2014, arXiv 1406.1078.
    """
    states = (h, c) if node.op == "LSTM" else (h,)
    if node.get("layout"):
        raise ModelError(f"{node.op} with the batch first is not known to onnxruntime; export with layout 0")
    directions, units = r.shape[0], r.shape[-1]
    shape = (directions, x.shape[1], units)
    given = tuple(x.new_zeros(shape) if s is None else s for s in states)
    parts, ends = list[Tensor](), list[tuple[Tensor, ...]]()
    for k in range(directions):
        wb, rb = (x.new_zeros(r.shape[1]),) * 2 if b is None else b[k].chunk(2)
        step = CELLS[node.op](node, k, r[k], rb, None if p is None else p[k])
        back = k == 1 or node.get("direction") == "reverse"
        y, end = _one_way(step, x @ w[k].T + wb, tuple(s[k] for s in given), lengths, back)
        parts.append(y)
        ends.append(end)
    y = torch.stack(parts, 1)
    last = tuple(torch.stack(state) for state in zip(*ends, strict=True))
    return y, *last


for name, gates, outputs, parameters in (
    ("LSTM", 4, 3, (1, 2, 3, 5, 6, 7)), ("GRU", 3, 2, (1, 2, 3, 5)), ("RNN", 1, 2, (1, 2, 3, 5)),
):  # fmt: skip
    define(
        name, couple=recurrent(gates, outputs), zero=stays_zero(name, *parameters), repair=repair_recurrent,
        bound=partial(bound_recurrent, kind=name), filters=gates_of, linear=lambda shape, _: linear_gates(shape[0]),
        gates=gates, traits=Trait.LAYER | Trait.RECURRENT,
        forward=Forward(forward_recurrent, into=(0, 1, 2, 3, 5, 6, 7)),
    )  # fmt: skip


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


def _lstm_shape(x: Arrays, a: Attributes) -> list[Shape | None]:
    """Input (steps, batch, features), recurrent weights (directions, units, gates · units)."""
    (steps, batch, _), directions, units = x[0], x[2][0], a["hidden_size"]
    last = (directions, batch, units)
    return [(steps, directions, batch, units), last, last]


define(
    "com.microsoft:DynamicQuantizeLSTM", gates=4, couple=quantized_lstm, zero=_lstm_stays_zero,
    repair=lambda edit, **_: edit.set_attribute("hidden_size", edit.count_in(2, 1)), shape=_lstm_shape,
)  # fmt: skip
