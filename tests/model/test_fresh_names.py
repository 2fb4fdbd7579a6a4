"""New names beside those that a model has."""

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper
from text_graphs import build

from onnxprune.model.graphs import all_names, fresh_name


def with_a_branch() -> ModelProto:
    """Names at the top, in a branch, and of a sparse tensor."""
    model = build("a = Relu(x)  y = Relu(a)")
    inside = helper.make_node("Add", ["a", "inner weight"], ["inner"])
    outputs = [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)]
    body = helper.make_graph([inside], "b", [], outputs, [numpy_helper.from_array(np.float32(1), "inner weight")])
    model.graph.node.append(helper.make_node("If", ["flag"], ["out"], then_branch=body, else_branch=body))
    values = helper.make_tensor("sparse", TensorProto.FLOAT, [1], [1.0])
    indices = helper.make_tensor("indices", TensorProto.INT64, [1], [0])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))
    return model


def test_names_are_those_of_all_graphs() -> None:
    assert all_names(with_a_branch()) == {"x", "a", "y", "flag", "out", "inner", "inner weight", "sparse"}


def test_a_new_name_is_not_given_twice() -> None:
    names = {"a", "a.1"}
    assert [fresh_name(stem, names) for stem in ("a", "a", "b", "b", "a.1")] == ["a.2", "a.3", "b", "b.1", "a.1.1"]
    assert names == {"a", "a.1", "a.2", "a.3", "b", "b.1", "a.1.1"}
