"""Padding: what is new has channels of its own; and middle parts of axes, or zeros around them."""

from typing import Any

import numpy as np

from onnxprune.operators.facts import Facts, NothingKnown, facts, known
from onnxprune.operators.forward import Forward, TorchCall, numbers, take
from onnxprune.operators.labels import Axes, Labels, fixed
from onnxprune.operators.lazy_torch import Tensor, functional
from onnxprune.operators.op import Op
from onnxprune.operators.registry import LARGEST_VALUE, Trait, by_reference, define
from onnxprune.operators.roles import NOT_ZERO
from onnxprune.operators.site import Site, numbers_name
from onnxprune.operators.value_numbers import mix
from onnxprune.operators.zeros import first


def pad(op: Op, x: Axes, *_: Axes | None, **attributes: Any) -> Axes:
    """Constant padding of a channel axis makes channels of its own; they can go as well."""
    before, after = pads_of(op, len(x), attributes)
    constant = attributes.get("mode", b"constant") in (b"constant", "constant")
    out: list[Labels] = []
    for k, labels in enumerate(x):
        start, end = before[k], after[k]
        if start == end == 0:
            out.append(labels)
        elif start is None or end is None or min(start, end) < 0 or not constant:
            op.freeze(labels, why="pads or crops it")
            out.append(op.fixed_out(k) if start is None or end is None else fixed(labels.size + start + end))
        else:
            fresh = op.coupling.fresh if labels.any() else fixed
            out.append(np.concatenate([fresh(start), labels, fresh(end)]))
    return tuple(out)


def pads_of(op: Op, rank: int, attributes: Any) -> tuple[list[int | None], list[int | None]]:
    """Amounts added before and after each axis; None where they hang on the sizes of the model's inputs."""
    given = op.some_ints(1, attributes.get("pads", attributes.get("paddings")))
    if given is None:
        return op.unknown("pads by amounts that are left out")
    axes = op.ints(3)
    dims = range(rank) if axes is None else [k % rank for k in axes]
    before: list[int | None] = [0] * rank
    after: list[int | None] = [0] * rank
    for j, k in enumerate(dims):
        before[k], after[k] = given[j], given[j + len(given) // 2]
    return before, after


def repair_pad(edit: Any, pads: Any = None, paddings: Any = None, **_: Any) -> None:
    name = "paddings" if paddings is not None else "pads"
    given, original = edit.ints(1, name), edit.original(1, pads or paddings)
    axes = edit.ints(3)
    if given is None or original is None:
        return
    rank = edit.rank_in(0)
    dims = range(rank) if axes is None else [int(k) % rank for k in axes]
    half, changed = len(given) // 2, {}
    for j, k in enumerate(dims):
        inside = edit.size_in(0, k)
        live = edit.live_out(0, k)
        if live.all():  # amounts of this axis may be computed from the number of channels
            changed[j], changed[j + half] = original[j], original[j + half]
            continue
        before = live.size - inside - original[j + half]
        changed[j] = int(live[:before].sum())
        changed[j + half] = int(live[before + inside :].sum())
    edit.set_ints(1, name, changed)


def bound_pad(site: Site) -> Facts:
    """Constants that other numbers are put around are no constants; an edge or a mirror of them is."""
    found, rank = site.data(), len(site.shape())
    amounts = site.some_numbers(1, "pads") or site.attributes.get("paddings")
    if amounts is None or site.has(3) or len(amounts) != 2 * rank:
        raise NothingKnown
    name = numbers_name(site, 1, amounts)
    if any(None in amounts[k::rank] and found.shape[k] > 1 for k in range(rank)):
        raise NothingKnown
    widths = [tuple(1 if n is None else int(n) for n in amounts[k::rank]) for k in range(rank)]  # by any amount
    varied = [k for k, w in enumerate(widths) if max(w) and found.shape[k] > 1]
    flat = site.attributes.get("mode", b"constant") in (b"constant", "constant")
    if any(min(w) < 0 for w in widths) or (varied and not flat):
        raise NothingKnown
    low, high = found.low, found.high
    if flat:
        given = site.weight(2, np.asarray(site.attributes.get("value", 0.0)))
        fill = known(np.ravel(given)[:1].reshape(()) if np.size(given) else np.zeros(()))
        if any(max(w) for k, w in enumerate(widths) if k not in varied):
            low, high = np.minimum(low, fill.low), np.maximum(high, fill.high)
        if varied:
            around = [w if k in varied else (0, 0) for k, w in enumerate(widths)]
            low, high = np.pad(low, around, constant_values=fill.low), np.pad(high, around, constant_values=fill.high)
            found = found.map(lambda a: np.pad(a, around, constant_values=1))
        if not fill.zero:
            return facts(low, high, mix(*found.exact, mix(*fill.exact), name, site.kind))
    return facts(low, high, mix(found.identity, name, site.kind), found.scale)


def _border(mode: str, length: int, before: int, after: int) -> list[int]:
    """Places that a padded axis takes its positions from."""
    places = np.arange(-before, length + after)
    if mode == "edge":
        places = places.clip(0, length - 1)
    elif mode == "wrap":
        places = places % length
    elif length > 1:  # reflect, without the edge itself
        places = np.abs((places + length - 1) % (2 * length - 2) - (length - 1))
    else:
        places = np.zeros_like(places)
    return places.tolist()


def forward_pad(
    node: TorchCall, x: Tensor, pads: Tensor | None = None, value: Tensor | None = None, axes: Tensor | None = None
) -> Tensor:
    """Pads are an attribute before opset 11 (`paddings` in opset 1); negative ones cut."""
    told = node.get("pads", node.get("paddings")) if pads is None else numbers(pads)
    half = len(told) // 2
    along = range(half) if axes is None else [k % x.dim() for k in numbers(axes)]
    sides = dict(zip(along, zip(told[:half], told[half:], strict=True), strict=True))
    mode = node.get("mode", "constant")
    if mode == "constant":
        fill = node.get("value", 0.0) if value is None or not value.numel() else value.item()
        flat = [n for k in reversed(range(x.dim())) for n in sides.get(k, (0, 0))]
        while flat[-2:] == [0, 0]:
            del flat[-2:]
        return functional.pad(x, flat, value=fill) if flat else x
    for axis, (before, after) in sides.items():
        if before or after:
            x = take(x, axis, _border(mode, x.shape[axis], before, after))
    return x


define(
    "Pad", couple=pad, zero=lambda op: op.zero_where_dead(0) if op.zero_padded() else NOT_ZERO, repair=repair_pad,
    follows=frozenset({1}), bound=bound_pad, channelwise=True, value=by_reference,
    small=lambda x: x[0].ndim == 1 and x[0].size + sum(abs(int(v)) for v in x[1].ravel()) <= LARGEST_VALUE,
    traits=Trait.RANGE | Trait.MAPS | Trait.NUMBERS | Trait.PADS | Trait.SELECTS,
    forward=Forward(forward_pad, into=(0,), host=(1, 2, 3)),
)  # fmt: skip


def center_crop_pad(op: Op, x: Axes, _: Any, *, axes: Any = None, **__: Any) -> Axes:
    """The middle is elsewhere when channels are gone, so that these stay where their axis gets another length."""
    out, target = list(x), op.some_ints(1) or []
    for k, size in zip(range(len(x)) if axes is None else axes, target, strict=True):
        if size != x[k].size or op.open_in(0, k):
            op.freeze(x[k], why="cuts out its middle, or pads around it")
            out[k] = op.fixed_out(k % len(x)) if size is None else fixed(size)
    return tuple(out)


def repair_center_crop_pad(edit: Any, axes: Any = None, **_: Any) -> None:
    target, shape = edit.ints(1), edit.shape_out(0)
    if target is not None:
        wanted = [shape[k] for k in (range(len(shape)) if axes is None else axes)]
        edit.set_ints(1, None, dict(enumerate(wanted)))


def bound_center_crop_pad(site: Site) -> Facts:
    """Zeros may come around what is the same all along an axis."""
    found, after, target = site.data(), site.shape_out(), site.some_numbers(1)
    moved = any(found.shape[k] > 1 and (n != after[k] or site.open_in(0, k)) for k, n in enumerate(site.shape()))
    if moved or target is None:
        raise NothingKnown
    identity = mix(found.identity, numbers_name(site, 1, target), site.kind)
    return facts(np.minimum(found.low, 0), np.maximum(found.high, 0), identity, found.scale)


def forward_center_crop_pad(node: TorchCall, x: Tensor, target: Tensor) -> Tensor:
    for k, size in zip(node.get("axes", range(x.dim())), numbers(target), strict=True):
        if (missing := size - x.shape[k]) < 0:
            x = x.narrow(k, -missing // 2, size)
        else:
            x = functional.pad(x.movedim(k, -1), (missing // 2, missing - missing // 2)).movedim(-1, k)
    return x


define(
    "CenterCropPad", couple=center_crop_pad, zero=first, repair=repair_center_crop_pad, follows=frozenset({1}),
    bound=bound_center_crop_pad, channelwise=True, value=by_reference,
    traits=Trait.NUMBERS | Trait.MAPS | Trait.SELECTS, forward=Forward(forward_center_crop_pad, into=(0,), host=(1,)),
)  # fmt: skip
