"""What ties a plan to the weights of the model that it made: elements by numpy.take, and digests of all others.

A tensor of the pruned model either is `numpy.take` of one of the original, as the plan says, or the plan holds its
sha256: what a repair solved again, what the graph of the original computes, and what the surgery added.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx

from onnxprune.model.elements import ArrayTensor, Tensor, raw_bytes
from onnxprune.model.encode import Piece, TensorData, chunks, encode
from onnxprune.model.graphs import graphs_of, is_constant, refill
from onnxprune.model.network import Network
from onnxprune.model.static import constant_value
from onnxprune.model.tensors import nodes, quoted, tensors
from onnxprune.surgery.plan import Plan

BLOCK = 4 << 20  # bytes of a tensor that are compared in one go
OWN = "onnxprune."  # what the keys of this program's metadata begin with
Tensors = Mapping[str, Tensor]


def bind(plan: Plan, original: Network, pruned: Network) -> Plan:
    """The plan with what binds it to a pruned model.

    Args:
        plan: that the model was pruned by.
        original: the user's own model, before anything was folded or reordered.
        pruned: what it was pruned to.
    """
    own, made = all_tensors(original), all_tensors(pruned)
    arrays = ((key, tensor.array()) for key, tensor in made.items())
    digests = {key: digest(array) for key, array in arrays if not _is_taken(plan, own, key, array)}
    computed = made_from(original.graph, [key for key in made if _of(plan, key) not in own])
    return replace(plan, digests=digests, computed=computed, content=content(pruned))


@dataclass(frozen=True)
class BoundWeights:
    """Tensors of a pruned model by what is known of them.

    taken: their elements are those of the original that the plan keeps.
    planned: they have the digest that the plan says.
    wrong: neither, although the plan says which it should be.
    unbound: not those of the original, and the plan does not say what they should be.
    """

    taken: tuple[str, ...]
    planned: tuple[str, ...]
    wrong: tuple[str, ...]
    unbound: tuple[str, ...]

    def __str__(self) -> str:
        if self.wrong:
            return f"NOT as planned: {len(self.wrong)} tensors, such as {quoted(self.wrong[0])}"
        parts = [f"{len(self.taken)} tensors hold what the plan keeps of the original"]
        parts += [f"{len(self.planned)} have the digest of the plan"] if self.planned else []
        parts += [f"{len(self.unbound)} are not bound by the plan"] if self.unbound else []
        return ", ".join(parts)


def check_weights(plan: Plan, original: Network, pruned: Network) -> BoundWeights:
    """What is known of the weights of a pruned model, from the original and the plan alone."""
    own, made, digests = all_tensors(original), all_tensors(pruned), plan.digests
    found: dict[str, list[str]] = {name: [] for name in ("taken", "planned", "wrong", "unbound")}
    for key, tensor in made.items():
        array = tensor.array()
        if digests is not None and key in digests:
            verdict = "planned" if digest(array) == digests[key] else "wrong"
        elif _is_taken(plan, own, key, array):
            verdict = "taken"
        else:
            verdict = "unbound" if digests is None else "wrong"
        found[verdict].append(key)
    found["wrong"] += [key for key in digests or () if key not in made]
    return BoundWeights(**{name: tuple(keys) for name, keys in found.items()})


def all_tensors(network: Network) -> dict[str, Tensor]:
    """All numbers of a model by the key of the tensor, those that a Constant holds in attributes of its own too."""
    found = {key: network.tensor(key) for key in network.headers}
    for graph, path in graphs_of(network.graph.graph):
        for node in graph.node:
            value = constant_value(node) if is_constant(node) and path + node.output[0] not in found else None
            if value is not None:
                found[path + node.output[0]] = ArrayTensor(value)
    return found


def added_operators(pruned: onnx.ModelProto, cut: onnx.ModelProto) -> tuple[str, ...]:
    """Operators that a model has more nodes of than a cut makes, each as often."""
    here, there = (Counter(n.op_type for n in nodes(model.graph.node)) for model in (pruned, cut))
    return tuple(sorted((here - there).elements()))


def _of(plan: Plan, key: str) -> str:
    """The tensor of the original that one of the pruned model is cut from."""
    return plan.copies.get(key, key)


def _is_taken(plan: Plan, own: Tensors, key: str, array: np.ndarray) -> bool:
    source = _of(plan, key)
    if source not in own:
        return False
    whole = plan.alignment.apply(own[source].array(), source)
    positions = dict(plan.initializers.get(key, {}))
    if whole.dtype != array.dtype or whole.ndim != array.ndim:
        return False
    if not whole.ndim:
        return not positions and _same(whole, array)
    rows = np.asarray(positions.pop(0, range(len(whole))), np.int64)
    step = max(1, BLOCK // max(1, whole[:1].nbytes))
    try:
        parts = (_taken(whole[rows[k : k + step]], positions) for k in range(0, len(rows), step))
        blocks = (array[k : k + step] for k in range(0, len(rows), step))
        return len(rows) == len(array) and all(map(_same, parts, blocks))
    except IndexError:  # numpy's AxisError is one
        return False


def _taken(part: np.ndarray, positions: Mapping[int, Sequence[int]]) -> np.ndarray:
    for axis, where in positions.items():
        part = np.take(part, where, axis)
    return part


def _same(one: np.ndarray, two: np.ndarray) -> bool:
    """Whether shapes and elements are the same, bit for bit; of text, the letters."""
    if one.shape != two.shape:
        return False
    if one.dtype.hasobject:
        return bool((one == two).all())
    return np.array_equal(raw_bytes(one), raw_bytes(two))


def digest(array: np.ndarray) -> str:
    """sha256 of a line with the type and the shape, "float32 [8, 3]", and the elements row by row, little-endian."""
    found = hashlib.sha256(f"{array.dtype.name} {list(array.shape)}\n".encode())
    found.update(repr(array.tolist()).encode() if array.dtype.hasobject else raw_bytes(array).data)
    return found.hexdigest()


def content(model: onnx.ModelProto | Network) -> str:
    """sha256 of a model but for this program's own metadata, the same wherever the weights are stored."""
    large: list[TensorData] = []

    def aside(found: TensorData) -> list[Piece]:
        large.append(found)
        return []

    rest = onnx.ModelProto.FromString(b"".join(chunks(encode(model, aside))))
    for tensor in tensors(rest):
        tensor.ClearField("data_location")
    refill(rest.metadata_props, [p for p in rest.metadata_props if not p.key.startswith(OWN)])
    found = hashlib.sha256(rest.SerializeToString(deterministic=True))
    for elements in large:
        for piece in elements.pieces():
            found.update(piece)
    return found.hexdigest()


def made_from(model: onnx.ModelProto, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Of each value that the graph computes from tensors of the file alone, the names of these, sorted."""
    own = {t.name for t in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    found = {}
    for name in names:
        leaves, waiting, seen = set[str](), [name] if name in makers else [], set[str]()
        while waiting:
            key = waiting.pop()
            if key in seen or not key:
                continue
            seen.add(key)
            if key in own or (key in makers and is_constant(makers[key])):
                leaves.add(key)
            elif key in makers:
                waiting += makers[key].input
        if leaves:
            found[name] = tuple(sorted(leaves))
    return found
