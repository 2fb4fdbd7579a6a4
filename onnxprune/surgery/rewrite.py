"""Cut a copy of the user's own model down to its live channels, or only mask the others.

Only touched tensors, attributes and shapes differ: names, operator sets, IR version, metadata, functions, inputs and
outputs stay as they were.
"""

from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxprune.channels.dependencies import Dependencies
from onnxprune.channels.nodes import fill_of
from onnxprune.errors import ModelError
from onnxprune.model.elements import Tensor
from onnxprune.model.network import Network
from onnxprune.model.tensors import quoted
from onnxprune.operators.labels import line
from onnxprune.operators.registry import MALFORMED, Trait, has, operator_of
from onnxprune.surgery.draft import Draft, nodes_of
from onnxprune.surgery.edit import Edit
from onnxprune.surgery.retrace import retraced
from onnxprune.surgery.thaw import around, guard, may_divide_by_zero
from onnxprune.surgery.tidy import drop_unused, list_tensors, place, refresh_shapes
from onnxprune.surgery.versions import CutTensor, MaskedTensor, Version, cut_array, masked_array, versions

QUANTISED = frozenset({onnx.TensorProto.UINT8, onnx.TensorProto.INT8, onnx.TensorProto.UINT16, onnx.TensorProto.INT16})


def cut(model: onnx.ModelProto | Network, deps: Dependencies, dead: np.ndarray) -> onnx.ModelProto:
    """A copy of the model that is `pruned`."""
    return pruned(Network.of(model), deps, dead).proto()


def pruned(original: Network, deps: Dependencies, dead: np.ndarray) -> Network:
    """The network without the dead components.

    Args:
        original: the network that `deps` was made from.
        deps: its analysis.
        dead: (components,) bool, from `Dependencies.dead`.
    """
    plans = list(versions(deps, dead))
    network = _with_versions(original, plans, lambda version, whole: CutTensor(whole, version.live))
    out = network.graph
    draft = Draft(out, deps, dead)
    draft.restate()
    versioned = {(u.node, u.input): v for v in plans for u in v.uses}
    changed = {version.source.key for version in plans}
    fills: dict[str, list[Version]] = {}
    for version in plans:
        if version.source.kind == "fill":
            fills.setdefault(version.source.key, []).append(version)
    for index, node in enumerate(deps.nodes):
        proto = draft.proto(index)
        _rewire(proto, index, versioned)
        _keep_fixed_sizes(draft, index, proto)
        _keep_sizes(draft, index, proto, changed)
        _fill(draft, index, proto, fills.get(node.outputs[0] if node.outputs else "", []))
        _follow(draft, index, proto, versioned)
    place(draft)
    drop_unused(out, original.graph)
    list_tensors(out, original.graph)
    refresh_shapes(draft)
    return network.with_graph(out)


def mask(model: onnx.ModelProto | Network, deps: Dependencies, dead: np.ndarray) -> onnx.ModelProto:
    """A copy of the model that is `masked`."""
    return masked(Network.of(model), deps, dead).proto()


def masked(original: Network, deps: Dependencies, dead: np.ndarray) -> Network:
    """The network in which all weights that read a dead component are zero, so that it does not matter.

    Where something else than a weight sums over channels, the weights that write, scale and shift them are zero too.
    What the masked network gives is by definition what the pruned one must give; it needs none of the repairs.
    """
    if not dead.any():
        return original
    zeros, plans = zero_points(original, deps), list(versions(deps, dead, masked=True))

    def zeroed(version: Version, tensor: Tensor) -> Tensor:
        return MaskedTensor(tensor, version.live, zeros.get(version.source.key, 0))

    network, renamed = _materialised(_with_versions(original, plans, zeroed), plans, deps)
    out = network.graph
    uses = {(u.node, u.input): v for v in plans for u in v.uses}
    nodes = nodes_of(out)
    for index, node in enumerate(deps.nodes):
        _rewire(nodes[node.path, tuple(node.proto.output)], index, uses, renamed)
    if may_divide_by_zero(deps, dead):
        guard(out, deps, dead)
    if approximated := deps.approximated(dead):
        around(out, deps, dead, approximated)
    list_tensors(out, original.graph)
    return network


# --- tensors -----------------------------------------------------------------


def _with_versions(network: Network, plans: list[Version], make: Callable[[Version, Tensor], Tensor]) -> Network:
    """The network, with a graph of its own, with each planned version of its tensors."""
    made = [(v, make(v, network.tensor(v.source.key))) for v in plans if v.source.kind != "fill"]
    copies: dict[str, list[tuple[str, Tensor | None]]] = {v.source.key: [] for v, _ in made if v.copied}
    for version, tensor in made:
        if version.source.key in copies:
            copies[version.source.key].append((version.name, tensor if version.copied else None))
    return network.with_tensors({v.source.key: t for v, t in made if not v.copied}).with_copies(copies)


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


def _keep_fixed_sizes(draft: Draft, index: int, proto: onnx.NodeProto) -> None:
    """Sizes that a node computes with stay those of the original, and so do known arrays where their channels stay."""
    node = draft.deps.nodes[index]
    arrays = draft.live_arrays(index)
    for k, key in enumerate(node.inputs):
        if (live := arrays.get(k)) is not None:
            if key in draft.restated or not all(m.all() for m in live):
                array = cut_array(draft.deps.statics.constants[key], live)
                proto.input[k] = draft.add_initializer(node.path, f"{node.label}.{k}", array)
        elif (index, k) in draft.deps.fixed_sizes and key in draft.restated:
            original = draft.deps.statics.constants[key]
            name = retraced(draft, index, node, k)
            proto.input[k] = name or draft.add_initializer(node.path, f"{node.label}.{k}", original)


def _keep_sizes(draft: Draft, index: int, proto: onnx.NodeProto, changed: Collection[str]) -> None:
    """A node that asks a tensor of the file for its sizes becomes the constant that it always was."""
    deps = draft.deps
    if deps.size_queries.get(index) in changed:
        sizes = deps.statics.constants[deps.nodes[index].outputs[0]]
        proto.op_type = "Constant"
        del proto.input[:], proto.attribute[:]
        proto.attribute.append(helper.make_attribute("value", numpy_helper.from_array(sizes)))


def _fill(draft: Draft, index: int, proto: onnx.NodeProto, found: list[Version]) -> None:
    """Weights that ConstantOfShape makes: the shape that it is told follows, and other cuts get a fill of their own."""
    node = draft.deps.nodes[index]
    for version in found:
        shape = np.array([int(m.sum()) for m in version.live], np.int64)
        told = draft.add_initializer(node.path, f"{node.label}.shape", shape)
        if version.copied:
            fill = helper.make_node("ConstantOfShape", [told], [version.name])
            fill.attribute.extend(proto.attribute)
            draft.after[index].append(fill)
        else:
            proto.input[0] = told


def _materialised(network: Network, plans: list[Version], deps: Dependencies) -> tuple[Network, dict[str, str]]:
    """The network with masked fills as tensors of the file, and their names there by name of the version."""
    renamed, more = dict[str, str](), dict[str, np.ndarray]()
    for version in plans:
        if version.source.kind == "fill":
            renamed[version.name] = f"{version.name}.masked"
            more[renamed[version.name]] = masked_array(
                fill_of(version.source, deps.maker(version.source.key)), version.live
            )
    return network.with_more(more), renamed


def zero_points(network: Network, deps: Dependencies) -> dict[str, np.ndarray]:
    """What zero is in quantised weights, shaped to broadcast over them, by key of the weight."""
    found: dict[str, np.ndarray] = {}
    for use in deps.uses:
        scaling = deps.scaling(use)
        if scaling is not None and (zero := _known(network, deps, scaling.zero_point)) is not None:
            if scaling.axis is not None and zero.ndim:
                zero = zero.reshape(line(len(use.axes), scaling.axis))
            found[use.source] = zero
    return found | _zeros_of_tables(deps, network)


def _known(network: Network, deps: Dependencies, key: str) -> np.ndarray | None:
    """A constant of the graph or a tensor of the file; None where there is none."""
    known = deps.statics.constants.get(key)
    return network.array(key) if known is None and key in network else known


def _zeros_of_tables(deps: Dependencies, network: Network) -> dict[str, np.ndarray]:
    """What zero is in quantised tables that are looked up, or moved otherwise, before they are dequantised."""
    found: dict[str, np.ndarray] = {}
    for use in deps.uses:
        todo = [use.node] if use.node >= 0 and deps.sources[use.source].dtype in QUANTISED else []
        while todo:
            node = deps.nodes[todo.pop()]
            if _moves(node.proto):
                todo += [taker for key in node.outputs for taker, _ in deps.takers.get(key, ())]
            elif has(node.proto, Trait.DEQUANTIZES) and len(node.inputs) > 2 and node.inputs[0] != use.source:
                zero = _known(network, deps, node.inputs[2])
                if zero is not None and zero.size == 1:
                    found[use.source] = zero.reshape(())
    return found


# --- nodes -------------------------------------------------------------------


def _follow(draft: Draft, index: int, proto: onnx.NodeProto, versioned: Mapping[tuple[int, int], Version]) -> None:
    """Let what a node says of its channels follow the cut.  Raises ModelError where it cannot."""
    deps, node = draft.deps, draft.deps.nodes[index]
    if index in deps.folded_shuffles and any(draft.box(key) is None for key in deps.passed(index)):
        _folded_shuffle(draft, index, proto)
        return
    fn = operator_of(proto).repair
    if fn is None or index in deps.unknown:  # all that an unknown node takes is whole
        return
    if any(draft.box(key) is None and deps.values.get(key) is not None for key in (*node.inputs, *node.outputs)):
        return  # inside a shuffle that is replaced as a whole
    if all(key in draft.restated for key in node.outputs):  # an array of sizes or indices: it follows by itself
        return
    uses = deps.uses_at.get(index, ())
    cut_here = {u.input: versioned[index, u.input].live for u in uses if (index, u.input) in versioned}
    if not cut_here and not draft.touched(node):
        return
    inputs = {u.input: tuple(np.ones(x.size, bool) for x in u.axes) for u in uses} | cut_here | draft.live_arrays(index)
    attributes = {a.name: helper.get_attribute_value(a) for a in proto.attribute if a.type != a.GRAPH}
    try:
        fn(Edit(draft, index, node, proto, inputs), **attributes)
    except MALFORMED as error:
        what = "has inputs or attributes that do not suit its operator, and cannot follow the cut"
        raise ModelError(f"node {quoted(str(node))} {what} ({type(error).__name__})") from error


def _moves(node: onnx.NodeProto) -> bool:
    """Whether a node puts elements elsewhere."""
    return has(node, Trait.MOVES) and not has(node, Trait.ELEMENTWISE)


def _in_one_piece(draft: Draft, index: int) -> str:
    """The name of what a shuffle moves, with the axis in one piece.

    Element-wise operators on the way take that too; what only moves elements is left out.
    """
    deps, node = draft.deps, draft.deps.nodes[index]
    name = deps.folded_shuffles[index].origin.value.removeprefix(node.path)
    for key in reversed(deps.passed(index)):
        maker = deps.maker(key)
        if maker is not None and not _moves(maker.proto):
            draft.nodes[maker.path, tuple(maker.proto.output)].input[0] = name
            name = key.removeprefix(node.path)
            draft.in_one_piece.add(key)
    return name


def _folded_shuffle(draft: Draft, index: int, proto: onnx.NodeProto) -> None:
    """A shuffle whose channels are no box any more becomes one Gather."""
    node, folded_shuffle = draft.deps.nodes[index], draft.deps.folded_shuffles[index]
    origin, out = draft.box(folded_shuffle.origin.value), draft.box(node.outputs[0])
    assert origin is not None
    assert out is not None
    renumber = np.cumsum(origin[folded_shuffle.origin.axis]) - 1
    picks = renumber[folded_shuffle.order[out[folded_shuffle.origin.axis]]]
    name = draft.add_initializer(node.path, f"{node.label}.picks", picks)
    plain, target, axis = _in_one_piece(draft, index), _written_out(draft, index), folded_shuffle.origin.axis
    if target is None:
        proto.op_type = "Gather"
        del proto.input[:], proto.attribute[:]
        proto.input.extend([plain, name])
        proto.attribute.append(helper.make_attribute("axis", axis))
        return
    picked = draft.fresh_name(f"{node.label}.picked")
    draft.before[index].append(helper.make_node("Gather", [plain, name], [picked], axis=axis))
    target[axis] = len(picks) if target[axis] >= 0 else -1
    proto.input[:] = [picked, draft.add_initializer(node.path, f"{node.label}.1", target)]


def _written_out(draft: Draft, index: int) -> np.ndarray | None:
    """The target of a Reshape at the end of a shuffle, where it gives maps of any size the sizes that it says."""
    deps, node, origin = draft.deps, draft.deps.nodes[index], draft.deps.folded_shuffles[index].origin
    target = deps.statics.fixed_constant(node.inputs[1]) if len(node.inputs) == 2 else None
    if target is None or not has(node.proto, Trait.RESHAPES):
        return None
    told = [d for d, n in enumerate(target) if n and d != origin.axis and deps.statics.is_open(origin.value, d)]
    return target.copy() if len(told) > 1 else None  # a single one follows from the number of elements
