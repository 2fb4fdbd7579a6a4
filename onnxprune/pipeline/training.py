"""A pruned network is trained by the caller, and its weights go back to their places in the whole network."""

from collections.abc import Callable, Mapping

import numpy as np
import onnx

from onnxprune.channels.dependencies import Dependencies
from onnxprune.errors import UsageError
from onnxprune.pipeline.filters import tensors_of
from onnxprune.surgery.copying import copy_model
from onnxprune.surgery.rewrite import cut
from onnxprune.surgery.tensors import read_tensor, versions, write_tensor

Retrain = Callable[[onnx.ModelProto], onnx.ModelProto]


def trained_model(
    model: onnx.ModelProto, deps: Dependencies, kept: Mapping[str, np.ndarray], retrain: Retrain
) -> onnx.ModelProto:
    """The whole network with the weights that training has given the pruned one; what is gone keeps its old weights.

    Args:
        model: the whole network; never changed.
        deps: its analysis.
        kept: channels that stay of the groups that have lost some.
        retrain: from the pruned model to the trained one, which has the same tensors by name and shape.

    Raises UsageError where the trained model is not the pruned one with other weights.
    """
    dead = deps.dead(kept)
    pruned = cut(model, deps, dead)
    given = tensors_of(retrain(pruned))
    before = tensors_of(pruned)
    plans = {}
    for version in versions(deps, dead):
        if version.copied or version.source.kind == "fill":
            raise UsageError(
                f"'retrain' cannot be used here: '{version.source.key}' is shared by layers cut differently"
            )
        plans[version.source.key] = version.live

    def replaced(key: str, tensor: onnx.TensorProto) -> list[tuple[str, bool, np.ndarray]] | None:
        if key not in before or key not in given:
            if key in plans:
                raise UsageError(f"'retrain' gave a model without '{key}', which the pruned one has")
            return None
        if list(given[key].dims) != list(before[key].dims) or given[key].data_type != before[key].data_type:
            raise UsageError(f"'retrain' changed the shape or type of '{key}'")
        array, new = read_tensor(tensor), read_tensor(given[key])
        if key not in plans:
            return None if np.array_equal(array, new) else [(tensor.name, False, new)]
        array = array.copy()
        array[np.ix_(*(np.flatnonzero(m) for m in plans[key]))] = new
        return [(tensor.name, False, array)]

    return copy_model(model, replaced, write_tensor)
