"""Operators that repeat: labels move along, and what is repeated from one position has channels of its own."""

import math
from typing import Any

import numpy as np

from onnxprune.operators.facts import Facts, NothingKnown, padded
from onnxprune.operators.forward import Forward, TorchCall, numbers
from onnxprune.operators.labels import Axes, Labels, fixed, repeated
from onnxprune.operators.lazy_torch import Tensor, torch
from onnxprune.operators.op import Op
from onnxprune.operators.registry import LARGEST_VALUE, Arrays, Trait, by_reference, define
from onnxprune.operators.site import Site
from onnxprune.operators.value_numbers import name_of
from onnxprune.operators.zeros import first


def _small_when_repeated(x: Arrays) -> bool:
    return x[0].size * math.prod(max(1, abs(int(v))) for v in x[1].ravel()) <= LARGEST_VALUE


def tile(op: Op, x: Axes, *_: Axes | None, **attributes: Any) -> Axes:
    repeats = op.some_ints(1, attributes.get("repeats"))
    if repeats is None:
        return op.unknown("repeats it as often as is left out")
    if op.opset < 6:  # one axis, then
        axis = op.required_ints(2)[0] % len(x)
        repeats = [repeats[0] if k == axis else 1 for k in range(len(x))]
    return tuple(_repeated(op, k, labels, times) for k, (labels, times) in enumerate(zip(x, repeats, strict=True)))


def _repeated(op: Op, axis: int, labels: Labels, times: int | None) -> Labels:
    """Repeated labels; a single position makes channels of its own, all alike."""
    if times is None:
        op.freeze(labels, why="repeats it as often as the sizes of the model's inputs say")
        return op.fixed_out(axis)
    if labels.size == 1:
        return labels if times == 1 else op.channels(times)
    return labels if times == 1 else repeated(labels, times)


def repair_tile(edit: Any, repeats: Any = None, **_: Any) -> None:
    told = edit.ints(1, None if repeats is None else "repeats")
    if told is None or edit.draft.opset < 6:
        return
    wanted = [edit.count_out(0, k) // edit.count_in(0, k) for k in range(edit.rank_in(0))]
    edit.set_ints(1, None, dict(enumerate(wanted)))


def bound_repeat(site: Site) -> Facts:
    """Positions that are repeated are copies of each other."""
    (found, before), after = site.fact(0), site.shape_out()
    aligned = (1,) * (len(after) - len(before)) + before
    wider = padded(found, len(after))
    times = [b // a if wider.shape[k] > 1 else 1 for k, (a, b) in enumerate(zip(aligned, after, strict=True))]
    if any(wider.shape[k] > 1 and site.open_out(k) for k in range(len(after))):
        raise NothingKnown
    sizes = [name_of(site.node.output[0] if site.open_out(k) else str(n)) for k, n in enumerate(after)]
    return wider.map(lambda a: np.tile(a, times)).named(site.kind, *sizes)


_COPIES = Trait.MOVES | Trait.RANGE | Trait.NUMBERS | Trait.REPEATS


def forward_tile(node: TorchCall, x: Tensor, repeats: Tensor, axis: Tensor | None = None) -> Tensor:
    """Before opset 6: how often along one axis."""
    if axis is None:
        return x.repeat(numbers(repeats))
    times = [1] * x.dim()
    times[int(axis)] = int(repeats)
    return x.repeat(times)


define(
    "Tile", couple=tile, zero=first, repair=repair_tile, follows=frozenset({1}), bound=bound_repeat, channelwise=True,
    value=by_reference, small=_small_when_repeated, traits=_COPIES | Trait.PASSES,
    forward=Forward(forward_tile, into=(0,), host=(1, 2)),
)  # fmt: skip


def expand(op: Op, x: Axes, _: Axes) -> Axes:
    """An axis that is expanded from one position has channels of its own, all alike."""
    shape = op.shape_out()
    padded = (*(fixed(1) for _ in shape[len(x) :]), *x)
    return tuple(
        labels if labels.size == size else fixed(size) if op.open_out(axis) else op.channels(size)
        for axis, (labels, size) in enumerate(zip(padded, shape, strict=True))
    )


def repair_expand(edit: Any, **_: Any) -> None:
    target, shape, given = edit.ints(1), edit.shape_out(0), edit.shape_in(0)
    if target is not None:
        off = len(shape) - len(target)
        given = (*(1 for _ in shape[len(given) :]), *given)
        kept = {k for k, v in enumerate(target) if v == 1 and given[off + k] == shape[off + k] != 1}
        edit.set_ints(1, None, {k: shape[off + k] for k in range(len(target)) if k not in kept})


define(
    "Expand", couple=expand, zero=first, repair=repair_expand, follows=frozenset({1}), bound=bound_repeat,
    channelwise=True, value=lambda x, _: np.broadcast_to(x[0], np.broadcast_shapes(x[0].shape, tuple(x[1]))).copy(),
    small=_small_when_repeated, traits=_COPIES | Trait.MAPS | Trait.PASSES | Trait.EXPANDS,
    forward=Forward(lambda node, x, n: x.expand(torch.broadcast_shapes(x.shape, tuple(numbers(n)))), (0,), (1,)),
)  # fmt: skip
