"""Damaged graphs: analysis and surgery prune them, leave them alone, or say in one line what is wrong."""

import random
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from networks import random_dead
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, numpy_helper
from wheel_models import FILES, LIGHT, node_tests

from onnxprune.channels import analyse
from onnxprune.errors import OnnxPruneError
from onnxprune.surgery import cut, mask

ODD = [0, 1, -1, 2, 3, 99, -99, 1 << 40]


def change_attribute(graph: GraphProto, node: NodeProto, rng: random.Random) -> None:
    for attribute in node.attribute:
        if attribute.type == AttributeProto.INT:
            attribute.i = rng.choice(ODD)
        elif attribute.type == AttributeProto.INTS and attribute.ints:
            attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice(ODD)


def drop_attribute(graph: GraphProto, node: NodeProto, rng: random.Random) -> None:
    if node.attribute:
        del node.attribute[rng.randrange(len(node.attribute))]


def change_input(graph: GraphProto, node: NodeProto, rng: random.Random) -> None:
    names = [name for other in graph.node for name in other.output] + [t.name for t in graph.initializer]
    if node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice([*names, ""])


def drop_input(graph: GraphProto, node: NodeProto, rng: random.Random) -> None:
    if node.input:
        del node.input[rng.randrange(len(node.input))]


def change_operator(graph: GraphProto, node: NodeProto, rng: random.Random) -> None:
    node.op_type = rng.choice(graph.node).op_type


def drop_node(graph: GraphProto, node: NodeProto, rng: random.Random) -> None:
    graph.node.remove(node)


def shrink_tensor(graph: GraphProto, node: NodeProto, rng: random.Random) -> None:
    if graph.initializer:
        tensor = rng.choice(graph.initializer)
        array = numpy_helper.to_array(tensor)
        if array.ndim and array.shape[0]:
            tensor.CopyFrom(numpy_helper.from_array(array[1:].copy(), tensor.name))


def change_number(graph: GraphProto, node: NodeProto, rng: random.Random) -> None:
    for tensor in graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.int64 and 0 < array.size < 99:
            array = array.copy()
            array.flat[rng.randrange(array.size)] = rng.choice(ODD)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def change_size(graph: GraphProto, node: NodeProto, rng: random.Random) -> None:
    for value in graph.input:
        dims = value.type.tensor_type.shape.dim
        if dims:
            dims[rng.randrange(len(dims))].dim_value = rng.choice([0, 1, 2, 5, 64, 1 << 33])


DAMAGE: list[Callable[[GraphProto, NodeProto, random.Random], None]] = [
    change_attribute,
    drop_attribute,
    change_input,
    drop_input,
    change_operator,
    drop_node,
    shrink_tensor,
    change_number,
    change_size,
]


def bases() -> list[ModelProto]:
    light = [onnx.load(p) for p in LIGHT if "squeezenet" in p.stem or "shufflenet" in p.stem]
    expanded = [test.model for test in node_tests() if "expanded" in test.name][::20]
    return light * 10 + [onnx.load(p) for p in FILES[::3]] + expanded


@pytest.mark.parametrize("seed", range(2))
def test_damaged_graphs(seed: int) -> None:
    rng = random.Random(seed)
    for base in bases():
        model = ModelProto()
        model.CopyFrom(base)
        for _ in range(rng.randint(1, 3)):
            if model.graph.node:
                rng.choice(DAMAGE)(model.graph, rng.choice(model.graph.node), rng)
        try:
            deps = analyse(model)
            dead = random_dead(deps, 0.5, seed=0)
            cut(model, deps, dead)
            mask(model, deps, dead)
        except OnnxPruneError as error:
            told = str(error)
        else:
            told = ""
        assert "\n" not in told
