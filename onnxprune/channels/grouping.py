"""Components into groups: channels that occupy the same slots can be compared and removed one by one."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.channels.combined import channels_of
from onnxprune.channels.dependencies import Group, Slot, Use
from onnxprune.operators.labels import Labels, is_fixed
from onnxprune.operators.roles import Role


def groups_of(
    uses: Sequence[Use], parts: Sequence[Labels], component: Labels, roles: np.ndarray, combined: Labels | None = None
) -> tuple[Group, ...]:
    """Groups in the order in which their first weight is used.

    Args:
        uses: every place that takes a tensor of the file.
        parts: labels of picked positions of which one has to stay, so that they make groups of their own.
        component: (labels,) component of each label.
        roles: (labels,) Role of each label.
        combined: (factors, components) labels of the channels that a component combines, from `combined.solved`.
    """
    apart = np.zeros((0, 0), np.int64) if combined is None else combined
    rows: list[tuple[Labels, Use | None, int]] = []
    for use in uses:
        lively = ((axis, x) for axis, x in enumerate(use.axes) if not is_fixed(x))
        rows += [(y, use, axis) for axis, x in lively for y in channels_of(x, component, apart)]
    rows += [(x, None, 0) for x in parts]
    at = _occurrences([x for x, _, _ in rows], component, roles)
    groups: list[Group] = []
    taken: dict[str, int] = {}
    for starts, length in _families(at):
        slots = _slots(rows, at, starts[:, None] + np.arange(length))
        writers = [s for s in slots if s.role & Role.WRITE]
        if not writers:
            continue
        first = next((s for s in writers if not s.role & Role.DEPTHWISE), writers[0])
        taken[first.source] = taken.get(first.source, 0) + 1
        name = first.source if taken[first.source] == 1 else f"{first.source}#{taken[first.source]}"
        groups.append(Group(name, at.component[starts], slots))
    return tuple(groups)


@dataclass(frozen=True)
class Occurrences:
    """Every position of every row that can be removed, in the order of component, row and position."""

    component: np.ndarray  # (occurrences,), like the others
    row: np.ndarray
    position: np.ndarray
    role: np.ndarray


def _occurrences(rows: list[Labels], component: Labels, roles: np.ndarray) -> Occurrences:
    sizes = [x.size for x in rows]
    labels = np.concatenate(rows) if rows else np.zeros(0, np.int64)
    row = np.repeat(np.arange(len(rows)), sizes)
    position = np.arange(labels.size) - np.repeat(np.cumsum(sizes, dtype=np.int64) - sizes, sizes)
    of = component[labels]
    free = np.flatnonzero(of != component[0])
    order = free[np.argsort(of[free], kind="stable")]
    return Occurrences(of[order], row[order], position[order], roles[labels[order]])


def _families(at: Occurrences) -> list[tuple[np.ndarray, int]]:
    """Components that occupy the same rows equally often: where each one's occurrences start, and how many they are."""
    starts = np.flatnonzero(np.diff(at.component, prepend=-1))
    sizes = np.diff(starts, append=at.component.size)
    before = np.arange(at.row.size) - np.repeat(sizes, sizes)  # the same place in the component before, if as large
    alike = np.logical_and.reduceat(at.row == at.row[before], starts) & (sizes == np.roll(sizes, 1))
    alike[:1] = False
    heads, found = np.flatnonzero(~alike), dict[bytes, list[np.ndarray]]()
    for head, members in zip(heads, np.split(starts, heads[1:]), strict=False):
        found.setdefault(at.row[starts[head] : starts[head] + sizes[head]].tobytes(), []).append(members)
    families = [(np.concatenate(members), len(key) // at.row.itemsize) for key, members in found.items()]
    return sorted(families, key=lambda family: int(at.row[family[0][0]]))


def _slots(rows: list[tuple[Labels, Use | None, int]], at: Occurrences, members: np.ndarray) -> tuple[Slot, ...]:
    """Slots of a family whose occurrences are `members` (components, occurrences)."""
    row, position = at.row[members[0]], at.position[members]
    slots: dict[tuple[str, int, bytes], Slot] = {}
    bounds = [*np.flatnonzero(np.diff(row, prepend=-1)).tolist(), row.size]
    roles = np.bitwise_and.reduceat(np.bitwise_and.reduce(at.role[members], axis=0), bounds[:-1]).tolist()
    for (start, end), common in zip(itertools.pairwise(bounds), roles, strict=True):
        _, use, axis = rows[row[start]]
        if use is None:
            continue
        positions = position[:, start:end]
        key = (use.source, axis, positions.tobytes())
        known = slots.get(key)
        role, node = (Role(common), use.node) if known is None else (common | known.role, known.node)
        slots[key] = Slot(use.source, axis, positions, role, node)
    return tuple(slots.values())
