"""Operators that give the same elements in another shape or order: labels, facts and constants move along."""

import math
from typing import Any

import numpy as np
import onnx

from onnxprune.operators.boxes import Value
from onnxprune.operators.facts import Facts, NothingKnown, axis_blocks, reduced, reshaped, stacked
from onnxprune.operators.forward import Forward, TorchCall, axes_told, numbers
from onnxprune.operators.labels import Axes, fixed, is_fixed
from onnxprune.operators.lazy_torch import Tensor, torch
from onnxprune.operators.op import Op, on
from onnxprune.operators.registry import Arrays, Attributes, Shape, Trait, axes_of, define, operator_of
from onnxprune.operators.site import Site
from onnxprune.operators.zeros import first, joined

_SAME = Trait.VIEW | Trait.MOVES | Trait.RANGE | Trait.MAPS | Trait.PASSES


def reshape(op: Op, **_: Any) -> Value:
    return op.reshape(op.shapes[0])


def repair_reshape(edit: Any, allowzero: int = 0, **_: Any) -> None:
    """Sizes that still come out right (0, −1, computed ones) stay as they are."""
    target = edit.ints(1, "shape")
    shape = edit.shape_out(0)
    if target is None:
        return
    told = [int(v) for v in target]
    copied = [0 if allowzero else size for size in edit.shape_in(0)]
    actual = [copied[k] if v == 0 and not allowzero else v for k, v in enumerate(told)]
    was = edit.original(1, edit.attribute("shape")) or told
    wrong = [k for k, v in enumerate(actual) if v not in (-1, shape[k]) or (told[k] == 0 != was[k])]
    if wrong:
        edit.set_ints(1, "shape", {k: shape[k] for k in wrong})


def bound_reshape(site: Site) -> Facts:
    found, before, after = site.data(), site.shape(), site.shape_out()
    if 0 in before:
        raise NothingKnown
    pairs = axis_blocks(before, after)
    certain = sum(not _sure(site, *pair) for pair in pairs) <= 1  # no element is lost
    for old, new in pairs:
        if not (certain and _keeps_places(site, found, old, new)):
            found = reduced(found, old)
    return reshaped(found, before, after).named(len(after))


def _sure(site: Site, old: list[int], new: list[int]) -> bool:
    """Whether a Reshape pairs these axes at every size: it copies their lengths, or all are told."""
    if not operator_of(site.node).follows:  # of no target
        return True
    told = site.some_numbers(1, "shape")
    if told is None:
        return False
    if old == new and all(told[k] == 0 for k in new) and not site.attributes.get("allowzero"):
        return True
    if any(told[k] is None for k in new):
        return _copied(site, old, new)
    return not any(site.open_in(0, k) for k in old) and all((told[k] or 0) > 0 for k in new)


def _copied(site: Site, old: list[int], new: list[int]) -> bool:
    """Whether the numbers of a target are the lengths of these axes wherever the network was looked at."""
    seen = site.arithmetic.at_other_sizes(site.node.input[0], site.node.input[1])
    return bool(seen) and all(
        shape is not None
        and told is not None
        and math.prod(shape[k] for k in old) == math.prod(int(told[k]) for k in new)
        for shape, told in seen
    )


def _keeps_places(site: Site, found: Facts, old: list[int], new: list[int]) -> bool:
    """Whether what is known of paired axes moves to the same positions at every size.

    Of axes with lengths that are open it does where all of them are on one side and the product is not open.
    """
    opened = [k for k in old if site.open_in(0, k)]
    varied = [k for k in old if found.shape[k] > 1]
    if any(map(site.open_out, new)) or any(k in varied for k in opened):
        return False
    return not opened or not varied or opened[-1] < varied[0] or opened[0] > varied[-1]


def _reshaped_value(x: Arrays, a: Attributes) -> np.ndarray | None:
    target = a.get("shape", x[1] if len(x) > 1 else None)
    if target is None:
        return None
    return x[0].reshape([x[0].shape[k] if v == 0 else int(v) for k, v in enumerate(target)])


def _reshape_shape(x: Arrays, a: Attributes) -> list[Shape | None]:
    """Before opset 5 the target is an attribute."""
    told = [x[0][k] if size == 0 else size for k, size in enumerate(a.get("shape", ()))]
    rest = math.prod(size for size in told if size != -1)
    return [tuple(math.prod(x[0]) // rest if size == -1 else size for size in told)] if told and rest else []


_RESHAPE: dict[str, Any] = {"takes_split": True, "zero": first, "bound": bound_reshape, "channelwise": True}


def forward_reshape(node: TorchCall, x: Tensor, target: Tensor | None = None) -> Tensor:
    """A 0 in the target is the size that is there, unless `allowzero`; before opset 5 the target is an attribute."""
    sizes = node.get("shape") if target is None else numbers(target)
    if not node.get("allowzero"):
        sizes = [x.shape[k] if n == 0 else n for k, n in enumerate(sizes)]
    return x.reshape(sizes)


define(
    "Reshape", couple=reshape, **_RESHAPE, repair=repair_reshape, follows=frozenset({1}), value=_reshaped_value,
    shape=_reshape_shape, traits=_SAME | Trait.RESHAPES, forward=Forward(forward_reshape, into=(0,), host=(1,)),
)  # fmt: skip


def forward_flatten(node: TorchCall, x: Tensor) -> Tensor:
    axis = node.get("axis", 1)
    rows = math.prod(x.shape[: axis if axis >= 0 else axis + x.dim()])
    return x.reshape(rows, math.prod(x.shape) // rows if rows else -1)


define(
    "Flatten", couple=reshape, **_RESHAPE, traits=_SAME | Trait.RESHAPES, forward=Forward(forward_flatten),
    value=lambda x, a: x[0].reshape(math.prod(x[0].shape[: a.get("axis", 1)]), -1),
)  # fmt: skip


def _unsqueezed_value(x: Arrays, a: Attributes) -> np.ndarray | None:
    axes = axes_of(x, a)
    return None if axes is None else np.expand_dims(x[0], axes)


def forward_unsqueeze(node: TorchCall, x: Tensor, axes: Tensor | None = None) -> Tensor:
    found = axes_told(node, axes) or []
    rank = x.dim() + len(found)
    for axis in sorted(a % rank for a in found):
        x = x.unsqueeze(axis)
    return x


define(
    "Unsqueeze", couple=reshape, **_RESHAPE, value=_unsqueezed_value, traits=_SAME | Trait.INSERTS,
    forward=Forward(forward_unsqueeze, into=(0,), host=(1,)),
)  # fmt: skip


def squeeze(op: Op, *, axes: Any = None, **_: Any) -> Value:
    """Where the axes are not told, all of length 1 go: with open lengths not even the rank is known.

    With one of them the network is looked at with and without that axis, and each other one keeps two positions.
    """
    value = op.values[0]
    told = value is None or op.ints(1, axes) is not None
    opened = [] if value is None or told else [k for k in range(len(value.axes)) if op.open_in(0, k)]
    if len(opened) > 1 or (value is not None and opened and not is_fixed(value.along(opened[0]))):
        return op.unknown("drops all axes of one position, and the model leaves open which these are")
    for labels in (op.axes(0) or ()) if opened else ():
        for half in (labels[::2], labels[1::2]) if labels.size > 1 and not is_fixed(labels) else ():
            op.part(half)
    return op.reshape(op.shapes[0])


def bound_squeeze(site: Site) -> Facts:
    """Nothing where another size has another rank."""
    told = site.has(1) or "axes" in site.attributes
    if not told and any(site.open_in(0, k) for k in range(len(site.shape()))):
        raise NothingKnown
    return bound_reshape(site)


def repair_squeeze(edit: Any, axes: Any = None, **_: Any) -> None:
    """Which axes go must be said where another one has come down to one position."""
    if edit.now(1, axes) is None and 1 in edit.shape_out(0):
        edit.add_ints(1, "axes", [k for k in range(edit.rank_in(0)) if edit.size_in(0, k) == 1])


def _squeeze_traits(node: onnx.NodeProto) -> Trait:
    told = len(node.input) > 1 or any(a.name == "axes" for a in node.attribute)
    return _SAME if told else _SAME | Trait.DROPS_ONES


def forward_squeeze(node: TorchCall, x: Tensor, axes: Tensor | None = None) -> Tensor:
    found = axes_told(node, axes)
    return x.squeeze() if found is None else x.squeeze(tuple(found))


define(
    "Squeeze", couple=squeeze, **_RESHAPE | {"bound": bound_squeeze}, repair=repair_squeeze,
    value=lambda x, a: np.squeeze(x[0], axes_of(x, a)), traits=_squeeze_traits,
    forward=Forward(forward_squeeze, into=(0,), host=(1,)),
)  # fmt: skip


def transpose(op: Op, *, perm: Any = None) -> Value:
    value = op.values[0]
    if value is None:
        return op.unknown("has no input")
    return op.transpose(list(perm) if perm is not None else range(len(value.axes))[::-1])


define(
    "Transpose", couple=transpose, takes_split=True, zero=first, channelwise=True,
    bound=lambda site: site.data().map(lambda a: a.transpose(site.attributes.get("perm"))).named(site.kind),
    value=lambda x, a: np.transpose(x[0], a.get("perm")), traits=_SAME | Trait.PERMUTES,
    forward=Forward(lambda node, x: x.permute(node.get("perm", list(range(x.dim()))[::-1]))),
)  # fmt: skip


def concat(op: Op, *xs: Axes, axis: int = 1, **_: Any) -> Axes:
    """Along the axis positions stay what they are; rows of a table that no layer makes stay beside such as cannot go.

    So do learned tokens beside those of an image: what is zero where channels die need not ask whether they may go.
    """
    axis %= len(xs[0])
    if any(x[axis].size > 1 and is_fixed(x[axis]) for x in xs):
        rows = [op.weights[k] and not op.coupling.is_written(x[axis]) for k, x in enumerate(xs)]
        op.freeze(*(x[axis] for x, own in zip(xs, rows, strict=True) if own), why="joins it with what cannot shrink")
        xs = tuple(on(x, axis, fixed(x[axis].size)) if own else x for x, own in zip(xs, rows, strict=True))
    columns = zip(*xs, strict=True)
    return tuple(np.concatenate(x) if k == axis else op.coupling.join(x) for k, x in enumerate(columns))


def bound_concat(site: Site) -> Facts:
    pairs = [site.fact(k) for k in range(len(site.node.input))]
    return stacked(pairs, site.attributes.get("axis", 1) % len(pairs[0][1]))


define(
    "Concat", couple=concat, zero=joined, bound=bound_concat, channelwise=True,
    value=lambda x, a: np.concatenate(x, axis=a.get("axis", 1)),
    traits=Trait.MOVES | Trait.JOINS | Trait.RANGE | Trait.MAPS | Trait.PASSES,
    forward=Forward(lambda node, *x: torch.cat(x, node.get("axis", 1))),
)  # fmt: skip
