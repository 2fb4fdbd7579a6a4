"""Cut a copy of the user's own model down to its live channels, or only mask the others.

Only touched tensors, attributes and shapes differ: names, operator sets, IR version, metadata, functions, inputs and
outputs stay as they were.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxprune.channels.dependencies import Dependencies
from onnxprune.channels.op import REPAIRS, operator
from onnxprune.errors import ModelError
from onnxprune.model.evaluate import MALFORMED
from onnxprune.model.static import opset_of, subgraphs
from onnxprune.model.tensors import quoted
from onnxprune.surgery.copying import Replaced, copy_model, graphs_of
from onnxprune.surgery.edit import Draft, Edit
from onnxprune.surgery.tensors import Version, cut_array, masked_array, read_tensor, versions, write_tensor
from onnxprune.surgery.thaw import compute_on_live


def cut(model: onnx.ModelProto, deps: Dependencies, dead: np.ndarray) -> onnx.ModelProto:
    """A copy of the model without the dead components.

    Args:
        model: the model that `deps` was made from; never changed.
        deps: its analysis.
        dead: (components,) bool, from `Dependencies.dead`.
    """
    plans = list(versions(deps, dead))
    out = _with_tensors(model, plans, cut_array)
    draft = Draft(deps, dead, opset_of(model))
    draft.names = _all_names(out)
    draft.restate()
    uses = {(u.node, u.input): v for v in plans for u in v.uses}
    live = {place: version.live for place, version in uses.items()}
    fills: dict[str, list[Version]] = {}
    for version in plans:
        if version.source.kind == "fill":
            fills.setdefault(version.source.key, []).append(version)
    nodes = {(path, tuple(node.output)): node for graph, path in graphs_of(out.graph) for node in graph.node}
    for index, node in enumerate(deps.nodes):
        proto = nodes[node.path, tuple(node.proto.output)]
        _rewire(proto, index, uses)
        _keep_told(draft, index, proto)
        _fill(draft, index, proto, fills.get(node.outputs[0] if node.outputs else "", []))
        if index in deps.detours and any(draft.box(key) is None for key in deps.passed(index)):
            _detour(draft, index, proto)
        elif any(draft.box(key) is None and deps.values.get(key) is not None for key in (*node.inputs, *node.outputs)):
            continue  # inside a shuffle that is replaced as a whole
        elif index in deps.unknown:
            continue  # all that it takes is whole
        elif (fn := REPAIRS.get(operator(proto.domain, proto.op_type))) and _touched(draft, index, live):
            inputs = {k: live[index, k] for k in range(len(node.inputs)) if (index, k) in live}
            inputs |= {u.input: tuple(np.ones(x.size, bool) for x in u.axes) for u in _whole(deps, index, inputs)}
            attributes = {a.name: helper.get_attribute_value(a) for a in proto.attribute if a.type != a.GRAPH}
            try:
                fn(Edit(draft, index, node, proto, inputs), **attributes)
            except MALFORMED as error:
                what = "has inputs or attributes that do not suit its operator, and cannot follow the cut"
                raise ModelError(f"node {quoted(str(node))} {what} ({type(error).__name__})") from error
    _place(out, draft, nodes)
    _drop_unused(out, model)
    _list_tensors(out, model)
    _refresh_shapes(out, draft)
    return out


def mask(model: onnx.ModelProto, deps: Dependencies, dead: np.ndarray) -> onnx.ModelProto:
    """A copy of the model in which all weights that read a dead component are zero, so that it does not matter.

    Where something else than a weight sums over channels, the weights that write, scale and shift them are zero too.
    What the masked model gives is by definition what the pruned model must give; it needs none of the repairs.
    """
    zeros = zero_points(model, deps)
    plans = list(versions(deps, dead, masked=True))

    def masked(array: np.ndarray, live: tuple[np.ndarray, ...], version: Version) -> np.ndarray:
        return masked_array(array, live, zeros.get(version.source.key, 0))

    out = _with_tensors(model, plans, masked)
    uses = {(u.node, u.input): v for v in plans for u in v.uses}
    nodes = {(path, tuple(node.output)): node for graph, path in graphs_of(out.graph) for node in graph.node}
    renamed = _materialise(out, plans, nodes, deps)
    _list_tensors(out, model)
    for index, node in enumerate(deps.nodes):
        _rewire(nodes[node.path, tuple(node.proto.output)], index, uses, renamed)
    if approximated := deps.approximated(dead):
        draft = Draft(deps, dead, opset_of(model))
        draft.names = _all_names(out)
        for index in approximated:
            node = deps.nodes[index]
            compute_on_live(draft, index, nodes[node.path, tuple(node.proto.output)])
        _place(out, draft, nodes)
    return out


# --- tensors -----------------------------------------------------------------


def _with_tensors(model: onnx.ModelProto, plans: list[Version], change: Callable) -> onnx.ModelProto:
    """A copy of the model with each planned version of its tensors."""
    by_source: dict[str, list[Version]] = {}
    for version in plans:
        by_source.setdefault(version.source.key, []).append(version)

    def replaced(key: str, tensor: onnx.TensorProto) -> Replaced:
        found = by_source.get(key)
        if found is None:
            return None
        array = read_tensor(tensor)
        return [
            (v.name, v.copied, change(array, v.live, v) if change is not cut_array else cut_array(array, v.live))
            for v in found
        ]

    return copy_model(model, replaced, write_tensor)


def _rewire(
    proto: onnx.NodeProto,
    index: int,
    uses: Mapping[tuple[int, int], Version],
    renamed: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Let a node take its own version of a shared tensor."""
    for k in range(len(proto.input)):
        version = uses.get((index, k))
        if version is not None and (version.copied or version.name in renamed):
            proto.input[k] = renamed.get(version.name, version.name)


def _keep_told(draft: Draft, index: int, proto: onnx.NodeProto) -> None:
    """Sizes that a node computes with stay those of the original."""
    node = draft.deps.nodes[index]
    for k, key in enumerate(node.inputs):
        if (index, k) in draft.deps.told and key in draft.restated:
            original = draft.deps.statics.constants[key]
            proto.input[k] = draft.add_initializer(node.path, f"{node.label}.{k}", original)


def _fill(draft: Draft, index: int, proto: onnx.NodeProto, found: list[Version]) -> None:
    """Weights that ConstantOfShape makes: the shape that it is told follows, and other cuts get a fill of their own."""
    node = draft.deps.nodes[index]
    for version in found:
        shape = np.array([int(m.sum()) for m in version.live], np.int64)
        told = draft.add_initializer(node.path, f"{node.label}.shape", shape)
        if version.copied:
            fill = helper.make_node("ConstantOfShape", [told], [version.name])
            fill.attribute.extend(proto.attribute)
            draft.after.setdefault(index, []).append(fill)
        else:
            proto.input[0] = told


def _materialise(out: onnx.ModelProto, plans: list[Version], nodes: dict, deps: Dependencies) -> dict[str, str]:
    """Masked fills as tensors of the file: new name by name of the version."""
    made = {n.outputs[0]: n for n in deps.nodes if n.proto.op_type == "ConstantOfShape"}
    renamed = {}
    for version in plans:
        if version.source.kind == "fill":
            node = made[version.source.key]
            value = next(
                (read_tensor(a.t).ravel()[0] for a in node.proto.attribute if a.name == "value"), np.float32(0)
            )
            array = masked_array(np.full(version.source.shape, value), version.live)
            renamed[version.name] = f"{version.name}.masked"
            out.graph.initializer.append(numpy_helper.from_array(array, renamed[version.name]))
    return renamed


def zero_points(model: onnx.ModelProto, deps: Dependencies) -> dict[str, np.ndarray]:
    """What zero is in quantised weights, shaped to broadcast over them, by key of the weight."""
    tensors = {t.name: t for t in model.graph.initializer}
    found: dict[str, np.ndarray] = {}
    for scaling in deps.scalings:
        use = next((u for u in deps.uses if scaling.weight is not None and u.axes is scaling.weight), None)
        if use is None or scaling.zero_point not in tensors:
            continue
        zero = read_tensor(tensors[scaling.zero_point])
        if scaling.axis is not None and zero.ndim:
            zero = zero.reshape([-1 if k == scaling.axis % len(use.axes) else 1 for k in range(len(use.axes))])
        found[use.source] = zero
    return found


# --- nodes -------------------------------------------------------------------


def _touched(draft: Draft, index: int, live: Mapping[tuple[int, int], tuple[np.ndarray, ...]]) -> bool:
    node = draft.deps.nodes[index]
    return any((index, k) in live for k in range(len(node.inputs))) or draft.touched(node)


def _whole(deps: Dependencies, index: int, known: Mapping[int, object]) -> list:
    return [u for u in deps.uses if u.node == index and u.input not in known]


def _detour(draft: Draft, index: int, proto: onnx.NodeProto) -> None:
    """A shuffle whose channels are no box any more becomes one Gather."""
    node, detour = draft.deps.nodes[index], draft.deps.detours[index]
    origin, out = draft.box(detour.origin.value), draft.box(node.outputs[0])
    assert origin is not None and out is not None
    renumber = np.cumsum(origin[detour.origin.axis]) - 1
    picks = renumber[detour.order[out[detour.origin.axis]]]
    name = draft.add_initializer(node.path, f"{node.label}.picks", picks)
    proto.op_type = "Gather"
    del proto.input[:], proto.attribute[:]
    proto.input.extend([detour.origin.value.removeprefix(node.path), name])
    proto.attribute.append(helper.make_attribute("axis", detour.origin.axis))


def _place(out: onnx.ModelProto, draft: Draft, nodes: Mapping[tuple[str, tuple[str, ...]], onnx.NodeProto]) -> None:
    """Put the new tensors and nodes where they belong."""
    deps = draft.deps
    index = {id(nodes[deps.nodes[k].path, tuple(deps.nodes[k].proto.output)]): k for k in (*draft.before, *draft.after)}
    for graph, path in list(graphs_of(out.graph)):
        new = draft.initializers.get(path, ())
        graph.initializer.extend(new)
        places = [index.get(id(node), -1) for node in graph.node]
        if max(places, default=-1) < 0:
            continue
        ordered: list[onnx.NodeProto] = []
        for k, node in zip(places, graph.node, strict=True):
            ordered += [*draft.before.get(k, []), node, *draft.after.get(k, [])]
        _replace_nodes(graph, ordered)


def _list_tensors(out: onnx.ModelProto, model: onnx.ModelProto) -> None:
    """Before IR version 4 every tensor is listed as an input too; so are the new ones."""
    if model.ir_version >= 4:
        return
    known = {path + t.name for graph, path in graphs_of(model.graph) for t in graph.initializer}
    for graph, path in graphs_of(out.graph):
        new = [t for t in graph.initializer if path + t.name not in known]
        graph.input.extend(helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in new)


def _replace_nodes(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    holder = onnx.GraphProto()
    holder.node.extend(nodes)
    del graph.node[:]
    graph.node.extend(holder.node)


def _all_names(model: onnx.ModelProto) -> set[str]:
    names: set[str] = set()
    for graph, _ in graphs_of(model.graph):
        names |= {t.name for t in graph.initializer} | {v.name for v in (*graph.input, *graph.output)}
        names |= {name for node in graph.node for name in (*node.input, *node.output)}
    return names


def _references(graph: onnx.GraphProto) -> set[str]:
    found = {v.name for v in graph.output}
    for node in graph.node:
        found.update(node.input)
        for body, _ in subgraphs(node):
            found |= _references(body)
    return found


def _drop_unused(out: onnx.ModelProto, model: onnx.ModelProto) -> None:
    """Remove nodes and tensors that only the removed parts used; what nobody used before stays."""
    wanted, graph = _references(model.graph), out.graph
    while True:
        used = _references(graph)
        busy = [n for n in graph.node if any(o in used or o not in wanted for o in n.output) or not n.output]
        if len(busy) == len(graph.node):
            break
        _replace_nodes(graph, busy)
    idle = [k for k, t in enumerate(graph.initializer) if t.name in wanted and t.name not in used]
    names = {graph.initializer[k].name for k in idle}
    for k in reversed(idle):
        del graph.initializer[k]
    for k in [k for k, v in enumerate(graph.input) if v.name in names][::-1]:
        del graph.input[k]


def _refresh_shapes(out: onnx.ModelProto, draft: Draft) -> None:
    """Recorded shapes of values that lost channels; those of values that are gone."""
    for graph, path in graphs_of(out.graph):
        made = {name for node in graph.node for name in node.output} | {v.name for v in graph.input}
        tensors = {t.name: t for t in graph.initializer}
        for value in [v for v in graph.value_info if v.name not in made and v.name not in tensors]:
            graph.value_info.remove(value)
        for value in (*graph.value_info, *graph.input, *(graph.output if path else ())):
            if not value.type.tensor_type.HasField("shape"):
                continue
            dims = value.type.tensor_type.shape.dim
            box = draft.box(path + value.name)
            sizes = tensors[value.name].dims if value.name in tensors else [int(m.sum()) for m in box or ()]
            cut_axes = [True] * len(sizes) if value.name in tensors else [not m.all() for m in box or ()]
            for dim, size, changed in zip(dims, sizes, cut_axes, strict=False):
                if changed and dim.HasField("dim_value"):
                    dim.dim_value = size
