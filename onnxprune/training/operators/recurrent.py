"""LSTM, GRU and RNN, step by step, with the gates in the order of ONNX.

Shapes: x (steps, batch, features), W (directions, gates · units, features), R (directions, gates · units, units),
B (directions, 2 · gates · units), states (directions, batch, units).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from onnxprune.errors import ModelError
from onnxprune.training.operators.activations import activation
from onnxprune.training.operators.table import Node, differentiable

Cell = Callable[[Node, int, Tensor, tuple[Tensor, ...]], tuple[Tensor, ...]]  # one step: gates of x, states → states
DEFAULTS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}
DEFAULT_ALPHA = {"LeakyRelu": 0.01, "Elu": 1.0, "ThresholdedRelu": 1.0, "HardSigmoid": 0.2}


def functions(node: Node, direction: int) -> list[Callable[[Tensor], Tensor]]:
    """The activations of one direction, with their parameters."""
    count = len(DEFAULTS[node.op])
    names = node.get("activations", DEFAULTS[node.op] * 2)[direction * count :][:count]
    alphas, betas = iter(node.get("activation_alpha", [])), iter(node.get("activation_beta", []))
    made = list[Callable[[Tensor], Tensor]]()
    for name in names:
        told: dict[str, float] = {}
        if name in ("LeakyRelu", "Elu", "ThresholdedRelu", "HardSigmoid", "Affine", "ScaledTanh"):
            told["alpha"] = next(alphas, DEFAULT_ALPHA.get(name, 1.0))
        if name in ("HardSigmoid", "Affine", "ScaledTanh"):
            told["beta"] = next(betas, 0.5 if name == "HardSigmoid" else 1.0)
        made.append(activation(name, told))
    return made


def _clipped(node: Node, x: Tensor) -> Tensor:
    limit = node.get("clip")
    return x if not limit else x.clamp(-limit, limit)


def _lstm_cell(node: Node, direction: int, r: Tensor, b: Tensor, p: Tensor | None) -> Callable[..., Any]:
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


def _gru_cell(node: Node, direction: int, r: Tensor, b: Tensor, p: Tensor | None) -> Callable[..., Any]:
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


def _rnn_cell(node: Node, direction: int, r: Tensor, b: Tensor, p: Tensor | None) -> Callable[..., Any]:
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


@differentiable("LSTM", "GRU", "RNN", into=(0, 1, 2, 3, 5, 6, 7), layer=True)
def recurrent(
    node: Node,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    lengths: Tensor | None = None,
    h: Tensor | None = None,
    c: Tensor | None = None,
    p: Tensor | None = None,
) -> tuple[Tensor, ...]:
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
