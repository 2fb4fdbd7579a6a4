"""What counts as a parameter: weights, biases, scales and tables, and not the numbers that a graph computes with."""

import numpy as np
import onnx
import pytest
from patterns.builder import NONE, Net

import onnxprune

SIDE = (1, 3, 8, 8)
LAYERS = 8 * 3 * 9 + 8 + 4 * 8 * 9 + 4  # weights and biases of the two convolutions below


def count(net: Net, y: str) -> int:
    return onnxprune.analyse(net.model(SIDE, [y], onnx.TensorProto.FLOAT, SIDE)).params()


def two_layers(net: Net) -> str:
    return net.conv(net.relu(net.conv("x", 3, 8, dead=NONE)), 8, 4, dead=NONE)


def positive(net: Net, *shape: int) -> str:
    return net.weight(*shape, low=0.5)


def test_grids_of_anchors_behind_the_last_layer_are_none() -> None:
    net = Net()
    boxes = net.reshape(two_layers(net), 1, 64, 4)
    boxes = net.op("Add", net.op("Mul", boxes, positive(net, 1, 64, 4)), positive(net, 1, 64, 4))
    strides = positive(net, 1, 64, 1)  # as wide as a bias, but not of the channels that a layer gives
    assert count(net, net.op("Mul", boxes, strides)) == LAYERS


def test_single_numbers_sizes_and_bounds_are_none() -> None:
    net = Net()
    y = net.op("Mul", two_layers(net), net.tensor(np.float32(0.5)))
    y = net.op("Clip", y, net.tensor(np.float32(0)), net.tensor(np.float32(6)))
    y = net.op("Resize", y, "", net.tensor(np.array([1, 1, 2, 2], np.float32)))
    assert count(net, y) == LAYERS


def test_biases_norms_and_positions_are_some() -> None:
    net = Net()
    y = net.op("Add", two_layers(net), positive(net, 1, 4, 1, 1))  # a bias of the last layer
    assert count(net, y) == LAYERS + 4
    net = Net()
    y = net.op("Add", net.conv("x", 3, 8, dead=NONE), positive(net, 1, 8, 8, 8))  # learned positions
    y = net.op("BatchNormalization", y, *(positive(net, 8) for _ in range(4)))
    assert count(net, net.conv(y, 8, 4, dead=NONE)) == LAYERS + 512 + 32


def test_weights_behind_nodes_that_compute_from_constants_are_some() -> None:
    net = Net()
    y = net.relu(net.conv("x", 3, 8, dead=NONE))
    flat = net.op("Mul", positive(net, 4, 72), net.tensor(np.float32(0.1)))
    assert count(net, net.op("Conv", y, net.reshape(flat, 4, 8, 3, 3))) == 3 * 8 * 9 + 8 + 4 * 72


def test_products_of_tensors_of_the_file_alone_cost_no_run_anything() -> None:
    """Relative positions, say: a table times a matrix, which a runtime computes when it loads the file."""
    net = Net()
    turned = net.op("MatMul", positive(net, 1, 3, 50, 8), positive(net, 8, 8))
    deps = onnxprune.analyse(net.model(SIDE, [net.op("MatMul", turned, net.relu("x"))], onnx.TensorProto.FLOAT, SIDE))
    assert deps.macs() == 3 * 50 * 8 * 8  # of the second product
    assert deps.params() == 3 * 50 * 8 + 8 * 8


@pytest.mark.parametrize(("equation", "products"), [("nchw->nhwc", 0), ("nchw->nc", 0), ("nchw,nchw->nhw", 8 * 64)])
def test_named_axes_of_one_tensor_are_moved_or_added_up_without_a_product(equation: str, products: int) -> None:
    net = Net()
    x = net.conv("x", 3, 8, dead=NONE)
    y = net.op("Einsum", *[x] * (equation.count(",") + 1), equation=equation)
    deps = onnxprune.analyse(net.model(SIDE, [y], onnx.TensorProto.FLOAT, None))
    assert deps.macs() == 8 * 27 * 64 + products
