"""Channels that are planted in a network so that they can go without a trace."""

import numpy as np
import onnx
from law import run as outputs_of
from onnx import TensorProto, helper, numpy_helper

from onnxprune.channels import analyse
from onnxprune.channels.dependencies import Dependencies, Group
from onnxprune.lossless import Redundancy, redundancy
from onnxprune.model.network import Network
from onnxprune.operators.roles import Role
from onnxprune.surgery.rewrite import cut

CLOSE = 2e-6  # of the largest output, after a few layers in float32


class Net:
    """A small graph under construction; weights are seeded, and filters planted."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[TensorProto] = []

    def tensor(self, array: np.ndarray, name: str = "t") -> str:
        self.tensors.append(numpy_helper.from_array(np.asarray(array, np.float32), f"{name}{len(self.tensors)}"))
        return self.tensors[-1].name

    def op(self, kind: str, *inputs: str, **attributes: object) -> str:
        out = f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [out], name=out, **attributes))
        return out

    def filters(self, *shape: int, zero: tuple[int, ...] = (), low: float | None = None) -> np.ndarray:
        array = (
            self.rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))
            if low is None
            else self.rng.uniform(low, low + 1, shape)
        )
        array[list(zero)] = 0
        return array

    def conv(
        self, x: str, cin: int, cout: int, k: int = 1, *, zero: tuple[int, ...] = (), bias: bool = True, **more: object
    ) -> str:
        """A convolution some of whose filters are zero; its biases are not."""
        w = self.tensor(self.filters(cout, cin, k, k, zero=zero), "w")
        b = [self.tensor(self.filters(cout, low=0.2), "b")] if bias else []
        return self.op("Conv", x, w, *b, **more)

    def ints(self, *values: int) -> str:
        self.tensors.append(numpy_helper.from_array(np.array(values, np.int64), f"i{len(self.tensors)}"))
        return self.tensors[-1].name

    def model(self, y: str, *shape: int, opset: int = 20) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes, "net", [helper.make_tensor_value_info("x", 1, ["n", *shape])],
            [helper.make_tensor_value_info(y, 1, None)], self.tensors,
        )  # fmt: skip
        domains = {"": opset} | {n.domain: 1 for n in self.nodes if n.domain}
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid(*d) for d in domains.items()], ir_version=10
        )
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
        del model.graph.value_info[:]
        return model


def lossless(model: onnx.ModelProto, **options: object) -> tuple[Redundancy, onnx.ModelProto, float]:
    """What goes, the pruned model, and how far its output is from the original's as a share of the largest element."""
    deps = analyse(model)
    found = redundancy(Network.of(model), deps, analyse=analyse, **options)  # type: ignore[arg-type]
    small = cut(found.model, found.deps, found.deps.dead(found.kept)) if found.kept else model
    onnx.checker.check_model(small, full_check=True)
    shape = [d.dim_value or 3 for d in model.graph.input[0].type.tensor_type.shape.dim]
    x = {"x": np.random.default_rng(7).normal(size=shape).astype(np.float32)}
    worst = 0.0
    for a, b in zip(outputs_of(model, x), outputs_of(small, x), strict=True):
        assert np.abs(a).max() > 1e-3
        worst = max(worst, float(np.abs(a - b).max() / np.abs(a).max()))
    return found, small, worst


def gone(found: Redundancy, kind: str = "") -> int:
    return sum(n for counts in found.removed.values() for k, n in counts.items() if k.startswith(kind))


def plant(
    model: onnx.ModelProto, deps: Dependencies, share: float = 0.25, seed: int = 0
) -> tuple[onnx.ModelProto, int, int]:
    """A copy of the model in which some channels of each group are zero and some are copies of others.

    Returns it with the numbers of channels of both kinds.
    """
    rng, out = np.random.default_rng(seed), onnx.ModelProto()
    out.CopyFrom(model)
    tensors = {t.name: t for t in out.graph.initializer}
    arrays = {name: numpy_helper.to_array(t).copy() for name, t in tensors.items()}
    zeros = copies = 0
    for group in deps.groups:
        some = int(share * len(group))
        chosen = rng.permutation(len(group))
        zero, copy, source = np.split(chosen[: 3 * some], 3)
        if some and all(slot.source in arrays for slot in group.slots):
            _copy(group, arrays, copy, source)
            _clear(group, arrays, zero)
            zeros, copies = zeros + some, copies + some
    for name, tensor in tensors.items():
        tensor.CopyFrom(numpy_helper.from_array(arrays[name], name))
    return out, zeros, copies


def _copy(group: Group, arrays: dict[str, np.ndarray], copy: np.ndarray, source: np.ndarray) -> None:
    for slot in group.slots:
        if not slot.role & Role.READ:
            index = (slice(None),) * slot.axis
            arrays[slot.source][(*index, slot.positions[copy])] = arrays[slot.source][(*index, slot.positions[source])]


def _clear(group: Group, arrays: dict[str, np.ndarray], zero: np.ndarray) -> None:
    for slot in group.slots:
        if slot.role & (Role.WRITE | Role.ADD):
            arrays[slot.source][(*(slice(None),) * slot.axis, slot.positions[zero])] = 0


def spoiled(model: onnx.ModelProto, seed: int) -> onnx.ModelProto:
    """A copy in which some rows and columns of weights, biases and norms are zero, below zero or equal."""
    rng, out = np.random.default_rng(seed), onnx.ModelProto()
    out.CopyFrom(model)
    told = {name for n in out.graph.node if n.op_type in ("Resize", "Upsample") for name in n.input[1:]}
    constants = [a.t for n in out.graph.node for a in n.attribute if n.output[0] not in told and a.name == "value"]
    for tensor in (*(t for t in out.graph.initializer if t.name not in told), *constants):
        array = numpy_helper.to_array(tensor)
        if array.dtype != np.float32 or array.ndim == 0 or array.shape[0] < 2:
            continue
        array = array.copy()
        rows = rng.permutation(len(array))[: max(2, len(array) // 2)]
        array[rows[0]] = 0
        if rng.random() < 0.5:
            array[rows[1:]] = array[rows[1]]
        if array.ndim > 1 and rng.random() < 0.3:
            array[:, rng.integers(array.shape[1])] = 0
        if array.ndim > 1 and rng.random() < 0.3:
            array[rows[-1]] = -np.abs(array[rows[-1]])
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return out
