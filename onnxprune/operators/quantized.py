"""Quantised networks: scales and zero points of channels follow them; integers are cut without a cast."""

from typing import Any

import numpy as np

from onnxprune.operators.activations import unchanged
from onnxprune.operators.boxes import Value
from onnxprune.operators.facts import Facts, facts, reduced, stacked
from onnxprune.operators.intervals import applied
from onnxprune.operators.labels import Axes, fixed, line
from onnxprune.operators.op import Op
from onnxprune.operators.registry import FLOAT, Alike, Arrays, Attributes, Shape, Trait, ZeroPoints, define
from onnxprune.operators.reshaping import concat
from onnxprune.operators.roles import Scaling
from onnxprune.operators.site import Site
from onnxprune.operators.value_numbers import bits, mix
from onnxprune.operators.zeros import first

Pair = tuple[np.ndarray, np.ndarray]


def quantize(op: Op, **attributes: Any) -> Axes | Value:
    """With one scale for all of them, channels stay as split as they are."""
    value, scale = op.values[:2]
    if value is not None and value.tangle is not None and scale is not None and all(n == 1 for n in scale.shape):
        return op.unmoved()
    x, steps, *rest = (op.axes(k) for k in range(len(op.values)))
    if x is None or steps is None:
        return op.unknown("has no input or scale")
    return _quantized(op, x, steps, *rest, **attributes)


def _quantized(
    op: Op, x: Axes, scale: Axes, zero_point: Axes | None = None, *, axis: int = 1, block_size: int = 0, **_: Any
) -> Axes:
    if block_size:
        op.freeze(*x, *scale, *(zero_point or ()), why="quantises it in blocks")
        return x
    per_channel = len(scale) == 1 and scale[0].size > 1
    if per_channel:
        op.tie(x[axis], scale[0], *(zero_point or ()))
    if op.weights[0]:
        names = (*op.names, "")
        op.scalings[0] = Scaling(names[1], names[2], axis if per_channel else None)
    return x


def bound_quantize(site: Site) -> Facts | None:
    found, shape = site.inputs[0], site.shapes[0]
    scale, zero = site.array(1), site.array(2)
    if found is None or shape is None or scale is None or (site.has(2) and zero is None):
        return None
    if site.attributes.get("block_size", 0) or (scale.size > 1 and scale.ndim != 1):
        return None
    zero = np.zeros((), np.uint8) if zero is None else zero
    at = line(len(shape), site.attributes.get("axis", 1))
    s, z = (a.astype(np.float64).reshape(at if a.size > 1 else [1] * len(shape)) for a in (scale, zero))
    if site.node.op_type == "DequantizeLinear":
        bounds = applied(found, lambda x: (x - z) * s, True)
    elif zero.dtype.kind not in "iu":
        return None
    else:
        ends = np.iinfo(zero.dtype)
        bounds = applied(found, lambda x: np.clip(np.round(x / s) + z, ends.min, ends.max), True)
    return facts(*bounds, mix(found.identity, bits(found.scale), bits(s), bits(z), site.kind))


_STEPS = Trait.SHIFTS | Trait.NUMBERS | Trait.MAPS | Trait.QUANTIZES
_QUANTIZE: dict[str, Any] = {
    "couple": quantize, "tangled": True, "zero": first, "bound": bound_quantize, "apart": True, "shape": Alike(),
}  # fmt: skip

define(
    "QuantizeLinear com.microsoft:QuantizeLinear", **_QUANTIZE, zero_points=ZeroPoints(held=2),
    traits=_STEPS | Trait.DECIDES,
)  # fmt: skip
define(
    "DequantizeLinear com.microsoft:DequantizeLinear", **_QUANTIZE, labels_int32=True, zero_points=ZeroPoints({0: 2}),
    typed_by=FLOAT, traits=_STEPS | Trait.RANGE | Trait.DEQUANTIZES,
)  # fmt: skip


def dynamic_quantize(op: Op, x: Axes) -> list[Axes]:
    one_scale(op, x)
    return [x, (), ()]


def one_scale(op: Op, x: Axes) -> None:
    """One scale is taken over all elements, and over zero: silent channels do not change it."""
    if op.relies(op.silent(0)):
        op.demands.extend(x)
    else:
        op.freeze(*x, why="takes one scale over all of it")


define(
    "DynamicQuantizeLinear", couple=dynamic_quantize, zero=first, zero_points=ZeroPoints(computed=2),
    traits=Trait.DECIDES | Trait.QUANTIZES,
)  # fmt: skip


def steps_at(site: Site, k: int) -> tuple[float, float, np.dtype] | None:
    """One scale and zero point that stand in inputs k and k + 1, and the type of the latter."""
    scale, zero = site.array(k), site.array(k + 1)
    if scale is None or zero is None or scale.size > 1 or zero.size > 1:
        return None
    return float(scale.ravel()[0]), float(zero.ravel()[0]), zero.dtype


def real_bounds(bounds: Pair, steps: tuple[float, float, np.dtype]) -> Pair:
    low, high = ((end - steps[1]) * steps[0] for end in bounds)
    return low, high


def rounded_bounds(bounds: Pair, steps: tuple[float, float, np.dtype]) -> Pair:
    """Bounds of what is quantised; a number that may round either way is between both."""
    ends = np.iinfo(steps[2])
    exact = [end / steps[0] + steps[1] for end in bounds]
    low, high = np.round(exact[0] - 1e-4), np.round(exact[1] + 1e-4)
    return np.clip(low, ends.min, ends.max), np.clip(high, ends.min, ends.max)


def qlinear_pointwise(op: Op, a: Axes, a_scale: Axes, a_zero: Axes, b: Axes, *rest: Axes | None, **_: Any) -> Axes:
    return op.broadcast(a, b)


def bound_qlinear_pointwise(site: Site) -> Facts | None:
    both, steps = site.operands(0, 3), [steps_at(site, k) for k in (1, 4, 6)]
    if both is None or None in steps:
        return None
    given = [s for s in steps if s is not None]
    (al, ah), (bl, bh) = (real_bounds((f.low, f.high), s) for f, s in zip(both, given[:2], strict=True))
    corners = [al + bl, ah + bh] if site.node.op_type == "QLinearAdd" else [al * bl, al * bh, ah * bl, ah * bh]
    bounds = rounded_bounds((np.minimum.reduce(corners), np.maximum.reduce(corners)), given[2])
    numbers = [bits(v) for s in given for v in s[:2]]
    return facts(*bounds, mix(*(part for f in both for part in (f.identity, bits(f.scale))), *numbers, site.kind))


define(
    "com.microsoft:QLinearAdd", couple=qlinear_pointwise, bound=bound_qlinear_pointwise, apart=True,
    shape=Alike("Add", (0, 3)), traits=Trait.STEPS | Trait.QUANTIZES,
)  # fmt: skip
define(
    "com.microsoft:QLinearMul", couple=qlinear_pointwise, bound=bound_qlinear_pointwise, apart=True,
    shape=Alike("Mul", (0, 3)), traits=Trait.STEPS,
)  # fmt: skip


define(
    "com.microsoft:QLinearLeakyRelu com.microsoft:QLinearSigmoid", couple=unchanged, apart=True, shape=Alike(),
    traits=Trait.STEPS,
)  # fmt: skip


def qlinear_softmax(op: Op, x: Axes, *_: Axes | None, axis: int = -1, opset: int = 13, **__: Any) -> Axes:
    op.freeze(*(x[axis:] if opset < 13 else (x[axis],)), why="normalises over it")
    return x


define("com.microsoft:QLinearSoftmax", couple=qlinear_softmax, shape=Alike(), traits=Trait.STEPS)


def qlinear_where(op: Op, condition: Axes, x: Axes, x_scale: Axes, x_zero: Axes, y: Axes, *_: Axes | None) -> Axes:
    return op.broadcast(condition, x, y)


define("com.microsoft:QLinearWhere", couple=qlinear_where, shape=Alike("Where", (0, 1, 4)), traits=Trait.STEPS)


def qlinear_pool(op: Op, x: Axes, *_: Axes | None, channels_last: int = 0, **__: Any) -> Axes:
    op.freeze(*(x[1:-1] if channels_last else x[2:]), why="pools over it")
    shape = op.shapes[0]
    if shape is None:
        return op.unknown("pools to a size that is not known")
    channel = len(x) - 1 if channels_last else 1
    return tuple(labels if k in (0, channel) else fixed(shape[k]) for k, labels in enumerate(x))


def bound_qlinear_pool(site: Site) -> Facts | None:
    found, before, after = site.inputs[0], steps_at(site, 1), steps_at(site, 3)
    if found is None or before is None or after is None or site.attributes.get("channels_last", 0):
        return None
    if any(site.attributes.get("pads", ())) or len(found.shape) < 3:
        return None
    flat = reduced(found, range(2, len(found.shape)))
    bounds = rounded_bounds(real_bounds((flat.low, flat.high), before), after)
    return facts(*bounds, mix(flat.identity, bits(flat.scale), *map(bits, (*before[:2], *after[:2])), site.kind))


define(
    "com.microsoft:QLinearGlobalAveragePool", couple=qlinear_pool, bound=bound_qlinear_pool, apart=True,
    shape=Alike("GlobalAveragePool"), traits=Trait.STEPS,
)  # fmt: skip
define(
    "com.microsoft:QLinearAveragePool", couple=qlinear_pool, bound=bound_qlinear_pool, apart=True,
    shape=Alike("AveragePool"), traits=Trait.STEPS,
)  # fmt: skip
define("com.microsoft:QLinearReduceMean", shape=Alike("ReduceMean"), traits=Trait.STEPS)


def qlinear_concat(op: Op, scale: Axes, zero: Axes, *parts: Axes, axis: int = 0) -> Axes:
    return concat(op, *parts[::3], axis=axis)


def bound_qlinear_concat(site: Site) -> Facts | None:
    after, parts = steps_at(site, 0), []
    for k in range(2, len(site.node.input), 3):
        pair, before = site.fact(k), steps_at(site, k + 1)
        if pair is None or before is None or after is None:
            return None
        found, shape = pair
        bounds = rounded_bounds(real_bounds((found.low, found.high), before), after)
        name = mix(found.identity, bits(found.scale), *map(bits, (*before[:2], *after[:2])))
        parts.append((facts(*bounds, name), shape))
    return stacked(parts, site.attributes.get("axis", 0) % len(parts[0][1])) if parts else None


def _qlinear_concat_shape(x: Arrays, a: Attributes) -> list[Shape | None]:
    """Inputs: scale and zero point of the output, then (values, scale, zero point) of each part."""
    parts, axis = x[2::3], a["axis"] % len(x[2])
    return [tuple(sum(p[axis] for p in parts) if k == axis else n for k, n in enumerate(parts[0]))]


define(
    "com.microsoft:QLinearConcat", couple=qlinear_concat, bound=bound_qlinear_concat, apart=True,
    shape=_qlinear_concat_shape, typed_by=2, traits=Trait.STEPS,
)  # fmt: skip
