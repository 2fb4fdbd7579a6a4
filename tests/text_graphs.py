"""Graphs written as a line of text."""

import re

import numpy as np
import onnx
from onnx import ModelProto, numpy_helper


def build(nodes: str) -> ModelProto:
    """A model from nodes in onnx's text form, apart by two spaces, whose weights say their shape where first used."""
    rng, tensors = np.random.default_rng(0), []

    def weight(match: re.Match[str]) -> str:
        shape = [int(n) for n in match[2].split(",")]
        tensors.append(numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), match[1]))
        return match[1]

    def integers(match: re.Match[str]) -> str:
        tensors.append(numpy_helper.from_array(np.array([int(n) for n in match[2].split(",")]), match[1]))
        return match[1]

    text = re.sub(r"(\w+)\{([\d,-]+)\}", integers, re.sub(r"(?<=[( ])(\w+)\[([\d,]+)\]", weight, nodes))
    text = re.sub(r"(\w+)\(([^()]*)\)<([^>]*)>", r"\1<\3>(\2)", text)
    graph = onnx.parser.parse_graph(f"g (float[1,3,4,4] x) => (float y) {{ {text.replace('  ', ' ')} }}")
    graph.initializer.extend(tensors)
    imports = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("my", 1)]
    graph.output[0].type.tensor_type.ClearField("shape")
    model = onnx.helper.make_model(graph, opset_imports=imports, ir_version=8)
    graph.output[0].CopyFrom(onnx.shape_inference.infer_shapes(model).graph.output[0])
    return onnx.helper.make_model(graph, opset_imports=imports, ir_version=8)
