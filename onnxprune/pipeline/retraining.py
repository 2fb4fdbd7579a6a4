"""A pruned network is trained by the caller, and its weights go back to their places in the whole network."""

from collections.abc import Callable, Mapping

import numpy as np
import onnx

from onnxprune.channels.dependencies import Dependencies
from onnxprune.errors import UsageError
from onnxprune.model.graphs import tensors_of
from onnxprune.model.network import Network
from onnxprune.model.tensors import read_tensor
from onnxprune.surgery.rewrite import cut
from onnxprune.surgery.versions import versions

Retrain = Callable[[onnx.ModelProto], onnx.ModelProto]


def shared(deps: Dependencies, kept: Mapping[str, np.ndarray]) -> set[str]:
    """Keys, in the pruned model, of tensors that layers share which are cut differently, and of their copies.

    The whole network has one tensor in the place of several, so that each of them cannot be trained on its own.
    """
    split = [v for v in versions(deps, deps.dead(kept)) if v.copied or v.source.kind == "fill"]
    return {key for v in split for key in (v.source.key, v.source.path + v.name)}


def trained_model(network: Network, deps: Dependencies, kept: Mapping[str, np.ndarray], retrain: Retrain) -> Network:
    """The whole network with the weights that training has given the pruned one; what is gone keeps its old weights.

    Args:
        network: the whole one.
        deps: its analysis.
        kept: channels that stay of the groups that have lost some.
        retrain: from the pruned model to the trained one, which has the same tensors by name and shape.

    Raises UsageError where the trained model is not the pruned one with other weights.
    """
    dead = deps.dead(kept)
    pruned = cut(network, deps, dead)
    given = tensors_of(retrain(pruned))
    before = tensors_of(pruned)
    plans = {}
    for version in versions(deps, dead):
        if not version.copied and version.source.kind != "fill":
            plans[version.source.key] = version.live
    for key in shared(deps, kept) & before.keys() & given.keys():
        if not np.array_equal(read_tensor(before[key]), read_tensor(given[key])):
            raise UsageError(f"'retrain' cannot change '{key}' here: it is shared by layers cut differently")
    values = dict[str, np.ndarray]()
    for key in tensors_of(network.graph):
        if key not in before or key not in given:
            if key in plans:
                raise UsageError(f"'retrain' gave a model without '{key}', which the pruned one has")
            continue
        if list(given[key].dims) != list(before[key].dims) or given[key].data_type != before[key].data_type:
            raise UsageError(f"'retrain' changed the shape or type of '{key}'")
        array, new = network.array(key), read_tensor(given[key])
        if key in plans:
            values[key] = array.copy()
            values[key][np.ix_(*(np.flatnonzero(m) for m in plans[key]))] = new
        elif not np.array_equal(array, new):
            values[key] = new
    return network.with_tensors(values)
