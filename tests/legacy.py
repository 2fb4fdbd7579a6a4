"""Numpy meanings of operators in forms so old that onnxruntime has no kernel for them."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from onnx import ModelProto, helper, numpy_helper


def run_legacy(model: ModelProto, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Outputs of a model of old nodes."""
    values = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer} | dict(feeds)
    for node in model.graph.node:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        found = LEGACY[node.op_type](*(values[name] if name else None for name in node.input), **attributes)
        values.update(zip(node.output, found if isinstance(found, list) else [found], strict=True))
    return [values[v.name] for v in model.graph.output]


def _aligned(y: np.ndarray, x: np.ndarray, axis: int | None) -> np.ndarray:
    """The second operand of a broadcast that names the axis where it begins."""
    start = x.ndim - y.ndim if axis is None else axis
    return y.reshape(*y.shape, *(1 for _ in range(x.ndim - start - y.ndim)))


def _binary(fn: Callable) -> Callable:
    def apply(x: np.ndarray, y: np.ndarray, broadcast: int = 0, axis: int | None = None, **_: Any) -> np.ndarray:
        if not broadcast:
            assert x.shape == y.shape
        return fn(x, _aligned(y, x, axis) if broadcast else y)

    return apply


def _gemm(a, b, c, transA=0, transB=0, broadcast=0, alpha=1.0, beta=1.0):  # type: ignore[no-untyped-def]
    product = alpha * (a.T if transA else a) @ (b.T if transB else b)
    assert broadcast or c.shape == product.shape
    return (product + beta * c).astype(np.float32)


def _batch_norm(x, scale, shift, mean, variance, epsilon=1e-5, **_):  # type: ignore[no-untyped-def]
    s, b, m, v = (p.reshape(-1, *(1 for _ in x.shape[2:])) for p in (scale, shift, mean, variance))
    return ((x - m) / np.sqrt(v + epsilon) * s + b).astype(np.float32)


def _prelu(x: np.ndarray, slope: np.ndarray, **_: Any) -> np.ndarray:
    return np.where(x < 0, x * (slope if slope.size == 1 else slope.reshape(-1, *(1 for _ in x.shape[2:]))), x)


def _pad(x: np.ndarray, paddings: list[int], value: float = 0.0, **_: Any) -> np.ndarray:
    return np.pad(x, list(zip(paddings[: x.ndim], paddings[x.ndim :], strict=True)), constant_values=value)


LEGACY: dict[str, Callable] = {
    "Add": _binary(np.add),
    "BatchNormalization": _batch_norm,
    "Clip": lambda x, min, max, **_: np.clip(x, min, max).astype(x.dtype),
    "Concat": lambda *xs, axis=1: np.concatenate(xs, axis),
    "Div": _binary(np.divide),
    "Dropout": lambda x, **_: x,
    "Gemm": _gemm,
    "Mul": _binary(np.multiply),
    "PRelu": _prelu,
    "Pad": _pad,
    "Pow": _binary(np.power),
    "Split": lambda x, axis=0, split=None: np.split(x, np.cumsum(split)[:-1], axis),
    "Sub": _binary(np.subtract),
    "Tile": lambda x, times, axis: np.tile(x, [int(times) if k == int(axis) else 1 for k in range(x.ndim)]),
}
