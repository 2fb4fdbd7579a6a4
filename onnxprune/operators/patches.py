"""Linear layers as matrices: output rows = filters · columns of input patches, for every kind of layer.

Filters are `(groups, outputs / groups, features)`, columns `(groups, features, rows)`; a feature is one input channel
at one tap of the kernel, a row one output position of one sample.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Linear:
    """How one kind of layer is a matrix product.

    to_matrix: weights → filters; from_matrix: filters, shape of the weights → weights.
    columns: input, output shape, wanted rows → columns; `axis` is the channel axis of input and output.
    """

    groups: int
    axis: int
    to_matrix: Callable[[Array], Array]
    from_matrix: Callable[[Array, Sequence[int]], Array]
    columns: Callable[[Array, Sequence[int], Array], Array]

    def outputs(self, y: Array, rows: Array) -> Array:
        """An output value as `(outputs, rows)`, float32."""
        flat = np.moveaxis(y, self.axis, 0).reshape(y.shape[self.axis], -1)
        return flat[:, rows].astype(np.float32, copy=False)

    def positions(self, shape: Sequence[int]) -> int:
        """Rows that an output of this shape has."""
        return math.prod(shape) // shape[self.axis]


def padding(attributes: Mapping[str, Any], sizes: Sequence[int], kernel: Sequence[int]) -> tuple[list[int], list[int]]:
    """Padding before and after each axis, from `pads` or `auto_pad`.

    Args:
        attributes: with `strides` and `dilations` where they are not 1.
        sizes: of the axes of space.
        kernel: as large.
    """
    rank, auto = len(sizes), _auto_pad(attributes)
    if auto in ("NOTSET", "VALID"):
        pads = attributes.get("pads", [0] * 2 * rank) if auto == "NOTSET" else [0] * 2 * rank
        return list(pads[:rank]), list(pads[rank:])
    strides, dilations = attributes.get("strides", [1] * rank), attributes.get("dilations", [1] * rank)
    needed = [
        max(0, (-(-size // s) - 1) * s + (k - 1) * d + 1 - size)
        for size, k, s, d in zip(sizes, kernel, strides, dilations, strict=True)
    ]
    less, more = [n // 2 for n in needed], [n - n // 2 for n in needed]
    return (less, more) if auto == "SAME_UPPER" else (more, less)


def _auto_pad(attributes: Mapping[str, Any]) -> str:
    found = attributes.get("auto_pad") or "NOTSET"
    return found.decode() if isinstance(found, bytes) else found


def linear_conv(weight: Sequence[int], attributes: dict[str, Any]) -> Linear:
    """Conv with weights (outputs, inputs / groups, *kernel)."""
    groups, kernel = int(attributes.get("group", 1)), tuple(weight[2:])
    strides = tuple(attributes.get("strides", (1,) * len(kernel)))
    dilations = tuple(attributes.get("dilations", (1,) * len(kernel)))

    def columns(x: Array, out: Sequence[int], rows: Array) -> Array:
        sizes = [(o - 1) * s + (k - 1) * d + 1 for o, s, k, d in zip(out[2:], strides, kernel, dilations, strict=True)]
        begin, _ = padding(attributes, x.shape[2:], kernel)
        return _gather(_padded(x, begin, sizes), out[2:], strides, dilations, kernel, rows, groups)

    return Linear(
        groups, 1, lambda w: w.reshape(groups, w.shape[0] // groups, -1), lambda m, shape: m.reshape(shape), columns
    )


def linear_conv_transpose(weight: Sequence[int], attributes: dict[str, Any]) -> Linear:
    """ConvTranspose with weights (inputs, outputs / groups, *kernel): a Conv over the input with zeros between."""
    groups, kernel = int(attributes.get("group", 1)), tuple(weight[2:])
    strides = tuple(attributes.get("strides", (1,) * len(kernel)))
    dilations = tuple(attributes.get("dilations", (1,) * len(kernel)))
    flip = (slice(None),) * 3 + (slice(None, None, -1),) * len(kernel)

    def to_matrix(w: Array) -> Array:
        parted = w.reshape(groups, w.shape[0] // groups, *w.shape[1:]).swapaxes(1, 2)[flip]
        return parted.reshape(groups, w.shape[1], -1)

    def from_matrix(m: Array, shape: Sequence[int]) -> Array:
        parted = m.reshape(groups, shape[1], shape[0] // groups, *kernel)[flip].swapaxes(1, 2)
        return np.ascontiguousarray(parted).reshape(shape)

    def columns(x: Array, out: Sequence[int], rows: Array) -> Array:
        room = [(n - 1) * s + 1 for n, s in zip(x.shape[2:], strides, strict=True)]
        spread = np.zeros((*x.shape[:2], *room), x.dtype)
        spread[(slice(None), slice(None), *(slice(None, None, s) for s in strides))] = x
        reach = [(k - 1) * d for k, d in zip(kernel, dilations, strict=True)]
        pads = _transposed_begins(attributes, x.shape[2:], out[2:], strides, reach)
        begin = [r - p for r, p in zip(reach, pads, strict=True)]
        sizes = [o + r for o, r in zip(out[2:], reach, strict=True)]
        ones = (1,) * len(kernel)
        return _gather(_padded(spread, begin, sizes), out[2:], ones, dilations, kernel, rows, groups)

    return Linear(groups, 1, to_matrix, from_matrix, columns)


def linear_product(transposed: bool, scale: float = 1.0) -> Linear:
    """Gemm and MatMul: weights (outputs, inputs) where transposed, else (inputs, outputs)."""

    def columns(x: Array, _: Sequence[int], rows: Array) -> Array:
        return np.ascontiguousarray(x.reshape(-1, x.shape[-1])[rows].T.astype(np.float32))[None]

    turn: Callable[[Array], Array] = (lambda w: w) if transposed else (lambda w: w.T)
    return Linear(
        1, -1, lambda w: scale * turn(w)[None], lambda m, _: np.ascontiguousarray(turn(m[0]) / scale), columns
    )


def linear_gates(directions: int) -> Linear:
    """What LSTM, GRU and RNN make of their input, before the recurrence: weights (directions, gates · hidden, inputs).

    Every direction reads the same columns; an output is the value of one gate of one hidden channel.
    """

    def columns(x: Array, _: Sequence[int], rows: Array) -> Array:
        taken = np.ascontiguousarray(x.reshape(-1, x.shape[-1])[rows].T.astype(np.float32))
        return np.broadcast_to(taken, (directions, *taken.shape))

    return Linear(directions, -1, lambda w: w, lambda m, _: np.ascontiguousarray(m), columns)


def _transposed_begins(
    attributes: dict[str, Any], given: Sequence[int], out: Sequence[int], strides: Sequence[int], reach: Sequence[int]
) -> list[int]:
    kind = _auto_pad(attributes)
    if kind == "NOTSET" and "output_shape" not in attributes:
        return list(attributes.get("pads", [0] * 2 * len(given)))[: len(given)]
    extra = attributes.get("output_padding", [0] * len(given))
    totals = [
        max(s * (g - 1) + e + r + 1 - o, 0) for s, g, e, r, o in zip(strides, given, extra, reach, out, strict=True)
    ]
    return [t - t // 2 if kind == "SAME_LOWER" else t // 2 for t in totals]


def _padded(x: Array, begin: Sequence[int], sizes: Sequence[int]) -> Array:
    """Channel-major copy `(channels, samples, *sizes)` of x from `-begin` on, zeros around it."""
    out = np.zeros((x.shape[1], x.shape[0], *sizes), np.float32)
    source, target = [], []
    for n, b, size in zip(x.shape[2:], begin, sizes, strict=True):
        source.append(slice(max(-b, 0), max(min(n, size - b), 0)))
        target.append(slice(max(b, 0), max(min(n + b, size), 0)))
    out[(slice(None), slice(None), *target)] = x.swapaxes(0, 1)[(slice(None), slice(None), *source)]
    return out


def _gather(
    x: Array,
    out: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    kernel: Sequence[int],
    rows: Array,
    groups: int,
) -> Array:
    """Columns `(groups, channels / groups · taps, rows)` of a padded channel-major value."""
    channels, sizes = x.shape[0], x.shape[2:]
    where = np.unravel_index(rows, (x.shape[1], *out))
    base = np.ravel_multi_index((where[0], *(w * s for w, s in zip(where[1:], strides, strict=True))), x.shape[1:])
    steps = np.array([math.prod(sizes[k + 1 :]) for k in range(len(sizes))], np.int64)
    taps = np.stack([t.ravel() for t in np.indices(kernel)], 1) * np.array(dilations) @ steps if kernel else [0]
    flat = x.reshape(channels, -1)
    columns = np.empty((channels, len(taps), rows.size), np.float32)
    for t, offset in enumerate(taps):
        np.take(flat, base + offset, axis=1, out=columns[:, t], mode="clip")
    return columns.reshape(groups, -1, rows.size)
