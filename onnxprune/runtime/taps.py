"""Where to look besides the outputs: before operators that saturate or decide, a difference still shows.

A Softmax that is sure of itself gives the same numbers for very different logits, an ArgMax even more so.
The values that such operators take, between the last weighted layer and the outputs, are compared as well.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import onnx

from onnxprune.model.static import subgraphs
from onnxprune.operators.registry import Trait, has, traits_of

BOUNDED = Trait.SATURATES | Trait.RECURRENT  # gates saturate, and states add up what they give
WEIGHTED = Trait.LAYER | Trait.BODIES  # they end the way back: what lies before is not judged through outputs' nodes


@dataclass(frozen=True)
class Taps:
    """Inner values to compare, and what is to be expected of the outputs.

    `bounded`: outputs (and taps) that a saturating operator has squeezed into about ±1; `decided`: those that
    an operator has rounded or chosen; `quantized`: the graph rounds inner values to integers. `decisions` are all
    values that an operator has rounded or chosen, with the values that it took for that, and `layers` those that
    weighted layers give; what lies in a body goes by its key, the path of its graph before the name. `fixed` outputs
    depend on no input. `before` names the taps of each output.
    """

    names: tuple[str, ...] = ()
    bounded: frozenset[str] = frozenset()
    decided: frozenset[str] = frozenset()
    quantized: bool = False
    decisions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    layers: tuple[str, ...] = ()
    fixed: frozenset[str] = frozenset()
    before: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Scope:
    """What a name means in a graph: the node that gives it (of an outer graph, too), and what depends on no input."""

    producer: dict[str, onnx.NodeProto]
    fixed: set[str]

    def inside(self, graph: onnx.GraphProto) -> "_Scope":
        """The scope of a branch, which sees the values around it."""
        return _Scope(self.producer | _producers(graph.node), self.fixed | depends_on_shapes_alone(graph, self.fixed))


def find_taps(model: onnx.ModelProto) -> Taps:
    """Walk back from each output of `model` to its last weighted layers, and note what lies between."""
    graph = model.graph
    scope = _Scope(_producers(graph.node), depends_on_shapes_alone(graph))
    bodies = {(f.domain, f.name): f for f in model.functions}
    outputs = {o.name for o in graph.output}
    before: dict[str, dict[str, None]] = {name: {} for name in outputs}
    for name in outputs:
        for node, direct in _trail(name, scope, bodies):
            traits = traits_of(node)
            if traits & (Trait.DECIDES | Trait.SATURATES) or (direct and traits & Trait.CLAMPS):
                before[name] |= {i: None for i in node.input if i in scope.producer and i not in scope.fixed | outputs}
    names, inner = {tap for taps in before.values() for tap in taps}, list(_inner(graph))
    trails = {name: list(_trail(name, scope, bodies)) for name in [*outputs, *names]}
    return Taps(
        names=tuple(n for node in graph.node for n in node.output if n in names),
        bounded=frozenset(n for n, trail in trails.items() if any(d and has(node, BOUNDED) for node, d in trail)),
        decided=frozenset(n for n, trail in trails.items() if any(has(node, Trait.DECIDES) for node, _ in trail)),
        quantized=any(has(node, Trait.QUANTIZES) for node in graph.node),
        decisions={key: took for node in inner for key, took in node.decides().items()},
        layers=tuple(key for node in inner if has(node.proto, WEIGHTED) for key in node.gives()),
        fixed=frozenset(outputs & scope.fixed),
        before={name: tuple(taps) for name, taps in before.items()},
    )


@dataclass(frozen=True)
class _Inner:
    """A node of a graph or of a body in it: its path, the keys of values that nodes give, and those of fixed ones."""

    proto: onnx.NodeProto
    path: str
    keys: Mapping[str, str]
    fixed: Collection[str]

    def gives(self) -> list[str]:
        """Keys of what it gives that depends on the inputs; a node with bodies gives at the top only."""
        names = [n for n in self.proto.output if n and n not in self.fixed]
        return [] if self.path and has(self.proto, Trait.BODIES) else [self.path + n for n in names]

    def decides(self) -> dict[str, tuple[str, ...]]:
        """What it has rounded or chosen, and what it took for that which depends on the inputs, by key."""
        if not has(self.proto, Trait.DECIDES | Trait.STEPS):
            return {}
        took = tuple(self.keys[i] for i in self.proto.input if i in self.keys and i not in self.fixed)
        values = self.proto.output[0] if has(self.proto, Trait.VALUES_FIRST) else ""
        return {key: took for key in self.gives() if key != self.path + values}


def _inner(
    graph: onnx.GraphProto, path: str = "", around: Mapping[str, str] = MappingProxyType({}), known: Iterable[str] = ()
) -> Iterator[_Inner]:
    """Every node of a graph and of the bodies in it."""
    given = {value.name for value in graph.input}
    keys = {n: key for n, key in around.items() if n not in given}
    keys |= {n: path + n for node in graph.node for n in node.output if n}
    fixed = depends_on_shapes_alone(graph, set(known) - given - {n for n in keys if keys[n] == path + n})
    for node in graph.node:
        yield _Inner(node, path, keys, fixed)
        for body, below in subgraphs(node, path):
            yield from _inner(body, below, keys, fixed)


def _producers(nodes: Iterable[onnx.NodeProto]) -> dict[str, onnx.NodeProto]:
    return {name: node for node in nodes for name in node.output if name}


def _trail(
    name: str, scope: _Scope, bodies: Mapping[tuple[str, str], onnx.FunctionProto]
) -> Iterator[tuple[onnx.NodeProto, bool]]:
    """The nodes on the ways back from `name` to weighted layers; with each, whether what follows it keeps the range.

    The branches of an If and the bodies of local functions are walked as well, from the output in question.
    """
    todo, seen = [(name, True, scope)], set()
    while todo:
        value, direct, at = todo.pop()
        node = at.producer.get(value)
        if node is None or value in at.fixed or (value, direct, id(at)) in seen:
            continue
        seen.add((value, direct, id(at)))
        position = list(node.output).index(value)
        body = bodies.get((node.domain, node.op_type))
        if has(node, Trait.BRANCHES):
            branches = [a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
            whole = [g for g in branches if position < len(g.output)]
            todo += [(g.output[position].name, direct, at.inside(g)) for g in whole]
        elif body is not None and position < len(body.output):
            todo.append((body.output[position], direct, _Scope(_producers(body.node), set())))
        elif has(node, Trait.RECURRENT):
            yield node, direct
        elif not has(node, WEIGHTED):
            yield node, direct
            keeps = has(node, Trait.RANGE) and not has(node, Trait.DECIDES)
            todo += [(i, direct and keeps, at) for i in node.input if i]


def depends_on_shapes_alone(graph: onnx.GraphProto, known: Iterable[str] = ()) -> set[str]:
    """Values that depend on weights and shapes alone, such as the target of a Reshape: nothing to compare there."""
    fixed = {t.name for t in graph.initializer} | set(known)
    for node in graph.node:
        if has(node, Trait.SIZES) or (not has(node, Trait.BODIES) and all(i in fixed for i in node.input if i)):
            fixed.update(node.output)
    return fixed
