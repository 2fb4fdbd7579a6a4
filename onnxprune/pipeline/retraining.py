"""A pruned network is trained by the caller, and its weights go back to their places in the whole network."""

from collections.abc import Callable, Mapping

import numpy as np

from onnxprune.channels.dependencies import Dependencies
from onnxprune.errors import UsageError
from onnxprune.model.network import Network
from onnxprune.surgery.rewrite import pruned
from onnxprune.surgery.versions import versions

Retrain = Callable[[Network], Network]


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
        retrain: from the pruned network to the trained one, which has the same tensors by name and shape.

    Raises UsageError where the trained model is not the pruned one with other weights.
    """
    dead = deps.dead(kept)
    before = pruned(network, deps, dead).materialized()
    given = retrain(before)
    cut = {v.source.key: v.live for v in versions(deps, dead) if not v.copied and v.source.kind != "fill"}
    for key in shared(deps, kept) & before.headers.keys() & given.headers.keys():
        if not np.array_equal(before.array(key), given.array(key)):
            raise UsageError(f"'retrain' cannot change '{key}' here: it is shared by layers cut differently")
    values = dict[str, np.ndarray]()
    for key in network.headers:
        if key in before and key in given:
            array, trained = network.array(key), _trained(key, before, given)
            if key in cut:
                values[key] = array.copy()
                values[key][np.ix_(*cut[key])] = trained
            elif not np.array_equal(array, trained):
                values[key] = trained
        elif key in cut:
            raise UsageError(f"'retrain' gave a model without '{key}', which the pruned one has")
    return network.with_tensors(values)


def _trained(key: str, before: Network, given: Network) -> np.ndarray:
    """The elements that training gave a tensor.  Raises UsageError where they are others than before in more."""
    old, new = before.headers[key], given.headers[key]
    if list(old.dims) != list(new.dims) or old.data_type != new.data_type:
        raise UsageError(f"'retrain' changed the shape or type of '{key}'")
    return given.array(key)
