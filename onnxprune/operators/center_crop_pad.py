"""CenterCropPad: a middle part of some axes, or zeros around them."""

from typing import Any

import numpy as np

from onnxprune.operators.facts import Facts, NothingKnown, facts
from onnxprune.operators.forward import Forward, TorchCall, numbers
from onnxprune.operators.labels import Axes, fixed
from onnxprune.operators.lazy_torch import Tensor, functional
from onnxprune.operators.op import Op
from onnxprune.operators.registry import Trait, by_reference, define
from onnxprune.operators.site import Site, numbers_name
from onnxprune.operators.value_numbers import mix
from onnxprune.operators.zeros import first


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
        edit.set_ints(1, None, {j: n for j, n in enumerate(wanted) if n != target[j]})


def bound_center_crop_pad(site: Site) -> Facts:
    """Zeros may come around what is the same all along an axis."""
    found, after, target = site.data(), site.shape_out(), site.some_numbers(1)
    moved = any(found.shape[k] > 1 and (n != after[k] or site.open_in(k)) for k, n in enumerate(site.shape()))
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
    bound=bound_center_crop_pad, apart=True, value=by_reference, traits=Trait.NUMBERS | Trait.MAPS | Trait.SELECTS,
    forward=Forward(forward_center_crop_pad, into=(0,), host=(1,)),
)  # fmt: skip
