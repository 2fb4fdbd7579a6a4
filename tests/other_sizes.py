"""An oracle for *pruned = masked at other sizes* that knows of the product no more than the JSON of a plan.

What a plan removes is set to zero in the original, in numpy; both models then run at sizes and on numbers that the
product has not seen, in onnxruntime without optimisations and in onnx's own reference evaluator.
"""

from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

Size = Mapping[str, int]  # of each open dim
Feeds = Mapping[str, np.ndarray]
Runner = Callable[[ModelProto, Feeds], list[np.ndarray]]

INPUTS: dict[str, Callable[[np.random.Generator, list[int]], np.ndarray]] = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "positive": lambda rng, shape: rng.uniform(0.1, 2, shape),
    "pixels": lambda rng, shape: rng.uniform(20, 255, shape),
}

# --- the masked original -----------------------------------------------------

WEIGHTS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16}
ZERO_POINTS = {  # where the zero point of a quantised weight stands
    "DequantizeLinear": (0, 2),
    "QLinearConv": (3, 5),
    "QLinearMatMul": (3, 5),
    "QGemm": (3, 5),
    "ConvInteger": (1, 3),
    "MatMulInteger": (1, 3),
}

MOVES = {"Gather", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Identity"}


def masked(model: ModelProto, plan: Mapping[str, Any], pruned: ModelProto) -> ModelProto:
    """The original in which all that the plan removes is zero."""
    out = ModelProto()
    out.CopyFrom(model)
    _give_copies(out.graph, pruned.graph, plan.get("copies", {}))
    held, zeros, scales = dict(_tensors(out.graph, "")), _zeros(out.graph), _scales(out.graph)
    for key, axes in plan["initializers"].items():
        tensor = held[key]
        name = tensor.name
        if name in zeros or (tensor.data_type in WEIGHTS and name not in scales):
            array = numpy_helper.to_array(tensor)
            stays = _stays(array.shape, axes, plan.get("alignment", {}), key)
            array = np.where(stays, array, array.dtype.type(zeros.get(name, 0)))
            tensor.CopyFrom(numpy_helper.from_array(array, name))
    for name, made in plan.get("computed", {}).items():
        array = _value(out, name)
        array = np.where(_stays(array.shape, made["axes"], {}, name), array, array.dtype.type(0))
        for node in out.graph.node:  # the tensor takes the place of what the graph computes
            node.output[:] = [f"{n}/whole" if n == name else n for n in node.output]
        out.graph.initializer.append(numpy_helper.from_array(array, name))
    return out


def _value(model: ModelProto, name: str) -> np.ndarray:
    """What a graph computes from its tensors alone."""
    makers, needed, waiting = {n: node for node in model.graph.node for n in node.output}, [], [name]
    while waiting:
        node = makers.get(waiting.pop())
        if node is not None and node not in needed:
            needed.append(node)
            waiting += node.input
    part = ModelProto()
    part.CopyFrom(model)
    del part.graph.node[:], part.graph.input[:], part.graph.output[:]
    part.graph.node.extend(node for node in model.graph.node if node in needed)
    part.graph.output.append(helper.make_empty_tensor_value_info(name))
    return run(part, {})[0]


def _stays(shape: tuple[int, ...], axes: Mapping[str, list[int]], alignment: Mapping[str, Any], key: str) -> np.ndarray:
    """Which elements of a tensor a plan keeps, bool; its positions count in the order that the alignment gives."""
    stays = np.ones(shape, bool)
    for axis, kept in axes.items():
        gone = np.setdiff1d(np.arange(shape[int(axis)]), kept)
        stays[(slice(None),) * int(axis) + (gone,)] = False
    if rows := alignment.get("grouped", {}).get(key):
        parts = zip(np.split(stays, len(rows)), rows, strict=True)
        stays = np.concatenate([part.take(np.argsort(row), 1) for part, row in parts])
    for axis, order in alignment.get("orders", {}).get(key, {}).items():
        stays = stays.take(np.argsort(order), int(axis))
    return stays


def _tensors(graph: GraphProto, path: str) -> Iterator[tuple[str, TensorProto]]:
    """Tensors of a graph and of the bodies in it, by the names that a plan gives them."""
    yield from ((path + t.name, t) for t in graph.initializer)
    for node in graph.node:
        for a in node.attribute:
            if a.type == AttributeProto.GRAPH:
                yield from _tensors(a.g, f"{path}{next(filter(None, node.output), node.name)}.{a.name}/")
            elif node.op_type == "Constant" and a.type == AttributeProto.TENSOR:
                yield path + node.output[0], a.t


def _zeros(graph: GraphProto) -> dict[str, int]:
    """What stands for zero in each quantised weight."""
    held = {t.name: t for t in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    found = {}
    for node in graph.node:
        weight, zero = ZERO_POINTS.get(node.op_type, (0, 0))
        name = node.input[weight] if zero else ""
        while name in makers and makers[name].op_type in MOVES:  # a table that is looked up
            name = makers[name].input[0]
        if name in held:
            given = held.get(node.input[zero]) if len(node.input) > zero else None
            found[name] = int(numpy_helper.to_array(given).flat[0]) if given else 0
    return found


def _scales(graph: GraphProto) -> set[str]:
    """Tensors that something is divided by."""
    quantise = [n for n in graph.node if "Quantize" in n.op_type or "QLinear" in n.op_type or n.op_type == "Div"]
    return {name for node in quantise for name in node.input[1:]}


def _give_copies(graph: GraphProto, pruned: GraphProto, copies: Mapping[str, str]) -> None:
    """A tensor that its readers see cut in different ways has copies in the pruned graph: so it has here."""
    held, nodes = dict(_tensors(graph, "")), {node.output[0]: node for node in graph.node}
    for copy, original in copies.items():
        graph.initializer.append(numpy_helper.from_array(numpy_helper.to_array(held[original]), copy))
        for node in pruned.node:
            for k in (k for k, name in enumerate(node.input) if name == copy):
                nodes[node.output[0]].input[k] = copy


# --- runs --------------------------------------------------------------------


def run(model: ModelProto, feeds: Feeds) -> list[np.ndarray]:
    """Outputs in onnxruntime, of the graph as it is written."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, dict(feeds))


def reference(model: ModelProto, feeds: Feeds) -> list[np.ndarray]:
    """Outputs in onnx's own evaluator."""
    return ReferenceEvaluator(model).run(None, dict(feeds))


def data_inputs(model: ModelProto) -> list[Any]:
    """Inputs that are no weights."""
    weights = {t.name for t in model.graph.initializer}
    return [v for v in model.graph.input if v.name not in weights]


def shapes(model: ModelProto, size: Size) -> dict[str, list[int]]:
    """Shapes of the inputs at this size."""
    dims = {v.name: v.type.tensor_type.shape.dim for v in data_inputs(model)}
    return {name: [d.dim_value or size[d.dim_param] for d in shape] for name, shape in dims.items()}


def feeds(model: ModelProto, size: Size, kind: str = "normal", seed: int = 0) -> dict[str, np.ndarray]:
    """Inputs of one kind at this size; integers are small."""
    rng, found, given = np.random.default_rng(seed), {}, shapes(model, size)
    for value in data_inputs(model):
        dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        shape = given[value.name]
        found[value.name] = (rng.integers(0, 3, shape) if dtype.kind in "iub" else INPUTS[kind](rng, shape)).astype(
            dtype
        )
    return found


def runs(model: ModelProto, size: Size, engine: Runner = run) -> bool:
    """Whether the original has a meaning at this size, and the engine knows its operators."""
    try:
        engine(model, feeds(model, size))
    except Exception:  # onnxruntime's errors have no common base
        return False
    return True


def assert_same(
    original: ModelProto,
    pruned: ModelProto,
    sizes: Iterable[Size],
    kinds: Iterable[str] = INPUTS,
    engine: Runner = run,
    *,
    may_fail: bool = False,
    chaotic: bool = False,
) -> None:
    """Assert that both give the same at each size.

    Args:
        may_fail: whether some data may have no meaning for the original at a size, such as an index beyond it.
        chaotic: whether rounding may move the outputs by more than the tolerance; it is then measured.
    """
    finite = 0  # at most sizes; at some a power is no number, or an index lies beyond them
    for seed, size in enumerate(sizes):
        for kind in kinds:
            given = feeds(original, size, kind, seed + 100)
            try:
                wanted = engine(original, given)
            except InvalidArgument:
                assert may_fail, f"the original does not run at {dict(size)} ({kind})"
                continue
            for a, b in zip(wanted, engine(pruned, given), strict=True):
                assert a.shape == b.shape, f"{b.shape} in place of {a.shape} at {dict(size)}"
                if a.dtype.kind not in "fiub" or not np.isfinite(a.astype(float)).all():
                    continue
                finite += a.size
                difference = np.abs(a.astype(float) - b.astype(float)).max(initial=0)
                scale = max(1e-3, np.abs(a.astype(float)).max(initial=0))
                if difference > 1e-4 * scale:
                    noise = rounding(original, given, engine) if chaotic else 0.0
                    told = f"off by {difference:.2g} of {scale:.2g}, and {noise:.2g} by rounding"
                    assert difference <= 4 * noise, f"{told}, at {dict(size)} ({kind})"
    assert finite


def rounding(model: ModelProto, feeds: Feeds, engine: Runner = run) -> float:
    """How far the outputs move when every weight is rounded otherwise, the most of three times."""
    right, most = engine(model, feeds), 0.0
    for seed in range(3):
        rng, nudged = np.random.default_rng(seed), ModelProto()
        nudged.CopyFrom(model)
        for _, tensor in _tensors(nudged.graph, ""):
            if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) > 1:
                array, name = numpy_helper.to_array(tensor), tensor.name
                array = array * (1 + rng.uniform(-6e-8, 6e-8, array.shape))
                tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float32), name))
        for a, b in zip(right, engine(nudged, feeds), strict=True):
            if a.dtype.kind == "f" and np.isfinite(a).all() and np.isfinite(b).all():
                most = max(most, float(np.abs(a - b).max(initial=0)))
    return most


# --- open dims ---------------------------------------------------------------


def opened(
    model: ModelProto, at: Mapping[str, Iterable[int]], axes: Container[int]
) -> tuple[ModelProto, dict[str, int]]:
    """A copy whose inputs are open along those axes that it runs with another length of, and the lengths in `at`."""
    out = ModelProto()
    out.CopyFrom(model)
    del out.graph.value_info[:]
    for value in out.graph.output:
        value.type.tensor_type.ClearField("shape")
    size, dims = {}, defaultdict(list)
    for value in data_inputs(out):
        for axis, (d, length) in enumerate(zip(value.type.tensor_type.shape.dim, at[value.name], strict=True)):
            if axis in axes:
                d.dim_param = d.dim_param or f"axis {axis} of {length}"
                size[d.dim_param] = length
                dims[d.dim_param].append(d)
    _loosen(out.graph, next(iter(size.values())))
    for name in list(size):
        if not any(runs(out, {**size, name: size[name] + step}) for step in (1, 2, 4, 8)):
            for d in dims[name]:
                d.dim_value = size[name]
            del size[name]
    return out, size


def _loosen(graph: GraphProto, batch: int) -> None:
    """Let each Reshape to a constant shape that begins with the batch take the batch that comes."""
    targets = {n.input[1] for n in graph.node if n.op_type == "Reshape" and not any(a.i for a in n.attribute)}
    targets -= {name for n in graph.node for k, name in enumerate(n.input) if (n.op_type, k) != ("Reshape", 1)}
    for tensor in graph.initializer:
        if tensor.name in targets and (shape := numpy_helper.to_array(tensor).copy()).size and shape[0] == batch:
            name, shape[0] = tensor.name, 0
            tensor.CopyFrom(numpy_helper.from_array(shape, name))


def others(model: ModelProto, at: Size, count: int = 3) -> list[Size]:
    """Sizes that the model runs at and that `at` is not: other batches first, and other lengths where it can."""
    names = list(at)
    tries = [(2, 3), (3, 4), (4, 1), (2, 8), (3, 16), (2, 0), (3, 0), (5, 0)]
    made = [
        {n: at[n] + step * (k or 1) for k, n in enumerate(names)} | {names[0]: batch} for batch, step in tries if at
    ]
    return [size for size in made if size != at and runs(model, size)][:count]
