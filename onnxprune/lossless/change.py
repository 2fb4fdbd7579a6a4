"""Weights with which a network does without some channels: constants in biases, multiples in the weights of others."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from onnxprune.channels.dependencies import Dependencies
from onnxprune.lossless.conditions import Conditions, zero_point
from onnxprune.lossless.readings import ReaderWeights, bias_of, changeable, grid_of
from onnxprune.operators.labels import is_fixed
from onnxprune.operators.roles import WEIGHS
from onnxprune.surgery.recovery.solvable import Bias, Finder
from onnxprune.surgery.versions import masked_array


@dataclass(frozen=True)
class Leaving:
    """Components that go, (components,) bool: by themselves, or each for one that stays (its index there, else -1)."""

    plain: np.ndarray
    stands_in: np.ndarray

    @property
    def all(self) -> np.ndarray:
        return self.plain | (self.stands_in >= 0)


def shifts(conditions: Conditions, leaving: Leaving) -> dict[int, np.ndarray]:
    """By node, what has to be added to the outputs of a layer for constants that go, (outputs,)."""
    found = {}
    for reading in conditions.readings:
        gone = leaving.plain[conditions.deps.component[reading.labels]] & reading.constants & ~reading.unweighed
        levels = np.where(gone, reading.facts.low, 0.0)
        if levels.any():
            levels = levels.reshape(len(reading.weights), -1)
            found[reading.node] = np.einsum("goit,gi->go", reading.weights, levels, optimize=True).ravel()
    return found


def _finder(conditions: Conditions) -> Finder:
    return Finder(conditions.knowledge.network, conditions.deps, conditions.deps.nothing)


def _bias(conditions: Conditions, finder: Finder, k: int) -> Bias | None:
    weights = conditions.knowledge.array(finder.network.nodes[k].input[1])
    assert weights is not None
    return bias_of(finder, k, weights)


def changed(conditions: Conditions, leaving: Leaving) -> dict[str, np.ndarray]:
    """New values of tensors by key, in the layout of the whole network; what goes is zero where it reads and writes."""
    values: dict[str, np.ndarray] = {}
    finder, network = _finder(conditions), conditions.knowledge.network
    for k, moved in shifts(conditions, leaving).items():
        bias = _bias(conditions, finder, k)
        assert bias is not None
        old = values[bias.key] if bias.key in values else network.tensor(bias.key)
        assert old is not None
        added = np.zeros(old.size)
        added[bias.at] = np.divide(moved, bias.gain, out=np.zeros_like(moved), where=bias.gain != 0)
        values[bias.key] = (old.astype(np.float64) + added.reshape(old.shape)).astype(old.dtype)
    for reading in conditions.readings:
        if reading.merges:
            _merge(conditions, leaving, reading, values)
    _erase(conditions, leaving.all, values)
    return values


def _merge(conditions: Conditions, leaving: Leaving, reading: ReaderWeights, values: dict[str, np.ndarray]) -> None:
    """Add the weights of channels that go to those of the channels that they are multiples of."""
    parts = conditions.deps.component[reading.labels]
    targets = np.where(reading.unweighed, -1, leaving.stands_in[parts])
    if not (targets >= 0).any():
        return
    knowledge, node = conditions.knowledge, conditions.knowledge.network.nodes[reading.node]
    name, key = node.input[reading.place], changeable(knowledge, _finder(conditions), reading.node, reading.place)
    assert key is not None
    source = values.get(key, knowledge.array(key))
    assert source is not None
    order = None if knowledge.network.tensor(name) is not None else knowledge.order(name)
    new = source.copy() if order is None else source.ravel()[order]
    grid = grid_of(node, new)
    assert grid is not None
    inputs = grid.shape[2]
    places = {int(c): np.flatnonzero(parts == c) for c in np.unique([parts[targets >= 0], targets[targets >= 0]])}
    for at in np.flatnonzero(targets >= 0):
        turn = np.searchsorted(places[int(parts[at])], at)
        to = int(places[int(targets[at])][turn])
        ratio = reading.facts.scale[at] / reading.facts.scale[to]
        grid[to // inputs, :, to % inputs] += (ratio * grid[at // inputs, :, at % inputs]).astype(new.dtype)
    if order is None:
        values[key] = new
        return
    values[key] = source.copy()
    values[key].ravel()[order.ravel()] = new.ravel()


def _erase(conditions: Conditions, gone: np.ndarray, values: dict[str, np.ndarray]) -> None:
    """Zeros where what goes reads and writes, so that what only it needed is seen to be idle next."""
    deps, network = conditions.deps, conditions.knowledge.network
    for key, uses in deps.uses_of.items():
        source = deps.sources[key]
        masks = [[_dead(deps, labels, gone) for labels in use.axes] for use in uses]
        if source.kind == "fill" or not any(m.any() for m in masks[0]):
            continue
        if any(not np.array_equal(a, b) for other in masks[1:] for a, b in zip(masks[0], other, strict=True)):
            continue  # another place takes what goes here
        array = values.get(key, network.tensor(key))
        if array is not None:
            values[key] = masked_array(array, tuple(~m for m in masks[0]), zero_point(conditions.knowledge, uses[0]))


def _dead(deps: Dependencies, labels: np.ndarray, gone: np.ndarray) -> np.ndarray:
    """Positions that read or write what goes, (positions,) bool."""
    if is_fixed(labels):
        return np.zeros(labels.size, bool)
    return gone[deps.component[labels]] & ((deps.roles[labels] & WEIGHS) != 0)


def missing_biases(conditions: Conditions, nodes: Iterable[int]) -> dict[str, np.ndarray]:
    """A bias for each of these layers that has none of its own: zeros, or a copy of the one that it shares.

    By the key of the layer's output.
    """
    knowledge, finder = conditions.knowledge, _finder(conditions)
    found = dict[str, np.ndarray]()
    for k in nodes:
        if _bias(conditions, finder, k) is not None:
            continue
        node = knowledge.network.nodes[k]
        weights = knowledge.array(node.input[1])
        assert weights is not None
        shared = knowledge.network.tensor(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        outputs = next(r.weights.shape[0] * r.weights.shape[1] for r in conditions.readings if r.node == k)
        found[node.output[0]] = np.zeros(outputs, weights.dtype) if shared is None else shared
    return found
