"""The basis in which a width is cut best: an eigen-decomposition of what makes it and what takes it in.

A width x (rows) that is read by y = x·W may be x·A, read by A⁻¹·W, for any invertible A.  With P = E[xxᵀ] and G = WWᵀ
(for queries and keys: the second moment of the keys), what is lost when only r positions stay is least where P½·G½ =
U·S·Vᵀ and A = P^−½·U·S½, A⁻¹ = S^−½·Uᵀ·P½: it is the sum of the squared singular values behind the first r (Eckart and
Young 1936, doi 10.1007/BF02288367).  With G = 1 this is a principal component analysis, as in SliceGPT (Ashkboos et
al., ICLR 2024, arXiv 2401.15024).

Both are second moments over samples, batch by batch in one session: nothing is held but the sums.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cholesky, solve_triangular, svd

from onnxprune.progress import Progress, silent
from onnxprune.runtime.session import make_session
from onnxprune.surgery.recovery.runner import THREADS, Feeds
from onnxprune.surgery.rotation.sites import Array, Graph, RotationSite

FLOOR = 1e-6  # of the mean energy, that every direction has: what no sample moves can still be inverted


@dataclass(frozen=True)
class Basis:
    """A, its inverse, both (blocks, width, width), and the energy of each position, (blocks, width), largest first."""

    matrix: np.ndarray
    inverse: np.ndarray
    energy: np.ndarray


def basis_of(made: np.ndarray, read: np.ndarray) -> Basis:
    """The best basis of each block; `made` and `read` are P and G of the module, (blocks, width, width)."""
    found = [_one(p, g) for p, g in zip(made, read, strict=True)]
    return Basis(*(np.stack(part) for part in zip(*found, strict=True)))


def orthogonal(basis: Basis) -> Basis:
    """Orthonormal columns, of which the first r span what the first r of the basis do, for every r.

    Readers that are solved again lose the same, and errors of what makes the width keep their size.
    """
    q, r = np.linalg.qr(basis.matrix)
    q = q * np.where(np.diagonal(r, axis1=1, axis2=2) < 0, -1.0, 1.0)[:, None, :]
    return Basis(q, q.transpose(0, 2, 1), basis.energy)


def _one(made: np.ndarray, read: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    root, other = _root(made), _root(read)
    u, s, _ = svd(root @ other.T)
    largest = u[np.abs(u).argmax(axis=0), np.arange(len(s))]
    u = u * np.where(largest < 0, -1.0, 1.0)  # of the two signs of a singular vector always the same one
    half = np.sqrt(np.maximum(s, FLOOR * s[0]))
    return solve_triangular(root, u) * half, (u.T @ root) / half[:, None], s**2


def _root(moment: np.ndarray) -> np.ndarray:
    """Upper triangular R with RᵀR = the moment, and a little in every direction."""
    size = max(float(np.trace(moment)) / len(moment), 1e-30)
    return cholesky(moment + FLOOR * size * np.eye(len(moment)))


def bases(graph: Graph, sites: Sequence[RotationSite], feeds: Feeds, progress: Progress = silent) -> list[Basis]:
    """The best basis of each site on samples.

    Args:
        feeds: in batches, at least one.

    Raises:
        ModelError: the network cannot be run on the samples.
    """
    sums = [_Sums(site) for site in sites]
    names = list(dict.fromkeys(s.value for x in sums for s in x.sensors))
    taps = [n for n in names if n not in graph.outputs]
    session = make_session(graph.network, providers="cpu", threads=THREADS, optimize=True, taps=taps)
    for k, feed in enumerate(feeds):
        progress("second moments of widths that can be rotated", k, len(feeds))
        given = session.run(feed, names)
        for x in sums:
            x.add(given)
    return [x.basis(graph) for x in sums]


class _Sums:
    """Sums over rows of one site."""

    def __init__(self, site: RotationSite) -> None:
        blocks, width = site.shape
        self.site, self.sensors = site, (*site.made, *((site.read,) if site.read else ()))
        self.count = np.zeros(len(self.sensors))
        self.first = np.zeros((len(self.sensors), blocks, width))
        self.second = np.zeros((len(self.sensors), blocks, width, width))

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
