"""What a network can do without, until nothing more can go."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from onnxprune.channels.dependencies import Dependencies
from onnxprune.lossless.change import Leaving, changed, missing_biases, shifts
from onnxprune.lossless.conditions import Conditions
from onnxprune.lossless.propagate import Knowledge
from onnxprune.model.network import Network
from onnxprune.progress import Progress, silent
from onnxprune.surgery.recovery.replaced import with_biases_at

LARGEST = 10  # as a power of two, how many times larger a channel may be than the one that stands in for it
KINDS = ("dead", "ignored", "duplicate")

Kept = dict[str, np.ndarray]


@dataclass(frozen=True)
class Redundancy:
    """Channels that stay of each group that loses some, and the network in which those that stay do all the work.

    model: in the layout of the original, some weights changed; the original itself where nothing goes.
    deps: its analysis.
    removed: channels by group and kind, one of `KINDS`.
    rounds: how often something could go.
    """

    kept: Kept
    model: Network
    deps: Dependencies
    removed: Mapping[str, Mapping[str, int]]
    rounds: int

    def count(self, kind: str) -> int:
        """Channels of all groups that went for this reason."""
        return sum(counts.get(kind, 0) for counts in self.removed.values())


@dataclass
class _State:
    """A search under way: channels that have gone, (channels,) int by group: 0, or 1 + the index of their kind."""

    model: Network
    deps: Dependencies
    gone: dict[str, np.ndarray]
    rounds: int = 0
    order: dict[str, list[int]] = field(default_factory=dict)  # channels of a group as they went


def redundancy(
    model: Network,
    deps: Dependencies,
    *,
    analyse: Callable[[Network], Dependencies],
    stays: Mapping[str, Collection[int]] | None = None,
    multiple: int = 1,
    share: float = 1.0,
    progress: Progress = silent,
) -> Redundancy:
    """Find all channels without which a network computes the same, and change its weights so that it does.

    A channel goes that no layer reads with a weight other than zero ("ignored"), that is the same number for every
    input ("dead"; it moves into biases), or that is a positive multiple of another one wherever it is read
    ("duplicate"; the weights that read it are added to those of the other).  Every group keeps a channel.

    Args:
        model: never changed.
        deps: its analysis.
        analyse: how `deps` was made: layers without a bias may get one.
        stays: channels that must stay, by group.
        multiple: kept counts are multiples of this, or all of a group.
        share: the most that a group may lose.
        progress: told how many channels have gone.
    """
    held = {g.name: set(map(int, (stays or {}).get(g.name, ()))) for g in deps.groups}
    while True:
        state = _State(model, deps, {g.name: np.zeros(len(g), np.int64) for g in deps.groups})
        while _step(state, held, analyse):
            progress(f"{sum(int((g > 0).sum()) for g in state.gone.values())} channels can go", 0, 0)
        back = {name: _too_many(state.order.get(name, []), g.size, multiple, share) for name, g in state.gone.items()}
        if not any(back.values()):
            return _outcome(state)
        for name, channels in back.items():
            held[name] |= set(channels)


def _too_many(gone: list[int], size: int, multiple: int, share: float) -> list[int]:
    """Channels that have to come back: those that went last."""
    fewest = max(1, size - int(share * size + 1e-9))
    count = min(size, -(-max(size - len(gone), fewest) // multiple) * multiple)
    return gone[len(gone) - (count - (size - len(gone))) :] if count > size - len(gone) else []


def _outcome(state: _State) -> Redundancy:
    kept = {name: np.flatnonzero(g == 0) for name, g in state.gone.items() if g.any()}
    removed = {
        name: {kind: int((g == k + 1).sum()) for k, kind in enumerate(KINDS) if (g == k + 1).any()}
        for name, g in state.gone.items()
        if g.any()
    }
    return Redundancy(kept, state.model, state.deps, removed, state.rounds)


def _step(state: _State, held: Mapping[str, set[int]], analyse: Callable[[Network], Dependencies]) -> bool:
    """Let everything go that can go now; whether there was anything."""
    conditions = Conditions.of(Knowledge.of(state.model, state.deps))
    leaving = _leaving(state, conditions, held)
    if not leaving.all.any():
        return False
    if lacking := missing_biases(conditions, shifts(conditions, leaving)):
        state.model = with_biases_at(state.model, lacking)
        state.deps = analyse(state.model)
        conditions = Conditions.of(Knowledge.of(state.model, state.deps))
        leaving = _leaving(state, conditions, held)
    values, lively = changed(conditions, leaving), conditions.lively
    del conditions  # and with it a copy of all weights
    state.model = state.model.with_tensors(values)
    for group in state.deps.groups:
        plain, other = leaving.plain[group.components], leaving.stands_in[group.components] >= 0
        kind = np.where(other, 3, np.where(lively[group.components], 2, 1))
        new = (plain | other) & (state.gone[group.name] == 0)
        state.gone[group.name][new] = kind[new]
        state.order.setdefault(group.name, []).extend(map(int, np.flatnonzero(new)))
    state.rounds += 1
    return True


def _leaving(state: _State, conditions: Conditions, held: Mapping[str, set[int]]) -> Leaving:
    """What can go now of what is still there."""
    deps = state.deps
    plain, stands_in = deps.nothing, np.full(deps.nothing.size, -1)
    for group in deps.groups:
        parts, there = group.components, state.gone[group.name] == 0
        free = there.copy()
        free[list(held[group.name])] = False
        own = free & ~conditions.needed[parts]
        plain[parts[own]] = True
        spare = free & ~own & ~conditions.needed_apart[parts]
        pairs = _pairs(conditions.likeness[parts], conditions.size[parts], there & ~own, spare)
        for channel, other in pairs.items():
            stands_in[parts[channel]] = parts[other]
    return Leaving(plain, stands_in)


def _pairs(likeness: np.ndarray, size: np.ndarray, there: np.ndarray, spare: np.ndarray) -> dict[int, int]:
    """Channels that another one with the same likeness can stand in for: the largest that has to stay, if any has."""
    found: dict[int, int] = {}
    order = np.flatnonzero(there)
    _, inverse, counts = np.unique(likeness[order], return_inverse=True, return_counts=True)
    for c in np.flatnonzero(counts > 1):
        members = order[inverse == c]
        firm = members[~spare[members]]
        able = firm if firm.size else members
        lead = int(able[np.argmax(size[able])])
        found.update({int(m): lead for m in members if m != lead and spare[m] and size[m] - size[lead] <= LARGEST})
    return found
