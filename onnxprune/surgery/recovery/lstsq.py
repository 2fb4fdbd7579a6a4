"""Layer after layer, the weights that stay are solved for what the original network gave."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx

from onnxprune.channels.dependencies import Dependencies
from onnxprune.model.graphs import subgraphs
from onnxprune.model.network import Network
from onnxprune.progress import Progress, silent
from onnxprune.surgery.recovery.couples import Couples, couples
from onnxprune.surgery.recovery.layer_graph import LayerGraph, changed_nodes
from onnxprune.surgery.recovery.runner import Feeds, Runner, activations, within
from onnxprune.surgery.recovery.solvable import Finder, Solvable, has_weights, label_of
from onnxprune.surgery.recovery.solve import Goal, fit, rows_for
from onnxprune.surgery.recovery.stored import encoded
from onnxprune.surgery.recovery.under_way import HOLD, Lstsq, UnderWay
from onnxprune.surgery.recovery.wanted import Path
from onnxprune.surgery.rewrite import masked
from onnxprune.surgery.thaw import beside


@dataclass
class Work(UnderWay):
    """Solving one layer after the other."""

    intact: Collection[int] = ()  # nodes whose inputs are what they were
    couples: Couples = field(init=False)

    def step(self, layer: Solvable) -> None:
        """Solve for one layer."""
        path = Path(layer.x) if layer.recurrent else self.walker(layer).path(layer.y)
        self.hold(layer, path, (self.pruned, layer.x))
        given, wanted = self.pruned.value(layer.x), self.original.value(path.end)
        rows = slice(-1) if layer.linear.axis == -1 or layer.recurrent else slice(1)
        if all(x.shape[rows] == end.shape[rows] for x, end in zip(given, wanted, strict=True)):
            self._solve(layer, path)
        else:
            self.alone[layer.label] = "what the cut network picks before it are others, and more or fewer"
        self.unsolved.discard(layer.node)
        self.release(layer)

    def _solve(self, layer: Solvable, path: Path) -> None:
        weight, filters = self.array(layer.weight), self.filters(layer)
        base = self.bias(layer, filters.shape[0] * filters.shape[1])
        intact = layer.node in self.intact
        alone = (filters, base) if intact else self._fitted(layer, path, filters, base)
        filters, bias = self.couples.refined(layer, path, *alone)
        if not intact or filters is not alone[0]:
            self._store(layer, filters, weight, bias, base)

    def _fitted(
        self, layer: Solvable, path: Path, filters: np.ndarray, base: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Filters and biases that come nearest to what the original gives at the end of the path."""
        lm = layer.stays
        outs = lm.any(axis=2).ravel() & (np.abs(self.gauge(layer, path)) > 1e-9)
        columns, goal, held = self._samples(layer, path, lm, outs)
        filters, bias = filters.copy(), base.copy()
        groups, per = filters.shape[:2]
        picked = np.cumsum(outs) - 1
        live = [g for g in range(groups) if lm[g].any()]
        for at, g in enumerate(live):
            rows = np.flatnonzero(outs[g * per : (g + 1) * per])
            if not rows.size:
                continue
            some = picked[g * per + rows]
            feats = np.flatnonzero(lm[g, rows[0]])
            solved, shift = fit(
                columns[at], goal.at(some), filters[g][np.ix_(rows, feats)], base[g * per + rows],
                ridge=self.options.ridge, rounds=self.options.rounds, intercept=layer.bias is not None, held=held,
            )  # fmt: skip
            filters[g][np.ix_(rows, feats)] = solved
            bias[g * per + rows] = shift
        return filters, bias

    def _samples(
        self, layer: Solvable, path: Path, lm: np.ndarray, outs: np.ndarray
    ) -> tuple[list[np.ndarray], Goal, int]:
        """Columns of each living group, and the goal, over sampled rows of all batches; how many are held out, last."""
        x, end = self.pruned.value(layer.x), self.wanted(layer, path)
        linear, rng = layer.linear, np.random.default_rng(self.options.seed)
        live = [g for g in range(lm.shape[0]) if lm[g].any()]
        feats = [np.flatnonzero(lm[g].any(axis=0)) for g in live]
        width = 4 * (max(lm.shape[2], 1) * len(lm) + 4 * int(outs.sum()))
        total = sum(linear.positions(e.shape) for e in end)
        share = min(1.0, self.options.budget / width / total, rows_for(lm.shape[2]) / total)
        columns: list[list[np.ndarray]] = [[] for _ in live]
        wanted, offsets, held = [], [], 0
        for b in sorted(range(len(end)), key=self.held.__contains__):
            value, count = end[b], linear.positions(end[b].shape)
            rows = np.arange(count)
            if share < 1:
                rows = np.sort(rng.choice(count, max(1, round(count * share)), replace=False))
            found = linear.columns(x[b], value.shape, rows)
            for c, g, f in zip(columns, live, feats, strict=True):
                c.append(found[g] if f.size == found.shape[1] else found[g][f])
            wanted.append(linear.outputs(value, rows)[outs])
            offsets.append(self.offset(layer, path, b, value.shape, rows, outs))
            held += rows.size * (b in self.held)
        goal = self.goal(layer, path, outs, wanted, offsets)
        return [np.concatenate(c, axis=1) for c in columns], goal, held or goal.least.shape[1] // HOLD

    def _store(
        self, layer: Solvable, filters: np.ndarray, weight: np.ndarray, bias: np.ndarray, base: np.ndarray
    ) -> None:
        new = np.ascontiguousarray(layer.linear.from_matrix(filters, weight.shape)) * layer.live
        self._put(layer.weight, layer.node, 1, new.astype(weight.dtype))
        if layer.bias is not None:
            old, gain = self.array(layer.bias.key), layer.bias.gain
            change = np.zeros(old.size)
            change[layer.bias.at] = np.divide(bias - base, gain, out=np.zeros_like(base), where=gain != 0)
            new_bias = (old + change.reshape(old.shape)).astype(old.dtype)
            self._put(layer.bias.key, layer.bias.node, layer.bias.place, new_bias)

    def _put(self, key: str, node: int, place: int, array: np.ndarray) -> None:
        """Take over new numbers; the pruned network goes on with them as the file will hold them."""
        self.values[key] = array
        if self.finder.use(node, place) is not None and key not in self.finder.network.scaled:
            self.pruned.replaced[self.pruned.network.nodes[node].input[place]] = array
            return
        both = {k: v for k, v in self.values.items() if k in self._together(node)}
        self.pruned.replaced |= encoded(self.finder.network, both)

    def _together(self, node: int) -> set[str]:
        """Keys of the weight and of the bias of a layer, whose scales hang together."""
        found = [
            self.finder.stored(node, place) for place in (1, 2) if place < len(self.finder.network.nodes[node].input)
        ]
        return {f[0].source for f in found if f is not None}


@np.errstate(over="ignore", invalid="ignore")  # what is no number is told of where it decides something
def lstsq(
    whole: Network,
    deps: Dependencies,
    kept: Mapping[str, np.ndarray],
    feeds: Feeds,
    options: Lstsq,
    progress: Progress = silent,
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """New values of tensors by key, in the layout of the model, and why layers were left alone, by label."""
    dead = deps.dead(kept)
    network, small = LayerGraph(beside(whole, deps, dead), unpacked=True), LayerGraph(masked(whole, deps, dead))
    changed = changed_nodes(network, deps, dead)
    finder = Finder(network, deps, dead)
    layers, inside = [], inner_layers(network.nodes[k] for k in sorted(changed))
    alone = {name: f"layers in a body are not solved for ({first})" for name, first in inside.items()}
    values = {n for k in changed for n in network.nodes[k].output}
    intact = {k for k in changed if not values & set(network.inputs[k])}  # they lose outputs alone
    for k in sorted(k for k in changed if has_weights(network.nodes[k])):
        if (reason := finder.obstacle(k)) is None:
            layers.append(finder.layer(k))
        elif k not in intact:
            alone[label_of(network.nodes[k])] = reason
    seconds = couples(finder, layers)
    layers = [layer for layer in layers if layer.node in seconds or layer.node not in intact]
    feeds = within(feeds, activations(deps), options.memory)
    original = Runner(network, feeds)
    pruned = Runner(small, feeds, original, changed)
    work = Work(finder, original, pruned, options, {}, {layer.node for layer in layers}, intact=intact)
    work.couples = Couples(work, seconds)
    for k, layer in enumerate(layers):
        progress(f"solving for {layer.weight}", k, len(layers))
        work.step(layer)
    return work.values, alone | work.alone


def inner_layers(nodes: Iterable[onnx.NodeProto]) -> dict[str, str]:
    """The first layer with weights in the bodies of each node that has some there, by the labels of both."""
    return {label_of(node): found[0] for node in nodes if (found := _inside(node))}


def _inside(node: onnx.NodeProto) -> list[str]:
    below = [inner for body, _ in subgraphs(node) for inner in body.node]
    return [name for n in below for name in ([label_of(n)] if has_weights(n) else _inside(n))]
