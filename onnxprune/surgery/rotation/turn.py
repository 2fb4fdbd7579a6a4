"""A network in other bases of its linear widths: the same function, in which what matters most comes first."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxprune.errors import UsageError
from onnxprune.model.network import Network
from onnxprune.surgery.rotation.meanless import without_means
from onnxprune.surgery.rotation.sites import Array, Graph, RotationSite

if TYPE_CHECKING:
    from onnxprune.surgery.rotation.basis import Basis


@dataclass(frozen=True)
class Rotation:
    """The basis of each width that was rotated, by the tensor that makes it and the first position in that.

    Each is (blocks, width, width): A of `rotation.basis`, whose inverse follows.
    """

    bases: Mapping[str, Array] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.bases)

    def to_json(self) -> dict[str, Any]:
        """Shapes, and the numbers in double precision, little-endian, in base64."""
        return {
            name: {"shape": list(a.shape), "float64": base64.b64encode(a.astype("<f8").tobytes()).decode()}
            for name, a in self.bases.items()
        }

    @classmethod
    def from_json(cls, data: Any) -> "Rotation":
        """Read what `to_json` gave.  Raises the errors of Python where it is nothing like it."""
        found = {}
        for name, said in data.items():
            array = np.frombuffer(base64.b64decode(said["float64"], validate=True), "<f8").reshape(said["shape"])
            if array.ndim != 3 or array.shape[1] != array.shape[2] or not np.isfinite(array).all():
                raise ValueError(f"the basis of {name!r} is no stack of square matrices")
            found[str(name)] = array.astype(np.float64)
        return cls(found)


def name_of(site: RotationSite) -> str:
    """What a rotation calls a width: the tensor that makes it, and the first of its positions in that."""
    first = site.places[0]
    return f"{first.key}[{int(first.positions.min())}]"


def rotation_of(sites: Sequence[RotationSite], bases: "Sequence[Basis]") -> Rotation:
    """The rotation that brings each width into its basis."""
    return Rotation({name_of(s): b.matrix for s, b in zip(sites, bases, strict=True)})


def rotated(graph: Graph, sites: Sequence[RotationSite], rotation: Rotation) -> Network:
    """The network with its widths in other bases; it computes the same.

    Raises UsageError where the network has no such width.
    """
    own = {name_of(site): site for site in sites}
    changed: dict[str, Array] = {}
    for name, matrix in rotation.bases.items():
        site = own.get(name)
        if site is None or matrix.shape != (*site.shape, site.shape[1]):
            raise UsageError(
                f"the plan rotates {name!r}, which is no such width here; is it for another network, or one in float32?"
            )
        try:
            inverse = np.linalg.inv(matrix)
        except np.linalg.LinAlgError:
            raise UsageError(f"the plan rotates {name!r} by a matrix that has no inverse") from None
        changed |= site.values
        for place in site.places:
            before = changed[place.key] if place.key in changed else graph.read(place.key)
            changed[place.key] = place.turned(before, matrix, inverse)
    values = {key: array.astype(graph.network.tensor(key).dtype) for key, array in changed.items()}
    out = graph.network.with_tensors(values)
    if level := {value for name in rotation.bases for value in own[name].level}:
        out = out.own()
        without_means(out.graph, level)
    return out


def levelled(graph: Graph, sites: Sequence[RotationSite]) -> Network:
    """The network with these widths made without a mean, and norms that take none away; in their basis."""
    same = {name_of(s): np.broadcast_to(np.eye(s.shape[1]), (*s.shape, s.shape[1])) for s in sites}
    return rotated(graph, sites, Rotation(same))
