"""That a trained model is the one before training with other weights, and nothing else."""

from collections.abc import Collection

import numpy as np
import onnx

from onnxprune.errors import CheckFailed
from onnxprune.model.graphs import tensors_of
from onnxprune.model.network import Network
from onnxprune.model.tensors import quoted, read_tensor
from onnxprune.surgery.binding import content, digest


def changed_weights(before: onnx.ModelProto, after: onnx.ModelProto, trained: Collection[str]) -> tuple[str, ...]:
    """Keys of the tensors that have other elements; all else is the same to the last bit.

    Args:
        before, after: the model before and after training.
        trained: keys of the tensors that may differ.

    Raises CheckFailed where a tensor has another shape or type, one that was not trained has changed, or anything else
    in the file has.
    """
    old, new = tensors_of(before), tensors_of(after)
    changed = tuple(k for k in old if k in new and digest(read_tensor(old[k])) != digest(read_tensor(new[k])))
    for key in changed:
        if key not in trained:
            raise CheckFailed(f"training has changed {quoted(key)}, which is no weight that was trained")
        if (list(old[key].dims), old[key].data_type) != (list(new[key].dims), new[key].data_type):
            raise CheckFailed(f"training has changed the shape or the type of {quoted(key)}")
    if content(_blank(before, trained)) != content(_blank(after, trained)):
        raise CheckFailed("training has changed more of the model than its weights")
    return changed


def _blank(model: onnx.ModelProto, keys: Collection[str]) -> onnx.ModelProto:
    """A copy with zeros in some tensors."""
    network = Network.of(model)
    own = (key for key in keys if key in network)
    return network.with_tensors({key: np.zeros_like(network.array(key)) for key in own}).proto()
