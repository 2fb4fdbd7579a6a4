"""Where to look besides the outputs: before operators that saturate or decide, a difference still shows.

A Softmax that is sure of itself gives the same numbers for very different logits, an ArgMax even more so.
The values that such operators take, between the last weighted layer and the outputs, are compared as well.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import onnx

from onnxprune.operators.registry import Trait, has, traits_of

BOUNDED = Trait.SATURATES | Trait.RECURRENT  # gates saturate, and states add up what they give
WEIGHTED = Trait.LAYER | Trait.BODIES  # they end the way back: what lies before is not judged through outputs' nodes


@dataclass(frozen=True)
class Taps:
    """Inner values to compare, and what is to be expected of the outputs.

    `bounded`: outputs (and taps) that a saturating operator has squeezed into about ±1; `decided`: those that
    an operator has rounded or chosen; `quantized`: the graph rounds inner values to integers. `decisions` are all
    values at the top of the graph that an operator has rounded or chosen, with the values that it took for that;
    `layers` are those that weighted layers give; `fixed` outputs depend on no input. `before` names the taps of each
    output.
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
    names = {tap for taps in before.values() for tap in taps}
    trails = {name: list(_trail(name, scope, bodies)) for name in [*outputs, *names]}
    return Taps(
        tuple(n for node in graph.node for n in node.output if n in names),
        frozenset(n for n, trail in trails.items() if any(d and has(node, BOUNDED) for node, d in trail)),
        frozenset(n for n, trail in trails.items() if any(has(node, Trait.DECIDES) for node, _ in trail)),
        any(has(node, Trait.QUANTIZES) for node in graph.node),
        _decisions(graph, scope),
        tuple(n for node in graph.node if has(node, WEIGHTED) for n in node.output if n and n not in scope.fixed),
        frozenset(outputs & scope.fixed),
        {name: tuple(taps) for name, taps in before.items()},
    )


def _decisions(graph: onnx.GraphProto, scope: _Scope) -> dict[str, tuple[str, ...]]:
    """What operators at the top of a graph have rounded or chosen, and what they took that depends on its inputs."""
    found: dict[str, tuple[str, ...]] = {}
    for node in graph.node:
        if has(node, Trait.DECIDES | Trait.STEPS):
            took = tuple(i for i in node.input if i in scope.producer and i not in scope.fixed)
            chosen = node.output[1:] if has(node, Trait.VALUES_FIRST) else node.output
            found |= {name: took for name in chosen if name and name not in scope.fixed}
    return found


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
        if node.op_type == "If":
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
