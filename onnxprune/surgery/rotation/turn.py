"""A network in other bases of its linear widths: the same function, in which what matters most comes first.

Norms that take the mean of their channels away become such as do not, for a width that is made without one.
"""

import base64
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxprune.errors import UsageError
from onnxprune.model.graphs import all_names, fresh_name, opset_of, refill
from onnxprune.model.network import Network
from onnxprune.operators.registry import Trait, attributes_of, has
from onnxprune.surgery.rotation.sites import Array, Graph, RotationSite

if TYPE_CHECKING:
    from onnxprune.surgery.rotation.moments import Basis

BY_NODE = 23  # opset from which there is an operator for it
AXES_GIVEN = 18  # opset from which ReduceMean takes its axes as an input


@dataclass(frozen=True)
class Rotation:
    """The basis of each width that was rotated, by the tensor that makes it and the first position in that.

    Each is (blocks, width, width): A of `rotation.moments`, whose inverse follows.
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


def without_means(model: onnx.ModelProto, level: Collection[str]) -> None:
    """Let the nodes that give these values take no mean away; the model is changed."""
    out, edit = list[onnx.NodeProto](), _Edit(model)
    for node in model.graph.node:
        if not node.output or node.output[0] not in level:
            out.append(node)
        elif has(node, Trait.CENTRES):
            out += edit.norm(node)
        else:
            edit.renamed[node.output[0]] = node.input[0]  # a value less its mean
    for node in out:
        for k, name in enumerate(node.input):
            while name in edit.renamed:  # of a mean that is taken away twice
                name = edit.renamed[name]
            node.input[k] = name
    taken = {v.name for v in model.graph.output} | {name for node in out for name in node.input}
    idle = {name for node in model.graph.node for name in node.input if name not in taken}
    refill(model.graph.node, [node for node in out if not idle.issuperset(node.output)])


class _Edit:
    """New nodes and tensors of a model."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model, self.opset = model, opset_of(model)
        self.names = all_names(model)
        self.types = {t.name: t.data_type for t in model.graph.initializer}
        self.renamed: dict[str, str] = {}
        self.constants: dict[tuple[bytes, str], str] = {}

    def norm(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """x / √(mean of x² + ε) · scale + shift, of (x, scale, shift)."""
        x, scale, *shift = [name for name in node.input if name]
        epsilon, y = attributes_of(node).get("epsilon", 1e-5), node.output[0]
        last = fresh_name(f"{y}.scaled", self.names) if shift else y
        if self.opset >= BY_NODE:
            made = [helper.make_node("RMSNormalization", [x, scale], [last], axis=-1, epsilon=epsilon)]
        else:
            made = self._written_out(x, scale, epsilon, last, y)
        if shift:
            made.append(helper.make_node("Add", [last, *shift], [y]))
        for k, new in enumerate(made):
            new.name = node.name and (node.name if k == len(made) - 1 else f"{node.name}.{new.op_type}")
        return made

    def _written_out(self, x: str, scale: str, epsilon: float, last: str, y: str) -> list[onnx.NodeProto]:
        """As runtimes look for it when they make one kernel of it."""
        kind = helper.tensor_dtype_to_np_dtype(self.types.get(scale, onnx.TensorProto.FLOAT))
        parts = (fresh_name(f"{y}.{part}", self.names) for part in ("square", "mean", "sum", "root", "unit"))
        square, mean, sum_, root, unit = parts
        told: dict[str, Any] = {} if self.opset >= AXES_GIVEN else {"axes": [-1]}
        axes = [] if told else [self._constant(np.array([-1]))]
        return [
            helper.make_node("Pow", [x, self._constant(np.asarray(2, kind))], [square]),
            helper.make_node("ReduceMean", [square, *axes], [mean], keepdims=1, **told),
            helper.make_node("Add", [mean, self._constant(np.asarray(epsilon, kind))], [sum_]),
            helper.make_node("Sqrt", [sum_], [root]),
            helper.make_node("Div", [x, root], [unit]),
            helper.make_node("Mul", [unit, scale], [last]),
        ]

    def _constant(self, array: np.ndarray) -> str:
        key = array.tobytes(), str(array.dtype)
        if key not in self.constants:
            self.constants[key] = fresh_name(f"onnxprune.norm.{array.dtype}.{len(self.constants)}", self.names)
            self.model.graph.initializer.append(numpy_helper.from_array(array, self.constants[key]))
        return self.constants[key]
