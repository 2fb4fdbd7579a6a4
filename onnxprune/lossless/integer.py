"""Quantised operators: what they give of constants, in steps of their own."""

import numpy as np

from onnxprune.lossless.facts import Facts, aligned, facts, reduced, stacked
from onnxprune.lossless.likeness import bits, mix
from onnxprune.lossless.linear import convolution
from onnxprune.lossless.pointwise import HOMOGENEOUS, MONOTONE, combined
from onnxprune.lossless.products import zeros
from onnxprune.lossless.site import Site, rule

Pair = tuple[np.ndarray, np.ndarray]


def _steps(site: Site, k: int) -> tuple[float, float, np.dtype] | None:
    """One scale and zero point that stand in inputs k and k + 1, and the type of the latter."""
    scale, zero = site.array(k), site.array(k + 1)
    if scale is None or zero is None or scale.size > 1 or zero.size > 1:
        return None
    return float(scale.ravel()[0]), float(zero.ravel()[0]), zero.dtype


def _real(bounds: Pair, steps: tuple[float, float, np.dtype]) -> Pair:
    low, high = ((end - steps[1]) * steps[0] for end in bounds)
    return low, high


def _rounded(bounds: Pair, steps: tuple[float, float, np.dtype]) -> Pair:
    """Bounds of what is quantised; a number that may round either way is between both."""
    ends = np.iinfo(steps[2])
    exact = [end / steps[0] + steps[1] for end in bounds]
    low, high = np.round(exact[0] - 1e-4), np.round(exact[1] + 1e-4)
    return np.clip(low, ends.min, ends.max), np.clip(high, ends.min, ends.max)


@rule("com.microsoft:QLinearAdd", "com.microsoft:QLinearMul")
def pointwise(site: Site) -> Facts | None:
    pairs, steps = [site.fact(k) for k in (0, 3)], [_steps(site, k) for k in (1, 4, 6)]
    both = aligned([p for p in pairs if p is not None]) if None not in pairs else None
    if both is None or None in steps:
        return None
    given = [s for s in steps if s is not None]
    (al, ah), (bl, bh) = (_real((f.low, f.high), s) for f, s in zip(both, given[:2], strict=True))
    corners = [al + bl, ah + bh] if site.node.op_type == "QLinearAdd" else [al * bl, al * bh, ah * bl, ah * bh]
    bounds = _rounded((np.minimum.reduce(corners), np.maximum.reduce(corners)), given[2])
    numbers = [bits(v) for s in given for v in s[:2]]
    return facts(*bounds, mix(*(part for f in both for part in (f.identity, bits(f.scale))), *numbers, site.kind))


@rule("com.microsoft:QLinearGlobalAveragePool", "com.microsoft:QLinearAveragePool")
def pool(site: Site) -> Facts | None:
    found, before, after = site.inputs[0], _steps(site, 1), _steps(site, 3)
    if found is None or before is None or after is None or site.attributes.get("channels_last", 0):
        return None
    if any(site.attributes.get("pads", ())) or len(found.shape) < 3:
        return None
    flat = reduced(found, range(2, len(found.shape)))
    bounds = _rounded(_real((flat.low, flat.high), before), after)
    return facts(*bounds, mix(flat.identity, bits(flat.scale), *map(bits, (*before[:2], *after[:2])), site.kind))


@rule("com.microsoft:QLinearConcat")
def concat(site: Site) -> Facts | None:
    after, parts = _steps(site, 0), []
    for k in range(2, len(site.node.input), 3):
        pair, before = site.fact(k), _steps(site, k + 1)
        if pair is None or before is None or after is None:
            return None
        found, shape = pair
        bounds = _rounded(_real((found.low, found.high), before), after)
        name = mix(found.identity, bits(found.scale), *map(bits, (*before[:2], *after[:2])))
        parts.append((facts(*bounds, name), shape))
    return stacked(parts, site.attributes.get("axis", 0) % len(parts[0][1])) if parts else None


@rule("com.microsoft:DynamicQuantizeMatMul", "com.microsoft:MatMulIntegerToFloat", passes=False)
def real_product(site: Site) -> Facts | None:
    """Columns of weights that hold their zero point alone give the bias."""
    point, last = (3, 4) if site.node.op_type == "DynamicQuantizeMatMul" else (5, 6)
    w, zero, bias, shape = site.array(1), site.array(point), site.array(last), site.outputs[0]
    if w is None or w.ndim != 2 or shape is None or any(site.has(k) and site.array(k) is None for k in (point, last)):
        return None
    silent = ~(w != (0 if zero is None else zero)).any(axis=0)
    summand = np.zeros(w.shape[1]) if bias is None else bias.astype(np.float64)
    at = (*[1] * (len(shape) - 1), -1)
    return zeros(site, silent.reshape(at), np.broadcast_to(summand, silent.shape).reshape(at))


@rule("com.microsoft:QGemm", passes=False)
def quantised_gemm(site: Site) -> Facts | None:
    """Columns of weights that hold their zero point alone give the bias, in steps of the output or as it is."""
    xs, w, ws, wz, bias = (site.array(k) for k in (1, 3, 4, 5, 6))
    if w is None or ws is None or wz is None or xs is None or (site.has(6) and bias is None):
        return None
    columns = w if site.attributes.get("transB", 0) else w.T
    silent = ~(columns != wz.reshape(-1, 1)).any(axis=1)
    unit = xs.astype(np.float64).ravel() * site.attributes.get("alpha", 1.0) * ws.astype(np.float64).ravel()
    real = unit * (np.zeros(len(columns)) if bias is None else bias.astype(np.float64).ravel())
    if site.has(7):
        after = _steps(site, 7)
        if after is None:
            return None
        low, high = _rounded((real, real), after)
        silent, real = silent & (low == high), low
    return zeros(site, silent.reshape(1, -1), real.reshape(1, -1))


@rule("com.microsoft:FusedConv", passes=False)
def fused_convolution(site: Site) -> Facts | None:
    """A convolution, an addition and an activation in one."""
    name = site.attributes.get("activation", b"")
    name = name.decode() if isinstance(name, bytes) else name
    fn = HOMOGENEOUS.get(name) or MONOTONE.get(name)
    found = convolution(site)
    if not isinstance(found, Facts) or (name and fn is None) or site.attributes.get("activation_params"):
        return None
    if site.has(3):
        pair, shape = site.fact(3), site.outputs[0]
        both = aligned([(found, shape), pair]) if pair is not None and shape is not None else None
        if both is None:
            return None
        found = combined(site, "Add", *both)
    if fn is None:
        return found
    low, high = fn(found.low, {}), fn(found.high, {})
    return facts(np.minimum(low, high), np.maximum(low, high), mix(found.identity, bits(found.scale), site.kind))
