"""What it costs to remove channels of each group: the base of choice and allocation.

Where layers that read a group can be solved again, that is what is left of the error then; elsewhere the error of the
cut alone.  Both are drift of the network's outputs, so that the groups compare.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxprune.channels.dependencies import Dependencies, Group, Slot
from onnxprune.errors import ModelError
from onnxprune.model.network import Network
from onnxprune.operators.labels import line
from onnxprune.operators.registry import Trait, has
from onnxprune.operators.roles import Role
from onnxprune.progress import Progress, silent
from onnxprune.surgery.recovery.couples import couples
from onnxprune.surgery.recovery.drift import Drift
from onnxprune.surgery.recovery.eliminate import Order, Reader, elimination, solved
from onnxprune.surgery.recovery.layer_graph import LayerGraph, changed_nodes
from onnxprune.surgery.recovery.runner import Feeds, Runner, activations, analysed_with, elements, within
from onnxprune.surgery.recovery.solvable import Finder, Solvable, value_of
from onnxprune.surgery.recovery.solve import NOT_FINITE, product, rows_for
from onnxprune.surgery.recovery.stored import encoded
from onnxprune.surgery.rewrite import masked

WIDEST = 1200  # features of a reader up to which all their covariances are used
ELEMENT = 60  # multiply-accumulates that take as long as one element that is passed on
PROBES = (0.25, 0.5)  # shares of a group that trial runs leave out
TOGETHER = 0.5  # of a loss that is left where the layer which writes the channels is solved together with the reader
STILL = 1e-10  # drift that rounding makes
FAINT = 1e-3  # of the mean worth: what the channel of no worth at all has


@dataclass(frozen=True)
class LossCurve:
    """The way of a group down to its last channel.

    order: channels, first to leave first.
    loss: (channels + 1,) drift of the outputs when 0, 1, ... have left.
    solved: whether layers that read the group are solved again; otherwise the order is that of the weights.
    """

    order: np.ndarray
    loss: np.ndarray
    solved: bool = True


@dataclass(frozen=True)
class Seen:
    """What a layer sees: covariances of its features (variances where too wide) and means, per group of channels."""

    layer: Solvable
    grams: tuple[np.ndarray, ...]
    means: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Port:
    """The part of a layer that reads the channels of one group."""

    layer: Solvable
    part: int
    reader: Reader


@np.errstate(over="ignore", invalid="ignore")  # what is no number is told of where it decides something
def repair_curves(
    original: Network,
    deps: Dependencies,
    names: Sequence[str],
    feeds: Feeds,
    *,
    worth: Callable[[Group], np.ndarray] = lambda group: np.ones(len(group)),
    ranked: Collection[str] = (),
    ridge: float = 1e-3,
    seed: int = 0,
    losses: bool = True,
    together: bool = True,
    progress: Progress = silent,
) -> dict[str, LossCurve]:
    """For each named group the order of its channels and the loss.

    The loss is an error at the readers, by covariances, scaled by trial runs of the network in which a part of the
    group is out and its readers are re-solved: mean squared drift of the outputs per unit of their variance.

    Args:
        worth: of the channels of a group by its weights, (channels,), at least 0; the error where no reader is solved.
        ranked: groups whose channels leave by their worth, although layers that read them can be solved again.
        losses: whether they are wanted; without, there is no trial run, and all are zero.
        together: whether layers are going to be solved together with their readers, which leaves less.
    """
    feeds, groups = within(feeds, activations(deps)), [g for g in deps.groups if g.name in set(names)]
    finder = Finder(network := LayerGraph(original, unpacked=True), deps, deps.nothing)
    seen = _seen(finder, {s.source for g in groups for s in _readers(g)}, feeds, seed, progress)
    each = deps.macs() + ELEMENT * elements(deps)
    drift = Drift(network, feeds, each * len(groups) * len(PROBES), _held(network, deps, groups)) if losses else None
    curves, pairs = {}, _solved_together(finder) if losses and together else {}
    for k, group in enumerate(groups):
        progress(f"measuring {group.name}", k, len(groups))
        ports = [p for s in _readers(group) if s.source in seen for p in ports_of(finder, group, s, seen[s.source])]
        plain = not ports or group.name in ranked
        found = by_worth(worth(group)) if plain else elimination([p.reader for p in ports], ridge=ridge)
        left = TOGETHER if not plain and _is_between(group, pairs) else 1
        loss = left * _scaled(deps, group, ports, found, drift, ridge)
        curves[group.name] = LossCurve(found.order, loss, bool(ports))
    return _typical_where_unseen(curves)


def _readers(group: Group) -> list[Slot]:
    """Slots of layers that sum over the channels of a group; a depthwise one keeps them apart."""
    return [s for s in group.readers if not s.role & Role.DEPTHWISE]


def _solved_together(finder: Finder) -> dict[str, str]:
    """Weights of layers that gain from being solved together with the one that writes what they read -> the other's."""
    layers = {k: finder.layer(k) for k in finder.solvable()}
    pairs = ((layers[k], second) for k, second in couples(finder, [*layers.values()], biased=False).items())
    return {second.weight: first.weight for first, second in pairs if not _is_expanded(first, second)}


def _is_expanded(first: Solvable, second: Solvable) -> bool:
    """Whether more channels lead to the second layer, which reads each at one place, than the first reads features.

    As in the MLP of a transformer, where there is next to nothing that the first could make for the second instead.
    """
    _, channels, features = first.stays.shape
    return channels > features and second.stays.shape[2] == channels


def _is_between(group: Group, pairs: Mapping[str, str]) -> bool:
    """Whether the channels of a group lead from one layer to another that it is solved together with."""
    readers = {s.source for s in group.readers}
    return len(readers) == 1 and pairs.get(*readers) in {s.source for s in group.writers}


def by_worth(worth: np.ndarray) -> Order:
    """The channels of least worth first, and the share of all worth that has left before each."""
    shares = (worth + FAINT * worth.mean()) / max((1 + FAINT) * float(worth.sum()), 1e-30)
    order = np.argsort(shares, kind="stable")
    return Order(order, np.append(0.0, np.cumsum(shares[order])[:-1]))


def _typical_where_unseen(curves: Mapping[str, LossCurve]) -> dict[str, LossCurve]:
    """Groups that no trial run has shown anything of, such as those of a branch not taken, lose as others do."""
    seen = {name: c for name, c in curves.items() if np.isfinite(c.loss).all()}
    half = float(np.median([c.loss[len(c.order) // 2] for c in seen.values()])) if seen else 1.0
    even = {name: 2 * half * np.linspace(0, 1, len(c.order) + 1) for name, c in curves.items()}
    return {name: seen.get(name, replace(c, loss=even[name])) for name, c in curves.items()}


def _changed(network: LayerGraph, deps: Dependencies, dead: np.ndarray) -> set[str]:
    """Values that differ once the dead components are gone."""
    return {name for k in changed_nodes(network, deps, dead) for name in network.nodes[k].output if name}


def _held(network: LayerGraph, deps: Dependencies, groups: Sequence[Group]) -> dict[str, float]:
    """Values that trial runs of the groups may go on from, the last ones first, and bytes of each for one sample.

    None where activations are quantised: a run that begins inside rounds other values.
    """
    if any(has(node, Trait.QUANTIZES) for k, node in enumerate(network.nodes) if k not in network.constant):
        return {}
    shapes, found = activations(deps), set[str]()
    for group in groups:
        changed = changed_nodes(network, deps, deps.dead({group.name: np.arange(len(group) // 2)}))
        made = {name for k in changed for name in network.nodes[k].output}
        found |= {name for k in changed for name in network.inputs[k] if name in network.maker} - made
    unit = analysed_with(network.model, shapes)
    last = sorted((n for n in found if n in shapes and not network.is_constant(n)), key=network.maker.__getitem__)
    return {name: 4 * math.prod(shapes[name]) / unit for name in reversed(last)}


def _scaled(
    deps: Dependencies,
    group: Group,
    ports: Sequence[Port],
    found: Order,
    drift: Drift | None,
    ridge: float,
) -> np.ndarray:
    """The loss at the readers in units of drift at the outputs, by trial runs; a saturated drift falls behind it.

    Zero without trial runs, and for a single channel.  NaN where no output moves at all, as of a branch that is not
    taken, or where the outputs are no numbers.
    """
    if drift is None or len(group) < 2:
        return np.zeros(len(group) + 1)
    ahead, drifts = sorted({max(1, int(len(group) * share)) for share in PROBES}), dict[int, float]()
    while ahead:
        count = ahead.pop(0)
        values = repaired(drift.network, ports, found.order[:count], ridge)
        whole = drift.network.source.with_tensors(encoded(drift.network, values))
        dead = deps.dead({group.name: found.order[count:]})
        drifts[count] = drift(masked(whole, deps, dead), _changed(drift.network, deps, dead))
        if not ahead and drifts[count] < STILL and count < len(group) - 1:
            ahead = [(count + len(group)) // 2]  # nothing but rounding as yet, which tells nothing of the rest
    counts = [c for c, moved in drifts.items() if not moved < STILL] or list(drifts)
    units = [drifts[c] / max(found.loss[c], 1e-30) for c in counts]
    if not np.isfinite(units).all() or (found.loss[-1] > 0 and not any(units)):
        return np.full(len(group) + 1, np.nan)
    unit = np.exp(np.interp(np.arange(len(group) + 1), counts, np.log(np.maximum(units, 1e-30))))
    last = 2 * found.loss[-1]  # no group loses all its channels
    return np.maximum.accumulate(np.append(found.loss, last) * unit)


def repaired(network: LayerGraph, ports: Sequence[Port], gone: np.ndarray, ridge: float) -> dict[str, np.ndarray]:
    """New values of the readers' weights and biases, by key, when channels are gone."""
    values: dict[str, np.ndarray] = {}
    for port in ports:
        layer, reader = port.layer, port.reader
        old = value_of(network, values, layer.weight)
        filters = layer.filters(old)
        new = solved(reader, gone, ridge)
        moved = (filters[port.part] - new) @ reader.mean
        filters[port.part] = new
        values[layer.weight] = layer.stored(filters, old)
        if layer.bias is not None:
            values[layer.bias.key] = repaired_bias(network, values, layer, port.part, moved)
    return values


def repaired_bias(
    network: LayerGraph, values: Mapping[str, np.ndarray], layer: Solvable, part: int, moved: np.ndarray
) -> np.ndarray:
    """The tensor of a layer's bias after `moved`, (outputs of one group of channels,), is added to its output."""
    assert layer.bias is not None
    bias, some = value_of(network, values, layer.bias.key), slice(part * moved.size, (part + 1) * moved.size)
    change, gain = np.zeros(bias.size), layer.bias.gain[some]
    change[layer.bias.at[some]] = np.divide(moved, gain, out=np.zeros_like(moved), where=gain != 0)
    return (bias + change.reshape(bias.shape)).astype(bias.dtype)


def _seen(finder: Finder, weights: set[str], feeds: Feeds, seed: int, progress: Progress) -> dict[str, Seen]:
    """Covariances of the input of every layer whose weights are named."""
    network, runner = finder.network, Runner(finder.network, feeds)
    found: dict[str, Seen] = {}
    for k in finder.solvable():
        layer = finder.layer(k)
        progress(f"running the network up to {layer.label}", k, len(network.nodes))
        if layer.weight in weights:
            runner.pin(layer.x)
            runner.pin(layer.y)
            shapes = [y.shape for y in runner.get(layer.y)]  # no values are held by name beyond their turn
            found[layer.weight] = _moments(layer, runner.get(layer.x), shapes, np.random.default_rng(seed))
            runner.unpin(layer.x)
            runner.unpin(layer.y)
    return found


def _moments(layer: Solvable, x: list[np.ndarray], shapes: list[tuple[int, ...]], rng: np.random.Generator) -> Seen:
    features = layer.stays.shape
    tied = features[2] > WIDEST
    total = sum(layer.linear.positions(s) for s in shapes)
    grams = [np.zeros((features[2], features[2])) for _ in range(features[0])] if not tied else []
    sums = [np.zeros(features[2]) for _ in range(features[0])]
    squares, rows_seen = [np.zeros(features[2]) for _ in range(features[0])], 0
    for array, shape in zip(x, shapes, strict=True):
        count = layer.linear.positions(shape)
        some = max(1, min(count, round(rows_for(features[2]) * count / total)))
        rows = np.sort(rng.choice(count, some, replace=False)) if some < count else np.arange(count)
        rows_seen += rows.size
        for g, c in enumerate(layer.linear.columns(array, shape, rows)):
            sums[g] += c.sum(axis=1, dtype=np.float64)
            squares[g] += np.einsum("fr,fr->f", c, c, dtype=np.float64)
            if not tied:
                grams[g] += product(c, c)
    means = tuple(s / rows_seen for s in sums)
    if tied:  # too wide for all covariances: the variances alone
        found = tuple(np.maximum(q / rows_seen - m * m, 0) for q, m in zip(squares, means, strict=True))
    else:
        found = tuple((g / rows_seen - np.outer(m, m)).astype(np.float32) for g, m in zip(grams, means, strict=True))
    if not all(np.isfinite(a).all() for a in (*means, *squares, *found)):
        raise ModelError(NOT_FINITE)
    return Seen(layer, found, means)


def ports_of(finder: Finder, group: Group, slot: Slot, seen: Seen) -> list[Port]:
    """The parts of a layer that read a group through a slot."""
    layer, shape = seen.layer, seen.layer.live.shape
    index = np.arange(shape[slot.axis]).reshape(line(len(shape), slot.axis))
    unit = layer.linear.to_matrix(np.ones(shape))
    where = np.rint(layer.linear.to_matrix(np.broadcast_to(index, shape).astype(np.float64)) / unit).astype(int)
    channel = np.full(shape[slot.axis], -1)
    channel[slot.positions] = np.arange(len(group))[:, None]
    filters, found = layer.filters(value_of(finder.network, {}, layer.weight)), []
    for part, (gram, mean) in enumerate(zip(seen.grams, seen.means, strict=True)):
        owner = channel[where[part, 0]]
        inside = np.flatnonzero(owner >= 0)
        if inside.size:
            features = inside[np.argsort(owner[inside], kind="stable")].reshape(len(group), -1)
            found.append(Port(layer, part, Reader(gram, mean, filters[part], features)))
    return found
