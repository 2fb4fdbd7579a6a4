"""The steps of a graph in their order: what each one computes, reads and gives, and when a value is read last."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from onnxprune.model.defaults import overridable
from onnxprune.model.graphs import body_attributes, is_constant, subgraphs
from onnxprune.model.static import find, names_of
from onnxprune.operators.arrays import Value, attribute, constant, from_array
from onnxprune.operators.forward import Forward, TorchCall
from onnxprune.operators.native import native
from onnxprune.operators.registry import Trait, attributes_of, has, operator_of

LARGEST = 4096  # elements of a value that is followed to the condition of an If
NATIVE = Forward(native, into=())
SAME = Forward(lambda node, x: x)
UNSUITED = (RuntimeError, ValueError, IndexError, TypeError, KeyError, AttributeError, ArithmeticError)  # of torch


@dataclass
class Body:
    """A graph inside a node: keys of what it is handed and of what it gives, and its steps."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    steps: list[ProgramStep] = field(repr=False)


@dataclass
class ProgramStep:
    """A node to be computed.

    Args:
        node: what its function is told.
        forward: what computes it; onnxruntime where the table of operators has nothing.
        proto: the node in the file.
        path: of its graph, with which the keys of what it gives begin.
        reads: keys of its inputs, "" where one is left out.
        writes: keys of its outputs.
        bodies: graphs that it runs.
        known: whether the table has a function of torch for it.
        dead: keys that are not read after it.
    """

    node: TorchCall
    forward: Forward
    proto: onnx.NodeProto
    path: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    bodies: tuple[Body, ...] = ()
    known: bool = True
    dead: tuple[str, ...] = ()

    def __str__(self) -> str:
        name = self.proto.name or next(filter(None, self.writes), "")
        return f"{name!r} ({self.proto.op_type})"

    @property
    def needs(self) -> set[str]:
        """Keys that it reads, those that its bodies take from around them included."""
        needed = set(filter(None, self.reads))
        for body in self.bodies:
            made = set(body.inputs).union(*(step.writes for step in body.steps))
            needed |= {*body.outputs}.union(*(step.needs for step in body.steps)) - made
        return needed

    def into(self, alive: Collection[str]) -> Iterator[str]:
        """Keys that take a gradient if the outputs among `alive` do."""
        if not any(key in alive for key in self.writes):
            return
        for body in self.bodies:
            yield from reached(body.steps, body.outputs)
        for position, key in enumerate(self.reads):
            if key and (self.bodies or self.forward.passes(self.node, position)):
                yield key


def reached(steps: Sequence[ProgramStep], outputs: Iterable[str]) -> set[str]:
    """Keys of all values that a gradient of the outputs reaches."""
    alive = set(outputs)
    for step in reversed(steps):
        alive.update(step.into(alive))
    return alive


def computed(steps: Iterable[ProgramStep], sources: Iterable[str], *, gradient: bool = False) -> set[str]:
    """Keys of the values that hang on the sources; with `gradient`, only those through which one would go back."""
    found = set(sources)
    for step in steps:
        inside: set[str] = set().union(*(computed(body.steps, found, gradient=gradient) for body in step.bodies))
        through = {key for k, key in enumerate(step.reads) if not gradient or step.forward.passes(step.node, k)}
        if (through if not step.bodies else step.needs | inside) & found or inside - found:
            found.update(filter(None, step.writes), inside)
    return found


def needed(steps: Sequence[ProgramStep], outputs: Iterable[str]) -> list[ProgramStep]:
    """The steps that the outputs hang on, each with the keys that are not read after it."""
    wanted, kept = set(outputs), list[ProgramStep]()
    own = set[str]().union(*(step.writes for step in steps))
    for step in reversed(steps):
        if not wanted.intersection(step.writes):
            continue
        for body in step.bodies:
            body.steps = needed(body.steps, {*body.outputs})
        reads, made = step.needs, set(filter(None, step.writes))
        step.dead = tuple(sorted(((reads & own) | made) - wanted))
        wanted |= reads
        kept.append(step)
    return kept[::-1]


class Program:
    """A model as steps, with the tensors that its file holds.

    Args:
        model: without calls of local functions; not kept.

    An If whose condition follows from the file is replaced by the branch that it takes.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.opsets = {o.domain or "ai.onnx": o.version for o in model.opset_import}
        self.constants: dict[str, Value] = {}
        self.kinds: dict[str, int] = {}  # element types of tensors that can be written back
        self._small: dict[str, Value] = {}  # values that follow from the file
        self.steps = self._graph(model.graph, "", [])
        self.defaults = overridable(model)
        self.outputs = tuple(value.name for value in model.graph.output)
        self.inputs = {v.name: v.type for v in model.graph.input if v.name not in self.constants}

    def _graph(self, graph: onnx.GraphProto, path: str, outer: list[dict[str, str]]) -> list[ProgramStep]:
        scope, steps = [*outer, names_of(graph, path)], list[ProgramStep]()
        for tensor in graph.initializer:
            self._hold(path + tensor.name, constant(tensor), tensor.data_type)
        for sparse in graph.sparse_initializer:
            self._hold(path + sparse.values.name, from_array(_dense(sparse)))
        for proto in graph.node:
            if is_constant(proto):
                self._constant(proto, path)
            else:
                steps += self._steps(proto, path, scope)
        return steps

    def _hold(self, key: str, value: Value, kind: int | None = None) -> None:
        self.constants[key] = value
        if kind is not None:
            self.kinds[key] = kind
        if isinstance(value, torch.Tensor) and value.numel() <= LARGEST:
            self._small[key] = value

    def _constant(self, proto: onnx.NodeProto, path: str) -> None:
        held = proto.attribute[0]
        if held.name == "value":
            self._hold(path + proto.output[0], constant(held.t), held.t.data_type)
        elif held.name == "sparse_value":
            self._hold(path + proto.output[0], from_array(_dense(held.sparse_tensor)))
        else:
            value = onnx.helper.get_attribute_value(held)
            dtype = np.int64 if "int" in held.name else np.float32 if "float" in held.name else object
            self._hold(path + proto.output[0], from_array(np.array(value, dtype)))

    def _steps(self, proto: onnx.NodeProto, path: str, scope: list[dict[str, str]]) -> list[ProgramStep]:
        reads = tuple(find(scope, name) if name else "" for name in proto.input)
        writes = tuple(path + name if name else "" for name in proto.output)
        taken = self._small.get(reads[0]) if has(proto, Trait.BRANCHES) else None
        bodies = list[Body]()
        for (graph, below), held in zip(subgraphs(proto, path), body_attributes(proto), strict=True):
            if taken is not None and held.name != ("then_branch" if bool(taken.all()) else "else_branch"):
                continue
            steps = self._graph(graph, below, scope)
            inside = [*scope, names_of(graph, below)]
            outputs = tuple(find(inside, value.name) for value in graph.output)
            bodies.append(Body(held.name, tuple(below + value.name for value in graph.input), outputs, steps))
        if taken is not None:
            named = zip(bodies[0].outputs, writes, strict=True)
            return [*bodies[0].steps, *(self._alias(proto, path, key, to) for key, to in named if to)]
        return [self._step(proto, path, reads, writes, tuple(bodies))]

    def _alias(self, proto: onnx.NodeProto, path: str, key: str, to: str) -> ProgramStep:
        step = ProgramStep(TorchCall("Identity", 1, {}), SAME, proto, path, (key,), (to,))
        self._follow(step)
        return step

    def _step(
        self,
        proto: onnx.NodeProto,
        path: str,
        reads: tuple[str, ...],
        writes: tuple[str, ...],
        bodies: tuple[Body, ...],
    ) -> ProgramStep:
        domain = "" if proto.domain == "ai.onnx" else proto.domain
        attributes = {name: attribute(value) for name, value in attributes_of(proto).items()}
        named = [k for k, key in enumerate(writes, 1) if key]
        opset = self.opsets.get(domain or "ai.onnx", 1)
        node = TorchCall(proto.op_type, opset, attributes, named[-1] if named else 0, domain)
        forward = operator_of(proto).forward
        step = ProgramStep(node, forward or NATIVE, proto, path, reads, writes, bodies, known=forward is not None)
        self._follow(step)
        return step

    def _follow(self, step: ProgramStep) -> None:
        """Compute a small value that follows from the file."""
        if step.bodies or not step.known or not step.forward.pure:
            return
        if not step.reads or not all(key in self._small for key in step.reads if key):
            return
        for key, value in evaluated(step, self._small).items():
            if isinstance(value, torch.Tensor) and value.numel() <= LARGEST:
                self._small[key] = value

    def fold(self, weights: Collection[str]) -> None:
        """Compute now what is the same in every run: the steps that hang on tensors of the file, weights left out."""
        fixed = {key for key in self.constants if key not in weights and key not in self.defaults}
        left = list[ProgramStep]()
        for step in self.steps:
            foldable = step.known and step.forward.pure and not step.bodies and bool(step.reads)
            if foldable and step.needs <= fixed and (found := evaluated(step, self.constants)):
                self.constants |= found
                fixed |= found.keys()
            else:
                left.append(step)
        self.steps = needed(left, self.outputs)
        read = set(self.outputs).union(*(step.needs for step in every(self.steps)), *(weights,))
        self.constants = {key: value for key, value in self.constants.items() if key in read}


def evaluated(step: ProgramStep, values: dict[str, Value]) -> dict[str, Value]:
    """What a step gives, by key; nothing where it cannot be computed, of which its run will tell."""
    try:
        with torch.no_grad():
            out = step.forward.function(step.node, *(values[key] if key else None for key in step.reads))
    except UNSUITED:
        return {}
    return dict(named(step, out))


def named(step: ProgramStep, out: Value) -> Iterator[tuple[str, Value]]:
    """Outputs of a step by key."""
    for key, value in zip(step.writes, out if isinstance(out, tuple) else (out,), strict=False):
        if key:
            yield key, value


def every(steps: Iterable[ProgramStep]) -> Iterator[ProgramStep]:
    """Steps and those of the bodies inside them."""
    for step in steps:
        yield step
        for body in step.bodies:
            yield from every(body.steps)


def _dense(sparse: onnx.SparseTensorProto) -> np.ndarray:
    """A sparse tensor with its zeros; its places are told one by one, or axis by axis."""
    values, places = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
    out = np.zeros(tuple(sparse.dims), values.dtype)
    flat = places if places.ndim == 1 else np.ravel_multi_index(tuple(places.T), out.shape)
    out.reshape(-1)[flat] = values
    return out
