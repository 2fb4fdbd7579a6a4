"""Large networks with random weights: the light ones of the onnx wheel, whose weights are left out, filled in."""

import math
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"


def filled(name: str, seed: int = 0) -> onnx.ModelProto:
    """A light network with He-scaled random weights in place of its ConstantOfShape nodes, and without its Softmax."""
    rng = np.random.default_rng(seed)
    model = onnx.load(LIGHT / f"light_{name}.onnx")
    graph = model.graph
    known = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    nodes = []
    for node in graph.node:
        if node.op_type == "ConstantOfShape":
            shape = [int(n) for n in known[node.input[0]]]
            fan = max(1, math.prod(shape[1:]))
            array = rng.standard_normal(shape, np.float32) * np.float32(math.sqrt(2 / fan))
            known[node.output[0]] = np.abs(array) * np.float32(0.1) + np.float32(0.5) if len(shape) == 1 else array
        elif node.op_type == "Unsqueeze" and node.input[0] in known:
            known[node.output[0]] = np.expand_dims(known[node.input[0]], tuple(node.attribute[0].ints))
        else:
            nodes.append(node)
    if nodes[-1].op_type == "Softmax":
        graph.output[0].name = nodes.pop().input[0]
    used = {name for node in nodes for name in node.input}
    inputs = [v for v in graph.input if v.name in used and v.name not in known]
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in known.items() if name in used]
    built = onnx.helper.make_graph(nodes, graph.name, inputs, graph.output, tensors)
    return onnx.helper.make_model(built, opset_imports=model.opset_import, ir_version=8, producer_name="benchmarks")


def plain(mebibytes: int, seed: int = 0) -> onnx.ModelProto:
    """Convolutions of 1024 channels in a row, 36 MiB each."""
    rng = np.random.default_rng(seed)
    tensors, nodes, last = [], [], "x"
    width = 64
    for k in range(max(1, round(mebibytes / 36))):
        array = rng.standard_normal((1024, width, 3, 3), np.float32) * np.float32(math.sqrt(2 / (9 * width)))
        tensors.append(numpy_helper.from_array(array, f"w{k}"))
        nodes.append(onnx.helper.make_node("Conv", [last, f"w{k}"], [f"c{k}"], pads=[1] * 4))
        nodes.append(onnx.helper.make_node("Relu", [f"c{k}"], [f"r{k}"]))
        last, width = f"r{k}", 1024
    values = [onnx.helper.make_tensor_value_info(n, 1, [1, c, 8, 8]) for n, c in (("x", 64), (last, 1024))]
    graph = onnx.helper.make_graph(nodes, "plain", values[:1], values[1:], tensors)
    return onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8, producer_name="benchmarks"
    )
