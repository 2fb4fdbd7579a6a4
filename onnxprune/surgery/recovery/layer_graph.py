"""The main graph of a model as a set of nodes: who makes a value, who takes it, what is constant, what changes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import onnx

from onnxprune.channels.dependencies import Dependencies
from onnxprune.keyed import keyed
from onnxprune.model.bodies import draws
from onnxprune.model.graphs import subgraphs
from onnxprune.model.network import Network
from onnxprune.operators.registry import Trait, has


@dataclass(frozen=True)
class Scaled:
    """A tensor of the file that a DequantizeLinear makes real numbers of: `(tensor − zero point) · scale`."""

    key: str
    node: int
    scale: str
    zero: str  # "" where there is none
    axis: int

    def along(self, numbers: np.ndarray, rank: int) -> np.ndarray:
        """Scales or zero points as they broadcast with the tensor, which has so many axes."""
        return (
            numbers.reshape([-1 if k == self.axis % max(rank, 1) else 1 for k in range(rank)])
            if numbers.ndim
            else numbers
        )


@dataclass(frozen=True)
class LayerGraph:
    """Nodes of the main graph in their order, and the values between them.

    source: their tensors are fetched when they are asked for.
    unpacked: whether tensors that are stored quantised are read as the real numbers that they stand for.
    """

    source: Network
    unpacked: bool = False
    nested: ClassVar[bool] = False  # whether the nodes inside bodies are among them

    @property
    def model(self) -> onnx.ModelProto:
        """The model without the elements of large tensors."""
        return self.source.graph

    @cached_property
    def nodes(self) -> list[onnx.NodeProto]:
        return list(self.model.graph.node)

    @cached_property
    def inputs(self) -> list[list[str]]:
        """Values that each node takes, those that its bodies capture included."""
        return [taken(node) for node in self.nodes]

    @cached_property
    def tensors(self) -> dict[str, onnx.TensorProto]:
        return {t.name: t for t in self.model.graph.initializer}

    @cached_property
    def sparse(self) -> dict[str, onnx.SparseTensorProto]:
        """Tensors that the file keeps without their zeros: they stay as they are."""
        return {t.values.name: t for t in self.model.graph.sparse_initializer}

    @cached_property
    def maker(self) -> dict[str, int]:
        return {name: k for k, node in enumerate(self.nodes) for name in node.output if name}

    @cached_property
    def consumers(self) -> dict[str, list[int]]:
        return keyed((name, k) for k, names in enumerate(self.inputs) for name in names)

    @cached_property
    def outputs(self) -> frozenset[str]:
        return frozenset(v.name for v in self.model.graph.output)

    @property
    def unasked(self) -> frozenset[int]:
        """Nodes that count as no constants, whatever they take."""
        return frozenset()

    @cached_property
    def constant(self) -> frozenset[int]:
        """Nodes whose outputs depend on weights alone."""
        fixed, found = self.tensors.keys() | self.sparse.keys(), set()
        for k, node in enumerate(self.nodes):
            if k not in self.unasked and not draws(node) and all(n in fixed for n in self.inputs[k]):
                found.add(k)
                fixed.update(node.output)
        return frozenset(found)

    def is_constant(self, name: str) -> bool:
        k = self.maker.get(name)
        return name in self.tensors or name in self.sparse if k is None else k in self.constant

    @cached_property
    def scaled(self) -> dict[str, Scaled]:
        """Quantised tensors that one DequantizeLinear alone takes, by key; none unless they are `unpacked`."""
        found = {}
        for k, node in enumerate(self.nodes if self.unpacked else ()):
            if not has(node, Trait.DEQUANTIZES) or any(a.name == "block_size" and a.i for a in node.attribute):
                continue
            key, scale, zero = (*node.input, "")[:3]
            if key in self.tensors and self.consumers[key] == [k] and k in self.constant and scale in self.tensors:
                axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
                found[key] = Scaled(key, k, scale, zero, axis)
        return found

    def tensor(self, name: str) -> np.ndarray | None:
        """A value that stands in the file, perhaps quantised or behind Identity; None where it is computed."""
        k = self.maker.get(name)
        key = self.nodes[k].input[0] if k is not None and has(self.nodes[k], Trait.DEQUANTIZES) else name
        return self.real(key) if key in self.scaled else self._held(name)

    def real(self, key: str) -> np.ndarray:
        """The real numbers that a quantised tensor stands for."""
        found, steps = self.scaled[key], self.number(key)
        scale = self.number(found.scale)
        zero = found.along(self.zero(found), steps.ndim)
        return ((steps.astype(np.float64) - zero) * found.along(scale, steps.ndim)).astype(scale.dtype)

    def zero(self, found: Scaled) -> np.ndarray:
        return self.number(found.zero).astype(np.float64) if found.zero else np.zeros(())

    def number(self, name: str) -> np.ndarray:
        """The elements of a tensor that stands in the file."""
        found = self._held(name)
        assert found is not None
        return found

    def _held(self, name: str) -> np.ndarray | None:
        if (k := self.maker.get(name)) is None:
            return self.source.array(name) if name in self.tensors else None
        node = self.nodes[k]
        if has(node, Trait.SAME):
            return self._held(node.input[0])
        return self.source.array(name) if name in self.source else None

    def follow(self, name: str) -> int | None:
        """The one node that takes a value; None where there are several, or where it is an output."""
        found = self.consumers.get(name, [])
        return found[0] if len(found) == 1 and name not in self.outputs else None

    def needs(self, names: Iterable[str], done: Iterable[int] = ()) -> set[int]:
        """Nodes that these values depend on, without constants and what lies behind nodes that are done."""
        todo, found, passed = list(names), set(), set(done) | self.constant
        while todo:
            k = self.maker.get(todo.pop())
            if k is not None and k not in found and k not in passed:
                found.add(k)
                todo += self.inputs[k]
        return found


def taken(node: onnx.NodeProto) -> list[str]:
    """All values that a node takes, those that its bodies capture included."""
    names = [n for n in node.input if n]
    for body, _ in subgraphs(node):
        inner = {v.name for v in body.input} | {t.name for t in body.initializer}
        for below in body.node:
            names += [n for n in taken(below) if n not in inner]
            inner.update(below.output)
        names += [v.name for v in body.output if v.name not in inner]
    return list(dict.fromkeys(names))


def changed_nodes(network: LayerGraph, deps: Dependencies, dead: np.ndarray) -> frozenset[int]:
    """Nodes of the main graph whose outputs differ once the dead components are gone."""
    cut = {u.node for u in deps.uses if u.node >= 0 and not all(deps.live(x, dead).all() for x in u.axes)}
    touched = {deps.nodes[k].outputs for k in cut if not deps.nodes[k].path}
    inside = {deps.nodes[k].path for k in cut if deps.nodes[k].path}
    found: set[int] = set()
    values: set[str] = set()
    for k, node in enumerate(network.nodes):
        bodies = any(path == p or p.startswith(path) for _, path in subgraphs(node) for p in inside)
        if tuple(node.output) in touched or bodies or any(n in values for n in network.inputs[k]):
            found.add(k)
            values.update(filter(None, node.output))
    return frozenset(found - network.constant)


def names_of(network: LayerGraph, nodes: Sequence[int]) -> list[str]:
    return [network.nodes[k].name or next(iter(network.nodes[k].output), "") for k in nodes]
