"""Operators about shapes, tensors made from nothing, and what hides values in bodies and optionals."""

import math
from typing import Any

import numpy as np
from onnx import numpy_helper

from onnxprune.errors import ModelError
from onnxprune.operators.arrays import carrier, constant
from onnxprune.operators.facts import Facts, known
from onnxprune.operators.forward import Forward, TorchCall, numbers
from onnxprune.operators.labels import Axes, fixed
from onnxprune.operators.lazy_torch import Tensor, torch
from onnxprune.operators.native import native
from onnxprune.operators.op import Op
from onnxprune.operators.registry import LARGEST_VALUE, Alike, Arrays, Attributes, Trait, define
from onnxprune.operators.roles import ZeroWhereDead
from onnxprune.operators.site import Site
from onnxprune.operators.zeros import first

LARGEST_FILL = 1 << 20  # elements of a filled tensor that may have channels


def shape(op: Op, **_: Any) -> list[Axes]:
    """What follows from a shape follows the cut by itself."""
    return [(...,)] * len(op.shapes)  # type: ignore[list-item]


def like(op: Op, x: Axes, **_: Any) -> Axes:
    op.freeze(*x, why="makes numbers by its shape")
    return x


def _small_range(x: Arrays) -> bool:
    start, limit, delta = (float(np.asarray(v).ravel()[0]) for v in x[:3])
    return delta != 0 and abs(limit - start) <= LARGEST_VALUE * abs(delta)


def forward_shape(node: TorchCall, x: Tensor) -> Tensor:
    sizes = list(x.shape)
    return torch.tensor(sizes[node.get("start", 0) : node.get("end", len(sizes))], dtype=torch.int64)


define(
    "Shape",
    couple=shape,
    takes_split=True,
    channelwise=True,
    traits=Trait.SIZES,
    forward=Forward(forward_shape, into=()),
)
define(
    "Size", couple=shape, takes_split=True, channelwise=True, traits=Trait.SIZES | Trait.COUNTS,
    forward=Forward(lambda node, x: torch.tensor(x.numel()), into=()),
)  # fmt: skip


def forward_span(node: TorchCall, start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    first, end, step = (x.item() for x in (start, limit, delta))
    count = max(0, math.ceil((end - first) / step))
    return torch.arange(count, dtype=start.dtype) * step + first


define(
    "Range", couple=shape, takes_split=True, small=_small_range, traits=Trait.NUMBERS,
    value=lambda x, _: np.arange(*(bound.item() for bound in x)).astype(x[0].dtype),
    forward=Forward(forward_span, into=(), host=(0, 1, 2)),
)  # fmt: skip

_DRAWS = Forward(native, into=(), pure=False)
define("RandomNormal RandomUniform", couple=shape, takes_split=True, traits=Trait.RANDOM, forward=_DRAWS)
define("Multinomial", couple=shape, takes_split=True, traits=Trait.RANDOM | Trait.DECIDES, forward=_DRAWS)
define("RandomNormalLike RandomUniformLike", couple=like, traits=Trait.RANDOM, forward=_DRAWS)
define("Bernoulli", couple=like, traits=Trait.RANDOM | Trait.DECIDES, forward=_DRAWS)


def forward_eye_like(node: TorchCall, x: Tensor) -> Tensor:
    dtype = carrier(node.get("dtype")) if node.get("dtype") else x.dtype
    rows, columns = x.shape
    return torch.ones(rows, columns, dtype=dtype, device=x.device).tril(node.get("k", 0)).triu(node.get("k", 0))


define("EyeLike", couple=like, forward=Forward(forward_eye_like, into=()))


def _fill(a: Attributes) -> np.ndarray:
    """The one element of a filled tensor, (1,)."""
    return numpy_helper.to_array(a["value"]).reshape(1) if "value" in a else np.zeros(1, np.float32)


def constant_of_shape(op: Op, _: Axes, **__: Any) -> Axes:
    size = op.shapes[0]
    if size is None or math.prod(size) > LARGEST_FILL:
        return (...,)  # type: ignore[return-value]
    return tuple(fixed(n) if op.open_out(axis) else op.channels(n) for axis, n in enumerate(size))


def repair_constant_of_shape(edit: Any, **_: Any) -> None:
    told, size = edit.ints(0), edit.shape_out(0)
    if told is not None:
        edit.set_ints(0, None, dict(enumerate(size)))


def bound_fill(site: Site) -> Facts:
    value = _fill(site.attributes)
    value = value if value.dtype.kind in "iu" else value.astype(np.float64)
    return known(value.reshape((1,) * len(site.shape_out())))


def _filled_value(x: Arrays, a: Attributes) -> np.ndarray | None:
    shape = [int(v) for v in x[0]]
    if math.prod(shape) > LARGEST_VALUE or any(not 0 <= v <= LARGEST_VALUE for v in shape):
        return None
    return np.full(shape, _fill(a)[0])


def forward_constant_of_shape(node: TorchCall, sizes: Tensor) -> Tensor:
    value = node.get("value")
    fill = torch.zeros(1) if value is None else constant(value)
    return fill.reshape(1).expand(math.prod(numbers(sizes))).reshape(numbers(sizes)).clone()


define(
    "ConstantOfShape", couple=constant_of_shape, zero=lambda op: ZeroWhereDead(not np.any(_fill(op.attributes))),
    repair=repair_constant_of_shape,
    follows=frozenset({0}), bound=bound_fill, channelwise=True, value=_filled_value,
    traits=Trait.REPEATS | Trait.FILLS | Trait.SELECTS,
    forward=Forward(forward_constant_of_shape, into=(), host=(0,)),
)  # fmt: skip


define("com.microsoft:BiasSplitGelu", shape=lambda x, _: [(*x[0][:-1], x[0][-1] // 2)])
define("com.microsoft:Inverse com.microsoft:ScaledSiLU", shape=Alike())


def opaque(op: Op, *_: Axes | None, **__: Any) -> Axes:
    return op.unknown("hides values that cannot be followed")


define("OptionalGetElement Optional", couple=opaque, zero=first)


def forward_bodies(node: TorchCall, *inputs: Any) -> Any:
    raise ModelError(f"{node.op} is run by the network that it stands in")


for name, trait in (("If", Trait.BRANCHES), ("Loop", Trait.LOOPS), ("Scan", Trait.SCANS)):
    define(name, couple=opaque, traits=Trait.BODIES | trait, forward=Forward(forward_bodies))
