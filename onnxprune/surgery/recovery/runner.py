"""Run a network piece by piece over a few samples: every node once, and only what is still needed is held."""

import math
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import onnx
from onnx import helper

from onnxprune.channels.dependencies import Dependencies
from onnxprune.model.network import Network
from onnxprune.runtime.session import make_session
from onnxprune.runtime.specs import model_inputs
from onnxprune.runtime.trim import give_back
from onnxprune.surgery.recovery.layer_graph import LayerGraph

Batches = list[np.ndarray]
Feeds = Sequence[Mapping[str, np.ndarray]]

THREADS = 2  # of onnxruntime, on every machine: its sums depend on them, and the output file on its sums
MEMORY = 15 << 27  # bytes of activations that the two networks may hold together
LARGE = 1 << 28  # bytes of values from which on the C library is not to keep what is freed of them
AT_ONCE = 6  # values of the largest size that are held at the same time: three in either network


def activations(deps: Dependencies) -> dict[str, tuple[int, ...]]:
    """Shapes of the values that pass through a network, for the samples that it was analysed with; weights do not."""
    return {name: shape for name, shape in deps.statics.shapes.items() if name not in deps.sources}


def analysed_with(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """How many samples the shapes of a network are those of."""
    return max([shapes[s.name][0] for s in model_inputs(model) if shapes.get(s.name)] or [1])


def within(feeds: Feeds, shapes: Mapping[str, tuple[int, ...]], memory: int = MEMORY) -> Feeds:
    """As many of the first feeds as keep the held activations below `memory` bytes, at least one.

    Args:
        shapes: `activations` of the network, for whatever number of samples it was analysed with.
    """
    inputs = {n: a for n, a in feeds[0].items() if n in shapes and a.ndim and len(shapes[n])}
    most = affordable(shapes, max([int(shapes[n][0]) for n in inputs] or [1]), inputs, memory)
    samples = [max([len(f[n]) for n in inputs] or [1]) for f in feeds]
    return list(feeds[: max(1, int((np.cumsum(samples) <= most).sum()))])


def affordable(
    shapes: Mapping[str, tuple[int, ...]], unit: int, inputs: Iterable[str] = (), memory: int = MEMORY
) -> int:
    """For how many samples the activations that are held at once, and the samples, stay below `memory` bytes.

    Args:
        shapes: `activations`, for `unit` samples.
        inputs: those of them that are the samples.
    """
    largest = max([math.prod(s) for s in shapes.values()] or [1])
    given = sum(math.prod(shapes[name]) for name in inputs if name in shapes)
    return int(memory * max(unit, 1) / ((largest * AT_ONCE + given) * 4))


def elements(deps: Dependencies) -> int:
    """Of all values together that pass through a network, for the samples that it was analysed with."""
    return sum(map(math.prod, activations(deps).values()))


class Runner:
    """A network under way: its values for each batch of samples, as far as nodes to come need them.

    A runner with a `lender` runs only its `own` nodes and takes all other values from the lender, which runs the
    same graph with other weights.
    """

    def __init__(
        self,
        network: LayerGraph,
        feeds: Feeds,
        lender: "Runner | None" = None,
        own: frozenset[int] = frozenset(),
    ) -> None:
        self.network, self.lender = network, lender
        self.own = own if lender else frozenset(range(len(network.nodes)))
        self.batches = len(feeds)
        self.held: dict[str, Batches] = {} if lender else {name: [f[name] for f in feeds] for name in feeds[0]}
        self.replaced: dict[str, np.ndarray] = {}
        self.pinned: dict[str, int] = {}
        self.done: set[int] = set()
        self.borrowers: list[Runner] = []
        self.peak = 0
        if lender:
            lender.borrowers.append(self)

    def get(self, name: str) -> Batches:
        """A value for all batches; the nodes that it needs are run first."""
        foreign = self.network.needs([name], self.done | (set(range(len(self.network.nodes))) - self.own))
        nodes = sorted(foreign)
        leaves = {n for k in nodes for n in self.network.inputs[k]} | {name}
        if self.lender:
            for leaf in sorted(n for n in leaves if self.borrows(n)):
                self.lender.get(leaf)
        if nodes:
            self._run(nodes, name)
        return self.value(name)

    def borrows(self, name: str) -> bool:
        """Whether the value is the lender's."""
        k = self.network.maker.get(name)
        return self.lender is not None and not self.network.is_constant(name) and (k is None or k not in self.own)

    def value(self, name: str) -> Batches:
        return self.lender.value(name) if self.lender and self.borrows(name) else self.held[name]

    def _owner(self, name: str) -> "Runner":
        return self.lender if self.lender and self.borrows(name) else self

    def pin(self, name: str) -> None:
        """Hold a value until it is unpinned as often."""
        owner = self._owner(name)
        owner.pinned[name] = owner.pinned.get(name, 0) + 1

    def unpin(self, name: str) -> None:
        owner = self._owner(name)
        owner.pinned[name] -= 1
        owner.sweep()

    def sweep(self, asked: str = "") -> None:
        """Let go of values that nobody needs any more."""
        idle = [n for n in self.held if n != asked and not self._wanted(n)]
        for name in idle:
            del self.held[name]
        if idle and self.peak > LARGE:
            give_back()

    def _wanted(self, name: str) -> bool:
        if self.pinned.get(name):
            return True
        if any(k in self.own and k not in self.done for k in self.network.consumers.get(name, ())):
            return True
        return any(b.borrows(name) and b._wanted(name) for b in self.borrowers)

    def _run(self, nodes: list[int], asked: str) -> None:
        network = self.network
        made = {n for k in nodes for n in network.nodes[k].output if n}
        self.done.update(nodes)
        keep = sorted(n for n in made if n == asked or self._wanted(n))
        entering = {n for k in nodes for n in network.inputs[k] if n not in made and n not in self.replaced}
        values = {n: self.value(n) for n in sorted(entering) if not network.is_constant(n)}
        part = piece(network, nodes, values, keep, self.replaced)
        session = make_session(part, providers="cpu", threads=THREADS, optimize=True, arena=False)
        out: dict[str, Batches] = {n: [] for n in keep}
        spent = [v for n, v in values.items() if n != asked and not self._owner(n)._wanted(n)]
        for b in range(self.batches):
            for name, array in session.run({n: v[b] for n, v in values.items()}).items():
                out[name].append(array)
            for batches in spent:  # for the last time, so that what goes in does not stand beside what comes out
                batches[b] = np.empty(0)
        self.held.update(out)
        self.peak = max(self.peak, sum(a.nbytes for batches in self.held.values() for a in batches))
        self.sweep(asked)
        if self.lender:
            self.lender.sweep()


def piece(
    network: LayerGraph,
    nodes: Iterable[int],
    values: Mapping[str, Batches],
    keep: Sequence[str],
    replaced: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> Network:
    """A model of these nodes and the constants that they take.

    Args:
        values: what comes in, by name, batch by batch.
        keep: its outputs.
        replaced: constants that have other values than in the network.
    """
    chosen, others, fixed = set(nodes), dict[str, np.ndarray](), set[str]()
    todo = [n for k in chosen for n in network.inputs[k]]
    while todo:
        name = todo.pop()
        if name in replaced:
            others[name] = replaced[name]
        elif (k := network.maker.get(name)) is None:
            fixed |= {name} - values.keys()
        elif k in network.constant and k not in chosen:
            chosen.add(k)
            todo += network.inputs[k]
    model = onnx.ModelProto(ir_version=max(network.model.ir_version, 4))
    model.graph.name = "piece"
    model.graph.node.extend(network.nodes[k] for k in sorted(chosen))
    model.graph.initializer.extend(t for name, t in network.tensors.items() if name in fixed)
    model.graph.sparse_initializer.extend(t for name, t in network.sparse.items() if name in fixed)
    for name, arrays in values.items():
        element = helper.np_dtype_to_tensor_dtype(arrays[0].dtype)
        model.graph.input.append(helper.make_tensor_value_info(name, element, None))
    model.graph.output.extend(onnx.ValueInfoProto(name=n) for n in keep)
    model.opset_import.extend(network.model.opset_import)
    model.functions.extend(network.model.functions)
    return Network(model, network.source.tensors).with_more(others)
