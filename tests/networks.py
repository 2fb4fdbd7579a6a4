"""Networks and choices of channels for the tests of the analysis and of the surgery."""

import numpy as np
import onnx
from onnx import ModelProto, helper, numpy_helper

from onnxprune.channels.dependencies import Dependencies


def random_dead(deps: Dependencies, share: float, seed: int) -> np.ndarray:
    """Dead components, (components,) bool: a random share of every group."""
    rng, dead = np.random.default_rng(seed), deps.nothing
    for group in deps.groups:
        dead[rng.choice(group.components, int(len(group) * share), replace=False)] = True
    return dead


def with_random_weights(model: ModelProto, seed: int = 0) -> ModelProto:
    """The model with random tensors in place of what it fills by ConstantOfShape from constant shapes."""
    rng, graph = np.random.default_rng(seed), model.graph
    shapes = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    kept = []
    for node in graph.node:
        if node.op_type != "ConstantOfShape" or node.input[0] not in shapes:
            kept.append(node)
            continue
        shape = [int(n) for n in shapes[node.input[0]]]
        fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 1
        array = rng.standard_normal(shape, np.float32) * np.float32(fan_in**-0.5)
        tensor = numpy_helper.from_array(np.abs(array) if len(shape) == 1 else array, node.output[0])
        graph.initializer.append(tensor)
        if model.ir_version < 4:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, shape))
    holder = onnx.GraphProto()
    holder.node.extend(kept)
    del graph.node[:]
    graph.node.extend(holder.node)
    return model


def data_inputs(model: ModelProto) -> list[onnx.ValueInfoProto]:
    """Inputs that a caller has to give: old files list their weights as inputs too."""
    weights = {t.name for t in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def random_feeds(model: ModelProto, seed: int = 0, symbolic: int = 1) -> dict[str, np.ndarray]:
    """Random inputs of a model; symbolic sizes are `symbolic`."""
    rng, feeds = np.random.default_rng(seed), {}
    for value in data_inputs(model):
        shape = [d.dim_value or symbolic for d in value.type.tensor_type.shape.dim]
        dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        whole = np.issubdtype(dtype, np.integer)
        feeds[value.name] = (rng.integers(0, 3, shape) if whole else rng.normal(size=shape)).astype(dtype)
    return feeds


def before_softmax(model: ModelProto) -> ModelProto:
    """The model with logits for an output: a saturated Softmax hides differences."""
    made = {name: node for node in model.graph.node for name in node.output}
    for value in model.graph.output:
        if made[value.name].op_type == "Softmax":
            value.name = made[value.name].input[0]
    return model
