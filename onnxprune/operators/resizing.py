"""Resizing of maps."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from onnxprune.operators.facts import Facts, NothingKnown, facts, reduced
from onnxprune.operators.forward import Forward, TorchCall, numbers, take
from onnxprune.operators.labels import Axes, fixed, is_fixed, line
from onnxprune.operators.lazy_torch import Tensor, torch
from onnxprune.operators.op import Op
from onnxprune.operators.registry import NONE, Trait, define
from onnxprune.operators.site import Site
from onnxprune.operators.value_numbers import mix
from onnxprune.operators.zeros import provided


def _stays_inside(attributes: Mapping[str, Any]) -> bool:
    """Whether every element comes of the input, or is zero."""
    region = attributes.get("coordinate_transformation_mode") == b"tf_crop_and_resize"
    return not (region and attributes.get("extrapolation_value", 0.0))


def _stretches(attributes: Mapping[str, Any]) -> bool:
    """Whether each axis gets the size that is asked for; a policy gives all of them one factor."""
    return bool(attributes.get("keep_aspect_ratio_policy", b"stretch") == b"stretch")


def resize(op: Op, x: Axes, *told: Axes | None, axes: Any = None, **attributes: Any) -> Axes:
    shape = op.shapes[0]
    op.freeze(*(labels for value in told if value for labels in value), why="resizes by it")
    region = attributes.get("coordinate_transformation_mode") == b"tf_crop_and_resize"
    if region or not _stretches(attributes):
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


def repair_resize(edit: Any, axes: Any = None, **attributes: Any) -> None:
    """Under a policy what comes out is no size that was asked for; the channels among its axes are frozen."""
    sizes, shape = edit.ints(3), edit.shape_out(0)
    if sizes is not None and len(sizes):
        dims = [k % len(shape) for k in axes] if axes else range(len(shape))
        wanted = [shape[d] for d in dims] if _stretches(attributes) else edit.original(3)
        edit.set_ints(3, None, dict(enumerate(wanted)))


def bound_resize(site: Site) -> Facts:
    """Between its neighbours, where no axis of channels is resized; cubic ones overshoot, means of integers round."""
    changed = [k for k, (a, b) in enumerate(zip(site.shape(), site.shape_out(), strict=True)) if a != b]
    found = reduced(site.data(), changed)
    region = site.attributes.get("coordinate_transformation_mode") == b"tf_crop_and_resize"
    if region or {0, 1} & set(changed) or any(n > 1 for n in found.shape[2:]):
        raise NothingKnown
    mode = site.attributes.get("mode", b"nearest")
    soft = mode == b"nearest" or (found.zero if site.whole else found.constant | (mode in (b"linear", b"bilinear")))
    low, high = np.where(soft, found.low, -np.inf), np.where(soft, found.high, np.inf)
    return facts(low, high, mix(found.identity, site.kind, site.token), found.scale)


Array = np.ndarray
F4 = np.float32


def _told(node: TorchCall, before: Sequence[int], sizes: list[int]) -> tuple[list[int], list[float]]:
    """Sizes after, and their ratios, which a policy makes one."""
    policy = node.get("keep_aspect_ratio_policy", "stretch")
    ratios = [after / was for after, was in zip(sizes, before, strict=True)]
    if policy == "stretch":
        return sizes, ratios
    one = min(ratios) if policy == "not_larger" else max(ratios)
    return [math.floor(was * one + 0.5) for was in before], [one] * len(before)


def coordinates(node: TorchCall, old: bool, was: int, becomes: int, scale: np.float32, bound: Sequence[float]) -> Array:
    """Where each position after lies before, in float32 as onnxruntime computes it."""
    mode = "asymmetric" if old else node.get("coordinate_transformation_mode", "half_pixel")
    x = np.arange(becomes, dtype=F4)
    half = F4(0.5)
    match mode:
        case "asymmetric":
            return x / scale
        case "align_corners":
            return x * F4(was - 1) / F4(becomes - 1) if becomes > 1 else np.zeros(1, F4)
        case "pytorch_half_pixel":
            return (x + half) / scale - half if becomes > 1 else np.zeros(1, F4)
        case "tf_half_pixel_for_nn":
            return (x + half) / scale
        case "half_pixel_symmetric":
            shrunk = F4(becomes) / (scale * F4(was))
            return F4(was) / 2 * (1 - shrunk) + (x + half) / scale - half
        case "tf_crop_and_resize":
            first, last = (F4(v) for v in bound)
            if becomes == 1:
                return np.array([half * (first + last) * F4(was - 1)], F4)
            return first * F4(was - 1) + x * (last - first) * F4(was - 1) / F4(becomes - 1)
    return (x + half) / scale - half


def nearest_places(node: TorchCall, old: bool, at: Array, was: int, scale: np.float32) -> Array:
    """The position before that is nearest to each coordinate."""
    mode = "simple" if old else node.get("nearest_mode", "round_prefer_floor")
    round_to: Callable[[Array], Array] = {
        "simple": np.ceil if scale < 1 else np.trunc,
        "round_prefer_floor": lambda v: np.ceil(v - F4(0.5)),
        "round_prefer_ceil": lambda v: np.floor(v + F4(0.5)),
        "floor": np.floor,
        "ceil": np.ceil,
    }[mode]
    return np.clip(round_to(at).astype(np.int64), 0, was - 1)


def repeated_places(x: Tensor, axis: int, places: Array) -> Tensor:
    """Positions of an axis, each perhaps several times; a whole factor is a broadcast, which costs least."""
    length = x.shape[axis]
    if len(places) % length == 0 and np.array_equal(places, np.repeat(np.arange(length), len(places) // length)):
        return x.repeat_interleave(len(places) // length, axis)
    return take(x, axis, places.tolist())


def _cubic(d: Array, a: float) -> Array:
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def interpolation(node: TorchCall, at: Array, was: int, scale: np.float32) -> Array:
    """Weights (length after, length before) of linear or cubic interpolation.

    Keys 1981, Cubic convolution interpolation, doi 10.1109/TASSP.1981.1163711.

    With `antialias` the kernel widens where an axis shrinks.
    """
    cubic = node.get("mode") == "cubic"
    reach = 2 if cubic else 1
    wide = max(1.0, 1.0 / float(scale)) if node.get("antialias") else 1.0
    a = node.get("cubic_coeff_a", -0.75)
    where = at.astype(np.float64) if cubic or node.get("antialias") else np.clip(at, 0, was - 1).astype(np.float64)
    first = np.floor(where).astype(np.int64)
    span = math.ceil(reach * wide)
    taps = first[:, None] + np.arange(-span, span + 1)
    distance = np.abs(taps - where[:, None]) / wide
    weights = _cubic(distance, a) if cubic else np.maximum(0, 1 - distance)
    if node.get("exclude_outside"):
        weights = np.where((taps >= 0) & (taps < was), weights, 0)
    weights = weights / weights.sum(1, keepdims=True)
    matrix = np.zeros((len(at), was))
    rows = np.broadcast_to(np.arange(len(at))[:, None], taps.shape)
    np.add.at(matrix, (rows, np.clip(taps, 0, was - 1)), weights)
    return matrix.astype(F4)


def forward_resize(
    node: TorchCall, x: Tensor, a: Tensor | None = None, b: Tensor | None = None, sizes: Tensor | None = None
) -> Tensor:
    """Inputs are (x, scales) before opset 11 and (x, region, scales, sizes) since; Upsample has attributes before 9."""
    old = node.opset < 11 or node.op == "Upsample"
    region, scales = (None, a) if old else (a, b)
    axes = [k % x.dim() for k in node.get("axes", range(x.dim()))]
    factors = node.get("scales") if scales is None or not scales.numel() else scales.tolist()
    before = [x.shape[k] for k in axes]
    if sizes is not None and sizes.numel():
        after, factors = _told(node, before, numbers(sizes))
    else:
        after = [math.floor(float(F4(n) * F4(f))) for n, f in zip(before, factors, strict=True)]
    crops = node.get("coordinate_transformation_mode") == "tf_crop_and_resize"
    bounds = region.reshape(2, -1).T.tolist() if region is not None and region.numel() else [[0.0, 1.0]] * len(axes)
    outside = list[tuple[int, Array]]()
    for axis, was, becomes, factor, bound in zip(axes, before, after, factors, bounds, strict=True):
        if was == becomes and factor == 1 and not crops:
            continue
        at = coordinates(node, old, was, becomes, F4(factor), bound)
        if crops:
            outside.append((axis, (at < 0) | (at > was - 1)))
        if node.get("mode", "nearest") == "nearest":
            x = repeated_places(x, axis, nearest_places(node, old, at, was, F4(factor)))
        else:
            weights = torch.from_numpy(interpolation(node, at, was, F4(factor))).to(x.device, x.dtype)
            x = (x.movedim(axis, -1) @ weights.T).movedim(-1, axis)
    for axis, beyond in outside:
        mask = torch.from_numpy(beyond).to(x.device).reshape(line(x.dim(), axis))
        x = torch.where(mask, x.new_tensor(node.get("extrapolation_value", 0.0)), x)
    return x


def _resize_traits(node: onnx.NodeProto) -> Trait:
    """Linear, unless it fills in a number outside of the map."""
    fills = any(a.name == "coordinate_transformation_mode" and a.s == b"tf_crop_and_resize" for a in node.attribute)
    return Trait.RANGE | Trait.MAPS | Trait.NUMBERS | (NONE if fills else Trait.PASSES)


define(
    "Resize", couple=resize, channel=1, zero=provided(_stays_inside), repair=repair_resize, follows=frozenset({3}),
    bound=bound_resize, channelwise=True, traits=_resize_traits,
    forward=Forward(forward_resize, into=(0,), host=(1, 2, 3)),
)  # fmt: skip
define(
    "Upsample", couple=resize, channel=1, zero=provided(_stays_inside), bound=bound_resize,
    channelwise=True, traits=Trait.NUMBERS, forward=Forward(forward_resize, into=(0,), host=(1, 2, 3)),
)  # fmt: skip
