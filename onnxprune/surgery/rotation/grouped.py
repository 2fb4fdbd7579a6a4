"""Widths of all heads as channels of one group."""

from collections.abc import Sequence

import numpy as np

from onnxprune.surgery.rotation.sites import Array, Graph, RotationSite, Sensor, WidthPlace


def grouped(
    graph: Graph,
    places: Sequence[WidthPlace],
    made: tuple[Sensor, ...],
    read: Sensor | None,
    still: int | None,
    centred: bool,
) -> RotationSite | None:
    """A site, where each position of the width is one channel of a group in all blocks and places; else None."""
    for group in graph.deps.groups:
        channel = {(s.source, s.axis): s.positions for s in group.slots}
        if (places[0].key, places[0].axis) not in channel:
            continue
        named = [_channels(channel.get((p.key, p.axis)), p.positions) for p in places]
        names = [n for n in named if n is not None]
        if len(names) == len(places) and all(np.array_equal(n, names[0]) for n in names):
            return RotationSite(group.name, names[0], tuple(places), made, read, still, centred)
    return None


def _channels(slot: Array | None, positions: Array) -> Array | None:
    """(width,): the channel of each position, the same one in all blocks; None where it is not."""
    if slot is None:
        return None
    owner = np.full(max(int(slot.max()), int(positions.max())) + 1, -1)
    owner[slot] = np.arange(len(slot))[:, None]
    found = owner[positions]
    one_each = (found == found[0]).all() and (found >= 0).all() and np.unique(found[0]).size == len(slot)
    return found[0] if one_each else None
