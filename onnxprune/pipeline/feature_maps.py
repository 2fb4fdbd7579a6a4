"""Feature maps as the rest of the network sees them: what `cshe` ranks channels by.

M. Shao et al. (doi 10.1007/s13042-021-01411-8) rank filters by the eigenvalues of their feature maps.  Which maps
those are is our reading: what the layers that read a group take in, so behind its normalisation, activation and, in a
residual stream, behind the sum; but in front of what merely pools or moves it, since a map that is pooled to a point
has no eigenvalues to speak of.  A group that is read at several places (a residual stream) adds up over the different
values, as its filters add up over their writers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.channels.dependencies import Dependencies, Group, Node
from onnxprune.criteria.eigen import EigenEnergy
from onnxprune.criteria.rules import Cshe
from onnxprune.operators.labels import is_fixed
from onnxprune.operators.registry import Trait, has
from onnxprune.pipeline.study import Study
from onnxprune.progress import Progress
from onnxprune.runtime.batches import Dataset
from onnxprune.runtime.capture import fitting, tapped, values


@dataclass(frozen=True)
class MapView:
    """Where the channels of a group lie in a value: positions (channels, repeats) along one axis."""

    value: str
    axis: int
    positions: np.ndarray

    def maps(self, array: np.ndarray) -> np.ndarray:
        """The feature maps (images, channels, *space), or (images, channels, repeats, *space)."""
        moved = np.moveaxis(array, self.axis, 1) if self.axis else array[None]
        picked = moved[:, self.positions]
        return picked[:, :, 0] if self.positions.shape[1] == 1 else picked


def views_of(deps: Dependencies, group: Group) -> tuple[MapView, ...]:
    """The values whose maps count for a group; none where its channels never lie side by side in one value."""
    index = np.full(int(deps.component.max()) + 1, -1, np.int64)
    index[group.components] = np.arange(len(group))
    running = _running(deps)
    found: dict[str, MapView] = {}
    todo = list(dict.fromkeys(key for node in _takers(deps, group, running) for key in node.inputs if key in running))
    seen = set(todo)
    while todo:
        key = todo.pop(0)
        maker, view = deps.maker(key), _view(deps, key, index, len(group))
        if maker is None or not _carries(deps, key, index):
            continue
        before = [k for k in maker.inputs if k in running and _carries(deps, k, index)]
        if has(maker.proto, Trait.MAPS) and before:
            todo += [k for k in before if k not in seen]
            seen.update(before)
        elif view is not None and not maker.path:
            found[key] = view
    return tuple(found.values())


def _running(deps: Dependencies) -> set[str]:
    """Values that depend on what the network is fed."""
    found: set[str] = set()
    made = {key for node in deps.nodes for key in node.outputs}
    for node in deps.nodes:
        if any(key in found or (key not in made and key not in deps.sources) for key in node.inputs if key):
            found.update(key for key in node.outputs if key)
    return found


def _takers(deps: Dependencies, group: Group, running: set[str]) -> list[Node]:
    """The nodes that take the group's channels in; a weight may reach them dequantised or reshaped."""
    todo = [deps.nodes[s.node] for s in group.readers]
    for node in todo:
        if not running & set(node.outputs):
            users = (deps.nodes[k] for key in node.outputs for k, _ in deps.takers.get(key, ()))
            todo += [user for user in users if user not in todo]
    return [node for node in todo if running & set(node.outputs)]


def _carries(deps: Dependencies, key: str, index: np.ndarray) -> bool:
    value = deps.values.get(key)
    return value is not None and any((index[deps.component[x]] >= 0).any() for x in value.labels)


def _view(deps: Dependencies, key: str, index: np.ndarray, channels: int) -> MapView | None:
    value = deps.values.get(key)
    if value is None or value.split_axis is not None:
        return None
    for axis, labels in enumerate(value.axes):
        if is_fixed(labels):
            continue
        channel = index[deps.component[labels]]
        inside = np.flatnonzero(channel >= 0)
        if inside.size and not inside.size % channels:
            order = inside[np.argsort(channel[inside], kind="stable")].reshape(channels, -1)
            if (channel[order] == np.arange(channels)[:, None]).all():
                return MapView(key, axis, order)
    return None


def energies(
    study: Study, data: Dataset, groups: Sequence[Group], rule: Cshe, progress: Progress
) -> tuple[dict[str, np.ndarray], int]:
    """The eigenvalue energy of each channel, (channels,) by group, over so many samples as the rule wants at most.

    Groups without a value that could be captured are left out.  One batch of maps is in memory at a time, of the
    size that `onnxprune.runtime.capture` allows.  Gives how many samples there were, too.

    Raises UsageError for data that does not fit, ModelError for maps that are not finite.
    """
    views = {g.name: found for g in groups if (found := views_of(study.deps, g))}
    names = list(dict.fromkeys(v.value for found in views.values() for v in found))
    if not names:
        return {}, 0
    summed = {(g, v.value): EigenEnergy(rule.q) for g, found in views.items() for v in found}
    dataset = data.spread(rule.images)
    session = tapped(study.network, names, providers=study.request.providers)
    seen = 0
    for batch in dataset.batched(fitting(session, names, dataset)):
        progress("feature maps", seen, dataset.samples or 0)
        arrays = values(session, names, batch.feeds)
        for g, found in views.items():
            for view in found:
                summed[g, view.value].update(view.maps(arrays[view.value]))
        seen += batch.size
    return {g: np.sum([summed[g, v.value].importance for v in found], axis=0) for g, found in views.items()}, seen
