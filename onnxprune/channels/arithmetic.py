"""Where computed sizes come from: which axes a small known integer was read from, element by element.

Exporters compute targets of Reshape from Shape nodes; these follow a cut by themselves.  But a size may also end in
the data: `q / sqrt(Shape(q)[-1])` would change its meaning with the channels.  There the original number is computed
once more, or, where other graphs have a part in it and it depends on a symbolic size too, the axis is frozen.

A number may decide a cut only if it is static: the same at every size of the input.  In `Pad(x, [0, 0, 0, H - 8, ...])`
the amounts for the channels are, and those for the height are not.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

from onnxprune.channels.index_grids import lines_everywhere
from onnxprune.channels.nodes import Node
from onnxprune.channels.polynomials import Polynomial
from onnxprune.model.evaluate import evaluate
from onnxprune.model.shapes import sizes_given
from onnxprune.model.statics import Statics
from onnxprune.operators.casts import PLAIN_FLOATS
from onnxprune.operators.node_info import Numbers
from onnxprune.operators.registry import Trait, attributes_of, by_reference, has, operator_of, traits_of
from onnxprune.operators.roles import Line

Place = tuple[str, int]  # a value and one of its axes
Origins = np.ndarray  # of frozenset[Place], one for each element

NOWHERE: frozenset[Place] = frozenset()
MOVES = Trait.MOVES | Trait.CASTS
MEAN = Trait.STATISTICS | Trait.RANGE


@dataclass
class Arithmetic(Numbers):
    """The shape arithmetic of a network."""

    statics: Statics
    opset: int
    makers: dict[str, Node] = field(default_factory=dict)  # of values known so far
    found: dict[str, Origins] = field(default_factory=dict)
    masks: dict[str, np.ndarray] = field(default_factory=dict)
    polynomials: dict[str, np.ndarray | None] = field(default_factory=dict)
    without_mean: set[str] = field(default_factory=set)  # values from which their own mean is subtracted

    def static(self, key: str) -> np.ndarray:
        if key not in self.masks:
            mask = self._static(key, self.statics.constants[key].shape)
            if not mask.all() and (symbols := self.symbols(key)) is not None:
                mask = mask | np.array([p.constant for p in symbols.flat], bool).reshape(mask.shape)
            self.masks[key] = mask
        return self.masks[key]

    def known(self, key: str) -> np.ndarray | None:
        return self.statics.constants.get(key)

    def constant(self, key: str) -> np.ndarray | None:
        value = self.statics.constants.get(key)
        return None if value is None or not self.static(key).all() else value

    def grid(self, data: str, indices: str) -> list[Line] | None:
        return lines_everywhere(self.statics, self.makers, data, indices)

    def is_open(self, key: str, axis: int) -> bool:
        return self.statics.is_open(key, axis)

    def at_other_sizes(self, key: str, numbers: str) -> list[tuple[tuple[int, ...] | None, np.ndarray | None]]:
        return [(s.shapes.get(key), s.constants.get(numbers)) for s in self.statics.elsewhere]

    def is_float(self, key: str) -> bool:
        return self.statics.types.get(key) in PLAIN_FLOATS

    def centred(self, key: str) -> bool:
        maker = self.makers.get(key)
        return key in self.without_mean or (
            maker is not None and has(maker.proto, Trait.POWERS) and maker.inputs[0] in self.without_mean
        )

    def _static(self, key: str, shape: tuple[int, ...]) -> np.ndarray:
        node = self.makers.get(key)
        if not self.statics.other_sizes or key not in self.statics.sampled:
            return np.ones(shape, bool)
        if node is None or any(self.is_open(key, axis) for axis in range(len(shape))):
            return np.zeros(shape, bool)
        traits = traits_of(node.proto)
        if traits & Trait.SIZES:
            axes = range(len(self.statics.shapes[node.inputs[0]]))
            closed = np.array([not self.is_open(node.inputs[0], axis) for axis in axes])
            return np.asarray(sizes_given(node.proto, closed, np.all))
        inputs = [self.static(k) for k in node.inputs if k]
        lengths = all(not self.is_open(k, j) for k in node.inputs if k for j in range(self.statics.constants[k].ndim))
        k = _carried(node, traits)
        certain = k is None or (lengths and all(x.all() for j, x in enumerate(inputs) if j != k))
        if certain and (moved := self._moved(node, key, inputs)) is not None:
            return moved
        if traits & Trait.ELEMENTWISE:
            return np.logical_and.reduce([np.broadcast_to(x, shape) for x in inputs])
        return np.full(shape, lengths and all(x.all() for x in inputs))

    def _moved(self, node: Node, key: str, inputs: Sequence[Any]) -> np.ndarray | None:
        """What a node that only moves or joins elements makes of these in their place, in one output; else None."""
        traits = traits_of(node.proto)
        if (k := _carried(node, traits)) is None:
            joins = traits & Trait.JOINS and all(x is not None and x.ndim == 1 for x in inputs)
            return np.concatenate(inputs) if joins else None
        if inputs[k] is None:
            return None
        told = [self.statics.constants[name] if name else None for name in node.inputs]
        told[k] = np.arange(inputs[k].size).reshape(inputs[k].shape)
        moved = evaluate(node.proto, told, {**attributes_of(node.proto), "to": onnx.TensorProto.INT64}, self.opset)
        if moved is None:
            return None
        places = moved[[name for name in node.outputs if name].index(key)]
        return inputs[k].ravel()[places.ravel()].reshape(places.shape)

    def symbols(self, key: str) -> np.ndarray | None:
        """The elements of a known integer as polynomials of open sizes, (its shape); None where they are none."""
        if key not in self.polynomials:
            self.polynomials[key] = found = self._symbols(key, self.statics.constants[key])
            if found is not None and found.shape != self.statics.constants[key].shape:
                self.polynomials[key] = None
        return self.polynomials[key]

    def _symbols(self, key: str, value: np.ndarray) -> np.ndarray | None:
        node = self.makers.get(key)
        if value.dtype.kind not in "iu" or any(self.is_open(key, axis) for axis in range(value.ndim)):
            return None
        if key not in self.statics.sampled:
            return _array([Polynomial.of(v) for v in value.flat], value.shape)
        if node is None:
            return None
        traits = traits_of(node.proto)
        if traits & Trait.SIZES:
            source = node.inputs[0]
            if self._is_long_by_numbers(source):
                return None
            axes = [
                Polynomial.open((source, j)) if self.is_open(source, j) else Polynomial.of(n)
                for j, n in enumerate(self.statics.shapes[source])
            ]
            given = sizes_given(node.proto, axes, lambda sizes: [math.prod(sizes, start=Polynomial.of(1))])
            return _array(given, value.shape)
        return self._symbols_of(node, key, traits)

    def _symbols_of(self, node: Node, key: str, traits: Trait) -> np.ndarray | None:
        """What a node makes of polynomials: it moves them, or it adds, multiplies and divides them."""
        inputs = [self.symbols(k) for k in node.inputs if k]
        if (moved := self._moved(node, key, inputs)) is not None:
            return moved
        known = [x for x in inputs if x is not None]
        computes = traits & (Trait.ADDS | Trait.MULTIPLIES) and operator_of(node.proto).value is not by_reference
        if len(known) < len(node.inputs) or not computes:
            return None
        made = evaluate(node.proto, known, attributes_of(node.proto), self.opset)
        return None if made is None else made[0]

    def _is_long_by_numbers(self, key: str) -> bool:
        """Whether the length of a value may hang on numbers that are computed, as that of a Range does."""
        node = self.makers.get(key)
        if key not in self.statics.sampled:
            return False
        if node is None or (traits := traits_of(node.proto)) & Trait.SIZES:
            return node is None
        k = _carried(node, traits)
        told = [name for j, name in enumerate(node.inputs) if name and j != k]
        if k is not None:
            return self._is_long_by_numbers(node.inputs[k]) or any(name in self.statics.sampled for name in told)
        return not traits & (Trait.ELEMENTWISE | Trait.JOINS) or any(map(self._is_long_by_numbers, told))

    def origins(self, key: str) -> Origins:
        """For each element of a known constant, the axes whose sizes it was computed from, in the constant's shape."""
        if key not in self.found:
            self.found[key] = self._origins(key)
        return self.found[key]

    def _origins(self, key: str) -> Origins:
        shape, node = self.statics.constants[key].shape, self.makers.get(key)
        if node is None or key not in self.statics.sampled or has(node.proto, Trait.FILLS):
            return _alike(NOWHERE, shape)
        traits = traits_of(node.proto)
        if traits & Trait.SIZES and not self._is_long_by_numbers(node.inputs[0]):
            return _of_shape(node, len(self.statics.shapes[node.inputs[0]]))
        inputs = [self.origins(k) for k in node.inputs if k]
        if (moved := self._moved(node, key, inputs)) is not None:
            return moved
        return _merged(inputs, shape, bool(traits & Trait.ELEMENTWISE))

    def uneven(self, key: str) -> np.ndarray:
        """Which elements of a known constant hang on open sizes, and are no product of them and a number."""
        if key not in self.statics.sampled:
            return np.zeros(self.statics.constants[key].shape, bool)
        found = ~self.static(key)
        if found.any() and (symbols := self.symbols(key)) is not None:
            found &= np.array([len(p.terms) > 1 for p in symbols.flat]).reshape(found.shape)
        return found

    def stays_in(self, key: str, path: str) -> bool:
        """Whether all nodes that compute a known constant from sizes are of the graph of that path."""
        return all(maker.path == path for _, maker in self.behind(key))

    def behind(self, key: str) -> Iterator[tuple[str, Node]]:
        """Values that a known constant is computed from, back to sizes, and what makes them; itself first."""
        todo, seen = [key], set[str]()
        while todo:
            maker = self.makers.get(current := todo.pop())
            if maker is not None and current not in seen and current in self.statics.sampled:
                seen.add(current)
                yield current, maker
                todo += () if has(maker.proto, Trait.SIZES) else filter(None, maker.inputs)

    def escapes(self, node: Node, labelled: Sequence[bool]) -> Iterator[tuple[int, Origins]]:
        """Inputs of a node that take computed sizes as data, with what they were computed from.

        `labelled` says which inputs have channels: they are no sizes, even where they are small and known.
        """
        if not any(labelled) and all(key in self.statics.constants for key in node.outputs if key):
            return  # arithmetic itself
        for k, key in enumerate(node.inputs):
            if key in self.statics.sampled and not labelled[k] and k not in operator_of(node.proto).follows:
                yield k, self.origins(key)

    def arrays(self, node: Node, labelled: Sequence[bool]) -> Iterator[tuple[int, tuple[int, ...]]]:
        """Inputs of a node that meet channels and are known arrays, the same at every size of the input; their shapes.

        A mask `Range(Shape(x)[1]) < 20` is one: what it holds for a channel does not change when others go.
        """
        for k, key in enumerate(node.inputs if any(labelled) else ()):
            known = key in self.makers or key in self.statics.tensors
            follows = labelled[k] or k in operator_of(node.proto).follows
            array = self.constant(key) if known and not follows else None
            if array is not None and array.size > 1 and array.dtype.kind in "fb":
                yield k, array.shape


def _carried(node: Node, traits: Trait) -> int | None:
    """The input whose elements, and no others, the outputs of a node are made of."""
    if traits & Trait.PLACES:
        return len(node.inputs) - 1
    return 0 if traits & MOVES and not traits & Trait.JOINS else None


def centred(graph: onnx.GraphProto) -> Iterator[str]:
    """Values of which a node takes their mean, and another one subtracts it."""
    means = {node.output[0]: node.input[0] for node in graph.node if MEAN in traits_of(node) and node.input}
    for node in graph.node:
        if operator_of(node).signs == (1, -1) and len(node.input) == 2 and means.get(node.input[1]) == node.input[0]:
            yield node.input[0]


def _array(places: Sequence[Any], shape: tuple[int, ...]) -> np.ndarray:
    out = np.empty(len(places), object)
    out[:] = places
    return out.reshape(shape)


def _alike(places: frozenset[Place], shape: tuple[int, ...]) -> Origins:
    return _array([places] * math.prod(shape), shape)


def _of_shape(node: Node, rank: int) -> Origins:
    """Elements of Shape are the axes themselves; Size depends on all of them."""
    axes = _array([frozenset({(node.inputs[0], axis)}) for axis in range(rank)], (rank,))
    return sizes_given(node.proto, axes, lambda axes: _alike(NOWHERE.union(*axes), ()))


def _merged(inputs: list[Origins], shape: tuple[int, ...], elementwise: bool) -> Origins:
    """Element by element, or everything depends on everything."""
    if not elementwise:
        return _alike(NOWHERE.union(*(places for x in inputs for places in x.flat)), shape)
    spread = [np.broadcast_to(x, shape).ravel() for x in inputs]
    return _array([NOWHERE.union(*at) for at in zip(*spread, strict=True)], shape)
