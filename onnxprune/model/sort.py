"""Names and order of the nodes: every value has one producer, and comes after what it is computed from."""

import heapq
from collections import Counter
from collections.abc import Iterable, Sequence

from onnx import GraphProto, ModelProto, NodeProto

from onnxprune.errors import ModelError
from onnxprune.model.graphs import DEFAULT
from onnxprune.model.tensors import bodies, plain, quoted

SHOWN = 5  # nodes of a cycle that a message names


def describe(node: NodeProto) -> str:
    """A node as a message names it: by its output where it has no name."""
    name = node.name or next((o for o in node.output if o), "")
    return f"{quoted(name)} ({plain(node.op_type)})"


def put_in_order(model: ModelProto) -> list[str]:
    """Sort the nodes of a graph and of its bodies topologically, and drop initializers that are there twice.

    The sort is stable: nodes that stand in order stay where they are.

    Args:
        model: changed, where it was out of order.

    Returns:
        What was changed, for the user.

    Raises:
        ModelError: a name has two producers or none, or nodes wait for each other.
    """
    return _put_in_order(model.graph, frozenset())


def _put_in_order(graph: GraphProto, outer: frozenset[str]) -> list[str]:
    changed = _drop_duplicates(graph)
    _check_producers(graph)
    visible = outer | defined(graph)
    reads = [sorted(node_reads(node)) for node in graph.node]
    _check_consumers(graph, reads, visible)
    order = _order(graph.node, reads)
    if order != list(range(len(order))):
        moved = next(i for i, place in enumerate(order) if i != place)
        rank = iter([place for place, _ in sorted(enumerate(order), key=lambda pair: pair[1])])
        changed.append(f"nodes stood out of order, first at {describe(graph.node[moved])}: sorted")
        graph.node.sort(key=lambda _: next(rank))
    for node in graph.node:
        for body in bodies(node):
            changed += _put_in_order(body, visible)
    return changed


def defined(graph: GraphProto) -> frozenset[str]:
    """Names that a graph defines itself: inputs, initializers and outputs of its nodes."""
    outputs = (name for node in graph.node for name in node.output if name)
    return frozenset((*_given(graph), *outputs))


def _given(graph: GraphProto) -> list[str]:
    """Names that need no node; a weight that is also an input, as before IR version 4, is one name."""
    names = {v.name for v in graph.input} | {t.name for t in graph.initializer}
    return sorted(names | {s.values.name for s in graph.sparse_initializer})


def node_reads(node: NodeProto) -> set[str]:
    """Values that a node needs, those that its bodies capture included."""
    return {name for name in node.input if name}.union(*(captured(body) for body in bodies(node)))


def captured(graph: GraphProto) -> set[str]:
    """Names that a body takes from the graphs around it."""
    read = {v.name for v in graph.output}.union(*(node_reads(node) for node in graph.node))
    return read - defined(graph)


def _drop_duplicates(graph: GraphProto) -> list[str]:
    """Remove an initializer that repeats an earlier one; two different ones under one name cannot be told apart."""
    counts = Counter(t.name for t in graph.initializer)
    repeated = {name for name, count in counts.items() if count > 1}
    first: dict[str, bytes] = {}
    for i in [i for i, t in enumerate(graph.initializer) if t.name in repeated]:
        tensor = graph.initializer[i]
        data = tensor.SerializeToString(deterministic=True)
        if first.setdefault(tensor.name, data) != data:
            raise ModelError(f"two different initializers are named {quoted(tensor.name)}")
    for i in reversed(range(len(graph.initializer))):
        name = graph.initializer[i].name
        if counts[name] > 1:
            counts[name] -= 1
            del graph.initializer[i]
    return [f"initializer {quoted(name)} was there more than once: repetitions dropped" for name in sorted(repeated)]


def _check_producers(graph: GraphProto) -> None:
    inputs = Counter(v.name for v in graph.input)
    if twice := [name for name, count in inputs.items() if count > 1]:
        raise ModelError(f"two inputs are named {quoted(twice[0])}")
    producer = dict.fromkeys(_given(graph), "an input or initializer")
    for node in graph.node:
        if not node.output and node.domain in DEFAULT:
            raise ModelError(f"node {describe(node)} has no outputs, so it computes nothing; export the model again")
        for name in filter(None, node.output):
            if name in producer:
                raise ModelError(f"value {quoted(name)} has two producers: {producer[name]} and {describe(node)}")
            producer[name] = describe(node)


def _check_consumers(graph: GraphProto, reads: Sequence[Iterable[str]], visible: frozenset[str]) -> None:
    for node, names in zip(graph.node, reads, strict=True):
        if missing := [name for name in names if name not in visible]:
            raise ModelError(f"node {describe(node)} reads {quoted(missing[0])}, which nothing produces")
    for output in graph.output:
        if output.name not in visible:
            raise ModelError(f"graph output {quoted(output.name)} is produced by nothing")


def _order(nodes: Sequence[NodeProto], reads: Sequence[Iterable[str]]) -> list[int]:
    """Places of the nodes in topological order, the earliest possible first."""
    producer = {name: i for i, node in enumerate(nodes) for name in node.output if name}
    needs = [{producer[name] for name in names if name in producer} for names in reads]
    waiting = [len(n) for n in needs]
    followers: list[list[int]] = [[] for _ in nodes]
    for i, before in enumerate(needs):
        for j in before:
            followers[j].append(i)
    ready = [i for i, count in enumerate(waiting) if not count]
    order: list[int] = []
    while ready:
        order.append(i := heapq.heappop(ready))
        for j in followers[i]:
            waiting[j] -= 1
            if not waiting[j]:
                heapq.heappush(ready, j)
    if len(order) < len(waiting):
        raise ModelError(f"nodes wait for each other in a cycle: {_cycle(nodes, needs, set(order))}")
    return order


def _cycle(nodes: Sequence[NodeProto], needs: Sequence[set[int]], done: set[int]) -> str:
    """One cycle among the nodes that could not be ordered, in the direction of the data."""
    path: list[int] = []
    at = next(i for i in range(len(nodes)) if i not in done)
    while at not in path:
        path.append(at)
        at = min(needs[at] - done)
    cycle = path[path.index(at) :][::-1]
    start = cycle.index(min(cycle))
    cycle = cycle[start:] + cycle[:start]
    shown = [describe(nodes[i]) for i in cycle[:SHOWN]]
    return " → ".join(shown + (["…"] if len(cycle) > SHOWN else []) + shown[:1])
