"""Recovery from the weights alone: a removed channel as a mix of those that stay.

Every rule here gives a matrix T, (removed, kept): removed ≈ T · kept, activation by activation.  It holds exactly where
the filters (with their biases) are such a mix with a single, positive weight and the activations are positively
homogeneous (Relu, LeakyRelu, PRelu with one slope, none); elsewhere it is an approximation.  The readers then take
`W_kept += W_removed · T`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.special import ndtr

from onnxprune.channels.dependencies import Dependencies, Group
from onnxprune.model.network import Network
from onnxprune.operators.registry import Trait, has
from onnxprune.operators.roles import Role
from onnxprune.surgery.recovery.layer_graph import LayerGraph
from onnxprune.surgery.recovery.loss_curves import Port, Seen, ports_of, repaired_bias
from onnxprune.surgery.recovery.solvable import Finder, Solvable, folded_norm, value_of

RECTIFIES = Trait.CLAMPS | Trait.HOMOGENEOUS  # both: max(0, x)
COPY = 1e-3  # relative distance up to which a filter is a scaled copy of another


@dataclass(frozen=True)
class Writer:
    """The filters with which one layer writes a group, BatchNormalization folded in.

    rows: (channels, features); bias, factor: (channels,), of the normalisation; index: rows among the layer's outputs.
    moments: mean and deviation of what it gives, where a BatchNormalization tells.
    """

    layer: Solvable
    rows: np.ndarray
    bias: np.ndarray
    factor: np.ndarray
    index: np.ndarray
    depthwise: bool
    moments: tuple[np.ndarray, np.ndarray] | None


def writers_of(finder: Finder, layers: Mapping[str, Solvable], group: Group) -> list[Writer] | None:
    """All layers that write a group; None where one of them is of another kind."""
    found = []
    for slot in group.writers:
        layer = layers.get(slot.source)
        weight = finder.network.tensor(slot.source) if layer is not None else None
        if layer is None or weight is None or layer.recurrent or slot.positions.shape[1] != 1:
            return None
        rows = layer.filters(weight).reshape(-1, layer.stays.shape[2])
        if len(rows) != weight.shape[slot.axis]:
            return None  # grouped and transposed: its positions repeat
        index = slot.positions[:, 0]
        bias = np.zeros(len(rows))
        if layer.bias is not None:
            own = value_of(finder.network, {}, layer.bias.key)
            bias = np.where(layer.bias.inside, layer.bias.gain, 1.0) * own.astype(np.float64).ravel()
        factor, moments = np.ones(len(rows)), None
        after = finder.network.follow(layer.y)
        if after is not None and has(finder.network.nodes[after], Trait.AFFINE):
            folded = folded_norm(finder.network, after)
            if folded is None:
                return None
            inside = bias if layer.bias is not None and layer.bias.inside else 0 * bias
            factor, bias = folded[0], folded[1] + folded[0] * inside
            names = finder.network.nodes[after].input[1:3]
            gamma, beta = (value_of(finder.network, {}, name).astype(np.float64)[index] for name in names)
            moments = beta, np.abs(gamma)
        effective = rows * factor[:, None]
        found.append(
            Writer(
                layer, effective[index], bias[index], factor[index], index, bool(slot.role & Role.DEPTHWISE), moments
            )
        )
    return found or None


def joined(writers: Sequence[Writer]) -> np.ndarray:
    """Filters with their biases as the last columns, (channels, features), without depthwise ones."""
    return np.concatenate([np.column_stack([w.rows, w.bias]) for w in writers if not w.depthwise], axis=1)


def merge(filters: np.ndarray, gone: np.ndarray, stay: np.ndarray) -> np.ndarray:
    """Each removed channel as a scaled copy of the most parallel kept one (Kim et al., NeurIPS 2020)."""
    length = np.maximum(np.linalg.norm(filters, axis=1), 1e-12)
    cosine = (filters[gone] @ filters[stay].T) / length[gone][:, None] / length[stay]
    best = cosine.argmax(axis=1)
    mix = np.zeros(cosine.shape)
    rows = np.arange(len(gone))
    mix[rows, best] = np.where(cosine[rows, best] > 0, length[gone] / length[stay][best], 0.0)
    return mix


def ridge(filters: np.ndarray, gone: np.ndarray, stay: np.ndarray, *, strength: float = 1e-2) -> np.ndarray:
    """Each removed filter as a ridge combination of all kept ones (arXiv 2502.08474), scaled copies as such.

    A strong ridge keeps large terms of opposite signs out, which cancel in the filters and not behind an activation.
    """
    kept = filters[stay]
    system = kept @ kept.T
    system[np.diag_indices_from(system)] += strength * max(float(np.trace(system)) / len(stay), 1e-12)
    mix = merge(filters, gone, stay)
    length = np.linalg.norm(filters[gone], axis=1)
    apart = np.linalg.norm(filters[gone] - mix @ kept, axis=1) > COPY * length
    mix[apart] = 0
    rest = filters[gone] - mix @ kept
    return mix + cho_solve(cho_factor(system, lower=True), kept @ rest.T).T


def nothing(filters: np.ndarray, gone: np.ndarray, stay: np.ndarray) -> np.ndarray:
    """No channel takes over: only the mean of what is lost does, where a BatchNormalization tells it."""
    return np.zeros((len(gone), len(stay)))


MIXES: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    "merge": merge,
    "fold": merge,
    "ridge": ridge,
    "mean": nothing,
}


def closed(
    original: Network, deps: Dependencies, kept: Mapping[str, np.ndarray], rule: str
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """New values of tensors by key, and why groups were left alone, by name."""
    network = LayerGraph(original, unpacked=True)
    finder = Finder(network, deps, deps.nothing)
    layers = {layer.weight: layer for layer in map(finder.layer, finder.solvable())}
    values: dict[str, np.ndarray] = {}
    alone: dict[str, str] = {}
    for group in deps.groups:
        stay = kept.get(group.name, np.arange(len(group)))
        gone = np.setdiff1d(np.arange(len(group)), stay)
        if not gone.size:
            continue
        writers = writers_of(finder, layers, group)
        if writers is None or all(w.depthwise for w in writers):
            alone[group.name] = "not all that writes it are layers with filters of their own"
            continue
        means = _means(network, writers)
        split = _Split(network, values, writers, gone, stay, MIXES[rule](joined(writers), gone, stay))
        if rule == "mean" and means is None:
            alone[group.name] = "no unfused BatchNormalization before a Relu tells the mean of its channels"
            continue
        for slot in group.readers:
            if slot.source not in layers:
                alone[deps.nodes[slot.node].label] = "its weights are shared, quantised or computed"
                continue
            for port in _ports(finder, group, slot, layers[slot.source], means):
                split.take_over(port, means is not None)
        if rule == "fold":
            split.fold()
    return values, alone


def _ports(finder: Finder, group: Group, slot, layer: Solvable, means: np.ndarray | None) -> list[Port]:  # type: ignore[no-untyped-def]
    parts, _, features = layer.stays.shape
    nothing = tuple(np.zeros(features) for _ in range(parts))
    out = []
    for port in ports_of(finder, group, slot, Seen(layer, nothing, nothing)):
        known = np.zeros(features)
        known[port.reader.features] = 0.0 if means is None else means[:, None]
        out.append(replace(port, reader=replace(port.reader, mean=known)))
    return out


def _means(network: LayerGraph, writers: Sequence[Writer]) -> np.ndarray | None:
    """Mean of each channel behind BatchNormalization and Relu, as if it were normal before: (channels,).

    E[max(0, X)] = μ Φ(μ/σ) + σ φ(μ/σ) for X ~ N(μ, σ²), with the β and γ of the normalisation.
    """
    if len(writers) != 1 or writers[0].moments is None:
        return None
    after = network.follow(writers[0].layer.y)
    assert after is not None
    then = [network.nodes[k] for k in network.consumers.get(network.nodes[after].output[0], ())]
    if len(then) != 1 or not has(then[0], RECTIFIES):
        return None
    mean, deviation = writers[0].moments
    ratio = mean / np.maximum(deviation, 1e-12)
    return mean * ndtr(ratio) + deviation * np.exp(-(ratio**2) / 2) / np.sqrt(2 * np.pi)


@dataclass(frozen=True)
class _Split:
    """A group of which some channels go.

    values: new tensors by key; it grows.
    gone, stay: channels; mix: (gone, stay), what stands for those that go.
    """

    network: LayerGraph
    values: dict[str, np.ndarray]
    writers: Sequence[Writer]
    gone: np.ndarray
    stay: np.ndarray
    mix: np.ndarray

    @cached_property
    def carried(self) -> np.ndarray:
        """The mix behind depthwise layers: each entry times the ratio of the two depthwise filters."""
        mix = self.mix
        for w in self.writers:
            if w.depthwise:
                energy = np.maximum((w.rows[self.stay] ** 2).sum(axis=1), 1e-12)
                mix = mix * ((w.rows[self.gone] @ w.rows[self.stay].T) / energy)
        return mix

    def take_over(self, port: Port, shift: bool) -> None:
        """Let a reader take the removed channels' work from the kept ones, and, to `shift`, the lost mean as a bias."""
        layer, f = port.layer, port.reader.features
        old = value_of(self.network, self.values, layer.weight)
        filters = layer.filters(old)
        before = filters[port.part].copy()
        after = before.copy()
        after[:, f[self.stay]] += np.einsum("opf,pk->okf", before[:, f[self.gone]], self.carried)
        after[:, f[self.gone]] = 0
        filters[port.part] = after
        new = {layer.weight: layer.stored(filters, old)}
        if shift and layer.bias is not None:
            moved = (before - after) @ port.reader.mean
            new[layer.bias.key] = repaired_bias(self.network, self.values, layer, port.part, moved)
        self.values.update(new)

    def fold(self) -> None:
        """Kept filters become the mean of their cluster, each member scaled to the size of the kept one.

        (Wang et al., ICLR 2025, arXiv 2502.10216, here on scaled filters.)
        """
        owner, scale, stay = self.mix.argmax(axis=1), self.mix.max(axis=1), self.stay
        member = scale > 0
        owner, scale, gone = owner[member], scale[member][:, None], self.gone[member]
        filters = joined(self.writers)
        alike = (filters[gone] * filters[stay][owner]).sum(axis=1)
        alike /= np.maximum(np.linalg.norm(filters[gone], axis=1) * np.linalg.norm(filters[stay][owner], axis=1), 1e-12)
        share = (alike**4)[:, None]  # what is hardly alike would spoil the mean
        for w in self.writers:
            if w.depthwise:
                continue
            each = np.column_stack([w.rows, w.bias])
            total, weight = each[stay].copy(), np.ones((len(stay), 1))
            np.add.at(total, owner, share * each[gone] / scale)
            np.add.at(weight, owner, share)
            mean = total / weight
            before, after = (np.linalg.norm(f[:, :-1], axis=1, keepdims=True) for f in (each[stay], mean))
            self._write(w, mean * before / np.maximum(after, 1e-12))  # averaging shrinks filters

    def _write(self, w: Writer, new: np.ndarray) -> None:
        """Give a writer these filters, with their biases, for the channels that stay."""
        layer, stay = w.layer, self.stay
        old = value_of(self.network, self.values, layer.weight)
        filters = layer.filters(old)
        rows = filters.reshape(-1, filters.shape[2])
        change = new[:, :-1] - w.rows[stay]
        factor = np.where(np.abs(w.factor[stay]) > 1e-12, w.factor[stay], np.inf)
        rows[w.index[stay]] += change / factor[:, None]
        self.values[layer.weight] = layer.stored(filters, old)
        if layer.bias is not None:
            bias = value_of(self.network, self.values, layer.bias.key)
            flat = bias.astype(np.float64).ravel().copy()
            moved = new[:, -1] - w.bias[stay]
            unit = factor * layer.bias.gain[w.index[stay]]
            flat[w.index[stay]] += np.divide(moved, unit, out=np.zeros_like(moved), where=unit != 0)
            self.values[layer.bias.key] = flat.reshape(bias.shape).astype(bias.dtype)
