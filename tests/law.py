"""The law *cut commutes*: what is live of op(masked inputs) equals op(cut inputs).

A small model is analysed with labels on every axis of its data inputs (a network's own inputs never shrink, but an
operator in the middle of a network sees inputs that do).  Random components are killed; the cut model, fed with cut
inputs, must give the live part of what the masked model gives for the whole inputs.  Its dead positions are zero, or
hold garbage: whatever happens upstream of the operator.  And where a rule says that those of an output are zero, what
the masked model gives there must be exactly zero, or what stands for zero in a quantised one.

The two together are an induction over the nodes of any network: they prove its rules and repairs for all of them.
"""

import functools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import onnxruntime as ort
from legacy import run_legacy
from onnx import AttributeProto, GraphProto, ModelProto, numpy_helper
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidGraph, NotImplemented

from onnxprune.channels.analysis import conclude
from onnxprune.channels.dependencies import Dependencies
from onnxprune.channels.walk import Walk
from onnxprune.channels.zero_points import Zero
from onnxprune.model.graphs import opset_of
from onnxprune.model.sort import put_in_order
from onnxprune.model.static import infer
from onnxprune.operators.boxes import Value
from onnxprune.operators.labels import is_fixed
from onnxprune.operators.roles import Role
from onnxprune.surgery import cut, mask

Feeds = Mapping[str, np.ndarray]

ort.set_default_logger_severity(4)


def session(model: ModelProto) -> ort.InferenceSession:
    """An onnxruntime session that runs the graph as it is written, on one thread."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(model: ModelProto, feeds: Feeds) -> list[np.ndarray]:
    """Outputs of a model in onnxruntime, or in numpy where it is too old for that."""
    try:
        return _run(model, feeds)
    except (NotImplemented, InvalidGraph):
        if opset_of(model) >= 7:
            raise
        return run_legacy(model, feeds)


def _run(model: ModelProto, feeds: Feeds) -> list[np.ndarray]:
    return [np.asarray(x) for x in session(model).run(None, {name: np.asarray(x) for name, x in feeds.items()})]


def is_float(array: np.ndarray) -> bool:
    return array.dtype.kind == "f" or array.dtype.name == "bfloat16"


def opened(model: ModelProto, weights: Feeds) -> ModelProto:
    """A copy in which some inputs are initializers, and whose outputs may have any shape."""
    out = ModelProto()
    out.CopyFrom(model)
    out.ir_version = max(out.ir_version, 4)
    for value in list(out.graph.input):
        if value.name in weights:
            out.graph.input.remove(value)
            out.graph.initializer.append(numpy_helper.from_array(weights[value.name], value.name))
    for value in out.graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    return out


def labelled(
    model: ModelProto, data: Feeds, known_zero: Collection[str], heads: bool, zeros: Mapping[str, int]
) -> tuple[Dependencies, Mapping[str, Zero]]:
    """Analysis of a model with labels on every axis of its data inputs.

    And the values that are promised known_zero, with what their dead positions hold.
    """
    walk = Walk(infer(model, {name: x.shape for name, x in data.items()}), opset_of(model), heads)
    for name, array in data.items():
        if is_float(array) or array.dtype in (np.int8, np.uint8, np.bool_):
            walk.values[name] = Value(tuple(walk.coupling.label(n) for n in array.shape))
    walk.zeros.note(list(known_zero), 0)
    walk.zeros.points |= {name: zero for name, zero in zeros.items() if name in known_zero}
    walk.graph(model.graph, "", [])
    deps = conclude(walk)
    return deps, {name: walk.zeros.points.get(name, 0) for name in walk.zeros.known}


def boxes(deps: Dependencies, names: Sequence[str], dead: np.ndarray) -> dict[str, tuple[np.ndarray, ...]]:
    """Live positions of each axis of some values; those whose shape is unknown are left out."""
    found = {name: deps.box(name, dead) for name in names}
    return {name: box for name, box in found.items() if box is not None}


def lottery(deps: Dependencies, rng: np.random.Generator, share: float = 0.4) -> np.ndarray:
    """Random dead components, (components,) bool, so that no axis and no picked part loses all its positions."""
    dead = rng.random(deps.nothing.size) < share
    dead[deps.frozen] = False
    rows = [x for use in deps.uses for x in use.axes]
    rows += [x for value in deps.values.values() if value is not None for x in value.axes]
    for labels in rows:
        if labels.size and not is_fixed(labels) and dead[deps.component[labels]].all():
            dead[deps.component[labels[rng.integers(labels.size)]]] = False
    return dead


@dataclass(frozen=True)
class Trial:
    """One choice of dead components: the whole inputs, the masked and the cut model, and what each gives."""

    deps: Dependencies
    dead: np.ndarray
    masked: list[np.ndarray]
    pruned: list[np.ndarray]

    @property
    def removed(self) -> int:
        return int(self.dead.sum())


def check_law(
    model: ModelProto,
    data: Feeds,
    weights: Feeds,
    *,
    zeroed: bool,
    seed: int,
    tolerance: float = 1e-4,
    zeros: Mapping[str, int] = MappingProxyType({}),
    heads: bool = True,
) -> Trial:
    """Assert the law for one random choice of dead components.

    Args:
        model: its inputs are `data` and `weights`.
        data: inputs that come from other operators, whose axes carry labels.
        weights: inputs that become tensors of the file.
        zeroed: whether dead positions of the data are zero; otherwise they hold large random numbers.
        seed: of the choice.
        heads: attention loses whole heads.
        zeros: what stands for nothing in quantised data, where it is not 0.
        tolerance: relative to the largest number of an output.
    """
    rng = np.random.default_rng(seed)
    model = opened(model, weights)
    deps, known_zero = labelled(model, data, data if zeroed else (), heads, zeros)
    dead = lottery(deps, rng)
    live = boxes(deps, list(data), dead)
    whole = {name: disturbed(x, live.get(name), zeroed, rng, zeros.get(name, 0)) for name, x in data.items()}
    small = {name: x[np.ix_(*live[name])] if name in live else x for name, x in data.items()}
    outputs = [v.name for v in model.graph.output]
    smaller = cut(model, deps, dead)
    masked, pruned = run(mask(model, deps, dead), whole), run(smaller, small)
    relied = run(mask(model, zeros_everywhere(deps), dead), whole) if known_zero.keys() & set(outputs) else masked
    for name, a, b, z in zip(outputs, masked, pruned, relied, strict=True):
        if a.dtype.kind in "OSU" or name in deps.statics.sampled:
            continue  # text has no channels; a network whose output is a size is frozen
        box = deps.box(name, dead) or tuple(np.ones(n, bool) for n in a.shape)
        agree(name, a[np.ix_(*box)], b, tolerance)
        if name in known_zero and b.dtype.kind != "b":
            agree(name, z[np.ix_(*box)], b, tolerance)
            zero = relied[outputs.index(known_zero[name])] if known_zero[name] in outputs else known_zero[name] or 0
            assert np.all(z[dead_positions(box)] == zero), f"{name} is promised to be zero where it is dead"
    assert not put_in_order(smaller)
    return Trial(deps, dead, masked, pruned)


def zeros_everywhere(deps: Dependencies) -> Dependencies:
    """The same, as if something relied on every dead channel being zero."""
    return replace(deps, zeroed=(deps.roles & int(Role.WRITE | Role.READ | Role.ADD)) != 0)


def dead_positions(box: tuple[np.ndarray, ...]) -> np.ndarray:
    """Where an array with these live positions of each axis is dead, bool of its shape."""
    return ~functools.reduce(np.logical_and.outer, box, np.ones((), bool))


def disturbed(
    array: np.ndarray, live: tuple[np.ndarray, ...] | None, zeroed: bool, rng: np.random.Generator, zero: int = 0
) -> np.ndarray:
    """The array with zeros, or with large numbers, at its dead positions."""
    if live is None or not array.ndim:
        return array
    gone = dead_positions(live)
    if array.dtype.kind == "b":
        return np.where(gone, not zeroed and rng.random(array.shape) < 0.5, array)
    if array.dtype.kind in "iu":
        noise = np.full(array.shape, zero) if zeroed else rng.integers(1, 100, array.shape)
        return np.where(gone, noise, array).astype(array.dtype)
    noise = np.zeros(array.shape) if zeroed else rng.uniform(5, 50, array.shape) * rng.choice([-1, 1], array.shape)
    return np.where(gone, noise, array).astype(array.dtype)


def waste(before: ModelProto, after: ModelProto) -> list[str]:
    """What nobody reads in a model that was made from another, unless nobody read it there; and how much it has grown.

    What only feeds a node that gave nothing to anyone before counts as read.
    """
    old = _idle(before.graph, set())
    idle = _idle(after.graph, old) - old
    grown = after.ByteSize() - before.ByteSize()
    return sorted(idle) + [f"{grown} bytes more"] * (grown > 0)


def _idle(graph: GraphProto, wanted: set[str]) -> set[str]:
    """Tensors and outputs of nodes that nothing comes of that is wanted, or an output of the graph."""
    needed, idle = wanted | {value.name for value in graph.output}, set[str]()
    for node in reversed(graph.node):
        if needed.isdisjoint(node.output):
            idle |= set(node.output)
            continue
        needed |= set(node.input)
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                needed |= _names(attribute.g)
                idle |= _idle(attribute.g, wanted)
    return idle | {t.name for t in graph.initializer if t.name not in needed}


def _names(graph: GraphProto) -> set[str]:
    """All names that a body and the bodies inside it use."""
    bodies = [a.g for node in graph.node for a in node.attribute if a.type == AttributeProto.GRAPH]
    own = {value.name for value in graph.output} | {name for node in graph.node for name in node.input}
    return own.union(*map(_names, bodies))


def agree(name: str, a: np.ndarray, b: np.ndarray, tolerance: float) -> None:
    """Assert that two outputs are the same up to rounding."""
    assert a.shape == b.shape, f"{name} has shape {b.shape} where {a.shape} is live"
    assert a.dtype == b.dtype
    x, y = a.astype(np.float64), b.astype(np.float64)
    tolerance *= 30 if a.dtype.itemsize == 2 else 1
    scale = max(1.0, float(np.max(np.abs(x), initial=0, where=np.isfinite(x))))
    np.testing.assert_allclose(y, x, rtol=tolerance, atol=tolerance * scale, err_msg=name)
