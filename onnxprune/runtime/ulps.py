"""Changes in the last places of input and weights, to measure what rounding does to a network."""

import zlib
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import TensorProto

from onnxprune.keyed import keyed
from onnxprune.model.elements import MadeInBlocks, Tensor
from onnxprune.model.graphs import constants_of
from onnxprune.operators.labels import line
from onnxprune.operators.registry import Trait, attributes_of, has, traits_of
from onnxprune.runtime.source import Variant
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
    network = model.network
    graph = network.graph.graph
    rounded = [n for n in graph.node if has(n, Trait.DEQUANTIZES) and all(i in network for i in n.input)]
    moved: dict[str, Tensor] = {name: network.tensor(name) for name in _weights(graph)}
    for node in rounded:
        codes, *rest = map(network.tensor, node.input)
        if len(codes.shape) > 1 and not _in_blocks(node):
            moved[node.output[0]] = _Dequantized(codes, rest[0], rest[1] if len(rest) > 1 else None, node)
    values = {name: _Nudged(tensor, zlib.crc32(name.encode())) for name, tensor in moved.items()}
    return replace(model, source=network.with_values(values), folder=model.base) if values else model


@dataclass(frozen=True, eq=False)
class _Nudged(MadeInBlocks):
    """A weight moved by a few units in the last place: the same at each reading."""

    seed: int

    def part(self, array: np.ndarray, rows: slice) -> np.ndarray:
        block = array[rows] if array.ndim else array
        return _moved(block, np.random.default_rng((self.seed, rows.start or 0)))


@dataclass(frozen=True, eq=False)
class _Dequantized(Tensor):
    """(codes − zero point) · scale, each along its axis."""

    codes: Tensor
    scale: Tensor
    zero: Tensor | None
    node: onnx.NodeProto

    @property
    def shape(self) -> tuple[int, ...]:
        return self.codes.shape

    @property
    def dtype(self) -> np.dtype:
        return self.scale.dtype

    def array(self) -> np.ndarray:
        codes = self.codes.array()
        sizes = line(codes.ndim, attributes_of(self.node).get("axis", 1))
        rest = (part.array() for part in (self.scale, self.zero) if part is not None)
        scale, *zero = (part.reshape(sizes) if part.size > 1 else part.reshape(()) for part in rest)
        return ((codes.astype(np.float32) - (zero[0].astype(np.float32) if zero else 0)) * scale).astype(scale.dtype)


def _weights(graph: onnx.GraphProto) -> list[str]:
    """Names of floats in several axes, and of those in one that only layers and norms take, beside their data."""
    rows = ((name, k, node) for node in graph.node for k, name in enumerate(node.input))
    readers = keyed((name, k > 0 and bool(traits_of(node) & _PARAMETERS)) for name, k, node in rows)
    own = {t.name: t for t in graph.initializer} | dict(constants_of(graph))
    return [
        name
        for name, t in own.items()
        if t.data_type in _FLOATS and (len(t.dims) > 1 or (len(t.dims) == 1 and all(readers.get(name, [False]))))
    ]


def _in_blocks(node: onnx.NodeProto) -> bool:
    return bool(attributes_of(node).get("block_size"))
