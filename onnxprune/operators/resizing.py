"""Operators that repeat, pad, resize or crop: labels move along, and what is new has channels of its own."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from onnxprune.operators.facts import Facts, facts, padded, reduced
from onnxprune.operators.labels import Axes, Labels, fixed, is_fixed, repeated
from onnxprune.operators.op import Op
from onnxprune.operators.registry import LARGEST_VALUE, Arrays, Trait, by_reference, define
from onnxprune.operators.roles import LOUD
from onnxprune.operators.site import Site, numbers_name
from onnxprune.operators.value_numbers import bits, mix, name_of
from onnxprune.operators.zeros import first, provided


def _small_when_repeated(x: Arrays) -> bool:
    return x[0].size * math.prod(max(1, abs(int(v))) for v in x[1].ravel()) <= LARGEST_VALUE


def tile(op: Op, x: Axes, *_: Axes | None, **attributes: Any) -> Axes:
    repeats = op.some_ints(1, attributes.get("repeats"))
    if repeats is None:
        return op.unknown("repeats it as often as is left out")
    if op.opset < 6:  # one axis, then
        axis = op.told(2)[0] % len(x)
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
    edit.set_ints(1, None, {k: n for k, n in enumerate(wanted) if n != told[k]})


def bound_repeat(site: Site) -> Facts | None:
    """Positions that are repeated are copies of each other."""
    pair, after = site.fact(0), site.outputs[0]
    if pair is None or after is None:
        return None
    found, before = pair
    aligned = (1,) * (len(after) - len(before)) + before
    wider = padded(found, len(after))
    times = [b // a if wider.shape[k] > 1 else 1 for k, (a, b) in enumerate(zip(aligned, after, strict=True))]
    if any(wider.shape[k] > 1 and site.open_out(k) for k in range(len(after))):
        return None
    wider = wider.map(lambda a: np.tile(a, times))
    sizes = [name_of(site.node.output[0] if site.open_out(k) else str(n)) for k, n in enumerate(after)]
    return Facts(wider.low, wider.high, mix(wider.identity, site.kind, *sizes), wider.scale)


_COPIES = Trait.MOVES | Trait.RANGE | Trait.NUMBERS | Trait.REPEATS

define(
    "Tile", couple=tile, zero=first, repair=repair_tile, follows=frozenset({1}), bound=bound_repeat, apart=True,
    value=by_reference, small=_small_when_repeated, traits=_COPIES,
)  # fmt: skip


def expand(op: Op, x: Axes, _: Axes) -> Axes:
    """An axis that is expanded from one position has channels of its own, all alike."""
    shape = op.shapes[0]
    if shape is None:
        return op.unknown("expands to a shape that is not known")
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
        become = [given[off + k] if v == 1 else v for k, v in enumerate(target)]
        edit.set_ints(1, None, {k: shape[off + k] for k, v in enumerate(become) if v != shape[off + k]})


define(
    "Expand", couple=expand, zero=first, repair=repair_expand, follows=frozenset({1}), bound=bound_repeat, apart=True,
    value=by_reference, small=_small_when_repeated, traits=_COPIES | Trait.MAPS,
)  # fmt: skip


def _stays_inside(attributes: Mapping[str, Any]) -> bool:
    """Whether every element comes of the input, or is zero."""
    region = attributes.get("coordinate_transformation_mode") == b"tf_crop_and_resize"
    return not (region and attributes.get("extrapolation_value", 0.0))


def resize(op: Op, x: Axes, *told: Axes | None, axes: Any = None, **attributes: Any) -> Axes:
    shape = op.shapes[0]
    op.freeze(*(labels for value in told if value for labels in value), why="resizes by it")
    region = attributes.get("coordinate_transformation_mode") == b"tf_crop_and_resize"
    if region or attributes.get("keep_aspect_ratio_policy", b"stretch") != b"stretch":
        op.freeze(*(x[k] for k in (range(len(x)) if axes is None else axes)), why="resizes a region of it")
    if shape is None:
        return (x[0], x[1], ...)  # type: ignore[return-value]
    out = []
    for k, (labels, size) in enumerate(zip(x, shape, strict=True)):
        same = labels.size == size and (is_fixed(labels) or not op.open_out(k))
        if not same:
            op.freeze(labels, why="resizes it")
        out.append(labels if same else fixed(size))
    return tuple(out)


def repair_resize(edit: Any, axes: Any = None, **_: Any) -> None:
    sizes, shape = edit.ints(3), edit.shape_out(0)
    if sizes is not None and len(sizes):
        dims = [k % len(shape) for k in axes] if axes else range(len(shape))
        edit.set_ints(3, None, {k: shape[d] for k, (d, v) in enumerate(zip(dims, sizes, strict=True)) if v != shape[d]})


def bound_resize(site: Site) -> Facts | None:
    """Between its neighbours, where no axis of channels is resized; cubic ones overshoot."""
    found, before, after = site.inputs[0], site.shapes[0], site.outputs[0]
    if found is None or before is None or after is None:
        return None
    changed = [k for k, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
    if site.attributes.get("coordinate_transformation_mode") == b"tf_crop_and_resize":
        return None
    found = reduced(found, [k for k in changed if k > 1]) if not {0, 1} & set(changed) else None
    if found is None or any(n > 1 for n in found.shape[2:]):
        return None
    soft = site.attributes.get("mode", b"nearest") in (b"nearest", b"linear", b"bilinear") or found.constant
    low, high = np.where(soft, found.low, -np.inf), np.where(soft, found.high, np.inf)
    return facts(low, high, mix(found.identity, site.kind, site.token), found.scale)


define(
    "Resize", couple=resize, channel=1, zero=provided(_stays_inside), repair=repair_resize, follows=frozenset({2, 3}),
    bound=bound_resize, apart=True, traits=Trait.RANGE | Trait.MAPS | Trait.NUMBERS,
)  # fmt: skip
define(
    "Upsample", couple=resize, channel=1, zero=provided(_stays_inside), follows=frozenset({1}), bound=bound_resize,
    apart=True, traits=Trait.NUMBERS,
)  # fmt: skip


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
        if live.all():
            continue
        before = live.size - inside - original[j + half]
        changed[j] = int(live[:before].sum())
        changed[j + half] = int(live[before + inside :].sum())
    edit.set_ints(1, name, {k: v for k, v in changed.items() if v != given[k]})


def bound_pad(site: Site) -> Facts | None:
    """Constants that other numbers are put around are no constants; an edge or a mirror of them is."""
    found, shape = site.inputs[0], site.shapes[0]
    amounts = site.some_numbers(1, "pads") or site.attributes.get("paddings")
    if found is None or shape is None or amounts is None or site.has(3) or len(amounts) != 2 * len(shape):
        return None
    rank = len(shape)
    name = numbers_name(site, 1, amounts)
    if any(None in amounts[k::rank] and found.shape[k] > 1 for k in range(rank)):
        return None
    widths = [tuple(1 if n is None else int(n) for n in amounts[k::rank]) for k in range(rank)]  # by any amount
    varied = [k for k, w in enumerate(widths) if max(w) and found.shape[k] > 1]
    flat = site.attributes.get("mode", b"constant") in (b"constant", "constant")
    if any(min(w) < 0 for w in widths) or (varied and not flat):
        return None
    low, high = found.low, found.high
    if flat:
        given = site.array(2) if site.has(2) else site.attributes.get("value", 0.0)
        if given is None:
            return None
        fill = float(np.ravel(given)[0]) if np.size(given) else 0.0
        if any(max(w) for k, w in enumerate(widths) if k not in varied):
            low, high = np.minimum(low, fill), np.maximum(high, fill)
        if varied:
            around = [w if k in varied else (0, 0) for k, w in enumerate(widths)]
            low, high = (np.pad(a, around, constant_values=fill) for a in (low, high))
            found = found.map(lambda a: np.pad(a, around, constant_values=1))
        if fill:
            return facts(low, high, mix(found.identity, bits(found.scale), bits(fill), name, site.kind))
    return facts(low, high, mix(found.identity, name, site.kind), found.scale)


def _small_when_padded(x: Arrays) -> bool:
    return x[0].size + sum(abs(int(v)) for v in x[1].ravel()) <= LARGEST_VALUE and x[0].ndim == 1


define(
    "Pad", couple=pad, zero=lambda op: op.silent(0) if op.zero_padded() else LOUD, repair=repair_pad,
    follows=frozenset({1}), bound=bound_pad, apart=True, value=by_reference, small=_small_when_padded,
    traits=Trait.RANGE | Trait.MAPS | Trait.NUMBERS,
)  # fmt: skip
