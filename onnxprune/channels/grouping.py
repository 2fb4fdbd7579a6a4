"""Components into groups: channels that occupy the same slots can be compared and removed one by one."""

from collections.abc import Mapping, Sequence

import numpy as np

from onnxprune.channels.dependencies import Group, Node, Slot, Source, Use
from onnxprune.channels.labels import Labels, is_fixed
from onnxprune.channels.roles import Role


def groups_of(
    uses: Sequence[Use],
    parts: Sequence[Labels],
    component: Labels,
    roles: np.ndarray,
    sources: Mapping[str, Source],
    nodes: Sequence[Node],
) -> tuple[Group, ...]:
    """Groups in the order in which their first weight is used.

    Args:
        uses: every place that takes a tensor of the file.
        parts: labels of picked positions of which one has to stay, so that they make groups of their own.
        component: (labels,) component of each label.
        roles: (labels,) Role of each label.
        sources: tensors of the file.
        nodes: all nodes, for the names of the groups.
    """
    rows: list[tuple[Labels, Use | None, int]] = []
    for use in uses:
        rows += [(x, use, axis) for axis, x in enumerate(use.axes) if not is_fixed(x)]
    rows += [(x, None, 0) for x in parts]
    families = _families([component[x] for x, _, _ in rows], int(component[0]))
    groups: list[Group] = []
    taken: dict[str, int] = {}
    for channels, occupied in families:
        slots = _slots(rows, channels, occupied, component, roles)
        writers = [s for s in slots if s.role & Role.WRITE]
        if not writers:
            continue
        first = next((s for s in writers if not s.role & Role.DEPTHWISE), writers[0])
        taken[first.source] = taken.get(first.source, 0) + 1
        name = first.source if taken[first.source] == 1 else f"{first.source}#{taken[first.source]}"
        groups.append(Group(name, channels, slots))
    return tuple(groups)


def _families(rows: list[Labels], frozen: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Components by the rows that they occupy, and how often: (components, rows occupied)."""
    if not rows:
        return []
    where = np.repeat(np.arange(len(rows)), [x.size for x in rows])
    component = np.concatenate(rows)
    where, component = where[component != frozen], component[component != frozen]
    order = np.lexsort((where, component))
    where, component = where[order], component[order]
    starts = np.flatnonzero(np.diff(component, prepend=-1))
    families: dict[bytes, list[int]] = {}
    for k, occupied in enumerate(np.split(where, starts[1:]) if starts.size else []):
        families.setdefault(occupied.tobytes(), []).append(k)
    ids = component[starts]
    found = [(ids[members], np.unique(np.frombuffer(key, where.dtype))) for key, members in families.items()]
    return sorted(found, key=lambda f: int(f[1][0]))


def _slots(
    rows: list[tuple[Labels, Use | None, int]],
    channels: np.ndarray,
    occupied: np.ndarray,
    component: Labels,
    roles: np.ndarray,
) -> tuple[Slot, ...]:
    index = np.full(int(component.max()) + 1, -1, np.int64)
    index[channels] = np.arange(channels.size)
    slots: dict[tuple[str, int, bytes], Slot] = {}
    for row in occupied:
        labels, use, axis = rows[row]
        if use is None:
            continue
        channel = index[component[labels]]
        inside = np.flatnonzero(channel >= 0)
        positions = inside[np.argsort(channel[inside], kind="stable")].reshape(channels.size, -1)
        role = Role(int(np.bitwise_and.reduce(roles[labels[inside]])))
        key = (use.source, axis, positions.tobytes())
        if key in slots:
            role |= slots[key].role
        slots[key] = Slot(use.source, axis, positions, role, use.node if key not in slots else slots[key].node)
    return tuple(slots.values())
