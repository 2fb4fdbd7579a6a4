"""Changes in the last places of input and weights, to measure what rounding does to a network."""

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from onnxprune.model.blocks import MadeInBlocks
from onnxprune.operators.registry import Trait, has, traits_of
from onnxprune.runtime.edited import Replacement
from onnxprune.runtime.source import Variant, as_proto
from onnxprune.runtime.specs import Feed

NUDGE = 4  # units in the last place

_PARAMETERS = Trait.LAYER | Trait.SHIFTS | Trait.SCALES
_FLOATS = {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16}
_ULP = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}


def nudged(feed: Feed, seed: int = 1) -> Feed:
    """The feed with its floats moved by up to `NUDGE` units in the last place, at random (seeded)."""
    generator = np.random.default_rng(seed)
    return {name: _moved(array, generator) if array.dtype.name in _ULP else array for name, array in feed.items()}


def _moved(array: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    step = generator.integers(-NUDGE, NUDGE + 1, array.shape) * _ULP[array.dtype.name]
    return (array.astype(np.float64) * (1 + step)).astype(array.dtype)


def nudged_weights(model: Variant) -> Variant:
    """The model with its weights moved likewise, each when it is asked for; numbers that are none stay what they are.

    That reaches layers which no float input reaches, and every layer by as much as the first; and, by their biases,
    channels that no input reaches, of which a norm may make anything.
    """
    moved = _Moved(as_proto(model.source), model)
    return replace(model, values=moved) if moved else model


@dataclass(frozen=True)
class _Nudged(MadeInBlocks):
    """A weight moved by a few units in the last place: the same at each reading."""

    seed: int

    def part(self, rows: slice) -> np.ndarray:
        block = self.array[rows] if self.array.ndim else self.array
        return _moved(block, np.random.default_rng((self.seed, rows.start or 0)))


class _Moved(Mapping[str, Replacement]):
    """The weights of a model, moved by a few units in the last place, and what replaces other values already."""

    def __init__(self, proto: onnx.ModelProto, model: Variant) -> None:
        self._base, self._values = str(model.base or ""), model.values or {}
        constants = [node for node in proto.graph.node if node.op_type == "Constant"]
        made = ((node.output[0], a.t) for node in constants for a in node.attribute if a.name == "value")
        tensors = [*((t.name, t) for t in proto.graph.initializer), *made]
        self._all = dict(tensors)
        self._floats = _weights(proto, self._all)
        rounded = [n for n in proto.graph.node if has(n, Trait.DEQUANTIZES) and all(i in self._all for i in n.input)]
        self._steps = {n.output[0]: n for n in rounded if len(self._all[n.input[0]].dims) > 1 and not _in_blocks(n)}
        self._names = dict.fromkeys((*self._floats, *self._steps, *self._values))

    def __getitem__(self, name: str) -> Replacement:
        if name in self._steps:
            array = self._dequantized(self._steps[name])
        elif name in self._floats:
            array = self._array(name)
        else:
            return self._values[name]
        return _Nudged(array, zlib.crc32(name.encode()))

    def _array(self, name: str) -> np.ndarray:
        value = self._values.get(name)
        return numpy_helper.to_array(self._all[name], self._base) if value is None else np.asarray(value)

    def _dequantized(self, node: onnx.NodeProto) -> np.ndarray:
        """(weights − zero point) · scale, each along its axis."""
        codes, *rest = (self._array(name) for name in node.input)
        axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
        sizes = [-1 if k == axis % codes.ndim else 1 for k in range(codes.ndim)]
        scale, *zero = (part.reshape(sizes) if part.size > 1 else part.reshape(()) for part in rest)
        return ((codes.astype(np.float32) - (zero[0].astype(np.float32) if zero else 0)) * scale).astype(scale.dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _weights(proto: onnx.ModelProto, tensors: Mapping[str, TensorProto]) -> dict[str, None]:
    """Names of floats in several axes, and of those in one that only layers and norms take, beside their data."""
    readers: dict[str, list[bool]] = {}
    for node in proto.graph.node:
        for k, name in enumerate(node.input):
            readers.setdefault(name, []).append(k > 0 and bool(traits_of(node) & _PARAMETERS))
    return {
        name: None
        for name, t in tensors.items()
        if t.data_type in _FLOATS and (len(t.dims) > 1 or (len(t.dims) == 1 and all(readers.get(name, [False]))))
    }


def _in_blocks(node: onnx.NodeProto) -> bool:
    return any(a.name == "block_size" and a.i for a in node.attribute)
