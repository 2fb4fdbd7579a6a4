"""Second moments of widths over samples, batch by batch in one session: nothing is held but the sums."""

from collections.abc import Callable, Sequence

import numpy as np

from onnxprune.runtime.session import make_session
from onnxprune.surgery.recovery.runner import THREADS, Feeds
from onnxprune.surgery.rotation.basis import Basis, basis_of, orthogonal
from onnxprune.surgery.rotation.sites import Array, Graph, RotationSite, Sensor

Tell = Callable[[str, int, int], None]


def bases(graph: Graph, sites: Sequence[RotationSite], feeds: Feeds, progress: Tell = lambda *_: None) -> list[Basis]:
    """The best basis of each site on samples.

    Args:
        feeds: in batches, at least one.

    Raises:
        ModelError: the network cannot be run on the samples.
    """
    sums = [_Sums.of(site) for site in sites]
    names = list(dict.fromkeys(s.value for x in sums for s in x.sensors))
    session = make_session(
        graph.network,
        providers="cpu",
        threads=THREADS,
        optimize=True,
        taps=[n for n in names if n not in graph.outputs],
    )
    for k, feed in enumerate(feeds):
        progress("second moments of widths that can be rotated", k, len(feeds))
        given = session.run(feed, names)
        for x in sums:
            x.add(given)
    return [x.basis(graph) for x in sums]


class _Sums:
    """Sums over rows of one site."""

    def __init__(self, site: RotationSite, sensors: tuple[Sensor, ...]) -> None:
        blocks, width = site.shape
        self.site, self.sensors = site, sensors
        self.count = np.zeros(len(sensors))
        self.first = np.zeros((len(sensors), blocks, width))
        self.second = np.zeros((len(sensors), blocks, width, width))

    @classmethod
    def of(cls, site: RotationSite) -> "_Sums":
        return cls(site, (*site.made, *((site.read,) if site.read else ())))

    def add(self, given: dict[str, Array]) -> None:
        for k, sensor in enumerate(self.sensors):
            array = given[sensor.value]
            if sensor is self.site.read and self.site.still is not None:
                array = array - array.mean(axis=self.site.still, keepdims=True)
            rows = sensor.rows(array)
            self.count[k] += rows.shape[1]
            self.first[k] += rows.sum(axis=1)
            self.second[k] += rows.transpose(0, 2, 1) @ rows

    def basis(self, graph: Graph) -> Basis:
        second, first = self.second / self.count[:, None, None, None], self.first / self.count[:, None, None]
        if self.site.read is not None:
            return basis_of(second[0], second[1])
        if self.site.centred:
            second = second - first[..., :, None] * first[..., None, :]
        made = sum(m / max(float(np.trace(m, axis1=-2, axis2=-1).sum()), 1e-30) for m in second)
        found = basis_of(np.asarray(made), _read_by_weights(graph, self.site, np.asarray(made)))
        return orthogonal(found) if self.site.orthogonal else found


def _read_by_weights(graph: Graph, site: RotationSite, made: Array) -> Array:
    """What all that take a width in make of it, each as a share of its output: (blocks, width, width).

    To a norm all directions are the same.
    """
    size = max(float(np.trace(made, axis1=-2, axis2=-1).sum()), 1e-30)
    total = np.broadcast_to(site.norms * np.eye(site.shape[1]) / size, made.shape).copy()
    for place in site.places:
        if not place.along:
            rows = place.rows(site.values.get(place.key, graph.read(place.key)))
            gram = rows @ rows.transpose(0, 2, 1)
            total += gram / max(float(np.einsum("bij,bji->", gram, made)), 1e-30)
    return total
