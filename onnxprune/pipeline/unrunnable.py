"""Networks with operators that onnxruntime lacks: what can be known and chosen of them without a run."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
import onnx

from onnxprune.errors import ModelError
from onnxprune.model.network import Network
from onnxprune.operators.registry import Shape, Trait, attributes_of, has, operator_of, traits_of
from onnxprune.pipeline.limits import no_room
from onnxprune.pipeline.request import Request
from onnxprune.runtime.session import make_session
from onnxprune.surgery.recovery.solvable import multiplies_matrices, multiplies_values


def runnable(request: Request, network: Network, size: int) -> tuple[Request, list[str]]:
    """The request as it is; where runs cannot be had and need not be, one that goes by weights alone, and a warning.

    Args:
        size: of the file, in bytes.
    """
    if not (request.method == "obs" or request.compensate == "lstsq"):
        return request, []
    if lack := no_room(request, size):
        return by_weights(request, lack)
    if request.verify:
        return request, []
    try:
        make_session(network, providers="cpu")
    except ModelError:
        return by_weights(request, "onnxruntime cannot load the network")
    return request, []


def by_weights(request: Request, why: str) -> tuple[Request, list[str]]:
    """A request that runs nothing to choose and to repair, and a warning that says so."""
    if request.method != "obs":
        return replace(request, compensate="none"), [f"{why}: nothing is repaired"]
    weights = replace(request, method="ncc", allocation="uniform", compensate="none", method_options={})
    return weights, [f"{why}: channels are ranked by their weights (ncc), and nothing is repaired"]


def recorded(model: onnx.ModelProto, missing: Iterable[str], known: Mapping[str, Shape]) -> dict[str, np.ndarray]:
    """Empty arrays of the shapes that values must have which no inference knows: outputs of unknown operators.

    The channels are those that the next layer's weights take, the other sizes those that the file records, or else
    those of what the operator takes.  A value of which none of this tells the channels is left out.

    Args:
        missing: names of values of the main graph without a shape.
        known: shapes by name.
    """
    makers = {name: node for node in model.graph.node for name in node.output if name}
    noted = {v.name: v.type.tensor_type.shape.dim for v in model.graph.value_info if v.type.HasField("tensor_type")}
    found = {}
    for name in missing:
        node, wanted = makers[name], _wanted(model, name)
        inputs = [n for n in node.input if n]
        foreign = operator_of(node).couple is None  # one that makes no sense stays unknown
        if not foreign or not all(n in known for n in inputs) or (wanted is None and name not in noted):
            continue
        taken = [known[n] for n in inputs]
        rank, axis, channels = wanted or (len(noted[name]), 0, None)
        like = next((s for s in taken if len(s) == rank), (1,) * rank)
        dims = noted.get(name, ())
        sizes = [d.dim_value or own for d, own in zip(dims, like, strict=True)] if len(dims) == rank else list(like)
        if channels is not None:
            sizes[axis] = channels
        found[name] = np.broadcast_to(np.float32(0), sizes)
    return found


def _wanted(model: onnx.ModelProto, name: str) -> tuple[int, int, int] | None:
    """Axes of a value, which of them has the channels, and how many: from the weights of the layer that takes it."""
    weights = {t.name: tuple(t.dims) for t in model.graph.initializer}
    for node in (n for n in model.graph.node if name in n.input[:1]):
        if has(node, Trait.UNARY):
            return _wanted(model, node.output[0])
        shape, attributes = weights.get(node.input[1], ()) if len(node.input) > 1 else (), attributes_of(node)
        if Trait.LINEAR | Trait.CONVOLVES in traits_of(node) and len(shape) > 2:
            return len(shape), 1, shape[0] if has(node, Trait.SPREADS) else shape[1] * attributes.get("group", 1)
        with_bias = multiplies_matrices(node) and not multiplies_values(node)  # which takes two axes and no more
        if with_bias and len(shape) == 2 and not attributes.get("transA", 0):
            return 2, 1, shape[1 if attributes.get("transB", 0) else 0]
    return None
