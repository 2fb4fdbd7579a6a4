"""Branches of Ifs written out in the main graph, so that the layers in them can be solved like any other.

Both branches of an If then run in any case, and the If picks one of what they give: that computes the same wherever
both can run.  Names of values in a branch are the keys that they have in the analysis, the path of the graph before the
name, so that what is solved for the flat network holds for the user's.
"""

from collections.abc import Collection, Iterator, Mapping

import numpy as np
import onnx
from onnx import helper

from onnxprune.errors import ModelError
from onnxprune.model.graphs import subgraphs
from onnxprune.operators.registry import Trait, has
from onnxprune.runtime.session import make_session
from onnxprune.runtime.specs import model_inputs, shortened
from onnxprune.surgery.recovery.solvable import has_weights

FEW = 4  # samples that branches are tried on


def flattened(model: onnx.ModelProto, feed: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """The model with all branches in the main graph that hold layers and run on a feed; itself where there are none."""
    paths = list(branches_with_layers(model.graph))
    if not paths:
        return model
    if (flat := _tried(model, paths, feed)) is not None:
        return flat
    running = [path for path in paths if _tried(model, [path], feed) is not None]
    return _tried(model, running, feed) or model if running else model


def branches_with_layers(graph: onnx.GraphProto) -> Iterator[str]:
    """Paths of the branches of the main graph's Ifs in which there is a layer, at whatever depth."""
    for node in graph.node:
        if has(node, Trait.BRANCHES):
            yield from (path for body, path in subgraphs(node) if _has_layers(body))


def _has_layers(graph: onnx.GraphProto) -> bool:
    return any(has_weights(node) or any(_has_layers(body) for body, _ in subgraphs(node)) for node in graph.node)


def _tried(model: onnx.ModelProto, paths: Collection[str], feed: Mapping[str, np.ndarray]) -> onnx.ModelProto | None:
    """The model with these branches in the main graph; None where one cannot run, or gives what is no number."""
    flat = _flat(model, paths)
    layers = [n for node in flat.graph.node if has_weights(node) for n in node.output if n.startswith(tuple(paths))]
    some = shortened(feed, model_inputs(model), FEW)
    try:
        found = make_session(flat, providers="cpu", threads=1, taps=layers).run(some, layers)
    except ModelError:
        return None
    return flat if all(np.isfinite(a).all() for a in found.values() if a.dtype.kind == "f") else None


def _flat(model: onnx.ModelProto, paths: Collection[str]) -> onnx.ModelProto:
    out = onnx.ModelProto()
    out.CopyFrom(model)
    del out.graph.node[:]
    for node in model.graph.node:
        _write_out(node, out.graph, paths)
    return out


def _write_out(node: onnx.NodeProto, graph: onnx.GraphProto, paths: Collection[str]) -> None:
    """Append a node to the main graph, what stands in its branches before it."""
    chosen = [path for _, path in subgraphs(node) if has(node, Trait.BRANCHES) and path.startswith(tuple(paths))]
    if not chosen:
        graph.node.append(node)
        return
    new = onnx.NodeProto()
    new.CopyFrom(node)
    for body, path in subgraphs(new):
        if path not in chosen:
            continue
        names = {n: path + n for n in _made(body)}
        graph.initializer.extend(_renamed_tensor(t, path + t.name) for t in body.initializer)
        for inner in body.node:
            _write_out(_renamed(inner, names), graph, paths)
        given = [
            helper.make_node("Identity", [names.get(v.name, v.name)], [f"{path}picked {v.name}"]) for v in body.output
        ]
        outputs = [onnx.ValueInfoProto(name=n.output[0], type=v.type) for n, v in zip(given, body.output, strict=True)]
        for field, content in (("node", given), ("output", outputs), ("initializer", []), ("value_info", [])):
            body.ClearField(field)
            getattr(body, field).extend(content)
    graph.node.append(new)


def _made(body: onnx.GraphProto) -> set[str]:
    """Names that a graph gives to values of its own."""
    return {t.name for t in body.initializer} | {name for node in body.node for name in node.output if name}


def _renamed_tensor(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    out = onnx.TensorProto()
    out.CopyFrom(tensor)
    out.name = name
    return out


def _renamed(node: onnx.NodeProto, names: Mapping[str, str]) -> onnx.NodeProto:
    """A copy of a node, and of the bodies in it, that takes and gives values by other names."""
    out = onnx.NodeProto()
    out.CopyFrom(node)
    out.output[:] = [names.get(n, n) for n in node.output]
    _rename_inputs(out, names)
    return out


def _rename_inputs(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    node.input[:] = [names.get(n, n) for n in node.input]
    for body, _ in subgraphs(node):
        inner = {n: new for n, new in names.items() if n not in _made(body) | {v.name for v in body.input}}
        for below in body.node:
            _rename_inputs(below, inner)
        for value in body.output:
            value.name = inner.get(value.name, value.name)
