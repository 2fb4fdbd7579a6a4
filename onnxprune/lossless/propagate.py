"""Facts of every value of a network, an operator at a time."""

import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import onnx
from onnx import helper

from onnxprune.channels.arithmetic import Arithmetic
from onnxprune.channels.dependencies import Dependencies
from onnxprune.errors import OnnxPruneError
from onnxprune.lossless.inside import enter
from onnxprune.lossless.nested import NestedGraph
from onnxprune.model.defaults import overridable
from onnxprune.model.graphs import opset_of
from onnxprune.model.network import Network
from onnxprune.operators.facts import INTEGERS, Facts, Shape, known, of_integers, reduced, unknown
from onnxprune.operators.labels import is_fixed
from onnxprune.operators.registry import MALFORMED, Trait, attributes_of, has, operator_of
from onnxprune.operators.site import Site
from onnxprune.operators.value_numbers import name_of
from onnxprune.runtime.session import make_session

WIDE = 1 << 15  # elements of facts from which on only axes of channels have positions of their own


@dataclass
class Knowledge:
    """What is known of the values of a network, by key: of those in a body, in each of its rounds."""

    network: NestedGraph
    deps: Dependencies
    pinned: frozenset[str] = frozenset()  # tensors of the file that a caller or a node with bodies may replace
    facts: dict[str, Facts | None] = field(default_factory=dict)
    _arrays: dict[str, np.ndarray | None] = field(default_factory=dict)

    @classmethod
    def of(cls, model: Network, deps: Dependencies) -> "Knowledge":
        """Go through the network once.

        Args:
            model: never changed; the model of `deps`.
            deps: its analysis, for shapes and axes of channels.
        """
        network = NestedGraph(model)
        self = cls(network, deps, overridable(network.model) | network.given_later)
        self.walk(network.main)
        return self

    @cached_property
    def opset(self) -> int:
        return opset_of(self.network.model)

    @property
    def arithmetic(self) -> Arithmetic:
        return self.deps.arithmetic

    def walk(self, nodes: Iterable[int]) -> None:
        """Go through nodes of one graph, in their order."""
        for k in nodes:
            if k in self.network.bodies and k not in self.network.constant:
                enter(self, self.network.nodes[k], self.network.bodies[k])
            elif k not in self.network.constant:
                self._visit(self.network.nodes[k])

    def note(self, name: str, found: Facts | None) -> None:
        """From now on this is known of a value; nothing where that is None, or does not suit its shape."""
        self.facts.pop(name, None)
        if found is not None and _fits(found, self.shape(name)):
            self.facts[name] = self._narrow(name, found)
        self.get(name)

    def fact(self, name: str) -> tuple[Facts, Shape] | None:
        """Facts and shape of a value, also where it is a tensor of the file."""
        if name and self.network.is_constant(name):
            array = self.array(name)
            return None if array is None or array.dtype.kind not in "fiub" else (known(array), array.shape)
        shape, found = self.shape(name), self.get(name) if name else None
        return None if shape is None or found is None else (found, shape)

    def is_open(self, name: str, axis: int) -> bool:
        """Whether an axis may have another length in another run; so may one of which only a run has shown it."""
        return name not in self.deps.statics.inferred or self.arithmetic.is_open(name, axis)

    def forget(self, path: str) -> None:
        """Nothing is known any more of values in the body of this path."""
        for name in [name for name in self.facts if name.startswith(path)]:
            del self.facts[name]

    def get(self, name: str) -> Facts | None:
        """Facts of a value that depends on data; None where its shape is unknown."""
        if name not in self.facts:
            shape = self.shape(name)
            self.facts[name] = None if shape is None else unknown(len(shape), name_of(name))
        return self.facts[name]

    def shape(self, name: str) -> Shape | None:
        return self.deps.statics.shapes.get(name)

    def type(self, name: str) -> int:
        """Element type of a value, 0 where it is unknown or the name empty."""
        return self.deps.statics.types.get(name, 0)

    def array(self, name: str) -> np.ndarray | None:
        """A value that depends on weights alone, in its own type; None where it depends on data, or is kept sparse."""
        if name not in self._arrays:
            self._arrays[name] = self._computed(name)
        return self._arrays[name]

    def origin(self, name: str) -> str | None:
        """The tensor of the file that a value is in another order, if nothing else takes what lies between."""
        if name in self.network.tensors:
            return None if name in self.pinned else name
        k = self.network.maker.get(name)
        if k is None or not has(self.network.nodes[k], Trait.VIEW) or self.network.follow(name) is None:
            return None
        return self.origin(self.network.nodes[k].input[0])

    def order(self, name: str) -> np.ndarray:
        """Which element of its origin each element of a value is.  Raises ModelError."""
        if name in self.network.tensors:
            dims = tuple(self.network.tensors[name].dims)
            return np.arange(math.prod(dims)).reshape(dims)
        node = self.network.nodes[self.network.maker[name]]
        rest = {n: array for n in node.input[1:] if n and (array := self.array(n)) is not None}
        return _run(node, {**rest, node.input[0]: self.order(node.input[0])}, self.network.model, name)

    def _computed(self, name: str) -> np.ndarray | None:
        if not self.network.is_constant(name) or name in self.pinned or name in self.network.sparse:
            return None
        if (found := self.network.tensor(name)) is not None:
            return found
        k = self.network.maker[name]
        node = self.network.nodes[k]
        given = {n: self.array(n) for n in self.network.inputs[k]}
        if any(a is None for a in given.values()) or any(a.name == "sparse_value" for a in node.attribute):
            return None
        with suppress(OnnxPruneError):
            return _run(node, {n: a for n, a in given.items() if a is not None}, self.network.model, name)
        return None

    def _visit(self, node: onnx.NodeProto) -> None:
        inputs = [self.get(n) if n and not self.network.is_constant(n) else None for n in node.input]
        outputs = [n for n in node.output if n]
        site = Site(
            node.input, node.output, [self.shape(n) for n in outputs], attributes_of(node), self.opset,
            self.arithmetic, node, inputs, [self.shape(n) if n else None for n in node.input],
            [self.type(n) for n in node.input], lambda k: self.array(node.input[k]),
        )  # fmt: skip
        found = self._known(site)
        for k, name in enumerate(outputs):
            fact = self._typed(site, name, found[k]) if k < len(found) else None
            self.facts[name] = site.nothing(k) if fact is None else self._narrow(name, fact)

    def _known(self, site: Site) -> list[Facts | None]:
        """What is known of the outputs; nothing where the inputs are not known, or a node makes no sense."""
        if (bound := operator_of(site.node).bound) is None or len(site.inputs) == 0:
            return []
        try:
            with np.errstate(all="ignore"):
                found = bound(site)
        except MALFORMED:
            return []
        return found if isinstance(found, list) else [found]

    def _typed(self, site: Site, name: str, found: Facts | None) -> Facts | None:
        """What is known of an output, as its type has it; nothing where that is unknown or the shape another one."""
        if found is None or not self.type(name) or not _fits(found, self.shape(name)):
            return None
        dtype = INTEGERS.get(self.type(name))
        selects = has(site.node, Trait.MOVES | Trait.SELECTS)
        return found if dtype is None else of_integers(found, dtype, site.kind, site.token, selects=selects)

    def _narrow(self, name: str, found: Facts) -> Facts:
        """Facts without positions of their own on axes of open length, and large ones on axes that cannot shrink.

        Of a shape that a run has shown, any axis that cannot shrink may have another length in the next run.
        """
        found = reduced(found, [k for k in range(len(found.shape)) if self.deps.arithmetic.is_open(name, k)])
        value = self.deps.values.get(name)
        if value is None or (found.low.size <= WIDE and name in self.deps.statics.inferred):
            return found
        inside = value.split_axis.dims if value.split_axis is not None else ()
        return reduced(found, [k for k, x in enumerate(value.axes) if is_fixed(x) and k not in inside])


def _fits(found: Facts | None, shape: Shape | None) -> bool:
    """Whether facts are of a value of this shape."""
    if found is None or shape is None or len(found.shape) != len(shape):
        return False
    return all(a in (1, b) for a, b in zip(found.shape, shape, strict=True))


def _run(node: onnx.NodeProto, given: Mapping[str, np.ndarray], model: onnx.ModelProto, name: str) -> np.ndarray:
    """One output of a node.  Raises ModelError."""
    piece = onnx.ModelProto(ir_version=max(model.ir_version, 4))
    piece.graph.name = "node"
    piece.graph.node.append(node)
    for key, array in given.items():
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        piece.graph.input.append(helper.make_tensor_value_info(key, kind, array.shape))
    piece.graph.output.append(onnx.ValueInfoProto(name=name))
    piece.opset_import.extend(model.opset_import)
    piece.functions.extend(model.functions)
    return make_session(piece, providers="cpu", threads=1).run(given)[name]
